"""Models and the tasks that they are trained with when nothing is said."""

import pytest
import torch

from spatiagraph.data import make_tissue
from spatiagraph.models import ContextModel, Spatia
from spatiagraph.tasks import pretraining

SLIDE = make_tissue(200, num_genes=30, image="he", seed=0)


@pytest.mark.parametrize("family", [ContextModel, Spatia])
def test_every_gate_has_a_gradient_on_the_first_batch(family):
    """Gates start shut: one that nothing reaches, or that what it lets in is zero, stays so."""
    model = family.for_slides([SLIDE])
    task = pretraining(model).train()
    batch = next(iter(model.batches([model.prepare(SLIDE, learn=True)], 100)))
    torch.manual_seed(0)
    task.loss(batch, torch.Generator().manual_seed(0)).loss.backward()
    gates = {n: p for n, p in model.named_parameters() if n.endswith("gate")}
    assert len(gates) >= 4
    assert not any(gate.any() for gate in gates.values())
    assert [n for n, gate in gates.items() if gate.grad is None or not gate.grad.any()] == []


def test_layers_of_the_context_model_do_not_start_as_identity():
    """With scales of zero a shut gate would stand before a change that is none."""
    model = ContextModel.for_slides([SLIDE])
    scales = [p for n, p in model.named_parameters() if ".scale_" in n]
    assert len(scales) == 2
    assert all(scale.all() for scale in scales)
