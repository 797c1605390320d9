"""Annotation: a pre-trained model learns labels from cells in context."""

import torch
from torch_geometric.data import Data

from spatiagraph.heads.label import LabelHead
from spatiagraph.losses.hierarchical import hierarchical_bce
from spatiagraph.models.base import HierarchicalModel
from spatiagraph.tasks.base import LossOutput, Task


class Annotation(Task):
    """Classify cells from their embedding in context; the whole model is trained along.

    Labels are those of ``model.recipe.labels``. A parent of an ontology is satisfied by any leaf
    below it, and cells without label teach nothing, see
    :func:`~spatiagraph.losses.hierarchical_bce`.

    Args:
        model: The model to train.
        head: Classifiers on its embedding; new ones when not given.
        seed: Seed of new ones.

    Raises:
        ValueError: If the model's recipe has no labels.
    """

    model: HierarchicalModel
    takes_cached_cells = True

    def __init__(self, model: HierarchicalModel, head: LabelHead | None = None, *, seed: int = 0):
        super().__init__()
        labels = model.recipe.labels
        if labels is None:
            raise ValueError("Expected a model whose recipe reads labels, got none: build it so")
        self.model = model
        self.labels = labels
        channels = model.context_encoder.channels
        if head is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                head = LabelHead(channels, labels.num_classes)
        self.head = head

    def loss(self, batch: Data, generator: torch.Generator | None = None) -> LossOutput:
        logits = self.head(self.model(*self.model.inputs(batch)).cell)
        known = batch.labels.masked_fill(~batch.core.unsqueeze(1), -1)
        terms = {
            name: hierarchical_bce(logit, label, None if below is None else below.to(logit.device))
            for name, logit, label, below in zip(
                self.labels.classes, logits, known.unbind(1), self.labels.descendants, strict=True
            )
        }
        parts = {name: term.detach() for name, term in terms.items()}
        return LossOutput(torch.stack(list(terms.values())).sum(), parts, int(batch.core.sum()))
