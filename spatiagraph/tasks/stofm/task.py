"""Pre-training of SToFM: hidden cells from their surroundings, distances from states of pairs."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.losses.masked_cells import masked_cells_loss
from spatiagraph.losses.mean import masked_mean
from spatiagraph.models.stofm import SToFM
from spatiagraph.nn.se2_transformer import Nodes, NodeStates
from spatiagraph.tasks.objective import Objective, ObjectiveTask
from spatiagraph.tasks.stofm.corruption import (
    Chosen,
    SubSliceCorruption,
    chosen,
    is_cell,
    mean_distance,
    target_pairs,
    with_noise,
    without_cells,
)
from spatiagraph.tasks.streams import Streams

CONSTANT = -100.0
"""Value of a hidden cell in the published code."""


class SToFMView(NamedTuple):
    """Sub-slices of which some cells were replaced and some were moved, in context.

    Attributes:
        model: The model.
        z: Vector of each node before that, ``[N, C]``.
        cells: Cells whose vectors were chosen.
        pairs: Pairs of cells of known distance of which one was chosen to be moved, ``[2, M]``.
        distance: Their distance before that, ``[M]``.
        unit: Mean known distance of cells of the sub-slice of each pair, ``[M]``.
        states: Nodes, and states of the pairs both ways, ``[2M, H]``.
    """

    model: SToFM
    z: Tensor
    cells: Chosen
    pairs: Tensor
    distance: Tensor
    unit: Tensor
    states: NodeStates


class HiddenCells(Objective[SToFMView]):
    """Vectors of the chosen cells from their surroundings: half the squared error of unit vectors.

    0 where sub-slices are too small for a cell to be chosen.
    """

    name = "hidden_cells"

    def forward(self, view: SToFMView) -> Tensor:
        rows = view.cells.scored
        return masked_cells_loss(view.model.heads.cell(view.states.h[rows]), view.z[rows])


class Distances(Objective[SToFMView]):
    """Distances of moved cells before they were moved, from states of pairs; mean squared error.

    Both are in units of the mean known distance of the sub-slice: neither term outweighs the other.
    """

    name = "distances"

    def forward(self, view: SToFMView) -> Tensor | None:
        if not view.pairs.size(1) or view.states.at is None:
            return None
        found = view.model.heads.distance(view.states.at).view(2, -1).mean(0)  # both ways
        return masked_mean((found - view.distance / view.unit).square())


class SToFMPretraining(ObjectiveTask[SToFMView], pretrains=SToFM):
    """Masked cell modelling and pairwise distance recovery, on one forward pass.

    Args:
        model: The model to train.
        cell_weight: Weight of :class:`HiddenCells`.
        distance_weight: Weight of :class:`Distances`.
        corruption: What is taken from the input.
        joint: Train the encoder of cells along, as in the last of the published epochs: cells are
            encoded in every step, while virtual cells stay those of the start of the run.
        seed: Of what only the task learns: nothing here.
    """

    model: SToFM

    def __init__(
        self,
        model: SToFM,
        *,
        cell_weight: float = 1.0,
        distance_weight: float = 1.0,
        corruption: SubSliceCorruption | None = None,
        joint: bool = False,
        seed: int = 0,
    ):
        super().__init__(model, [HiddenCells(cell_weight), Distances(distance_weight)])
        self.corruption = SubSliceCorruption() if corruption is None else corruption
        self.joint = joint
        model.cell_encoder.requires_grad_(joint)

    def view(self, batch: Data, streams: Streams) -> SToFMView:
        how, model = self.corruption, self.model
        (nodes,) = model.inputs(batch)
        if self.joint:
            encoded = model.cell_encoder(model.cells(batch))
            nodes = nodes._replace(x=torch.where(is_cell(nodes).unsqueeze(1), encoded, nodes.x))
        cells = chosen(batch.core, nodes.batch, how, streams["cells"])
        moved = chosen(batch.core, nodes.batch, how, streams["distances"])
        pairs = target_pairs(nodes, moved.scored)
        away = (nodes.pos[pairs[0]] - nodes.pos[pairs[1]]).norm(dim=1)
        seen = with_noise(
            self._with_mask(nodes, batch, cells.replaced),
            moved.replaced,
            how,
            streams["noise"],
            model.slices,
        )
        states = model.encoder(seen, at=torch.cat([pairs, pairs.flip(0)], 1))
        unit = mean_distance(nodes)[nodes.batch[pairs[0]]]
        return SToFMView(model, nodes.x, cells, pairs, away, unit, states)

    def _with_mask(self, nodes: Nodes, batch: Data, replaced: Tensor) -> Nodes:
        """Nodes of which some vectors are replaced."""
        mask: Tensor = self.model.heads.mask
        if self.corruption.mask == "constant":
            mask = torch.full_like(mask, CONSTANT)
        x = nodes.x
        if self.corruption.exclude_masked:
            x = without_cells(nodes, replaced, batch.own, batch.own_size)
        return nodes._replace(x=torch.where(replaced.unsqueeze(1), mask.to(x.dtype), x))
