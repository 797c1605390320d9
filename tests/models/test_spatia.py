"""SPATIA: what context may and may not do to a cell."""

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close

import spatiagraph as sg
from spatiagraph.data import GenePanel, Outlines, make_tissue
from spatiagraph.data.loader import TileLoader
from spatiagraph.data.recipe import (
    KNN,
    AdaptiveCrop,
    Annotated,
    Circles,
    Crop,
    Grid,
    InGroups,
    Neighborhoods,
    Radius,
)
from spatiagraph.inference.embedding import embed_data
from spatiagraph.models import Spatia, spatia_base, spatia_recipe, spatia_small, spatia_tiny
from spatiagraph.models.spatia import TINY
from spatiagraph.nn import Level, MaskedImageEncoder, PyGPool
from spatiagraph.tasks import SpatiaPretraining, SpatiaWeights, pretraining

SLIDE = make_tissue(240, num_genes=30, image="dapi", seed=0)
PANEL = GenePanel.from_slides([SLIDE])
SMALL = replace(TINY, channels=16, gene_channels=16, gene_layers=1, num_tokens=20)


def spatia(slide=SLIDE, *, open_gates=True, labels=None, options=None, size=SMALL, **rules):
    """A small model of a slide, its gates open: they hide what context does."""
    recipe = Spatia.default_recipe([slide], **rules)
    model = Spatia.for_slides([slide], size, recipe=recipe, labels=labels, **(options or {}))
    if open_gates:
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.data.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return model.eval()


def whole(model, slide=SLIDE):
    """The slide as one batch."""
    (tile,) = TileLoader([model.recipe(slide)], slide.num_cells, model.num_hops)
    return tile


TISSUE = Grid(217.6)
NICHES = {
    "grid": {},
    "knn": {"graph": KNN(16), "levels": (Neighborhoods(16), TISSUE)},
    "radius": {"graph": Radius(27.0), "levels": (Circles(27.0), TISSUE)},
    "labels": {"levels": (Annotated("niche"), TISSUE)},
}


def encoded(model, batch):
    return model.encode(model.cells(batch))


def test_context_adds_nothing_before_training():
    """SPATIA fact 16: the gates at the start."""
    model = spatia(open_gates=False)
    batch = whole(model)
    assert_close(model(*model.inputs(batch)).cell, encoded(model, batch), rtol=0, atol=0)


def test_without_niche_and_tissue_it_is_the_cell_model():
    """SPATIA fact 16: the switches."""
    model = spatia(options={"top_down": False})
    model.context_encoder.gate.data.zero_()
    model.context_encoder.change.gate.data.zero_()
    batch = whole(model)
    assert_close(model(*model.inputs(batch)).cell, encoded(model, batch), rtol=0, atol=0)


@pytest.mark.parametrize("kind", NICHES)
@torch.no_grad()
def test_tiles_give_what_the_whole_slide_gives(kind):
    model = spatia(**NICHES[kind])
    data = model.recipe(SLIDE)
    expected = embed_data(model, data, tile_size=SLIDE.num_cells)
    tiled = embed_data(model, data, tile_size=40)
    for level, value in expected.items():
        assert_close(tiled[level], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["grid", "knn", "radius"])
@torch.no_grad()
def test_where_the_slide_lies_means_nothing(kind):
    """SPATIA fact 17: translation."""
    model = spatia(**NICHES[kind])
    batch = whole(model)
    moved = batch.clone()
    for key in ("pos", "niche_pos", "tissue_pos"):
        moved[key] = batch[key] + torch.tensor([300.0, -50.0])
    expected, got = (model(*model.inputs(b)) for b in (batch, moved))
    assert_close(got.cell, expected.cell, rtol=1e-3, atol=1e-4)
    assert_close(got.levels[1].h, expected.levels[1].h, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_order_of_cells_means_nothing():
    """SPATIA fact 17: permutation."""
    model = spatia()
    data = model.recipe(SLIDE)
    order = torch.randperm(SLIDE.num_cells, generator=torch.Generator().manual_seed(0)).numpy()
    shuffled = model.recipe(SLIDE[order])
    a = embed_data(model, data, tile_size=100)
    b = embed_data(model, shuffled, tile_size=100)
    for level in a:
        assert_close(b[level], a[level][order], rtol=1e-3, atol=1e-4)


def test_other_niches_do_not_reach_a_niche_before_the_tissue_does():
    """SPATIA fact 18: by gradient."""
    model = spatia()
    batch = whole(model)
    z = encoded(model, batch).detach().requires_grad_()
    out = model.context(z, model.graph(batch))
    niche = int(batch.niche[0])
    (gradient,) = torch.autograd.grad(out.levels[0].pooled[niche].sum(), z, retain_graph=True)
    inside = batch.niche == niche
    assert (gradient[inside] != 0).any()
    assert (gradient[~inside] == 0).all()
    region = int(batch.tissue[niche])
    (gradient,) = torch.autograd.grad(out.levels[0].h[niche].sum(), z, retain_graph=True)
    here = batch.group_of_cell("tissue") == region
    assert (gradient[here & ~inside] != 0).any()
    assert (gradient[~here] == 0).all()
    (gradient,) = torch.autograd.grad(out.cell[0].sum(), z)
    assert (gradient[~here] == 0).all()


@torch.no_grad()
def test_two_slides_in_one_batch_are_two_runs():
    """SPATIA fact 19."""
    from torch_geometric.data import Batch

    other = make_tissue(150, num_genes=30, image="dapi", seed=1, slide_id="b")
    model = spatia()
    batches = [whole(model, slide) for slide in (SLIDE, other)]
    together = model(*model.inputs(Batch.from_data_list(batches)))
    apart = [model(*model.inputs(batch)) for batch in batches]
    assert_close(together.cell, torch.cat([o.cell for o in apart]), rtol=1e-4, atol=1e-5)
    for i, level in enumerate(together.levels):
        expected = torch.cat([out.levels[i].h for out in apart])
        assert_close(level.h, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_niche_of_one_cell_works():
    """SPATIA fact 19."""
    model = spatia(levels=(Grid(2.0), TISSUE))
    batch = whole(model)
    assert batch.num_items("niche") == SLIDE.num_cells
    assert model(*model.inputs(batch)).cell.isfinite().all()


@pytest.mark.parametrize("genes", [True, False])
@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("top_down", [(True, True), (True, False), (False, True), (False, False)])
@torch.no_grad()
def test_every_switch_works_with_every_other(genes, image, top_down):
    rules = {} if image else {"crops": ()}
    options = {"genes": genes, "top_down": top_down}
    if not (genes or image):
        with pytest.raises(ValueError, match="would read nothing"):
            spatia(options=options, **rules)
        return
    model = spatia(options=options, **rules)
    assert [level.top_down is not None for level in model.context_encoder.levels] == [*top_down]
    batch = whole(model)
    assert model(*model.inputs(batch)).cell.shape == (240, 16)
    if not genes:
        del batch.image
        with pytest.raises(ValueError, match="reads images alone"):
            model.inputs(batch)


@torch.no_grad()
def test_images_of_niches_and_regions_reach_the_cells():
    crops = (Crop(13.6), Crop(54.4, of="niche"), Crop(217.6, of="tissue"))
    model = spatia(crops=crops)
    batch = whole(model)
    assert batch.niche_image.shape[1:] == (1, 32, 32)
    expected = model(*model.inputs(batch))
    for i, key in enumerate(("niche_image", "tissue_image")):
        changed = batch.clone()
        changed[key] = 1 - batch[key]
        got = model(*model.inputs(changed))
        assert not torch.isclose(got.levels[i].h, expected.levels[i].h).all()


def test_a_saved_model_is_the_same_model(tmp_path):
    model = spatia(labels=["cell_type"], **NICHES["knn"])
    model.save_pretrained(tmp_path)
    again = Spatia.from_pretrained(tmp_path)
    assert again.labels == model.labels
    batch = whole(model)
    with torch.no_grad():
        assert_close(model(*model.inputs(batch)).cell, again(*again.inputs(batch)).cell)


SIZES = {  # build, parameters without the image decoder, parameters of the image decoder
    "tiny": (spatia_tiny, (0.15e6, 0.3e6), (12e3, 24e3)),
    "small": (spatia_small, (20e6, 35e6), (0.7e6, 1.4e6)),
    "base": (spatia_base, (100e6, 140e6), (18e6, 36e6)),
}


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_what_they_say(size):
    """SPATIA §2.2: about 155 million parameters are reported for the published model."""
    build, (low, high), (decoder_low, decoder_high) = SIZES[size]
    with torch.device("meta"):
        model = build(PANEL)
    decoder = sum(p.numel() for p in model.heads.image_decoder.parameters())
    assert decoder_low < decoder < decoder_high
    assert low < model.num_parameters - decoder < high
    assert f"{model.num_parameters:,}" in repr(model)
    assert model.lr == (1e-2 if size == "tiny" else 1e-4)  # published, where it was not measured


def test_a_given_image_encoder_is_left_as_it_is(tmp_path):
    """SPATIA fact 14: nothing initialises its weights anew."""
    options = {"patch_size": 8, "depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32}
    name = "vit_tiny_patch16_224"
    trained = timm.create_model(name, in_chans=1, num_classes=0, **options)
    save_file(trained.state_dict(), tmp_path / "vit.safetensors")
    source = str(tmp_path / "vit.safetensors")
    image = MaskedImageEncoder(name, in_channels=1, checkpoint=source, **options)
    model = spatia(options={"image": image})
    own = model.cell_encoder.image.backbone.state_dict()
    for name, value in trained.state_dict().items():
        assert_close(own[name], value, rtol=0, atol=0)
    (tmp_path / "vit.safetensors").unlink()  # a saved model has its own weights
    model.save_pretrained(tmp_path / "model")
    assert Spatia.from_pretrained(tmp_path / "model").num_parameters == model.num_parameters


def boxes(slide, half):
    """Squares around the cells as outlines."""
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    xy = slide.pos[:, None] + half[:, None, None] * corner
    return Outlines(xy.reshape(-1, 2), 4 * np.arange(len(half) + 1))


@pytest.mark.parametrize("crop", [Crop(window_key="window_um"), AdaptiveCrop()])
def test_window_sizes_are_told_where_crops_are_zoomed(crop):
    slide = make_tissue(100, num_genes=30, image="dapi", seed=0)
    half = 5.0 + torch.arange(100).numpy() / 20
    slide.adata.obs["window_um"] = 2 * half
    slide.outlines = boxes(slide, half)
    model = spatia(slide, crops=(crop,))
    batch = whole(model, slide)
    with torch.no_grad():
        got = encoded(model, batch)
        batch.window_um = batch.window_um.flip(0)
        assert not torch.isclose(encoded(model, batch), got).all()


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="'likelihood' zinb or gaussian"):
        spatia_tiny(PANEL, likelihood="poisson")
    with pytest.raises(ValueError, match="'size' tiny, small, base, got 'huge'"):
        Spatia.for_slides([SLIDE], "huge")
    with pytest.raises(ValueError, match="'top_down' of 2 levels, got 3"):
        spatia_tiny(PANEL, top_down=(True, True, False))


def test_one_level_or_three_make_a_model_too():
    for levels in ((), (Grid(54.4),), (Grid(27.2), Grid(54.4), Grid(217.6, "block"))):
        model = spatia(levels=levels, **({} if levels else {"graph": KNN(8)}))
        found = embed_data(model, model.recipe(SLIDE), tile_size=100)
        assert list(found) == ["cell", *model.recipe.level_names]
        batch = whole(model)
        assert pretraining(model).loss(batch).loss.isfinite()


def test_the_published_recipe_is_of_squares():
    recipe = spatia_recipe(PANEL)
    assert recipe.graph == InGroups("niche")
    assert [level.size_um for level in recipe.levels] == [54.4, 217.6]
    assert recipe.crop() == Crop(13.6, 224)


POOLINGS = {
    "topk": lambda: PyGPool("TopKPooling", in_channels=16),
    "asap": lambda: PyGPool("ASAPooling", in_channels=16),
    "dmon": lambda: PyGPool("DMoNPooling", channels=[16, 16], k=6),
    "mincut": lambda: PyGPool("dense_mincut_pool", channels=16, k=6),
    "memory": lambda: PyGPool(
        "MemPooling", in_channels=16, out_channels=16, heads=2, num_clusters=6
    ),
}


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("at", [0, 1], ids=["niche", "tissue"])
def test_learned_poolings_take_the_place_of_a_level(name, at):
    torch.manual_seed(0)
    model = spatia()
    old = model.context_encoder.levels[at]
    pool = POOLINGS[name]()
    model.context_encoder.levels[at] = level = Level(16, pool=pool, conv=old.conv, maskable=True)
    for closed in (level.top_down.gate, model.head.linear.weight):
        torch.nn.init.normal_(closed, std=0.1)
    batch = whole(model)
    out = model(*model.inputs(batch))
    assert out.cell.shape == (240, 16)
    assert len(out.levels[at].h) != batch.num_items(("niche", "tissue")[at])
    task = SpatiaPretraining(model.train(), SpatiaWeights(masked_niches=0.5))
    loss = task.loss(batch, torch.Generator().manual_seed(0))
    assert ("masked_niches" in loss.parts) == (at == 1)  # made groups are not hidden
    assert "niche_profile" in loss.parts
    assert ("pooling" in loss.parts) == (out.loss is not None)
    loss.loss.backward()
    learned = [p for p in pool.parameters() if p.requires_grad]
    assert learned
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learned)


class Lazy(Sequence):
    """Slides that are made when they are asked for, as those of a cohort."""

    def __init__(self, num):
        self.num, self.made, self.most = num, [], 0

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        if not 0 <= index < self.num:
            raise IndexError(index)
        gc.collect()
        self.most = max(self.most, 1 + sum(ref() is not None for ref in self.made))
        slide = make_tissue(80, num_genes=30, image=None, seed=index, slide_id=str(index))
        self.made.append(weakref.ref(slide))
        return slide


def test_slides_that_are_read_when_asked_for_are_not_kept():
    slides = Lazy(5)
    model = Spatia.for_slides(slides, labels=["cell_type"], num_genes=20, seed=0)
    assert len(slides.made) > 5
    assert slides.most <= 2  # one at hand, one to come
    kept = Spatia.for_slides([slides[i] for i in range(5)], labels=["cell_type"], num_genes=20)
    assert model.recipe == kept.recipe
    for name, value in kept.state_dict().items():
        assert_close(model.state_dict()[name], value, rtol=0, atol=0)


@torch.no_grad()
def test_what_only_cells_learn_leaves_niches_where_they_are():
    """Trained into what niches are pooled from, it took domains from them."""
    model = spatia(open_gates=False)
    batch = whole(model)
    before = model(*model.inputs(batch))
    model.context_encoder.change.gate.fill_(0.5)
    after = model(*model.inputs(batch))
    assert_close(after.levels[0].h, before.levels[0].h, rtol=0, atol=0)
    assert (after.cell - before.cell).abs().mean() > 0.01
    published = spatia(options={"start": False})
    assert published.context_encoder.change is None


def test_a_niche_is_like_those_of_the_same_cells_wherever_it_lies():
    """Before any step; where the code of positions was as large as a unit vector it was not."""
    slide = make_tissue(1200, num_types=4, num_niches=3, num_genes=40, seed=1)
    model = Spatia.for_slides([slide], seed=0)
    adata = sg.embed(model, slide, progress=False)
    z, own = np.unique(adata.obsm["X_spatia_niche"], axis=0, return_inverse=True)
    share = pd.crosstab(own.ravel(), slide.adata.obs["niche"].to_numpy(), normalize="index")
    pure = np.flatnonzero(share.max(axis=1) > 0.8)
    z = z[pure] - z[pure].mean(axis=0)
    near = NearestNeighbors(n_neighbors=6, metric="cosine").fit(z).kneighbors(return_distance=False)
    planted = share.to_numpy()[pure].argmax(axis=1)
    assert (planted[near] == planted[:, None]).mean() > 0.8  # 0.65 with a code of amplitude 1
