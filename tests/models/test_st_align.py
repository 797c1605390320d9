"""ST-Align as a whole: what its vectors depend on, what learns, what is saved and embedded."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from lightning.pytorch.callbacks import Callback
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from typer.testing import CliRunner

import spatiagraph as sg
from spatiagraph.cli import app
from spatiagraph.data import (
    FeatureCache,
    GenePanel,
    Slide,
    SlideImage,
    make_tissue,
    photographed_slide,
)
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.splits import check_no_leak, split_by_donor
from spatiagraph.inference.embedding import embed_data
from spatiagraph.inference.querying import embed_query
from spatiagraph.models import STAlign, STAlignSize, model_class, st_align_parts, st_align_recipe
from spatiagraph.models.st_align import TINY, Views
from spatiagraph.models.st_align.clusters import first_clusters
from spatiagraph.models.st_align.profiles import standardized
from spatiagraph.nn import FrozenImageEncoder
from spatiagraph.tasks import (
    ClusterNegatives,
    STAlignPretraining,
    STAlignWeights,
    retrieval_recall,
)
from spatiagraph.tasks.streams import Streams

SIZE = STAlignSize(
    channels=32,
    num_tokens=8,
    heads=4,
    head_channels=8,
    image="test_resnet",
    size_px=(8, 8),
    provider_channels=32,
    gene_channels=(64, 32),
    token_channels=16,
    gene_layers=2,
    mlp_channels=64,
    fusion_channels=16,
    head_hidden=64,
    out_channels=32,
    dropout=0.0,
)
MPP = 12.5
NAMES = ("spot", "spot_img", "spot_gene", "niche_img", "niche_gene")


def blocks(seed=0, *, rows=9, columns=14, slide_id="blocks"):
    """Hexagonal array of six blocks, each with its own mean counts and its own colour."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(100)
    y, x = np.mgrid[:rows, :columns]
    pos = np.stack([150 + 100 * (x + 0.5 * (y % 2)), 150 + 50 * np.sqrt(3) * y], 2).reshape(-1, 2)
    block = (3 * x // columns + 3 * (2 * y // rows)).ravel()
    mean, color = fixed.gamma(1.0, 2.0, (6, 40)), fixed.uniform(0.2, 0.9, (6, 3))
    counts = rng.poisson(mean[block]) + (np.arange(40) == 0)
    wide, high = np.ceil((pos.max(0) + 150) / MPP).astype(int)
    pixel = np.stack(np.meshgrid(np.arange(wide), np.arange(high)), 2).reshape(-1, 2) * MPP
    near = cKDTree(pos).query(pixel)[1].reshape(high, wide)
    image = color[block][near] + rng.normal(0, 0.1, (high, wide, 3))
    obs = pd.DataFrame({"block": block.astype(str)}, index=[f"spot{i}" for i in range(len(pos))])
    adata = anndata.AnnData(csr_matrix(counts, dtype=np.float32), obs=obs)
    adata.obsm["spatial"] = pos
    pixels = (255 * image.clip(0, 1)).astype(np.uint8)
    return Slide(adata, SlideImage([pixels], mpp=MPP), slide_id=slide_id)


SLIDE = blocks()


def new_model(slides=(SLIDE,), **options):
    return STAlign.for_slides(list(slides), SIZE, num_genes=None, **options)


@pytest.fixture(scope="module")
def model():
    model = new_model().eval()
    with torch.no_grad():
        for scale in (model.spot, model.niche):  # as after training
            scale.start.gate.fill_(0.5)
            scale.start.image_gate.fill_(0.5)
            scale.start.fused_gate.fill_(0.5)
    return model


@pytest.fixture(scope="module")
def batch(model):
    return next(iter(model.batches([model.prepare(SLIDE, learn=True)], 48)))


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_colours_are_standardised_within_a_slide(model):
    data = model.prepare(SLIDE)
    for value in (data.spot_statistics, data.niche_statistics):
        assert value.shape == (SLIDE.num_cells, 39)
        torch.testing.assert_close(value.mean(0), torch.zeros(39), atol=1e-4, rtol=0)
        torch.testing.assert_close(value.std(0, correction=0), torch.ones(39), atol=1e-3, rtol=0)
    alike = standardized(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))
    assert alike.tolist() == [[0.0, -1.0], [0.0, 1.0]]


# size ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_published_model_has_the_published_number_of_parameters():
    """ST-Align fact A5: 112,916,738 with six heads, tokenizers of convolutions and the stem."""
    panel = GenePanel([f"g{i}" for i in range(4384)])
    with torch.device("meta"):
        parts = st_align_parts(
            st_align_recipe(panel),
            backbone=FrozenImageEncoder("vit_large_patch16_224", stem=True, init_values=1e-5),
            tokenizer="conv1",
        )
        model = STAlign(*parts)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 112_916_738
    backbone = sum(p.numel() for p in model.niche.image.encoder.backbone.parameters())
    assert backbone == pytest.approx(303.4e6, rel=1e-3)
    head = sum(p.numel() for p in model.niche.head.parameters())
    assert trained - 2 * head == 91_939_074


@torch.no_grad()
def test_shapes_of_the_published_views():
    """ST-Align fact A4, with heads and a backbone that fit a test."""
    panel = GenePanel([f"g{i}" for i in range(4384)])
    size = STAlignSize(image="test_resnet", head_hidden=16, gene_layers=1)
    model = STAlign(*st_align_parts(st_align_recipe(panel), size)).eval()
    views = Views(random(2, 3, 26, 26), random(2, 512), random(2, 3, 52, 52), random(2, 4384))
    for branch, view in (
        (model.spot.image, views[0]),
        (model.spot.genes, views[1]),
        (model.niche.image, views[2]),
        (model.niche.genes, views[3]),
    ):
        assert branch(view).shape == (2, 8, 512)
    assert all(value.shape == (2, 1024) for value in model.align(views))
    maps = model.attention(views)
    assert all(share.shape == (2, 8, 8, 8) for scale in maps for share in scale)
    with pytest.raises(ValueError, match="a view is missing"):
        model.attention(views._replace(spot_genes=None))


# what depends on what -----------------------------------------------------------------------------


@torch.no_grad()
def test_vectors_depend_on_their_own_views_alone(model, batch):
    """ST-Align fact A9."""
    views = model.inputs(batch)[0]
    out = model.align(views)._asdict()
    depends = {
        "spot_image": {"spot_img", "spot"},
        "spot_genes": {"spot_gene", "spot"},
        "niche_image": {"niche_img", "niche"},
        "niche_genes": {"niche_gene", "niche"},
        "spot_statistics": {"spot_img", "spot"},
        "niche_statistics": {"niche_img", "niche"},
    }
    for name, changed in depends.items():
        other = views._replace(**{name: getattr(views, name).flip(0)})
        for key, value in model.align(other)._asdict().items():
            assert torch.equal(value, out[key]) == (key not in changed), (name, key)


@torch.no_grad()
def test_niches_are_means_of_spots_and_their_neighbours(model, batch):
    """ST-Align fact A6, through a batch of spots from all over the slide."""
    counts = SLIDE.counts.toarray()
    log = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    near = np.linalg.norm(SLIDE.pos[:, None] - SLIDE.pos[None], axis=2) < 150
    dense = near @ log / near.sum(1, keepdims=True)
    rows = batch.cell_index[batch.core].numpy()
    order = model.panel.align(SLIDE).genes
    views = model.inputs(batch)[0]
    np.testing.assert_allclose(views.niche_genes.numpy()[:, order], dense[rows], rtol=1e-5)


@pytest.mark.parametrize("motion", ["shift", "turn", "mirror"])
def test_motions_of_the_section_change_nothing_of_the_genes(model, motion):
    """ST-Align fact A7."""
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = {
        "shift": SLIDE.pos + [1234.5, -77.0],
        "turn": SLIDE.pos @ turn,
        "mirror": SLIDE.pos * [-1, 1],
    }[motion]
    plain, other = (
        Slide(SLIDE.adata, slide_id="s", check=False),
        Slide(SLIDE.adata.copy(), slide_id="s", check=False),
    )
    other.adata.obsm["spatial"] = moved
    niches = [model.recipe(slide).niche_index.as_tensor() for slide in (plain, other)]
    assert torch.equal(*niches)
    first, second = (embed_data(model, model.prepare(slide)) for slide in (plain, other))
    for name in ("spot_gene", "niche_gene", "cell"):
        np.testing.assert_allclose(first[name], second[name], atol=1e-6)


@torch.no_grad()
def test_the_order_of_spots_and_the_size_of_tiles_change_nothing(model):
    """ST-Align fact A14: views go with their spot, whatever the order of the rows."""
    order = np.random.default_rng(0).permutation(SLIDE.num_cells)
    whole = embed_data(model, model.prepare(SLIDE))
    shuffled = embed_data(model, model.prepare(SLIDE[order]), tile_size=31)
    assert set(whole) == {"cell", "niche", *NAMES}
    for name, value in whole.items():
        np.testing.assert_allclose(shuffled[name], value[order], atol=2e-5, err_msg=name)


# what is missing ----------------------------------------------------------------------------------


def test_a_slide_without_counts_has_its_image_and_one_without_image_its_genes(model):
    """What people ask for most: embeddings of H&E that nobody sequenced."""
    both = embed_query(model, SLIDE)
    image = embed_query(model, SLIDE, "image")
    genes = embed_query(model, SLIDE, "genes")
    assert set(image) == {"cell", "niche", "spot_img", "niche_img"}
    assert set(genes) == {"cell", "niche", "spot_gene", "niche_gene"}
    for found in (image, genes):
        for name in set(found) - {"cell", "niche"}:
            np.testing.assert_allclose(found[name], both[name], atol=1e-6)
    np.testing.assert_array_equal(image["niche"], image["niche_img"])
    photographed = Slide(
        anndata.AnnData(
            csr_matrix(SLIDE.counts.shape, dtype=np.float32),
            var=SLIDE.adata.var,
            obs=SLIDE.adata.obs,
            obsm={"spatial": SLIDE.pos},
        ),
        SLIDE.image,
        check=False,
    )
    adata = sg.embed(model, photographed, progress=False)
    np.testing.assert_allclose(adata.obsm["X_stalign_spot_img"], both["spot_img"], atol=1e-6)
    section = photographed_slide(SLIDE.image, model.panel, pos=SLIDE.pos)
    found = sg.embed(model, section, progress=False).obsm
    np.testing.assert_allclose(found["X_stalign_spot_img"], both["spot_img"], atol=1e-6)
    lattice = photographed_slide(SLIDE.image, model.panel, 200.0)
    assert lattice.num_cells > 20
    assert SLIDE.image.covers(lattice.pos).all()
    with pytest.raises(ValueError, match="positions on the image .*first row: 1"):
        photographed_slide(SLIDE.image, model.panel, pos=[[200, 200], [-5, 0]])
    photographed.image = None
    with pytest.raises(ValueError, match="with an image, with counts, or with both, got neither"):
        sg.embed(model, photographed, progress=False)


@pytest.mark.parametrize("image", [SLIDE.image, None])
def test_empty_spots_have_the_same_vectors_whatever_the_size_of_tiles(model, image):
    """ST-Align fact A14: a slide has genes or has none, and not tile by tile."""
    adata = SLIDE.adata.copy()
    counts = SLIDE.counts.toarray()
    counts[: len(counts) // 2] = 0
    adata.X = csr_matrix(counts)
    data = model.prepare(Slide(adata, image, slide_id="half", check=False))
    whole = embed_data(model, data)
    assert {"spot_gene", "niche_gene"} < set(whole)
    small = embed_data(model, data, tile_size=8)
    for name, value in whole.items():
        assert np.isfinite(value).all(), name
        np.testing.assert_allclose(small[name], value, atol=2e-5, err_msg=name)
    with pytest.raises(ValueError, match="of model.prepare, got a batch that does not say whether"):
        embed_data(model, model.recipe(SLIDE))


def test_features_of_other_networks_take_the_place_of_counts():
    slide = SLIDE[:]
    slide.adata.obsm["X_other"] = random(slide.num_cells, 7).numpy()
    model = new_model([slide], features=("X_other",)).eval()
    assert model.provider is None
    found = embed_data(model, model.prepare(slide))
    slide.adata.obsm["X_other"] *= 3  # on whatever scale they come
    scaled = new_model([slide], features=("X_other",)).eval()
    again = embed_data(scaled, scaled.prepare(slide))
    for name in NAMES:
        np.testing.assert_allclose(again[name], found[name], atol=1e-4, err_msg=name)
    with pytest.raises(ValueError, match=r"Expected obsm\['X_other'\]"):
        model.prepare(SLIDE)
    wider = SLIDE[:]
    wider.adata.obsm["X_other"] = random(wider.num_cells, 9).numpy()
    with pytest.raises(ValueError, match="features of 7 numbers in every slide, .* got 9"):
        model.prepare(wider)
    plain = new_model([slide], features=("X_other",), start=None)
    with pytest.raises(ValueError, match=r"got 9 in slide 'blocks' \(\{'X_other': 9\}\)"):
        plain.prepare(wider)
    plain.spot.genes.tokenizer = torch.nn.Identity()  # a part of somebody's own
    assert plain.prepare(wider).num_nodes == wider.num_cells
    assert set(embed_query(model, slide, "image")) == {"cell", "niche", "spot_img", "niche_img"}
    with pytest.raises(ValueError, match="a 'provider', or a recipe with features"):
        STAlign(SLIDE_RECIPE, model.spot, model.niche)


SLIDE_RECIPE = st_align_recipe(GenePanel.from_slides([SLIDE]))


def test_models_of_ours_are_providers():
    """An embedding that another model of the toolkit wrote is a profile of the spot."""
    slide = SLIDE[:]
    context = sg.models.ContextModel.for_slides([slide], channels=8, image=None)
    sg.embed(context, slide, progress=False)
    model = new_model([slide], features=("X_context", "X_context_niche"))
    assert model.spot.genes.tokenizer.linear.in_features == 16
    assert embed_data(model, model.prepare(slide))["spot"].shape == (slide.num_cells, 32)


def test_other_recipes_are_refused():
    model = new_model()
    with pytest.raises(ValueError, match="a recipe with one level, got \\(\\)"):
        STAlign(Recipe(model.panel, levels=()), model.spot, model.niche, model.provider)
    with pytest.raises(ValueError, match="a size among tiny, base, got 'huge'"):
        STAlign.for_slides([SLIDE], "huge")
    with pytest.raises(ValueError, match="'tokenizer' linear or conv1, got 'conv'"):
        new_model(tokenizer="conv")


def test_crops_are_known_by_their_names():
    """In any order; a recipe that lacks one has nothing to correlate genes with."""
    panel = GenePanel.from_slides([SLIDE])
    recipe = st_align_recipe(panel, mpp=MPP)
    turned = STAlign.for_slides([SLIDE], SIZE, recipe=replace(recipe, crops=recipe.crops[::-1]))
    plain = STAlign.for_slides([SLIDE], SIZE, recipe=recipe)
    data = plain.prepare(SLIDE)
    assert not torch.equal(data.spot_statistics, data.niche_statistics)
    assert torch.equal(turned.prepare(SLIDE).spot_statistics, data.spot_statistics)
    for crop in recipe.crops:
        one = STAlign.for_slides([SLIDE], SIZE, recipe=replace(recipe, crops=(crop,)))
        assert one.spot.start is None


@torch.no_grad()
def test_genes_that_a_slide_lacks_are_as_the_mean_of_training(model):
    """And no zeros, which would be values."""
    some = Slide(SLIDE.adata[:, ::2].copy(), SLIDE.image, slide_id="some")
    lacks = ~torch.as_tensor(model.panel.counts(some)[1])
    assert lacks.sum() == 20
    views = model.inputs(next(iter(model.batches([model.prepare(some)], 48))))[0]
    mean = model.niche.start.gene_mean[lacks]
    torch.testing.assert_close(views.niche_genes[:, lacks], mean.expand(len(views.niche_genes), -1))
    both = new_model([SLIDE, some]).niche.start.gene_mean
    torch.testing.assert_close(both[lacks], mean, atol=1e-5, rtol=0)


def test_the_start_looks_at_some_spots_of_a_large_slide():
    few, seen = new_model(), []
    few.niche.start.initialize = lambda image, genes: seen.append((len(image), len(genes)))
    few.initialize([SLIDE], max_cells=50)
    assert seen == [(50, 50)]


def test_a_recipe_without_crops_reads_genes_alone_of_slides_with_images():
    recipe = st_align_recipe(GenePanel.from_slides([SLIDE]))
    model = STAlign.for_slides([SLIDE], SIZE, recipe=recipe)
    assert model.spot.start is None  # nothing to correlate genes with
    found = sg.embed(model, SLIDE, progress=False).obsm
    assert np.isfinite(found["X_stalign_spot_gene"]).all()
    assert "X_stalign_spot_img" not in found


# frozen backbone ----------------------------------------------------------------------------------


def test_features_of_a_frozen_backbone_are_made_once_and_are_those_of_the_crops(tmp_path):
    """A second fit reads them; ST-Align fact A3: nothing of the backbone changes."""
    backbone = FrozenImageEncoder("test_resnet", size_px=16)
    started = []
    handle = backbone.register_forward_hook(lambda *_: started.append(1))
    model = new_model(backbone=backbone)
    assert not started  # maps start from colours, which need no backbone
    handle.remove()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    plain = model.prepare(SLIDE)
    assert plain.niche_features.shape == (SLIDE.num_cells, backbone.channels)
    assert "niche_view" not in plain.crop_sources
    model.cache = FeatureCache(tmp_path)
    calls = []
    handle = backbone.register_forward_hook(lambda *_: calls.append(1))
    first = model.prepare(SLIDE)
    made = len(calls)
    assert made > 0
    second = model.prepare(SLIDE, learn=True)
    assert len(calls) == made
    assert torch.equal(first.niche_features, plain.niche_features)
    assert torch.equal(second.niche_features, plain.niche_features)
    sg.fit(model, [SLIDE], max_steps=2, progress=False, accelerator="cpu")
    assert len(calls) == made
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    handle.remove()
    model.niche.image.encoder = FrozenImageEncoder("test_resnet", size_px=16, act_layer="gelu")
    model.niche.image.encoder.load_state_dict(backbone.state_dict())
    assert not torch.equal(model.prepare(SLIDE).niche_features, plain.niche_features)
    model.niche.image.encoder = backbone
    whole = model.recipe(SLIDE)
    crops, _ = whole.crop_sources["niche_view"].read()
    torch.testing.assert_close(backbone(crops), plain.niche_features)
    high, wide, _ = SLIDE.image.shape
    pixels = np.array(SLIDE.image.pixels(slice(0, high), slice(0, wide)))
    pixels[8, 8] = 255 - pixels[8, 8]
    other = SLIDE[:]
    other.image = SlideImage([pixels], mpp=MPP)
    model.prepare(other)
    assert len(list(tmp_path.iterdir())) == 2 * 3 + 1  # and colours of both windows


# objective ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.3, 0.3), (1.0, 0.0), (0.0, 0.0), (0.2, 0.7)])
def test_at_collapse_the_loss_is_ln_6_whatever_the_weights(batch, weights):
    """ST-Align fact A2."""
    model = new_model(start=None)
    for scale in (model.spot, model.niche):
        for head in (scale.image_head, scale.gene_head, scale.head):
            torch.nn.init.zeros_(head.mlp[2].weight)
            torch.nn.init.ones_(head.mlp[2].bias)
    loss = STAlignPretraining(model, STAlignWeights(*weights)).loss(batch).loss
    assert loss.item() == pytest.approx(np.log(6), rel=1e-5)


def test_weights_leave_out_terms(model, batch):
    """ST-Align fact A2."""

    def loss(alpha, beta):
        task = STAlignPretraining(model, STAlignWeights(alpha, beta))
        return task.loss(batch, torch.Generator().manual_seed(0))

    whole = loss(0.3, 0.3)
    assert set(whole.parts) == {"spot", "niche", "cross"}
    spot, cross = loss(1.0, 0.0), loss(0.0, 0.0)
    assert set(spot.parts) == {"spot"}
    assert set(cross.parts) == {"cross"}
    assert torch.equal(spot.loss, whole.parts["spot"])
    assert torch.equal(cross.loss, whole.parts["cross"])
    parts = whole.parts
    expected = 0.3 * parts["spot"] + 0.3 * parts["niche"] + 0.4 * parts["cross"]
    torch.testing.assert_close(whole.loss, expected)
    assert STAlignWeights(0.7, 0.3).cross == 0  # and not what rounding leaves
    for wrong in ((0.7, 0.4), (-0.1, 0.5), (float("nan"), 0.0)):
        with pytest.raises(ValueError, match="'alpha' and 'beta' of 0 or more and at most 1"):
            STAlignWeights(*wrong)


def test_gradients_reach_what_a_term_looks_at(batch):
    """ST-Align fact A3."""
    model = new_model()
    task = STAlignPretraining(model, STAlignWeights(1.0, 0.0))
    task.loss(batch).loss.backward()
    named = [name for name, p in model.named_parameters() if p.grad is not None]
    learned = {".".join(name.split(".")[:2]) for name in named if ".start." not in name}
    assert learned == {"spot.image", "spot.genes", "spot.image_head", "spot.gene_head"}
    starts = {name.removeprefix("spot.start.") for name in named if ".start." in name}
    assert starts == {"image.weight", "genes.weight", "gate", "image_gate"}
    assert id(model.spot.start.fused.weight) in {id(p) for p in task.anchored}
    STAlignPretraining(model).loss(batch).loss.backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None}
    assert silent == {"provider.linear.weight"}


def test_batches_without_clusters_or_images_are_refused(model):
    data = model.prepare(SLIDE)
    tile = next(iter(model.batches([data])))
    with pytest.raises(ValueError, match="clusters to draw negatives from, got none: prepare"):
        STAlignPretraining(model).loss(tile)
    with pytest.raises(ValueError, match="a 'temperature' above 0, got 0"):
        STAlignPretraining(model, temperature=0)


def photographed(slide_id="photo"):
    return photographed_slide(
        SLIDE.image, GenePanel.from_slides([SLIDE]), pos=SLIDE.pos, slide_id=slide_id
    )


@pytest.mark.parametrize(("which", "lacks"), [("dark", "an image"), ("photo", "counts")])
def test_training_refuses_a_slide_that_lacks_a_modality_by_its_name(which, lacks):
    """ST-Align fact A14: alone, among others, and as a validation slide."""
    dark = Slide(SLIDE.adata, slide_id="dark", check=False)
    slide = {"dark": dark, "photo": photographed()}[which]
    model = new_model()
    options = {"max_steps": 1, "progress": False, "accelerator": "cpu"}
    message = f"with an image and with counts to align, got slide '{which}' without {lacks}"
    for slides in ([slide], [SLIDE, slide]):
        with pytest.raises(ValueError, match=message):
            sg.fit(model, slides, **options)
    with pytest.raises(ValueError, match=message):
        sg.fit(model, [SLIDE], validation=[slide], **options)


@pytest.mark.parametrize("features", [(), ("X_other",)])
@pytest.mark.parametrize("num_genes", [None, 20])
def test_slides_without_counts_have_no_part_in_the_start(features, num_genes):
    slide = SLIDE[:]
    slide.adata.obsm["X_other"] = random(slide.num_cells, 7).numpy()
    options = {"recipe": None, "num_genes": num_genes, "features": features}
    alone = STAlign.for_slides([slide], SIZE, **options)
    both = STAlign.for_slides([photographed(), slide], SIZE, recipe=alone.recipe, seed=0)
    for name, value in alone.state_dict().items():
        assert torch.equal(both.state_dict()[name], value), name
    STAlign.for_slides([photographed(), slide], SIZE, **options)
    dark = Slide(slide.adata, slide_id="dark", check=False)
    apart = STAlign.for_slides([photographed(), dark], SIZE, **options)
    assert apart.spot.start is None  # no slide has both
    with pytest.raises(ValueError, match="with counts to start from, got 'a', 'b' without"):
        STAlign.for_slides([photographed("a"), photographed("b")], SIZE, **options)
    with pytest.raises(ValueError, match="counts that has an image to start from, got 'dark'"):
        alone.initialize([dark])


def test_spots_that_are_alike_are_one_cluster():
    """And fewer kinds of spots than clusters are one each, whatever their depth."""
    alike = csr_matrix(np.tile([3.0, 0.0, 1.0, 2.0], (40, 1)))
    assert first_clusters(alike).tolist() == [0] * 40
    assert first_clusters(csr_matrix((40, 4))).tolist() == [0] * 40
    three = csr_matrix(np.repeat([[3.0, 0, 1, 2], [0, 5, 1, 1], [6, 0, 2, 4], [1, 1, 0, 0]], 9, 0))
    assert first_clusters(three).tolist() == [0] * 9 + [1] * 9 + [0] * 9 + [2] * 9
    assert len(first_clusters(csr_matrix(SLIDE.counts)).unique()) == 6


def test_a_slide_of_spots_that_are_alike_is_trained_on_with_a_warning():
    adata = SLIDE.adata.copy()
    adata.X = csr_matrix(np.tile(SLIDE.counts[:1].toarray(), (SLIDE.num_cells, 1)))
    slide = Slide(adata, SLIDE.image, slide_id="alike")
    with pytest.warns(UserWarning, match="at least 6 clusters of a slide to draw 5 negatives"):
        result = sg.fit(
            new_model(), [slide], max_steps=2, tile_size=48, progress=False, accelerator="cpu"
        )
    assert np.isfinite(result.history["loss"]).all()


def test_all_other_clusters_as_negatives(batch):
    model = new_model(start=None)
    loss = STAlignPretraining(model, negatives=ClusterNegatives()).loss(batch)
    loss.loss.backward()
    assert loss.loss.item() > np.log(6)
    assert model.niche.head.mlp[0].weight.grad.abs().sum() > 0


@torch.no_grad()
def test_recall_counts_partners_among_the_first_of_their_slide():
    eye = torch.eye(30)
    slide = torch.arange(30) % 2
    assert retrieval_recall(eye, eye, slide, k=1) == 1
    assert retrieval_recall(eye * torch.nan, eye, slide, k=1) == 0
    assert retrieval_recall(eye, eye.roll(2, 0), slide, k=8) == 0.0  # one is better, 13 are equal
    assert retrieval_recall(eye, eye.roll(2, 0), slide, k=9) == 1.0
    one = torch.ones(30, 4)
    assert retrieval_recall(one, one, slide, k=7) == 0.0  # ties share the rank of 8
    assert retrieval_recall(one, one, slide, k=8) == 1.0


@torch.no_grad()
def test_slides_of_ten_spots_say_nothing_of_the_first_ten():
    worst, slide = torch.eye(30), torch.tensor([0] * 20 + [1] * 10)
    found = worst.roll(1, 0)
    alone = retrieval_recall(worst[:20], found[:20], slide[:20])
    assert retrieval_recall(worst, found, slide) == alone < 1
    assert retrieval_recall(worst[20:], found[20:], slide[20:]).isnan()


@pytest.mark.filterwarnings("ignore:.*at least 6 clusters")
def test_the_loss_is_watched_where_no_slide_has_more_than_ten_spots(monkeypatch):
    monkeypatch.setattr(
        "spatiagraph.tasks.st_align.retrieval_recall", lambda *_: torch.tensor(torch.nan)
    )
    with pytest.warns(UserWarning, match="No recall@10 of what is held out.*: the loss is watched"):
        result = sg.fit(
            new_model(), [SLIDE], validation=[blocks(1, slide_id="other")], tile_size=128,
            max_epochs=2, progress=False, accelerator="cpu",
        )  # fmt: skip
    assert "val_recall@10" not in result.history
    assert result.history["start_val_loss"].notna().all()


@pytest.mark.filterwarnings("ignore:.*at least 6 clusters")
def test_weights_of_the_best_recall_on_a_held_out_section_are_kept(monkeypatch):
    """Training that makes recall worse ends with the start, whatever the loss says."""
    other = blocks(1, slide_id="other")
    found = iter(np.repeat([0.5, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6], 2))  # of images, and of niches
    monkeypatch.setattr(
        "spatiagraph.tasks.st_align.retrieval_recall", lambda *_: torch.tensor(next(found))
    )
    model = new_model()
    states = []
    keep = Snapshot(states, model)
    result = sg.fit(
        model, [SLIDE], validation=[other], tile_size=128, max_epochs=5, patience=2,
        progress=False, accelerator="cpu", callbacks=keep,
    )  # fmt: skip
    assert result.history["start_val_recall@10"].iloc[0] == 0.5
    assert result.history["val_recall@10"].tolist() == pytest.approx([0.7, 0.6, 0.6])
    for name, value in model.state_dict().items():
        assert torch.equal(value, states[0][name]), name


@torch.no_grad()
def test_what_is_fused_starts_from_image_and_genes(batch):
    """A start that is kept says something of spots: they find their niche without a step."""
    model = new_model().eval()
    out = model.align(model.inputs(batch)[0])
    torch.testing.assert_close(out.spot, out.spot_img + out.spot_gene)
    torch.testing.assert_close(out.niche, out.niche_img + out.niche_gene)
    random = new_model(start=None).eval()
    found = [
        retrieval_recall(o.spot, o.niche, torch.zeros(len(o.spot)))
        for o in (out, random.align(random.inputs(batch)[0]))
    ]
    assert found[0] > found[1] + 0.1


def test_what_is_fused_is_watched_too(batch):
    """By image and genes alone, a start would be kept that has fused nothing more."""
    model = new_model().eval()
    task = STAlignPretraining(model).eval()
    with torch.no_grad():
        parts = task.loss(batch).parts
        view = task.view(batch, Streams(None, torch.device("cpu")))
        fused = retrieval_recall(view.spot.fused, view.niche.fused, view.slide)
    assert parts["image_recall@10"] > fused + 0.2
    assert parts["recall@10"] == pytest.approx(((parts["image_recall@10"] + fused) / 2).item())
    images = STAlignPretraining(model, STAlignWeights(0.5, 0.5)).eval()
    with torch.no_grad():
        parts = images.loss(batch).parts
    assert parts["recall@10"] == parts["image_recall@10"]


class Snapshot(Callback):
    """Weights after every epoch."""

    def __init__(self, states, model):
        self.states, self.model = states, model

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append({k: v.clone() for k, v in self.model.state_dict().items()})


def test_a_score_that_is_not_there_is_not_watched():
    with pytest.raises(ValueError, match="'watched' among recall@10, .*, loss, got 'accuracy'"):
        STAlignPretraining(new_model(start=None), watched="accuracy")


# from front to back -------------------------------------------------------------------------------


def score(model, slide):
    """The three contrasts of all spots of a slide."""
    batch = next(iter(model.batches([model.prepare(slide, learn=True)], slide.num_cells)))
    with torch.no_grad():
        out = STAlignPretraining(model).eval().loss(batch, torch.Generator().manual_seed(0))
    return {name: out.parts[name].item() for name in ("spot", "niche", "cross")}


def trained(slides, steps):
    """Model of an eighth of the published widths, from random weights as published."""
    size = replace(TINY, size_px=(8, 8), dropout=0.0)
    model = STAlign.for_slides(slides, size, num_genes=None, start=None)
    before = score(model.eval(), slides[0])
    result = sg.fit(
        model.train(), slides, max_steps=steps, tile_size=24, lr=2e-3, progress=False,
        accelerator="cpu",
    )  # fmt: skip
    assert result.history["steps"].iloc[-1] == steps
    return model.eval(), before


@pytest.mark.filterwarnings("ignore:.*cells are few.*")
def test_blocks_are_learned_and_found():
    """ST-Align fact A15: 60 of the 200 steps that it gives, which bring the loss near nothing."""
    model, before = trained([SLIDE], 60)
    other = blocks(1, slide_id="other")
    for slide in (SLIDE, other):
        after = score(model, slide)
        for name, value in after.items():
            assert value < 0.5 * np.log(6) < before[name], name
    z = sg.embed(model, other, progress=False).obsm["X_stalign"]
    found = KMeans(6, n_init=10, random_state=0).fit_predict(z)
    assert adjusted_rand_score(other.adata.obs["block"], found) > 0.8


@pytest.mark.filterwarnings("ignore:.*cells are few.*")
def test_images_of_other_spots_teach_nothing_that_holds_elsewhere():
    """ST-Align fact A15: with images and genes paired at random, held-out spots stay at ln 6."""

    def broken(seed):
        slide = blocks(seed, slide_id=f"broken{seed}")
        order = np.random.default_rng(seed).permutation(slide.num_cells)
        adata = slide.adata.copy()
        adata.X = adata.X[order]
        return Slide(adata, slide.image, slide_id=slide.slide_id)

    model, _ = trained([broken(0)], 60)
    assert score(model, broken(1))["spot"] >= 0.9 * np.log(6)


class Steps(Callback):
    """Counts steps, and presses Ctrl-C in the first of an epoch."""

    def __init__(self, stop_in=None):
        self.stop_in, self.num = stop_in, 0

    def on_train_batch_end(self, trainer, *args):
        self.num += 1
        if trainer.current_epoch == self.stop_in:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:.*at least 6 clusters")  # of the blocks that are held out
def test_a_run_is_saved_opened_and_goes_on_to_the_same_weights(tmp_path):
    assert model_class("st-align") is model_class("stalign") is STAlign

    def run(folder, model, steps):
        return sg.fit(
            model, [SLIDE], task=STAlignPretraining(model, watched="loss"), max_epochs=3,
            tile_size=32, progress=False, accelerator="cpu", validation=0.2, out=folder,
            callbacks=steps,
        ).history  # fmt: skip

    whole, resumed, steps, rest = new_model(), new_model(), Steps(), Steps()
    history = run(tmp_path / "run", whole, steps)
    assert history["val_loss"].idxmin() == 2  # weights of the last epoch are kept
    opened = STAlign.from_pretrained(tmp_path / "run" / "model")
    assert opened.recipe == whole.recipe
    for name, value in whole.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value), name
    first, second = (embed_data(m, m.prepare(SLIDE)) for m in (whole.eval(), opened))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", new_model(), Steps(stop_in=2))
    assert not (tmp_path / "broken" / "model").exists()
    again = run(tmp_path / "broken", resumed, rest)
    assert rest.num == steps.num // 3
    np.testing.assert_allclose(again["loss"], history["loss"], rtol=1e-6)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*cells are few.*")
def test_half_precision_learns_the_same_within_its_digits():
    found = []
    for precision in ("32-true", "bf16-mixed"):
        model = new_model()
        history = sg.fit(
            model, [SLIDE], max_steps=6, tile_size=48, progress=False, accelerator="cpu",
            precision=precision, validation=None,
        ).history  # fmt: skip
        found.append((history["loss"].to_numpy(), sg.embed(model, SLIDE[:], progress=False)))
    (plain, a), (half, b) = found
    np.testing.assert_allclose(half, plain, rtol=0.05)
    assert not np.array_equal(half, plain)
    assert np.isfinite(b.obsm["X_stalign"]).all()
    cosine = (a.obsm["X_stalign_niche_img"] * b.obsm["X_stalign_niche_img"]).sum(1)
    assert np.mean(cosine) > 0.9 * np.mean(np.square(a.obsm["X_stalign_niche_img"]).sum(1))


def all_pixels():
    high, wide, _ = SLIDE.image.shape
    return np.array(SLIDE.image.pixels(slice(0, high), slice(0, wide)))


def test_pictures_in_16_bit_give_the_vectors_of_8_bit(model):
    deep = SLIDE[:]
    pixels = all_pixels().astype(np.uint16) * 257  # 255 → 65,535, of which the range is given
    deep.image = SlideImage([pixels], mpp=MPP, value_range=(0, 65535))
    plain, found = (model.prepare(slide).crop_sources for slide in (SLIDE, deep))
    for name in ("image", "niche_view"):
        crops, mask = found[name].read()
        torch.testing.assert_close(crops, plain[name].read()[0], atol=1 / 254, rtol=0)
        assert mask.all()
    a, b = (embed_data(model, model.prepare(s), device="cpu")["cell"] for s in (SLIDE, deep))
    assert np.mean((a * b).sum(1)) > 0.99 * np.mean((a * a).sum(1))


def test_an_alpha_channel_is_no_stain(tmp_path, model):
    pixels = all_pixels()
    alpha = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], 2)
    for name, values in (("plain", pixels), ("alpha", alpha)):
        extra = {"extrasamples": ["unassalpha"]} if name == "alpha" else {}
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric="rgb", **extra)
    found = []
    for name in ("plain", "alpha"):
        slide = SLIDE[:]
        slide.image = SlideImage.open(tmp_path / f"{name}.tif", mpp=MPP)
        found.append(embed_data(model, model.prepare(slide), device="cpu"))
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)


@pytest.mark.parametrize("channels", [4, 1])
def test_images_of_other_channels_are_refused_by_the_name_of_the_slide(model, channels):
    slide = SLIDE[:]
    slide.slide_id = "other"
    pixels = np.concatenate([all_pixels()] * 2, 2)[..., :channels]
    slide.image = SlideImage([pixels], mpp=MPP)
    message = f"an image of 3 channels with slide 'other', as in training, got {channels}"
    with pytest.raises(ValueError, match=message):
        model.prepare(slide)


def test_an_image_that_ends_inside_the_tissue_is_refused(model):
    pixels = all_pixels()
    half = SlideImage([pixels[:, : pixels.shape[1] // 2]], mpp=MPP)
    with pytest.raises(ValueError, match=r"image that covers the cells, got \d+ of 126 cells"):
        Slide(SLIDE.adata, half, slide_id="half")
    most = SlideImage([pixels[:, : round(pixels.shape[1] * 0.9)]], mpp=MPP)
    slide = Slide(SLIDE.adata, most, slide_id="most")
    lacking = int((~most.covers(slide.pos)).sum())
    assert 0 < lacking < 0.05 * slide.num_cells  # the door lets so few pass
    with pytest.raises(ValueError, match=f"spots on the image of slide 'most', got {lacking} of"):
        model.prepare(slide)
    kept = slide[most.covers(slide.pos)]
    assert kept.num_cells == slide.num_cells - lacking
    assert np.isfinite(embed_data(model, model.prepare(kept))["spot"]).all()


def test_gene_sets_that_share_nothing_with_the_slide_are_refused(tmp_path):
    gmt = tmp_path / "sets.gmt"
    gmt.write_text("SET_A\tnone\tTP53\tMYC\nSET_B\tnone\tMYC\tKRAS\n")
    with pytest.raises(ValueError, match="10% of the panel, got 0 of 3 genes"):
        STAlign.for_slides([SLIDE], SIZE, gene_sets=str(gmt))


def test_donors_are_on_one_side_alone():
    """ST-Align fact A16."""
    slides = [make_tissue(30, num_genes=10, image=None, seed=i, slide_id=f"s{i}") for i in range(4)]
    for slide, donor in zip(slides, ("ann", "ann", "bob", "eve"), strict=True):
        slide.donor = donor
    donors = [slide.donor for slide in slides]
    with pytest.raises(ValueError, match="no donor in both 'train' and 'test', got 'ann'"):
        check_no_leak([0, 2], [1, 3], donor=donors)
    folds = split_by_donor(slides, 3)
    for fold in range(3):
        check_no_leak(folds != fold, folds == fold, donor=donors)


def test_the_command_line_trains_and_embeds(tmp_path):
    slide = blocks(rows=6, columns=8)
    slide.adata.write_h5ad(tmp_path / "slide.h5ad")
    high, wide, _ = slide.image.shape
    pixels = np.asarray(slide.image.pixels(slice(0, high), slice(0, wide)))
    tifffile.imwrite(tmp_path / "slide.tif", pixels, photometric="rgb")
    genes = "\t".join(["A", "", *slide.symbols[:30], "OTHER"])
    (tmp_path / "sets.gmt").write_text(genes + "\n", encoding="utf-8")
    image = ["--image", str(tmp_path / "slide.tif"), "--image-mpp", str(MPP)]
    run, out = str(tmp_path / "run"), str(tmp_path / "embedded.h5ad")
    fit = ["fit", str(tmp_path / "slide.h5ad"), *image, "--out", run, "--model", "st-align"]
    command = CliRunner()
    done = command.invoke(
        app, [*fit, "--gene-sets", str(tmp_path / "sets.gmt"), "--steps", "1", "--preset", "tiny"]
    )
    assert done.exit_code == 0, done.output
    done = command.invoke(app, ["embed", run, str(tmp_path / "slide.h5ad"), *image, "--out", out])
    assert done.exit_code == 0, done.output
    found = anndata.read_h5ad(out).obsm
    assert {f"X_stalign_{name}" for name in ("niche", *NAMES)} < set(found)
    assert len(STAlign.from_pretrained(f"{run}/model").panel) == 31
    (tmp_path / "strange.gmt").write_text("A\t\tOTHER\tELSE\n", encoding="utf-8")
    other = [*fit[:-3], str(tmp_path / "other"), *fit[-2:]]
    done = command.invoke(app, [*other, "--gene-sets", str(tmp_path / "strange.gmt")])
    assert done.exit_code != 0
    assert "OTHER" in done.output
