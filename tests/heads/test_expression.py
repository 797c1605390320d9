import torch
from torch.testing import assert_close

from spatiagraph.heads import ExpressionHead


def test_expression_head_shares_out_the_library():
    """SPATIA fact 21: Σ_g μ_g = S."""
    torch.manual_seed(0)
    head, library = ExpressionHead(4, 10), torch.tensor([5.0, 100.0, 1.0])
    torch.nn.init.normal_(head.linear.weight)
    assert_close(head(torch.randn(3, 4), library).log_mu.exp().sum(1), library)


def test_expression_head_gives_nothing_to_unmeasured_genes():
    head, mask = ExpressionHead(4, 10), torch.arange(10) < 6
    mu = head(torch.randn(3, 4), torch.ones(3), mask).log_mu.exp()
    assert_close(mu[:, 6:], torch.zeros(3, 4))
    assert_close(mu.sum(1), torch.ones(3))


def test_expression_head_starts_from_the_mean_profile():
    torch.manual_seed(0)
    x = torch.poisson(torch.rand(50, 10) * 8)
    head = ExpressionHead(4, 10)
    head.initialize(x)
    share = head(torch.randn(3, 4), torch.ones(3)).log_mu.exp()
    assert_close(share, (x.sum(0) / x.sum()).expand(3, -1), atol=1e-3, rtol=1e-2)


def test_expected_expression_is_what_a_cell_of_some_depth_would_show():
    torch.manual_seed(0)
    head, z = ExpressionHead(4, 10), torch.randn(3, 4)
    torch.nn.init.normal_(head.linear.weight)
    share = head.linear(z).softmax(1)
    assert_close(head.expected(z, 50.0), torch.log1p(50 * share))
    assert_close(head.expected(z).expm1().sum(1), torch.full((3,), 1e4))


def test_expression_head_starts_from_what_embeddings_tell():
    """Two kinds of cells: each is given its own profile, and every gene its total."""
    torch.manual_seed(0)
    profile = torch.tensor([[0.6, 0.3, 0.1, 0.0], [0.1, 0.1, 0.4, 0.4]])
    kind = torch.arange(200) % 2
    x = torch.poisson(40 * profile[kind])
    head = ExpressionHead(2, 4)
    z = torch.nn.functional.one_hot(kind).float()
    head.initialize(x, z)
    mu = head(z, x.sum(1)).log_mu.exp()
    assert_close(mu.sum(0), x.sum(0), rtol=0.01, atol=1.0)
    share = mu / mu.sum(1, keepdim=True)
    assert (share[:2] - profile).abs().max() < 0.1
    plain = ExpressionHead(2, 4)
    plain.initialize(x)
    assert (plain(z, x.sum(1)).log_mu.exp()[0] / 40 - profile[0]).abs().max() > 0.2


def test_genes_that_were_not_measured_say_nothing_to_the_start():
    torch.manual_seed(0)
    x, z = torch.poisson(torch.rand(60, 5) * 9), torch.randn(60, 3)
    seen = torch.ones(60, 5, dtype=torch.bool)
    seen[:30, 4] = False
    heads = [ExpressionHead(3, 5) for _ in range(2)]
    for head, unmeasured in zip(heads, (0.0, 50.0), strict=True):
        head.initialize(torch.where(seen, x, unmeasured), z, seen)
    assert_close(heads[0].state_dict(), heads[1].state_dict())


def test_the_dispersion_of_a_start_is_that_of_the_counts_around_what_it_expects():
    """Of a gamma-Poisson mixture with θ = 2 and of plain Poisson counts."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    scale = torch.distributions.Gamma(2.0, 2.0).sample((4000, 2))
    x = torch.poisson(torch.tensor([8.0, 8.0, 20.0]).expand(4000, 3).clone(), generator=generator)
    x[:, :2] = torch.poisson(8 * scale, generator=generator)
    head = ExpressionHead(1, 3)
    head.initialize(x, torch.zeros(4000, 1))
    share = x.sum(0) / x.sum()
    mu = x.sum(1, keepdim=True) * share
    expected = mu.square().sum(0) / ((x - mu).square() - mu).sum(0)
    assert_close(head.log_theta.detach().exp(), expected.clamp(0.1, 100), rtol=0.01, atol=0.01)
    assert head.log_theta[0].exp() < 10
