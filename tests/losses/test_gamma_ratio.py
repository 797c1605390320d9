import torch
from torch.testing import assert_close

from spatiagraph.losses import log_gamma_ratio


def test_whole_numbers_give_a_product():
    x = torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64)
    for theta in (1.0, 5.0, 31.0, 33.0, 1000.0):
        product = [torch.arange(theta, theta + n, dtype=torch.float64).prod() for n in x.tolist()]
        ratio = log_gamma_ratio(x, torch.tensor(theta, dtype=torch.float64))
        assert_close(ratio, torch.stack(product).log(), atol=1e-9, rtol=1e-9)


def test_the_two_branches_meet():
    x = torch.arange(100, dtype=torch.float64)
    below, above = torch.tensor([[32.0], [32.0 + 1e-12]], dtype=torch.float64)
    assert_close(log_gamma_ratio(x, below), log_gamma_ratio(x, above), atol=1e-9, rtol=0)


def test_single_precision_is_enough_for_any_theta():
    x, log_theta = torch.arange(50.0), torch.linspace(-10, 15, 26).unsqueeze(1)
    ratio = log_gamma_ratio(x, log_theta.exp())
    reference = torch.lgamma(x + log_theta.double().exp()) - torch.lgamma(log_theta.double().exp())
    assert_close(ratio, reference.float(), atol=1e-5, rtol=1e-5)


def test_gradients_agree_with_finite_differences():
    x = torch.tensor([0.0, 3.0, 80.0], dtype=torch.float64)
    theta = torch.tensor([[0.2], [7.0], [200.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: log_gamma_ratio(x, t), [theta])
