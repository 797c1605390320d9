import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from spatiagraph.losses import token_diversity_loss


def random_tokens(*shape):
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64)


def test_known_angles():
    tokens = torch.tensor([[[1.0, 0.0], [2.0, 2.0], [0.0, -3.0]]])  # 45°, 90° and 135°
    assert_close(token_diversity_loss(tokens), torch.tensor(2 * 0.5**0.5 / 3))


def test_matches_a_loop_over_pairs():
    tokens = random_tokens(3, 4, 5)
    pairs = [
        cosine_similarity(cell[s], cell[t], dim=0).abs()
        for cell in tokens
        for s in range(4)
        for t in range(4)
        if s != t
    ]
    assert_close(token_diversity_loss(tokens), torch.stack(pairs).mean())


def test_neither_length_nor_sign_nor_order_of_tokens_matters():
    tokens, scale = random_tokens(3, 4, 5), random_tokens(3, 4, 1) * 7
    loss = token_diversity_loss(tokens)
    assert_close(token_diversity_loss(tokens * scale), loss)
    assert_close(token_diversity_loss(tokens[:, [2, 0, 3, 1]]), loss)


def test_cells_are_not_compared_with_each_other():
    tokens = torch.eye(2).repeat(5, 1, 1)
    assert token_diversity_loss(tokens) == 0
    assert token_diversity_loss(tokens[:0]) == 0


def test_descending_makes_tokens_orthogonal():
    tokens = random_tokens(2, 3, 8).requires_grad_()
    for _ in range(200):
        (gradient,) = torch.autograd.grad(token_diversity_loss(tokens), tokens)
        tokens = (tokens - 0.2 * gradient).detach().requires_grad_()
    assert token_diversity_loss(tokens) < 0.03


def test_gradients_agree_with_finite_differences():
    tokens = random_tokens(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(token_diversity_loss, [tokens])


def test_a_token_of_zeros_has_a_finite_gradient():
    tokens = torch.zeros(1, 2, 3, requires_grad=True)
    token_diversity_loss(tokens).backward()
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 1, 8), (4, 8)])
def test_a_single_token_is_refused(shape):
    with pytest.raises(ValueError, match="at least 2 tokens, got"):
        token_diversity_loss(torch.ones(shape))
