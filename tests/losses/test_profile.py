import pytest
import torch
from torch.testing import assert_close

from spatiagraph.losses import niche_profile_loss

MEASURED = torch.tensor([True, True, False, True])


def niches():
    """Prediction, summed counts and number of cells of three niches and four genes."""
    torch.manual_seed(0)
    num_cells = torch.tensor([2, 5, 1])
    total = torch.randint(0, 9, (3, 4)).double() * num_cells[:, None]
    return torch.rand(3, 4, dtype=torch.float64), total, num_cells


def test_known_answer():
    total = torch.tensor([[2.0, 0.0], [0.0, 9.0]])
    prediction = torch.tensor([2.0, 1.0, 1.0, 4.0]).log().view(2, 2)
    loss = niche_profile_loss(prediction, total, torch.tensor([2, 3]))  # means 1, 0; 0, 3
    assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)
    loss = niche_profile_loss(prediction + torch.eye(2), total, torch.tensor([2, 3]))
    assert_close(loss, torch.tensor(0.5))


def test_doubling_every_cell_of_a_niche_changes_nothing():
    prediction, total, num_cells = niches()
    loss = niche_profile_loss(prediction, total, num_cells)
    assert_close(niche_profile_loss(prediction, 2 * total, 2 * num_cells), loss)


def test_unmeasured_genes_cost_nothing_and_teach_nothing():
    prediction, total, num_cells = niches()
    prediction.requires_grad_()
    spoilt = total.masked_fill(~MEASURED, torch.nan)
    loss = niche_profile_loss(prediction, spoilt, num_cells, MEASURED)
    reference = niche_profile_loss(prediction[:, MEASURED], total[:, MEASURED], num_cells)
    assert_close(loss, reference)
    loss.backward()
    assert_close(prediction.grad[:, 2], torch.zeros(3, dtype=torch.float64))
    assert (prediction.grad[:, MEASURED] != 0).all()


def test_niches_of_two_panels_are_scored_each_on_its_own():
    prediction, total, num_cells = niches()
    panels = torch.stack([MEASURED, ~MEASURED, MEASURED])
    loss = niche_profile_loss(prediction, total, num_cells, panels)
    error = (prediction - (total / num_cells[:, None]).log1p()).square()
    assert_close(loss, error[panels].mean())


def test_a_niche_without_cells_costs_nothing():
    prediction, total, num_cells = niches()
    total[1], num_cells[1] = 0, 0
    kept = [0, 2]
    loss = niche_profile_loss(prediction, total, num_cells)
    assert_close(loss, niche_profile_loss(prediction[kept], total[kept], num_cells[kept]))
    assert niche_profile_loss(prediction, total, num_cells * 0) == 0


def test_gradients_agree_with_finite_differences():
    prediction, total, num_cells = niches()
    assert torch.autograd.gradcheck(
        lambda p: niche_profile_loss(p, total, num_cells, MEASURED), [prediction.requires_grad_()]
    )


def test_half_precision_is_computed_in_single():
    prediction, total, num_cells = niches()
    half = niche_profile_loss(prediction.bfloat16(), total.float(), num_cells)
    assert_close(half, niche_profile_loss(prediction.bfloat16().float(), total.float(), num_cells))


def test_shapes_that_disagree_are_refused():
    prediction, total, num_cells = niches()
    with pytest.raises(ValueError, match=r"got \[3, 3\], \[3, 4\] and \[3\]"):
        niche_profile_loss(prediction[:, :3], total, num_cells)
    with pytest.raises(ValueError, match=r"got \[3, 4\], \[3, 4\] and \[3, 1\]"):
        niche_profile_loss(prediction, total, num_cells[:, None])
    with pytest.raises(ValueError, match=r"bool \[4\] or \[3, 4\], got torch.bool \[3\]"):
        niche_profile_loss(prediction, total, num_cells, MEASURED[:3])
