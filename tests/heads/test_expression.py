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
