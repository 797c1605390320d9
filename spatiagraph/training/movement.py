"""``Movement``: how far training took a model from its start."""

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.models.base import SlideModel
from spatiagraph.nn.mode import evaluating

MOVED = "gates_moved"
"""Column of a history for all gates; that of each is ``gates_moved.NAME``."""
GATES = ("gate", "image_gate", "fused_gate")
"""Names of the parameters that let something into an embedding beside its start."""


class Movement:
    r"""Distance of the cell embeddings of a tile, and of the gates of a model, from its start.

    The distance of embeddings is relative to how much cells differ at the start,

    .. math::
        \sqrt{\textstyle\sum_i \lVert \mathbf{z}_i - \mathbf{z}_i^0 \rVert^2 \,/\,
        \sum_i \lVert \mathbf{z}_i^0 - \bar{\mathbf{z}}^0 \rVert^2},

    and that of the gates is the root mean square of their change, of all and of each.

    Args:
        model: The model, before training.
        batch: The tile that is looked at, with all its genes.
    """

    def __init__(self, model: SlideModel, batch: Data):
        self.model = model
        self.batch = batch
        self._z = self._embed()
        self._gates = self._open()

    def values(self) -> dict[str, float]:
        """``moved`` and, where the model has gates, ``gates_moved`` and ``gates_moved.NAME``."""
        start, z = self._z, self._embed()
        spread = (start - start.mean(0)).square().sum().clamp(min=1e-12)
        found = {"moved": float(((z - start).square().sum() / spread).sqrt())}
        change = {name: gate - self._gates[name] for name, gate in self._open().items()}
        if change:
            found[MOVED] = _root_mean_square(torch.cat(list(change.values())))
            found |= {f"{MOVED}.{name}": _root_mean_square(x) for name, x in change.items()}
        return found

    @torch.no_grad()
    def _embed(self) -> Tensor:
        device = next(self.model.parameters()).device
        with torch.random.fork_rng(devices=[]), evaluating(self.model):
            batch = self.batch.clone().to(device)
            return self.model(*self.model.inputs(batch)).cell[batch.core].float().cpu()

    def _open(self) -> dict[str, Tensor]:
        return {
            _short(name): p.detach().float().cpu().flatten().clone()
            for name, p in self.model.named_parameters()
            if name.rsplit(".", 1)[-1] in GATES
        }


def _root_mean_square(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _short(name: str) -> str:
    """Name of a gate for a log: ``context.levels.0`` for that of the first level to the cells."""
    for part in ("_encoder", ".top_down"):
        name = name.replace(part, "")
    return name.removesuffix("gate").rstrip("._")
