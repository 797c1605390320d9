"""Recipes as versions up to 0.1 saved them: one flat table of options."""

from collections.abc import Mapping
from typing import Any

_KNOWN = {
    "panel", "num_neighbors", "niche_size", "tissue_size", "window_um", "size_px", "graph",
    "radius_um", "niche", "niche_um", "niche_key", "tissue", "tissue_um", "labels", "niche_image",
    "tissue_image", "window_key",
}  # fmt: skip


def from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Rules in place of flags.

    Args:
        flags: What an earlier version saved; options that it did not have take their defaults.

    Raises:
        ValueError: If it is none of theirs.
    """
    if unknown := sorted(set(flags) - _KNOWN):
        raise ValueError(f"Expected a recipe, got unknown options {unknown}")
    radius_um, niche_um = flags.get("radius_um", 27.0), flags.get("niche_um", 54.4)
    tissue_um, size_px = flags.get("tissue_um", 217.6), flags.get("size_px", 32)
    graphs = {
        "knn": _rule("graphs.KNN", k=flags.get("num_neighbors", 8)),
        "radius": _rule("graphs.Radius", radius_um=radius_um),
        "niche": _rule("graphs.InGroups", level="niche"),
    }
    niches = {
        "neighborhood": _rule("levels.Neighborhoods", k=flags.get("niche_size", 15)),
        "grid": _rule("levels.Grid", size_um=niche_um),
        "radius": _rule("levels.Circles", radius_um=radius_um),
        "labels": _rule("levels.Annotated", key=flags.get("niche_key")),
    }
    tissues = {
        "parts": _rule("levels.Parts", max_members=flags.get("tissue_size", 256)),
        "grid": _rule("levels.Grid", size_um=tissue_um),
    }
    window_um, window_key = flags.get("window_um"), flags.get("window_key")
    crops = []
    if window_um is not None or window_key is not None:
        crops.append({"window_um": window_um, "of": "cell", "window_key": window_key})
    if flags.get("niche_image"):
        crops.append({"window_um": niche_um, "of": "niche"})
    if flags.get("tissue_image"):
        crops.append({"window_um": tissue_um, "of": "tissue"})
    return {
        "panel": flags["panel"],
        "graph": _choice(graphs, "graph", flags.get("graph", "knn")),
        "levels": [
            _choice(niches, "niche", flags.get("niche", "neighborhood")),
            _choice(tissues, "tissue", flags.get("tissue", "parts")),
        ],
        "crops": [_rule("crops.Crop", size_px=size_px, **crop) for crop in crops],
        "labels": flags.get("labels"),
    }


def _rule(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class": f"spatiagraph.data.recipe.{name}", "args": arguments}


def _choice(rules: Mapping[str, dict[str, Any]], name: str, choice: Any) -> dict[str, Any]:
    if not isinstance(choice, str) or choice not in rules:
        raise ValueError(f"Expected {name!r} of a saved recipe in {list(rules)}, got {choice!r}")
    return rules[choice]
