import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch.testing import assert_close

from spatiagraph.heads.regression import STRENGTHS, best_strength, ridge


def test_ridge_is_that_of_scikit_learn_at_a_strength_relative_to_the_variance():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(80, 5, generator=generator, dtype=torch.float64) * torch.arange(1, 6) + 3
    y = torch.randn(80, 7, generator=generator, dtype=torch.float64) + z[:, :1]
    alpha = 0.1 * 80 * float(z.var(0, correction=0).mean())
    expected = Ridge(alpha).fit(z.numpy(), y.numpy())
    found = ridge(z, y, 0.1)
    np.testing.assert_allclose(found.weight, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(found.bias, expected.intercept_, rtol=1e-6)
    assert_close(ridge(10 * z, y, 0.1).weight, found.weight / 10)


def test_the_strength_is_that_which_predicts_cells_left_out_one_by_one():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    y = 0.4 * z[:, :1] + torch.randn(40, 3, generator=generator, dtype=torch.float64)
    errors = []
    for strength in STRENGTHS:
        alpha, found = strength * 40 * float(z.var(0, correction=0).mean()), []
        for i in range(40):
            rest = np.arange(40) != i
            centre = z.mean(0).numpy()  # as the closed form has it: of all cells
            fitted = Ridge(alpha).fit(z[rest].numpy() - centre, y[rest].numpy())
            found.append(y[i].numpy() - fitted.predict(z[i : i + 1].numpy() - centre)[0])
        errors.append((np.square(found).mean(0) / y.numpy().var(0)).mean())
    best = STRENGTHS[int(np.argmin(errors))]
    assert STRENGTHS[0] < best < STRENGTHS[-1]
    assert best_strength(z, y) == ridge(z, y).strength == best
    assert best_strength(torch.randn(40, 6, generator=generator), y) == STRENGTHS[-1]
    assert best_strength(z, z @ torch.ones(6, 2, dtype=torch.float64)) == STRENGTHS[0]


def test_embeddings_that_are_all_alike_tell_nothing():
    found = ridge(torch.ones(4, 2), torch.arange(12.0).view(4, 3))
    assert_close(found.weight, torch.zeros(3, 2))
    assert_close(found.bias, torch.tensor([4.5, 5.5, 6.5]))
