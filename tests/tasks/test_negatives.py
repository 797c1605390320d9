"""Negatives of ST-Align: other clusters of the same slide."""

import warnings

import pytest
import torch

from spatiagraph.tasks import ClusterNegatives, PairedNegatives, SlideNegatives, paired_negatives


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def spots():
    generator = seeded(1)
    return torch.randint(8, (300,), generator=generator), torch.randint(
        3, (300,), generator=generator
    )


def test_negatives_are_of_other_clusters_of_the_same_slide(spots):
    """ST-Align fact A11."""
    cluster, slide = spots
    rows = paired_negatives(cluster, slide, 5, seeded())
    assert rows.shape == (300, 5)
    assert bool((cluster[rows] != cluster[:, None]).all())
    assert bool((slide[rows] == slide[:, None]).all())
    assert all(len(each.unique()) == 5 for each in cluster[rows])
    assert torch.equal(rows, paired_negatives(cluster, slide, 5, seeded()))
    assert not torch.equal(rows, paired_negatives(cluster, slide, 5, seeded(2)))


def test_clusters_and_spots_are_drawn_evenly():
    """ST-Align fact A11: neither the lowest labels nor the first spots, as the reference drew."""
    cluster = torch.tensor([0] * 20 + [1] * 4 + [2] * 40 + [3] * 10 + [4] * 6 + [5] * 8 + [6] * 12)
    slide, generator = torch.zeros_like(cluster), seeded()
    times = torch.zeros(7, 100)
    for _ in range(400):
        rows = paired_negatives(cluster, slide, 5, generator)
        times[cluster[0]] += torch.bincount(rows[:20].flatten(), minlength=100)
    share = torch.stack([times[0, cluster == c].sum() for c in range(1, 7)]) / times[0].sum()
    torch.testing.assert_close(share, torch.full((6,), 1 / 6), atol=0.01, rtol=0)
    largest = times[0, cluster == 2]
    torch.testing.assert_close(largest / largest.mean(), torch.ones(40), atol=0.25, rtol=0)


def test_few_clusters_are_drawn_again_with_a_warning():
    """ST-Align fact A11: three clusters give five negatives all the same."""
    cluster = torch.tensor([0, 0, 1, 1, 2, 2])
    with pytest.warns(UserWarning, match="at least 6 clusters of a slide to draw 5 negatives"):
        rows = paired_negatives(cluster, torch.zeros(6, dtype=torch.long), 5, seeded())
    assert rows.shape == (6, 5)
    assert bool((cluster[rows] != cluster[:, None]).all())
    with pytest.warns(UserWarning, match="at least 6 clusters"):
        alone = paired_negatives(torch.zeros(4), torch.tensor([0, 0, 0, 1]), 5, seeded())
    assert bool((alone == -1).all())


def test_losses_of_collapse_and_of_no_negatives(spots):
    cluster, slide = spots
    same = torch.ones(300, 4)
    rule = PairedNegatives()
    drawn = rule.draw(cluster, slide, seeded())
    assert rule.loss(same, same, drawn, 0.1).item() == pytest.approx(torch.log(torch.tensor(6.0)))
    assert rule.loss(same, same, torch.full_like(drawn, -1), 0.1).item() == 0
    with pytest.raises(ValueError, match="'num' of at least 1, got 0"):
        PairedNegatives(0)


def test_both_directions():
    generator = seeded()
    q, p = torch.randn(2, 12, 4, generator=generator)
    cluster = torch.arange(12) % 6
    drawn = PairedNegatives().draw(cluster, torch.zeros_like(cluster), seeded())
    one, other = (PairedNegatives().loss(*pair, drawn, 0.1) for pair in ((q, p), (p, q)))
    both = PairedNegatives(symmetric=True)
    torch.testing.assert_close(both.loss(q, p, drawn, 0.1), (one + other) / 2)
    torch.testing.assert_close(both.loss(p, q, drawn, 0.1), both.loss(q, p, drawn, 0.1))


def test_all_spots_of_other_clusters_are_negatives_too():
    cluster, slide = torch.tensor([0, 0, 1, 2, 1]), torch.tensor([0, 0, 0, 0, 1])
    rule = ClusterNegatives()
    drawn = rule.draw(cluster, slide, None)
    assert drawn.tolist()[0] == [False, False, True, True, False]
    assert not any(drawn.tolist()[4])
    q = torch.eye(5)
    found = rule.loss(q, q, drawn, 0.1)
    others = torch.tensor([2, 2, 3, 3, 0])
    expected = torch.log1p(others * torch.exp(torch.tensor(-10.0))).mean()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_all_spots_of_the_slide_are_negatives(spots):
    rule = SlideNegatives()
    cluster, slide = spots
    drawn = rule.draw(cluster, slide, None)
    assert torch.equal(drawn, slide[:, None] == slide[None, :])
    same = torch.ones(len(slide), 4)
    expected = torch.stack([(slide == s).sum().float().log() for s in slide]).mean()
    torch.testing.assert_close(rule.loss(same, same, drawn, 0.1), expected)


def test_enough_clusters_warn_of_nothing(spots):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paired_negatives(*spots, 5, seeded())
