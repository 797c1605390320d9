"""Fine-tuning of SpatialFormer on neighbours."""

from contextlib import ExitStack

import torch
from torch_geometric.data import Data

from spatiagraph.models.spatialformer import SpatialFormer
from spatiagraph.nn.mode import evaluating
from spatiagraph.tasks.objective import ObjectiveTask
from spatiagraph.tasks.spatialformer import NeighborCells, SpatialFormerView
from spatiagraph.tasks.streams import Streams


class NeighborTuning(ObjectiveTask[SpatialFormerView]):
    """Neighbours or not, with all tokens to be seen.

    Args:
        model: A trained model.
        probe: Train the head of cells alone, on what the encoder as it is makes of each pair.
        seed: Not used: nothing is learned beside the model.
    """

    def __init__(self, model: SpatialFormer, *, probe: bool = False, seed: int = 0):
        super().__init__(model, [NeighborCells()])
        self.model: SpatialFormer = model
        self.probe = probe

    def view(self, batch: Data, streams: Streams) -> SpatialFormerView:
        """Encode the pairs of a batch."""
        sequences = self.model.sequences(batch, *batch.pair_index)
        with ExitStack() as frozen:
            if self.probe:  # statistics of batch norms stay what they are as well
                frozen.enter_context(torch.no_grad())
                frozen.enter_context(evaluating(self.model))
            hidden = self.model.encode(sequences)
        none = torch.zeros_like(sequences.mask)
        return SpatialFormerView(self.model, batch, sequences, none, hidden, streams)
