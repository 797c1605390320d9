import pytest
import torch
from torch.nn.functional import cosine_embedding_loss
from torch.testing import assert_close

from spatiagraph.losses import masked_cells_loss

MASK = torch.tensor([True, False, True, False, True])


def pair():
    torch.manual_seed(0)
    return torch.randn(2, 5, 6, dtype=torch.float64).unbind(0)


def test_known_angles():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    prediction = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])  # 0°, 90°, 180°
    for cell, loss in enumerate([0.0, 1.0, 2.0]):
        assert_close(masked_cells_loss(prediction[[cell]], z[[cell]]), torch.tensor(loss))
    assert_close(masked_cells_loss(prediction, z), torch.tensor(1.0))


def test_hidden_cells_alone_count():
    prediction, z = pair()
    reference = cosine_embedding_loss(prediction[MASK], z[MASK], torch.ones(3))
    assert_close(masked_cells_loss(prediction, z, MASK), reference)


def test_the_gradient_reaches_predictions_of_hidden_cells_and_nothing_else():
    prediction, z = (t.requires_grad_() for t in pair())
    masked_cells_loss(prediction, z, MASK).backward()
    assert z.grad is None
    assert_close(prediction.grad[~MASK], torch.zeros(2, 6, dtype=torch.float64))
    assert (prediction.grad[MASK] != 0).all()


def test_nothing_hidden_is_zero():
    assert masked_cells_loss(*pair(), torch.zeros(5, dtype=torch.bool)) == 0


def test_gradients_agree_with_finite_differences():
    prediction, z = pair()
    assert torch.autograd.gradcheck(
        lambda p: masked_cells_loss(p, z, MASK), [prediction.requires_grad_()]
    )


def test_half_precision_is_computed_in_single():
    prediction, z = (t.bfloat16() for t in pair())
    loss = masked_cells_loss(prediction, z)
    assert_close(loss, masked_cells_loss(prediction.float(), z.float()))


def test_shapes_that_disagree_are_refused():
    prediction, z = pair()
    with pytest.raises(ValueError, match=r"got \[5, 6\] and \[5, 3\]"):
        masked_cells_loss(prediction, z[:, :3])
    with pytest.raises(ValueError, match=r"'mask' \[5\], one entry per cell, got \[5, 1\]"):
        masked_cells_loss(prediction, z, MASK[:, None])
