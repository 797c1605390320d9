import pytest
import torch
from torch.testing import assert_close

from spatiagraph.losses import (
    masked_mean,
    negative_binomial_nll,
    zero_inflated_negative_binomial_nll,
)

LOG_MU, LOG_THETA = torch.tensor([2.0, 1.5], dtype=torch.float64).log()


def parameters(*shape, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(3, *shape, dtype=dtype).unbind(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("x", "logit", "nll"),
    [(0, 0.3, 0.365515), (1, 0.3, 2.279453), (3, 0.3, 3.021390), (0, -40, 1.270947)],
)
def test_golden_values(x, logit, nll, dtype):
    """SPATIA fact 20: μ = 2, θ = 1.5."""
    x, logit, nll = (torch.tensor(value, dtype=dtype) for value in (x, logit, nll))
    loss = zero_inflated_negative_binomial_nll(x, LOG_MU.to(dtype), LOG_THETA.to(dtype), logit)
    assert_close(loss, nll, atol=2e-6, rtol=0)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 4.0])
def test_probabilities_sum_to_one(logit):
    """SPATIA fact 20."""
    x, logit = torch.arange(400, dtype=torch.float64), torch.tensor(logit, dtype=torch.float64)
    nll = zero_inflated_negative_binomial_nll(x, LOG_MU, LOG_THETA, logit)
    assert_close((-nll).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_without_zero_inflation_it_is_a_negative_binomial():
    """SPATIA fact 20: π → 0."""
    x = torch.tensor([0.0, 1, 2, 30], dtype=torch.float64)
    log_mu, log_theta, _ = parameters(4)
    reference = negative_binomial_nll(x, log_mu, log_theta)
    for logit in (torch.tensor(-40.0), torch.tensor(-torch.inf)):
        nll = zero_inflated_negative_binomial_nll(x, log_mu, log_theta, logit)
        assert_close(nll, reference)


def test_large_theta_is_a_zero_inflated_poisson():
    """SPATIA fact 20: θ → ∞."""
    x, pi = torch.arange(10.0), torch.tensor(0.2)
    nll = zero_inflated_negative_binomial_nll(
        x, torch.tensor(3.0).log(), torch.tensor(15.0), pi.logit()
    )
    poisson = torch.distributions.Poisson(3.0).log_prob(x).exp()
    assert_close(nll, -((1 - pi) * poisson + pi * (x == 0)).log(), atol=2e-5, rtol=1e-5)


def test_gradients_agree_with_finite_differences():
    x = torch.tensor([0.0, 0.0, 3.0, 80.0], dtype=torch.float64)
    arguments = [p.requires_grad_() for p in parameters(4)]
    assert torch.autograd.gradcheck(
        lambda *p: zero_inflated_negative_binomial_nll(x, *p), arguments
    )


def test_extreme_parameters_stay_finite():
    x = torch.tensor([0.0, 1.0, 5000.0]).view(3, 1, 1, 1)
    log_mu = torch.tensor([-30.0, 0.0, 12.0], requires_grad=True)
    log_theta = torch.tensor([-15.0, 0.0, 15.0]).view(3, 1).requires_grad_()
    logit = torch.tensor([-90.0, 0.0, 90.0]).view(3, 1, 1).requires_grad_()
    nll = zero_inflated_negative_binomial_nll(x, log_mu, log_theta, logit)
    nll.sum().backward()
    for values in (nll, log_mu.grad, log_theta.grad, logit.grad):
        assert values.isfinite().all()
    assert (nll > -1e-3).all()


def test_unmeasured_genes_and_padding_cost_nothing_and_teach_nothing():
    """A gene that was never measured is no zero: whatever stands there, nothing comes of it."""
    x = torch.tensor([[0.0, 2.0, 7.0], [1.0, 0.0, 7.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = [p.requires_grad_() for p in parameters(2, 3, dtype=torch.float32)]
    hidden = [p + torch.where(mask, 0.0, -torch.inf) for p in values]
    loss = zero_inflated_negative_binomial_nll(x.masked_fill(~mask, torch.nan), *hidden, mask)
    full = zero_inflated_negative_binomial_nll(x, *values)
    assert_close(loss, full * mask)
    assert_close(masked_mean(loss, mask), full[mask].mean())
    for gradient in torch.autograd.grad(loss.sum(), values):
        assert gradient.isfinite().all()
        assert_close(gradient[~mask], torch.zeros(3))


def test_half_precision_is_computed_in_single():
    x = torch.tensor([0.0, 3.0, 700.0])
    half = [p.bfloat16() for p in parameters(3)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = zero_inflated_negative_binomial_nll(x, *half)
    assert loss.dtype == torch.float32
    assert_close(loss, zero_inflated_negative_binomial_nll(x, *(p.float() for p in half)))


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"boolean 'mask', got torch\.int64"):
        zero_inflated_negative_binomial_nll(torch.zeros(2), *parameters(2), torch.tensor([0, 1]))
