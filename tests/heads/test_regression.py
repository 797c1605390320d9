import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch.testing import assert_close

from spatiagraph.heads.regression import ridge


def test_ridge_is_that_of_scikit_learn_at_a_strength_relative_to_the_variance():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(80, 5, generator=generator, dtype=torch.float64) * torch.arange(1, 6) + 3
    y = torch.randn(80, 7, generator=generator, dtype=torch.float64) + z[:, :1]
    alpha = 0.1 * 80 * float(z.var(0, correction=0).mean())
    expected = Ridge(alpha).fit(z.numpy(), y.numpy())
    found = ridge(z, y)
    np.testing.assert_allclose(found.weight, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(found.bias, expected.intercept_, rtol=1e-6)
    assert_close(ridge(10 * z, y).weight, found.weight / 10)


def test_embeddings_that_are_all_alike_tell_nothing():
    found = ridge(torch.ones(4, 2), torch.arange(12.0).view(4, 3))
    assert_close(found.weight, torch.zeros(3, 2))
    assert_close(found.bias, torch.tensor([4.5, 5.5, 6.5]))
