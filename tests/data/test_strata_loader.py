"""Mini-batches with some of every cluster: who is in them, and that they resume."""

import numpy as np
import pytest
import torch

from spatiagraph.data import GenePanel, StrataLoader, make_tissue
from spatiagraph.data.loader.strata import StrataSampler, stratified
from spatiagraph.data.recipe import Crop, Neighborhoods, Recipe


def prepared(num_cells, seed=0, clusters=4):
    slide = make_tissue(num_cells, num_genes=20, image="he", seed=seed, slide_id=f"s{seed}")
    panel = GenePanel.from_slides([slide])
    data = Recipe(panel, levels=(Neighborhoods(3),), crops=(Crop(16.0, 8),))(slide)
    generator = torch.Generator().manual_seed(seed)
    data.put("cell", cluster=torch.randint(clusters, (num_cells,), generator=generator))
    return data


@pytest.fixture(scope="module")
def slides():
    return [prepared(200, 0), prepared(90, 1)]


def test_every_cell_is_core_once_and_clusters_keep_their_share(slides):
    loader = StrataLoader(slides, 40, num_parts=2, shuffle=True)
    seen = [np.zeros(200), np.zeros(90)]
    for batch in loader:
        for part, slide in enumerate(batch.slide.tolist()):
            core = batch.core & (batch.batch == part)
            seen[slide][batch.cell_index[core].numpy()] += 1
            clusters = torch.bincount(batch.cluster[core], minlength=4)
            assert int(clusters.min()) >= 2
            whole = torch.bincount(slides[slide].cluster, minlength=4) / slides[slide].num_nodes
            assert torch.allclose(clusters / clusters.sum(), whole, atol=0.15)
    assert all((each >= 1).all() for each in seen)
    assert np.concatenate(seen).mean() < 1.2


def test_a_cell_of_a_small_cluster_is_in_a_batch_once(slides):
    data = prepared(120, 3)
    data.put("cell", cluster=(torch.arange(120) >= 3).long())  # three against the rest
    for batch in StrataLoader([data], 60, num_parts=4, shuffle=True):
        core = batch.cell_index[batch.core]
        assert len(core.unique()) == len(core)
        assert int((batch.cluster[batch.core] == 0).sum()) == 3


def test_what_a_cell_carries_is_its_own_and_context_has_no_crops(slides):
    data = slides[0].dense()
    for batch in StrataLoader(slides[:1], 50, num_parts=2):
        rows = batch.cell_index
        assert torch.equal(batch.x, data.x[rows])
        assert torch.equal(batch.cluster, slides[0].cluster[rows])
        assert torch.equal(batch.image[batch.core], data.image[rows[batch.core]])
        assert not bool(batch.image_mask[~batch.core].any())
        assert bool(batch.image_mask[batch.core].all())
        member, group = batch.niche_index.as_tensor()
        own = batch.niche[batch.core]
        assert torch.equal(torch.bincount(group)[own], torch.full_like(own, 4))


def test_orders_depend_on_seed_and_epoch_alone(slides):
    def order(epoch, **options):
        loader = StrataLoader(slides, 40, **options)
        loader.sampler.set_epoch(epoch)
        return [batch.cell_index[batch.core].tolist() for batch in loader]

    assert order(3, shuffle=True) == order(3, shuffle=True)
    assert order(3, shuffle=True) != order(4, shuffle=True)
    assert order(3, shuffle=True) != order(3, shuffle=True, seed=1)
    assert order(0) == order(1)


def test_small_clusters_come_up_in_every_part_and_no_row_twice():
    stratum = torch.tensor([0] * 50 + [1] * 45 + [2] * 3 + [-1] * 4 + [3])
    parts = stratified(stratum, 9, 2, torch.Generator().manual_seed(0))
    for rows in parts:
        assert len(rows.unique()) == len(rows)
        assert torch.bincount(stratum[rows]).tolist()[2:] == [2, 1]
        assert int(stratum[rows].min()) == 0
    covered = torch.cat(parts).unique()
    assert torch.equal(covered, (stratum >= 0).nonzero().squeeze(1))


def test_held_out_cells_are_never_core(slides):
    data = slides[1].clone()
    data.core = torch.arange(90) < 30
    found = torch.cat([b.cell_index[b.core] for b in StrataLoader([data], 16)])
    assert sorted(set(found.tolist())) == list(range(30))
    data.core = torch.zeros(90, dtype=torch.bool)
    with pytest.raises(ValueError, match="cells that count, got none"):
        StrataLoader([data], 16)
    with pytest.raises(ValueError, match="'batch_size' of at least 1, got 0"):
        StrataSampler([torch.zeros(3)], 0)
