import torch
from torch.testing import assert_close

from spatiagraph.losses import negative_binomial_nll


def test_probabilities_sum_to_one():
    """SPATIA fact 20, without zero inflation."""
    x = torch.arange(400, dtype=torch.float64)
    nll = negative_binomial_nll(
        x, torch.tensor(3.0).log().double(), torch.tensor(1.5).log().double()
    )
    assert_close((-nll).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_golden_value_at_zero():
    """SPATIA fact 20: μ = 2, θ = 1.5, no zero inflation, x = 0 → 1.270947."""
    nll = negative_binomial_nll(torch.tensor(0.0), torch.tensor(2.0).log(), torch.tensor(1.5).log())
    assert_close(nll, torch.tensor(1.270947), atol=1e-5, rtol=0)


def test_matches_torch_distributions():
    torch.manual_seed(0)
    x = torch.poisson(torch.rand(50, dtype=torch.float64) * 20)
    log_mu, log_theta = torch.randn(2, 50, dtype=torch.float64)
    reference = torch.distributions.NegativeBinomial(log_theta.exp(), logits=log_mu - log_theta)
    assert_close(negative_binomial_nll(x, log_mu, log_theta), -reference.log_prob(x))


def test_large_theta_is_poisson():
    x = torch.arange(10, dtype=torch.float64)
    log_mu = torch.tensor(3.0).double().log()
    reference = torch.distributions.Poisson(3.0).log_prob(x)
    nll = negative_binomial_nll(x, log_mu, torch.tensor(1e7).double().log())
    assert_close(nll, -reference.double(), atol=1e-5, rtol=1e-5)


def test_single_precision_is_enough_for_the_poisson_limit():
    """SPATIA fact 20: θ → ∞, as the model computes it."""
    x, log_mu = torch.arange(10.0), torch.tensor(3.0).log()
    log_theta = torch.tensor(15.0, requires_grad=True)
    nll = negative_binomial_nll(x, log_mu, log_theta)
    assert_close(nll, -torch.distributions.Poisson(3.0).log_prob(x), atol=2e-5, rtol=1e-5)
    nll.sum().backward()
    assert_close(log_theta.grad, torch.tensor(0.0), atol=1e-4, rtol=0)  # no pull left on θ


def test_gradients_agree_with_finite_differences():
    x = torch.tensor([0.0, 3.0, 10.0], dtype=torch.float64)
    arguments = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda m, t: negative_binomial_nll(x, m, t), arguments)
