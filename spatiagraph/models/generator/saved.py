"""Generators that version 0.1.0 saved: one table of flags."""

from collections.abc import Mapping
from typing import Any

from spatiagraph._savable import full_name
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Crop
from spatiagraph.flow.path import LinearPath
from spatiagraph.nn.condition import TransitionConditioner
from spatiagraph.nn.unet import VelocityUNet

_KEPT = ("context", "panel", "transitions", "states_key")
_CROP = ("window_um", "size_px")
_PATH = ("source", "noise")
_CONDITION = ("num_delta_genes", "num_delta_morphology", "condition_channels")


def from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of today's generator, parts not yet built, for flags of version 0.1.0.

    Args:
        flags: The saved arguments; what is not known among them is left to the velocity network.

    Raises:
        ValueError: The panel is none.
    """
    flags = {"context": None, "panel": None, "transitions": (), "dropout": 0.3, **flags}
    own = (*_KEPT, *_CROP, *_PATH, *_CONDITION)
    unet = {name: value for name, value in flags.items() if name not in own}
    context, panel = dict(flags["context"] or {}), flags["panel"]
    channels = flags.get("condition_channels", 512)
    conditioner = None
    if context or panel is not None or flags["transitions"]:
        deltas = {name: flags.get(name, 0) for name in _CONDITION[:2]}
        arguments = {
            "context_channels": list(context.values()),
            "num_genes": 0 if panel is None else len(GenePanel.from_dict(panel["dict"])),
            "num_transitions": len(flags["transitions"]),
            "channels": channels,
            "dropout": min(flags["dropout"], 0.1),
            **deltas,
        }
        conditioner = _node(TransitionConditioner, arguments)
        unet["condition_channels"] = channels
    return {
        **{name: flags[name] for name in _KEPT if name in flags},
        "unet": _node(VelocityUNet, unet),
        "conditioner": conditioner,
        "crop": _node(Crop, {name: flags[name] for name in _CROP if name in flags}),
        "path": _node(LinearPath, {name: flags[name] for name in _PATH if name in flags}),
    }


def _node(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"class": full_name(cls), "args": dict(arguments)}
