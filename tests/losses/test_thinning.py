import pytest
import torch
from torch.testing import assert_close

from spatiagraph.losses import thin


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_thinned_counts_are_whole_and_at_most_what_was_there():
    """SPATIA fact 21."""
    counts = torch.randint(0, 200, (50, 100), generator=seeded()).float()
    y = thin(counts, generator=seeded())
    assert (y >= 0).all()
    assert (y <= counts).all()
    assert_close(y, y.round(), atol=0, rtol=0)


@pytest.mark.parametrize("count", [1, 3, 40, 5000])
def test_mean_and_variance_are_those_of_a_binomial(count):
    """SPATIA fact 21: E[y] / x = 0.4 at rate 0.6."""
    num = 50_000
    y = thin(torch.full((num,), float(count)), 0.6, generator=seeded())
    error = (0.24 / count / num) ** 0.5  # standard error of the mean of y / x
    assert abs(y.mean() / count - 0.4) < 4 * error
    assert_close(y.var() / count, torch.tensor(0.24), atol=0, rtol=0.03)


def test_single_molecules_are_lost_independently():
    y = thin(torch.ones(4, 20_000), 0.3, generator=seeded())
    together = (y[0] * y[1]).mean()
    assert abs(together - 0.49) < 0.015


def test_rate_zero_keeps_all_and_rate_one_nothing():
    counts = torch.tensor([0.0, 1.0, 17.0, 1e5])
    assert_close(thin(counts, 0.0), counts)
    assert_close(thin(counts, 1.0), torch.zeros(4))


def test_the_legacy_rule_keeps_45_percent_of_large_counts():
    """SPATIA fact 21."""
    counts = torch.full((20_000,), 1000.0)
    y = thin(counts, 0.6, rule="legacy", generator=seeded())
    assert abs(y.mean() / 1000 - 0.67**2) < 0.01
    assert abs((y == 0).float().mean() - 0.33) < 0.015
    assert (thin(torch.ones(1000), rule="legacy", generator=seeded()) >= 0).all()


@pytest.mark.parametrize("rule", ["binomial", "legacy"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bfloat16, torch.float64])
def test_type_and_input_stay_as_they_are(rule, dtype):
    counts = torch.randint(0, 50, (10, 5), generator=seeded()).to(dtype)
    before = counts.clone()
    y = thin(counts, rule=rule, generator=seeded())
    assert y.dtype == dtype
    assert_close(counts, before)


@pytest.mark.parametrize("rule", ["binomial", "legacy"])
def test_a_seed_repeats_the_draw(rule):
    counts = torch.full((100,), 20.0)
    first, again, other = (thin(counts, rule=rule, generator=seeded(seed)) for seed in (3, 3, 4))
    assert_close(first, again)
    assert (first != other).any()


def test_rates_and_rules_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="'rate' between 0 and 1, got 60"):
        thin(torch.ones(3), 60)
    with pytest.raises(ValueError, match="'binomial' or 'legacy', got 'poisson'"):
        thin(torch.ones(3), rule="poisson")
