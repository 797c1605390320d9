from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import GenePanel, HierarchicalLoader, LabelSet, make_tissue
from spatiagraph.data.loader import class_weights
from spatiagraph.data.recipe import (
    KNN,
    Annotated,
    Crop,
    Feature,
    Grid,
    InGroups,
    Neighborhoods,
    Parts,
    Recipe,
)
from spatiagraph.graph import grid_niches, label_niches
from spatiagraph.nn import NichePool

SLIDES = [
    make_tissue(400, num_genes=30, image="dapi", seed=0, slide_id="a"),
    make_tissue(250, num_genes=30, image=None, seed=1, slide_id="b"),
]
PANEL = GenePanel(SLIDES[0].symbols)
RECIPE = Recipe(
    PANEL,
    graph=InGroups(),
    levels=(Grid(25.0), Grid(75.0)),
    crops=(Crop(16.0, 8), Crop(25.0, 8, of="niche"), Crop(75.0, 8, of="tissue")),
    labels=LabelSet.from_slides(SLIDES, ["cell_type"]),
)
DATA = [RECIPE(slide) for slide in SLIDES]


def whole_slide(slide, niche=Neighborhoods(15)):  # noqa: B008  # a rule is frozen
    return Recipe(PANEL, levels=(niche, Parts(256)))(slide)


def annotated(slide, niche):
    """The slide with the niche of each cell, -1 for none, in its obs."""
    slide = slide[:]
    names = [None if n < 0 else f"n{n:04d}" for n in niche.tolist()]
    slide.adata.obs["own"] = pd.Series(names, slide.adata.obs_names, dtype=object)
    return whole_slide(slide, Annotated("own"))


def core_cells(batch):
    """Slide and row of the core cells of a batch."""
    slide = batch.slide[batch.batch[batch.core]]
    return list(zip(slide.tolist(), batch.cell_index[batch.core].tolist(), strict=True))


def all_cells(slides):
    return [(i, row) for i, data in enumerate(slides) for row in range(data.num_nodes)]


def region_of(graph):
    """Region of each cell of a graph, on its slide."""
    return DATA[graph.slide].group_of_cell("tissue")[graph.cell_index]


def epoch(loader, number=0):
    loader.sampler.set_epoch(number)
    return list(loader)


def graphs_of(batches):
    return [graph for batch in batches for graph in batch.to_data_list()]


def pairs(edges):
    return set(zip(*edges.tolist(), strict=True))


@pytest.mark.parametrize("cells_per_step", [60, 100, 333, 5000])
def test_every_cell_is_core_once_and_no_step_is_too_large(cells_per_step):
    loader = HierarchicalLoader(DATA, cells_per_step)
    for number in range(3):
        batches = epoch(loader, number)
        assert len(batches) == len(loader)
        assert all(0 < batch.core.sum() <= cells_per_step for batch in batches)
        assert all(batch.core.all() for batch in batches)  # niches do not overlap
        assert sorted(cell for b in batches for cell in core_cells(b)) == all_cells(DATA)
    assert len(loader) <= 2 + 650 // (cells_per_step / 2)


def test_a_step_mixes_regions_of_all_slides():
    first = epoch(HierarchicalLoader(DATA, 200, seed=1))[0]
    assert first.num_graphs == 2
    assert first.gene_mask.shape == (2, 30)
    drawn = [
        torch.unique(DATA[g.slide].group_of_cell("tissue")[g.cell_index])
        for g in graphs_of([first])
    ]
    assert first.num_items("tissue") == sum(map(len, drawn))
    assert sum(map(len, drawn)) > 3


@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, graph=KNN(8))], ids=["niche", "knn"])
def test_a_graph_is_whole_niches_in_their_regions_and_nothing_else(recipe):
    slides = [recipe(slide) for slide in SLIDES]
    for graph in graphs_of(epoch(HierarchicalLoader(slides, 150))):
        whole, rows = slides[graph.slide], graph.cell_index
        drawn = whole.niche[rows].unique()
        assert_close(torch.isin(whole.niche, drawn).nonzero().squeeze(1), rows.sort().values)
        assert graph.num_items("niche") == len(drawn)
        assert_close(graph.niche_pos[graph.niche], whole.niche_pos[whole.niche[rows]])
        region = whole.group_of_cell("tissue")[rows]
        assert_close(graph.tissue_pos[graph.group_of_cell("tissue")], whole.tissue_pos[region])
        assert graph.num_items("tissue") == len(region.unique())

        graph.edge_index.validate()
        source, target = whole.edge_index.as_tensor()
        inside = torch.isin(source, rows) & torch.isin(target, rows)
        inside &= whole.group_of_cell("tissue")[source] == whole.group_of_cell("tissue")[target]
        assert pairs(rows[graph.edge_index.as_tensor()]) == pairs(
            torch.stack([source, target])[:, inside]
        )

        graph.niche_index.validate()
        member, niche = graph.niche_index.as_tensor()
        assert_close(graph.niche[member], niche)
        assert member.unique().numel() == member.numel() == graph.num_nodes


def test_regions_stay_whole_where_a_step_has_room_for_two():
    graphs = graphs_of(epoch(HierarchicalLoader(DATA, 400)))
    drawn = [
        (g.slide, r)
        for g in graphs
        for r in DATA[g.slide].group_of_cell("tissue")[g.cell_index].unique()
    ]
    assert len(drawn) == sum(data.num_items("tissue") for data in DATA)  # each in one step only


def test_features_of_every_level_come_along_and_missing_ones_are_masked():
    full = [data.dense() for data in DATA]
    for graph in graphs_of(epoch(HierarchicalLoader(DATA, 150))):
        whole, rows = full[graph.slide], graph.cell_index
        assert_close(graph.x, whole.x[rows])
        assert_close(graph.labels, whole.labels[rows])
        assert_close(graph.depth, whole.depth[rows])
        if graph.slide == 1:
            for key in ("image_mask", "niche_image_mask", "tissue_image_mask"):
                assert not graph[key].any()
            assert graph.image.shape == (graph.num_nodes, 1, 8, 8)
            assert (graph.window_um > 0).all()
            continue
        assert_close(graph.image, whole.image[rows])
        assert_close(graph.window_um, whole.window_um[rows])
        niche, region = whole.niche[rows], whole.group_of_cell("tissue")[rows]
        assert_close(graph.niche_image[graph.niche], whole.niche_image[niche])
        assert_close(graph.tissue_image[graph.group_of_cell("tissue")], whole.tissue_image[region])


def test_two_slides_in_one_batch_equal_two_separate_runs():
    """SPATIA fact 19."""
    torch.manual_seed(0)
    pool = NichePool(30, heads=2)
    torch.nn.init.normal_(pool.query)
    for batch in epoch(HierarchicalLoader(DATA, 150)):
        together = pool(batch.x, batch.niche_index, batch.num_items("niche")).h
        graphs = graphs_of([batch])
        alone = [pool(graph.x, graph.niche_index, graph.num_items("niche")).h for graph in graphs]
        assert_close(together, torch.cat(alone))


def test_a_niche_of_one_cell_is_a_niche():
    """SPATIA fact 19."""
    data = replace(RECIPE, levels=(Grid(1.0), Grid(75.0)), crops=())(SLIDES[1])
    batches = epoch(HierarchicalLoader([data], 50))
    assert sorted(cell for b in batches for cell in core_cells(b)) == all_cells([data])
    assert all(batch.num_items("niche") == batch.num_nodes for batch in batches)


def test_large_niches_and_regions_come_up_in_random_chunks():
    slide = SLIDES[0]
    data = whole_slide(slide, Annotated("niche"))
    loader = HierarchicalLoader([data], 80, max_cells=20, max_niches=3)
    sizes = torch.bincount(data.niche)
    assert sizes.max() > 40
    chunks = []
    for number in range(2):
        batches = epoch(loader, number)
        assert len(batches) == len(loader)
        assert sorted(cell for b in batches for cell in core_cells(b)) == all_cells([data])
        found = set()
        for graph in graphs_of(batches):
            assert torch.bincount(graph.tissue).max() <= 3
            for m in range(graph.num_items("niche")):
                rows = graph.cell_index[graph.niche == m]
                assert len(data.niche[rows].unique()) == 1
                found.add(frozenset(rows.tolist()))
        assert len(found) == int((-(-sizes // 20)).sum())
        assert max(map(len, found)) <= 20
        assert min(map(len, found)) >= 10
        chunks.append(found)
    assert not chunks[0] & chunks[1]


def test_niches_that_come_in_parts_are_said(caplog):
    niche = torch.repeat_interleave(torch.arange(3), torch.tensor([100, 130, 20]))
    slide = make_tissue(250, num_genes=30, image=None, seed=0)
    data = annotated(slide, niche)
    with caplog.at_level("INFO", logger="spatiagraph"):
        HierarchicalLoader([data], 300, max_cells=120)
        assert "Niches of more than 120 cells: 1." in caplog.text
        caplog.clear()
        HierarchicalLoader([data], 300, max_cells=130)
        assert not caplog.text


def test_where_niches_overlap_a_cell_is_core_with_its_own():
    data = whole_slide(SLIDES[0])  # a cell and its 15 nearest
    batches = epoch(HierarchicalLoader([data], 120))
    assert sorted(cell for b in batches for cell in core_cells(b)) == all_cells([data])
    whole = pairs(data.niche_index.as_tensor())
    for graph in graphs_of(batches):
        assert graph.core.sum() == graph.num_items("niche") < graph.num_nodes
        graph.niche_index.validate()
        member, niche = graph.niche_index.as_tensor()
        assert (torch.bincount(niche) == 16).all()
        centre = torch.empty(graph.num_items("niche"), dtype=torch.long)
        centre[graph.niche[graph.core]] = graph.cell_index[graph.core]
        assert pairs(torch.stack([graph.cell_index[member], centre[niche]])) <= whole
    small = epoch(HierarchicalLoader([data], 120, max_cells=5))
    for batch in small:
        member, niche = batch.niche_index.as_tensor()
        assert (torch.bincount(niche) == 5).all()
        assert (batch.niche[member] == niche).sum() == batch.num_items(
            "niche"
        )  # its own cell stays


def test_context_without_a_niche_has_none_of_another_slide_either():
    slides = [whole_slide(slide) for slide in SLIDES]
    batches = epoch(HierarchicalLoader(slides, 200))
    assert any(len(batch.slide) == 2 for batch in batches)
    for batch in batches:
        assert torch.equal(batch.niche >= 0, batch.core)


def test_cells_without_niche_never_come_up():
    niche = grid_niches(SLIDES[0].pos, 25.0)
    niche = label_niches(torch.where(niche % 3 == 0, -1, niche))
    data = annotated(SLIDES[0], niche)
    batches = epoch(HierarchicalLoader([data], 100))
    rows = sorted(row for b in batches for _, row in core_cells(b))
    assert rows == (niche >= 0).nonzero().squeeze(1).tolist()


@pytest.mark.parametrize("weighted", [False, True])
def test_draws_depend_on_seed_and_epoch_alone(weighted):
    weights = class_weights([data.labels[:, 0] for data in DATA]) if weighted else None

    def cells(seed, number):
        loader = HierarchicalLoader(DATA, 100, max_cells=10, weights=weights, seed=seed)
        first = iter(loader)  # a resumed trainer sets the epoch after it made the iterator
        loader.sampler.set_epoch(number)
        return [core_cells(batch) for batch in first]

    assert cells(0, 3) == cells(0, 3)
    assert cells(0, 3) != cells(0, 4)
    assert cells(0, 3) != cells(1, 3)


def test_loader_leaves_the_slides_and_the_global_random_state_alone():
    before, state = DATA[0].x.values().clone(), torch.get_rng_state()
    for batch in HierarchicalLoader(DATA, 200):
        batch.x.zero_()
    assert_close(DATA[0].x.values(), before)
    assert_close(torch.get_rng_state(), state)


def rare_type_in_a_corner():
    """One cell in ten is of a type that lives in one corner, as tissue has it."""
    data = whole_slide(SLIDES[0], Grid(25.0))
    far = (data.pos - data.pos.min(0).values).norm(dim=1)
    label = torch.full((400,), 0)
    label[far.argsort()[:40]] = 1
    label[::7] = -1
    return data, label


def test_weighted_niches_bring_classes_closer_to_equal():
    """SPATIA defect 8: the balancing sampler is really used."""
    data, label = rare_type_in_a_corner()
    weights = class_weights([label])
    balanced = HierarchicalLoader([data], 100, weights=weights, seed=0)

    def share_of_rare(loader):
        rows = [r for n in range(5) for b in epoch(loader, n) for _, r in core_cells(b)]
        seen = label[rows]
        return float((seen == 1).sum() / (seen >= 0).sum())

    assert share_of_rare(HierarchicalLoader([data], 100)) == pytest.approx(34 / 342, abs=1e-6)
    # what drawing niches by the mean weight of their cells gives
    mean = torch.zeros(data.num_items("niche")).index_add_(0, data.niche, weights[0])
    mean /= torch.bincount(data.niche)
    rare, known = mean[data.niche][label == 1].sum(), mean[data.niche][label >= 0].sum()
    expected = float(rare / known)
    assert expected > 0.3
    assert share_of_rare(balanced) == pytest.approx(expected, abs=0.06)


def test_weighted_epochs_are_as_long_and_niches_stay_whole():
    data, label = rare_type_in_a_corner()
    loader = HierarchicalLoader([data], 100, weights=class_weights([label]))
    sizes = torch.bincount(data.niche)
    batches = epoch(loader)
    assert len(batches) == len(loader)
    assert 400 <= sum(batch.num_nodes for batch in batches) < 400 + sizes.max()
    assert all(batch.num_nodes <= 100 for batch in batches)
    for graph in graphs_of(batches):
        drawn = data.niche[graph.cell_index]
        for m in range(graph.num_items("niche")):  # whole, and a niche that is drawn twice is two
            rows = drawn[graph.niche == m]
            assert len(rows.unique()) == 1
            assert len(rows) == sizes[rows[0]]
        assert_close(
            graph.niche[graph.niche_index.as_tensor()[0]], graph.niche_index.as_tensor()[1]
        )


def test_class_weights_make_classes_equal_and_unknown_cells_average():
    labels = [torch.tensor([0, 0, 0, 2, -1]), torch.tensor([2, -1, 0])]
    weights = class_weights(labels)
    label, weight = torch.cat(labels), torch.cat(weights)
    assert_close(weight[label == 0].sum(), weight[label == 2].sum())
    assert_close(weight[label >= 0].mean(), torch.tensor(1.0))
    assert (weight[label < 0] == 1).all()
    assert class_weights([torch.tensor([-1, -1])])[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells_per_step": 3}, "'cells_per_step' of at least .* twice the largest niche, got 3"),
        ({"max_cells": 0}, "'max_cells' to be positive, got 0"),
        ({"max_niches": 0}, "'max_niches' to be positive, got 0"),
        ({"weights": [torch.ones(400)]}, r"shapes \[\[400\], \[250\]\], got \[\[400\]\]"),
        ({"weights": [torch.ones(400), -torch.ones(250)]}, "got -1.0 .* 250 cells of slide 1"),
        ({"weights": [torch.zeros(400), torch.zeros(250)]}, "all are 0"),
    ],
)
def test_limits_and_weights_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalLoader(DATA, **options)


def test_slides_that_were_prepared_in_other_ways_are_refused():
    other = replace(RECIPE, labels=LabelSet.from_slides(SLIDES, ["cell_type", "niche"]))(SLIDES[1])
    with pytest.raises(ValueError, match=r"'labels' of \[2\] per item for slide 1 and of \[1\]"):
        HierarchicalLoader([DATA[0], other])
    cached = DATA[1].clone()
    cached.put("cell", z=torch.zeros(250, 4))
    with pytest.raises(ValueError, match=r"Expected \['z'\] in all slides or in none"):
        HierarchicalLoader([DATA[0], cached])
    with pytest.raises(ValueError, match="at least one slide"):
        HierarchicalLoader([])


def test_a_feature_of_some_slides_alone_is_refused_and_not_zero_in_the_others():
    slides = [SLIDES[0][:], SLIDES[1]]
    slides[0].adata.obsm["X_uni"] = np.ones((400, 3))
    for of in ("cell", "niche"):
        feature = Feature("X_uni", of=of, required=False)
        data = [replace(RECIPE, features=(feature,))(slide) for slide in slides]
        with pytest.raises(ValueError, match=rf"Expected \['{feature.name}'\] in all slides"):
            HierarchicalLoader(data)
