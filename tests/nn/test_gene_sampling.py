"""Which genes become tokens."""

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import sample_genes


@pytest.fixture
def counts():
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((30, 40), 0.5), generator=generator)
    measured = torch.rand(40, generator=generator) < 0.8
    return x * measured, measured


@pytest.mark.parametrize("fixed", [False, True])
def test_expressed_genes_come_first_none_twice_and_unmeasured_never(counts, fixed):
    """SPATIA fact 5."""
    x, measured = counts
    order = torch.arange(40.0) if fixed else None
    found = sample_genes(x, measured, length=25, order=order)
    assert found.ids.shape == (30, 25)
    assert found.pad is None
    assert measured[found.ids].all()
    assert all(row.unique().numel() == 25 for row in found.ids)
    assert_close(found.values, x.gather(1, found.ids))
    assert_close(found.values.sum(1), x.sum(1))  # at most 25 are expressed: all kept


def test_a_short_draw_takes_expressed_genes_alone(counts):
    x, measured = counts
    expressed = (x > 0).sum(1)
    found = sample_genes(x, measured, length=8)
    assert ((found.values > 0).sum(1) == expressed.clamp(max=8)).all()


def test_places_without_a_gene_are_padding_on_the_right(counts):
    x, _ = counts
    mask = torch.rand(30, 40, generator=torch.Generator().manual_seed(1)) < 0.3
    found = sample_genes(x, mask, length=None)
    assert found.ids.size(1) == mask.sum(1).max()
    assert ((~found.pad).sum(1) == mask.sum(1)).all()
    assert (found.pad.int().diff(dim=1) >= 0).all()
    assert_close(found.values.sum(1), (x * mask).sum(1))
    assert (found.take(x + 1)[found.pad] == 0).all()
    expressed = sample_genes(x, mask, length=None, fill_zeros=False)
    assert (expressed.values[~expressed.pad] > 0).all()


def test_a_fixed_order_gives_a_cell_the_same_genes_in_any_batch(counts):
    x, measured = counts
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2)).float()
    whole = sample_genes(x, measured, length=20, order=order).ids
    part = sample_genes(x[7:9], measured, length=20, order=order).ids
    assert_close(whole[7:9], part)


def test_random_draws_differ_and_repeat_with_the_generator(counts):
    x, measured = counts
    draws = [
        sample_genes(x, measured, length=20, generator=torch.Generator().manual_seed(s)).ids
        for s in (0, 0, 1)
    ]
    assert_close(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
