import numpy as np
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.losses import elastic_similarity_loss


def test_it_is_the_mean_over_pairs_of_different_cells():
    h = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = (h / h.norm(dim=1, keepdim=True)).numpy()
    terms = [
        1 - (max(0.0, float(unit[i] @ unit[j])) - 0.3) ** 2
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert_close(elastic_similarity_loss(h).item(), float(np.mean(terms)))
    mask = torch.arange(7) % 2 == 0
    assert_close(elastic_similarity_loss(h, mask=mask), elastic_similarity_loss(h[mask]))


@pytest.mark.parametrize(("start", "rises"), [(0.5, True), (0.2, False)])
def test_near_cells_are_drawn_together_and_others_apart(start, rises):
    """A step down the gradient raises a cosine above the threshold and lowers one below."""
    angle = torch.tensor(np.arccos(start), requires_grad=True)
    h = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.tensor([1.0, 0.0]).double()])
    elastic_similarity_loss(h).backward()
    assert (float(angle.grad) > 0) == rises  # the angle shrinks where the cosine rises


def test_single_cells_cost_nothing_and_odd_input_is_refused():
    h = torch.randn(1, 4, requires_grad=True)
    loss = elastic_similarity_loss(h)
    loss.backward()
    assert loss == 0
    assert h.grad.abs().sum() == 0
    with pytest.raises(ValueError, match=r"'h' \[N, D\], got \[4\]"):
        elastic_similarity_loss(torch.zeros(4))
    with pytest.raises(ValueError, match="'threshold' in"):
        elastic_similarity_loss(torch.zeros(2, 2), threshold=2.0)
