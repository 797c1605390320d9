import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch

from spatiagraph.data import GenePanel, LabelSet, SlideImage, TileLoader, make_tissue, to_data
from spatiagraph.data.convert import batched
from spatiagraph.data.recipe import (
    KNN,
    Annotated,
    Boxes,
    Circles,
    Crop,
    Feature,
    GraphRule,
    Grid,
    InGroups,
    LevelRule,
    Neighborhoods,
    Parts,
    Radius,
    Ranks,
    Recipe,
    Whole,
)
from spatiagraph.graph import (
    grid_niches,
    grid_patches,
    kd_parts,
    knn_graph,
    neighborhood_niches,
    niche_positions,
    radius_graph,
)

SLIDE = make_tissue(120, num_genes=30, image="dapi", seed=0)


def test_data_holds_what_the_slide_holds():
    data = to_data(SLIDE)
    np.testing.assert_array_equal(data.x.numpy(), SLIDE.counts.toarray())
    assert_close(data.depth, data.x.sum(1))
    assert data.gene_mask.all()
    distance = (data.pos[0] - data.pos[1]).norm().item()
    assert distance == pytest.approx(np.linalg.norm(SLIDE.pos[0] - SLIDE.pos[1]), rel=1e-5)
    assert data.validate()


def test_sparse_and_dense_counts_are_the_same():
    assert_close(Recipe(GenePanel(SLIDE.symbols))(SLIDE).x.to_dense(), to_data(SLIDE).x)


def test_genes_come_in_the_order_of_the_panel_and_unmeasured_ones_are_masked():
    panel = GenePanel([SLIDE.symbols[4], "not measured", SLIDE.symbols[1]])
    data = to_data(SLIDE, panel=panel)
    assert data.gene_mask.tolist() == [True, False, True]
    np.testing.assert_array_equal(data.x[:, 0].numpy(), SLIDE.counts.toarray()[:, 4])
    np.testing.assert_array_equal(data.x[:, 2].numpy(), SLIDE.counts.toarray()[:, 1])
    assert_close(data.depth, torch.from_numpy(SLIDE.depth))  # over all genes of the slide


def test_grid_niches_hold_every_cell_once():
    data = to_data(SLIDE, levels=(Grid(54.4), Parts(256)))
    cell, niche = data.niche_index.as_tensor()
    assert cell.sort().values.tolist() == list(range(120))
    assert_close(niche, data.niche[cell])
    assert data.tissue.numel() == data.num_items("niche") == int(data.niche.max()) + 1


def test_cells_without_niche_belong_to_no_region():
    niche = torch.arange(120) % 4
    niche[::3] = -1
    slide = SLIDE[:]
    slide.adata.obs["quarter"] = pd.Series(niche.numpy(), slide.adata.obs_names).replace(-1, np.nan)
    data = to_data(slide, levels=(Annotated("quarter"), Parts(256)))
    assert (data.group_of_cell("tissue")[::3] == -1).all()
    assert data.niche_index.size(1) == int((niche >= 0).sum())


def test_batching_keeps_slides_niches_and_regions_apart():
    parts = [to_data(SLIDE), to_data(make_tissue(90, num_genes=30, image=None, seed=1))]
    batch = Batch.from_data_list(parts)
    slide = batch.batch
    source, target = batch.edge_index.as_tensor()
    assert (slide[source] == slide[target]).all()
    member, niche = batch.niche_index.as_tensor()
    assert_close(slide[member], (niche >= 120).long())
    assert batch.niche.max() == 209
    assert batch.gene_mask.shape == (2, 30)
    assert batch.tissue.max() == parts[0].num_items("tissue") + parts[1].num_items("tissue") - 1


def test_crops_come_with_a_mask():
    data = to_data(SLIDE, crops=(Crop(16.0, 24),))
    assert data.image.shape == (120, 1, 24, 24)
    assert 0.0 <= data.image.min() <= data.image.max() <= 1.0
    assert data.image_mask.shape == (120,)
    with pytest.raises(ValueError, match="Expected an image with slide"):
        to_data(make_tissue(90, num_genes=30, image=None), crops=(Crop(16.0, 24),))


def test_recipe_round_trips_and_refuses_a_tiny_slide():
    recipe = Recipe(GenePanel(SLIDE.symbols), crops=(Crop(16.0),))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match=r"at least 16 cells for Neigh.* got 1 in 'synthetic'"):
        recipe(SLIDE[:1])


def test_any_graph_will_do():
    data = to_data(SLIDE, graph=KNN(3))
    assert data.edge_index.size(1) == 360


# Recipe -------------------------------------------------------------------------------------------

PANEL = GenePanel(SLIDE.symbols)
LABELS = LabelSet.from_slides([SLIDE], ["cell_type", "niche"])
CROPS = (Crop(16.0, 8), Crop(25.0, 8, of="niche"), Crop(50.0, 8, of="tissue"))
SPATIA = Recipe(
    PANEL, graph=InGroups(), levels=(Grid(25.0), Grid(50.0)), crops=CROPS, labels=LABELS
)


def pairs(edge_index):
    return set(zip(*edge_index.as_tensor().tolist(), strict=True))


def test_a_recipe_without_options_is_the_graph_of_to_data():
    data = Recipe(PANEL)(SLIDE)
    assert sorted(data.keys()) == sorted(to_data(SLIDE).keys())
    assert_close(data.edge_index.as_tensor(), knn_graph(SLIDE.pos, 8).as_tensor())
    assert_close(
        data.niche_index.as_tensor(),
        neighborhood_niches(SLIDE.pos, 15, max_ratio=None).as_tensor(),
    )
    assert_close(data.tissue, kd_parts(niche_positions(SLIDE.pos, data.niche_index), 256))


def test_cells_of_a_niche_are_joined_with_each_other_and_themselves():
    data = SPATIA(SLIDE)
    same = data.niche[:, None] == data.niche[None]
    assert pairs(data.edge_index) == set(map(tuple, same.nonzero().tolist()))
    assert_close(data.niche, grid_niches(SLIDE.pos, 25.0))


def test_whole_squares_of_niches_fill_a_square_of_tissue():
    data = SPATIA(SLIDE)
    patches = grid_patches(SLIDE.pos, 25.0)
    block = torch.stack([patches.row // 2, patches.col // 2], 1)
    same = (block[:, None] == block[None]).all(-1)
    assert torch.equal(same, data.tissue[:, None] == data.tissue[None])


def test_niches_may_be_circles_or_labels():
    circles = Recipe(PANEL, graph=Radius(20.0), levels=(Circles(20.0), Parts()))(SLIDE)
    assert pairs(circles.edge_index) == pairs(radius_graph(SLIDE.pos, 20.0))
    near = pairs(circles.edge_index) | {(i, i) for i in range(120)}
    assert pairs(circles.niche_index) == near

    slide = SLIDE[:]
    slide.adata.obs["area"] = np.array(["b", "a", None] * 40, dtype=object)
    data = Recipe(PANEL, graph=InGroups(), levels=(Annotated("area"), Parts()))(slide)
    assert data.niche[:3].tolist() == [1, 0, -1]
    assert data.num_items("niche") == 2
    assert (2, 2) in pairs(data.edge_index)  # a cell without niche hears itself alone
    assert not {(2, 5), (5, 2)} & pairs(data.edge_index)


def test_niches_may_be_boxes_or_leave_out_what_is_far():
    boxes = Recipe(PANEL, levels=(Boxes(30.0),))(SLIDE)
    apart = np.abs(SLIDE.pos[:, None] - SLIDE.pos[None]).max(2)
    assert pairs(boxes.niche_index) == {tuple(map(int, p)) for p in np.argwhere(apart <= 15.0)}

    plain, near = (
        Recipe(PANEL, levels=(Neighborhoods(6, max_ratio=ratio),))(SLIDE) for ratio in (None, 1.5)
    )
    expected = pairs(neighborhood_niches(SLIDE.pos, 6))
    assert pairs(near.niche_index) == expected < pairs(plain.niche_index)
    with pytest.raises(ValueError, match="'max_ratio' of Neighborhoods as a number above 0"):
        Neighborhoods(6, max_ratio=0.0)


def test_crops_of_niches_and_regions_show_the_slide_around_their_centres():
    data = SPATIA(SLIDE).dense()
    centres = niche_positions(SLIDE.pos, data.niche)
    crops, mask = SLIDE.image.crops(centres.numpy(), 25.0, 8)
    np.testing.assert_array_equal(data.niche_image, crops)
    np.testing.assert_array_equal(data.niche_image_mask, mask)
    crops, _ = SLIDE.image.crops(niche_positions(centres, data.tissue).numpy(), 50.0, 8)
    np.testing.assert_array_equal(data.tissue_image, crops)
    assert data.tissue_image_mask.shape == (data.num_items("tissue"),)
    assert_close(data.window_um, torch.full((120,), 16.0))


def test_each_cell_may_have_a_window_of_its_own():
    slide = SLIDE[:]
    slide.adata.obs["box"] = np.r_[np.nan, np.linspace(8, 30, 119)]
    data = Recipe(PANEL, crops=(Crop(13.6, 8, window_key="box"),))(slide).dense()
    window = np.r_[13.6, np.linspace(8, 30, 119)]
    assert_close(data.window_um, torch.from_numpy(window).float())
    np.testing.assert_array_equal(data.image, SLIDE.image.crops(SLIDE.pos, window, 8)[0])
    with pytest.raises(ValueError, match=r"\['box'\], got nan for row 0 'cell0'. Give window"):
        Recipe(PANEL, crops=(Crop(None, window_key="box"),))(slide)
    with pytest.raises(ValueError, match=r"'bx' in the obs .* Nearest: 'box'"):
        Recipe(PANEL, crops=(Crop(window_key="bx"),))(slide)
    slide.adata.obs["box"] = "large"
    with pytest.raises(ValueError, match=r"sizes in µm in obs\['box'\] of slide .* 'large'"):
        Recipe(PANEL, crops=(Crop(window_key="box"),))(slide)


def test_slides_without_image_have_no_crops():
    data = SPATIA(make_tissue(90, num_genes=30, image=None)).dense()
    assert not [key for key in data.keys() if "image" in key or "window" in key]


@pytest.mark.parametrize("crop", CROPS)
def test_crops_larger_than_the_image_are_refused(crop):
    large = replace(crop, window_um=5000.0)
    recipe = replace(SPATIA, crops=tuple(large if c == crop else c for c in CROPS))
    message = f"of='{crop.of}'.* no larger than the image of slide 'synthetic' .* 5000 µm"
    with pytest.raises(ValueError, match=message):
        recipe(SLIDE)


def test_labels_come_as_numbers():
    assert_close(SPATIA(SLIDE).labels, LABELS.encode(SLIDE))


def test_recipe_with_all_rules_round_trips():
    full = replace(
        SPATIA, features=("X_pca", Feature("X_uni", of="tissue")), tokens=Ranks(64, (1.0,) * 30)
    )
    for recipe in (
        SPATIA,
        full,
        Recipe(PANEL, levels=()),
        Recipe(PANEL, levels=[Whole("section")]),
    ):
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_recipes_of_flags_open_as_rules():
    """A recipe saved by version 0.1.0: one flat table, options it did not know yet left out."""
    old = {"panel": PANEL.to_dict(), "niche_size": 15}
    assert Recipe.from_dict(old) == Recipe(PANEL)
    old = {
        "panel": PANEL.to_dict(),
        **{
            "graph": "niche",
            "niche": "grid",
            "niche_um": 25.0,
            "tissue": "grid",
            "tissue_um": 50.0,
        },
        **{"window_um": 16.0, "size_px": 8, "niche_image": True, "tissue_image": True},
        "labels": LABELS.to_dict(),
    }
    assert Recipe.from_dict(old) == SPATIA
    with pytest.raises(ValueError, match=r"'niche' of a saved recipe in .* got \['grid'\]"):
        Recipe.from_dict({**old, "niche": ["grid"]})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (lambda: {"graph": "delaunay"}, "'graph' of GraphRule rules, got str"),
        (lambda: {"levels": (KNN(8),)}, "'levels' of LevelRule rules, got KNN"),
        (lambda: {"levels": (Grid(0),)}, "'size_um' of Grid as a number above 0, got 0"),
        (lambda: {"graph": KNN(2.5)}, "'k' of KNN as a whole number above 0, got 2.5"),
        (lambda: {"graph": KNN(10**9)}, "'k' of KNN of at most 100,000, got 1,000,000,000"),
        (lambda: {"levels": (Neighborhoods(10**9),)}, "'k' of Neighborhoods of at most 100,000"),
        (lambda: {"levels": (Grid(), Grid(9.0, "niche"))}, "different names, got niche, niche"),
        (lambda: {"levels": (Grid(), Parts(), Parts())}, "a 'name' for level 3"),
        (lambda: {"graph": InGroups()}, "do not overlap"),
        (lambda: {"graph": InGroups("tissue"), "levels": (Grid(), Parts())}, "do not overlap"),
        (lambda: {"crops": (Crop(of="region"),)}, "of 'cell' or a level"),
        (lambda: {"crops": (Crop(9.0), Crop(20.0))}, "one crop and one feature of a kind"),
        (lambda: {"crops": (Crop(None),)}, "'window_um' or 'window_key' of Crop, got neither"),
        (lambda: {"features": (Feature("X", of="no"),)}, "of 'cell' or a level"),
        (lambda: {"levels": (Annotated("tma", "core"),)}, "a batch has 'core' already"),
        (lambda: {"levels": (Grid(), Whole("slide"))}, "a batch has 'slide' already"),
        (lambda: {"levels": (Grid(name="edge"),)}, "a batch has 'edge_index' already"),
        (lambda: {"features": ("depth",)}, "a batch has 'depth' already"),
        (lambda: {"features": ("niche_pos",)}, "a batch has 'niche_pos' already"),
    ],
)
def test_recipe_refuses_rules_that_do_not_exist_or_go_together(rules, message):
    with pytest.raises(ValueError, match=message):
        Recipe(PANEL, **rules())


def test_without_levels_there_is_a_graph_of_cells_alone():
    data = to_data(SLIDE, levels=())
    assert data.level_names == ()
    assert data.edge_index.size(1) == 960
    assert not [key for key in data.keys() if "niche" in key or "tissue" in key]


def test_a_third_level_groups_the_second():
    data = to_data(SLIDE, levels=(Grid(25.0), Grid(50.0), Whole("section")))
    assert data.level_names == ("niche", "tissue", "section")
    assert data.section.tolist() == [0] * data.num_items("tissue")
    assert data.group_of_cell("section").tolist() == [0] * 120
    assert_close(data.section_pos[0], data.tissue_pos.mean(0), rtol=1e-4, atol=1e-4)


def test_features_travel_with_cells_or_as_means_with_their_groups():
    slide = SLIDE[:]
    slide.adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(120, 3))
    data = to_data(
        slide,
        levels=(Grid(25.0), Grid(50.0)),
        features=("X_pca", Feature("X_pca", of="niche"), Feature("X_pca", of="tissue")),
    )
    values = torch.from_numpy(slide.adata.obsm["X_pca"]).float()
    assert_close(data.X_pca, values)
    here = data.niche == 2
    assert_close(data.niche_X_pca[2], values[here].mean(0))
    below = data.niche_X_pca[data.tissue == 1]
    assert_close(data.tissue_X_pca[1], below.mean(0))
    with pytest.raises(ValueError, match=r"obsm\['X_uni'\] in slide 'synthetic', got none"):
        to_data(slide, features=("X_uni",))
    assert "X_uni" not in to_data(slide, features=(Feature("X_uni", required=False),))
    slide.adata.obsm["X_pca"][7, 1] = np.nan
    with pytest.raises(ValueError, match="finite values in .* row 7 'cell7'"):
        to_data(slide, features=("X_pca",))


def test_tokens_take_the_place_of_dense_counts():
    data = to_data(SLIDE, tokens=Ranks(5), levels=())
    assert "x" not in data
    for cell in (0, 50):
        counts = SLIDE.counts[[cell]].toarray()[0]
        order = np.argsort(-counts, kind="stable")[:5] + 1
        start, end = data.gene_ids.crow_indices()[cell : cell + 2]
        assert data.gene_ids.values()[start:end].tolist() == order.tolist()
        assert data.gene_ids.col_indices()[start:end].tolist() == list(range(5))


def test_tokens_of_parts_and_batches_of_slides_stay_ragged():
    data = to_data(SLIDE, tokens=Ranks(7), levels=())
    rows = torch.tensor([5, 0, 9])
    part = data.subgraph(rows).gene_ids
    ptr = data.gene_ids.crow_indices()
    expected = torch.cat([data.gene_ids.values()[ptr[i] : ptr[i + 1]] for i in rows])
    assert part.layout is torch.sparse_csr
    assert part.values().tolist() == expected.tolist()
    both = batched([data.subgraph(rows), data.subgraph(rows[:1])]).gene_ids
    assert both.shape[0] == 4
    again = data.gene_ids.values()[ptr[5] : ptr[6]]
    assert both.values().tolist() == [*expected.tolist(), *again.tolist()]


@dataclass(frozen=True)
class EveryOther(GraphRule):
    """A graph rule of a user: cells hear the next one."""

    step: int = 1

    def __call__(self, members):
        row = torch.arange(len(members.pos))
        return EdgeIndex(
            torch.stack([(row + self.step) % len(row), row]),
            sparse_size=(len(row), len(row)),
            sort_order="col",
        )


@dataclass(frozen=True)
class Halves(LevelRule):
    """A level rule of a user: left and right."""

    name: str | None = None

    def __call__(self, members):
        return (members.pos[:, 0] > members.pos[:, 0].median()).long()


@dataclass(frozen=True)
class Returned(LevelRule):
    """A level rule of a user: groups as they are, in any form."""

    groups: object = None
    name: str | None = None

    def __call__(self, members):
        return self.groups


def test_groups_of_a_user_need_no_order_and_no_numbers_without_gaps():
    row = torch.arange(120)
    edges = torch.stack([torch.cat([row, (row + 1) % 120]), torch.cat([row, row])])
    pairs_of_cells = Recipe(PANEL, levels=(Returned(edges), Parts(30)))(SLIDE)
    assert pairs_of_cells.niche_index.validate().is_sorted_by_col
    assert pairs(pairs_of_cells.niche_index) == set(zip(*edges.tolist(), strict=True))
    gaps = Recipe(PANEL, levels=(Returned(row // 40 * 5 - 5), Parts(30)))(SLIDE)
    assert gaps.niche.tolist() == [-1] * 40 + [0] * 40 + [1] * 40
    assert gaps.num_items("niche") == gaps.tissue.numel() == 2
    assert gaps.niche_pos.isfinite().all()
    assert len(list(TileLoader([pairs_of_cells, gaps]))) == 2


@pytest.mark.parametrize(
    ("groups", "got"),
    [
        (torch.zeros(3, dtype=torch.long), r"int64 \[3\]"),
        (torch.zeros(120), r"float32 \[120\]"),
        (torch.tensor([[0], [120]]), r"int64 \[2, 1\]"),
    ],
    ids=["length", "type", "range"],
)
def test_what_is_no_group_of_each_cell_is_refused(groups, got):
    message = (
        rf"(?s)group of each of 120 members as integers .* got {got}, of Returned.*'synthetic'"
    )
    with pytest.raises(ValueError, match=message):
        Recipe(PANEL, levels=(Returned(groups),))(SLIDE)


def test_rules_of_a_user_are_saved_and_opened_like_ours():
    recipe = Recipe(PANEL, graph=EveryOther(2), levels=(Halves(),))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    data = recipe(SLIDE)
    assert data.level_names == ("niche",)
    assert torch.bincount(data.niche).tolist() == [60, 60]
    assert data.edge_index.as_tensor()[0, :3].tolist() == [2, 3, 4]
    saved = recipe.to_dict()
    wrong = {
        "a class that is meant to be saved": {"class": "spatiagraph.data.recipe.rule.obs_column"},
        "Expected GraphRule": {"class": "spatiagraph.data.recipe.levels.Grid"},
        "Expected arguments of a EveryOther": {**saved["graph"], "args": {"stride": 2}},
    }
    for message, graph in wrong.items():
        with pytest.raises(ValueError, match=message):
            Recipe.from_dict({**saved, "graph": {"args": {}, **graph}})


def test_crops_are_read_when_they_are_asked_for():
    data = SPATIA(SLIDE)
    assert "image" not in data
    source = data.crop_sources["image"]
    rows = torch.tensor([7, 3, 7])
    expected, inside = SLIDE.image.crops(SLIDE.pos[rows.numpy()], 16.0, 8)
    for held in (source, source.select(np.arange(120))):
        crops, mask = held.read(rows)
        assert_close(crops, torch.from_numpy(expected))
        assert_close(mask, torch.from_numpy(inside))
    assert_close(source.read(rows)[0], crops)  # kept from before
    shuffled = source.select(np.arange(120)[::-1])
    assert_close(shuffled.read(np.array([119 - 7]))[0][0], crops[0])


def test_recipe_refuses_a_slide_without_its_niches():
    recipe = Recipe(PANEL, levels=(Annotated("nich"),))
    with pytest.raises(ValueError, match=r"'nich' in the obs of .* Nearest: 'niche'"):
        recipe(SLIDE)
    slide = SLIDE[:]
    slide.adata.obs["nich"] = np.nan
    with pytest.raises(ValueError, match="all 120 are missing"):
        recipe(slide)


def test_niches_are_the_same_tissue_on_a_platform_with_other_pixels():
    """SPATIA fact 3: niches and their images, of one slide scanned at 0.5 and at 0.25 µm/px."""
    fine = np.repeat(np.repeat(SLIDE.image.pixels(slice(None), slice(None)), 2, 0), 2, 1)
    other = SLIDE[:]
    other.image = SlideImage([fine], mpp=0.25)
    other.image.value_range = SLIDE.image.value_range
    a, b = SPATIA(SLIDE).dense(), SPATIA(other).dense()
    assert_close(b.niche, a.niche)
    assert_close(b.tissue, a.tissue)
    # windows are snapped to whole pixels, which are half as large here
    assert (b.niche_image - a.niche_image).abs().mean() < 0.1 * a.niche_image.std()


def test_a_niche_may_have_one_cell():
    """SPATIA fact 19."""
    data = replace(SPATIA, levels=(Grid(1.0), Grid(50.0)), crops=())(SLIDE)
    assert data.num_items("niche") == 120
    assert pairs(data.edge_index) == {(i, i) for i in range(120)}


def test_batching_keeps_crops_labels_and_features_of_every_level():
    """SPATIA fact 19."""
    other = make_tissue(90, num_genes=30, image="dapi", seed=1)
    parts = [SPATIA(SLIDE).dense(), SPATIA(other).dense()]
    for data in parts:
        data.z = torch.randn(data.num_nodes, 3, generator=torch.Generator().manual_seed(0))
    batch = Batch.from_data_list(parts)
    for key in (
        *("image", "image_mask", "window_um", "labels", "z"),
        *("niche_image", "niche_image_mask", "tissue_image", "tissue_image_mask"),
    ):
        assert_close(batch[key], torch.cat([data[key] for data in parts]))
    assert batch.niche_image.size(0) == batch.num_items("niche") == batch.tissue.numel()
    assert batch.tissue_image.size(0) == batch.num_items("tissue") == int(batch.tissue.max()) + 1
    source, target = batch.edge_index.as_tensor()
    assert_close(batch.niche[source], batch.niche[target])


@pytest.mark.parametrize("key", ["X_batch_corrected", "X_index", "X_face"])
def test_batching_leaves_features_as_they_are_whatever_they_are_called(key):
    slides = [SLIDE[:], make_tissue(90, num_genes=30, image=None, seed=1)]
    for seed, slide in enumerate(slides):
        values = np.random.default_rng(seed).normal(size=(slide.num_cells, 2))
        slide.adata.obsm[key] = values.astype(np.float32)
    levels = (Grid(25.0, "batches"), Grid(50.0, "indexed"))
    recipe = Recipe(PANEL, levels=levels, features=(key, Feature(key, of="batches")))
    parts = [recipe(slide).dense() for slide in slides]
    batch = batched(parts)
    for name in (key, f"batches_{key}", "batches_pos", "indexed_pos"):
        assert_close(batch[name], torch.cat([data[name] for data in parts]))
    assert batch.batches.max() == batch.num_items("batches") - 1


def test_a_subgraph_holds_its_cells_their_edges_and_their_groups_renumbered():
    for data in (SPATIA(SLIDE), to_data(SLIDE, levels=(Neighborhoods(5), Parts(30)))):
        cells = torch.randperm(120, generator=torch.Generator().manual_seed(0))[:50]
        part = data.subgraph(cells)
        assert part.validate()
        assert part.num_nodes == 50
        assert_close(part.cell_index, cells)
        assert_close(part.depth, data.depth[cells])
        new = {int(cell): i for i, cell in enumerate(cells)}
        kept = {(new[i], new[j]) for i, j in pairs(data.edge_index) if i in new and j in new}
        assert pairs(part.edge_index) == kept
        # a cell lies in the group it lay in, at every level
        for name in data.level_names:
            own, before = part.group_of_cell(name), data.group_of_cell(name)[cells]
            assert_close(part[f"{name}_pos"][own], data[f"{name}_pos"][before])
        member, niche = part.niche_index.as_tensor()
        assert member.max() < 50
        assert niche.max() < part.num_items("niche") <= data.num_items("niche")
        assert _memberships(part, cells) == {
            (cell, centre) for cell, centre in _memberships(data, range(120)) if cell in new
        }
    assert_close(SPATIA(SLIDE).subgraph(cells).dense().image, SPATIA(SLIDE).dense().image[cells])
    with pytest.raises(ValueError, match="a mask of 120 cells, got one of 3"):
        data.subgraph(torch.tensor([True, False, True]))
    with pytest.raises(ValueError, match="every cell once"):
        data.subgraph(torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="rows of 120 cells, got 1…120"):
        data.subgraph(torch.tensor([1, 120]))


def _memberships(data, names):
    """Cells, and the centres of the niches they are part of."""
    member, niche = data.niche_index.as_tensor()
    centres = [tuple(pos) for pos in data.niche_pos.tolist()]
    return {(int(names[i]), centres[m]) for i, m in zip(member, niche, strict=True)}


def test_a_graph_knows_whether_it_is_undirected():
    assert to_data(SLIDE, graph=Radius(20.0)).is_undirected()
    assert not to_data(SLIDE, graph=KNN(3)).is_undirected()
    assert to_data(SLIDE, graph=KNN(3)).is_directed()
