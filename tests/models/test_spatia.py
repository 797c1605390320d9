"""SPATIA: what context may and may not do to a cell."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from spatiagraph.data import GenePanel, make_tissue
from spatiagraph.data.loader import TileLoader
from spatiagraph.models import Spatia
from spatiagraph.training.embedding import embed_data

SLIDE = make_tissue(240, num_genes=30, image="dapi", seed=0)
PANEL = GenePanel.from_slides([SLIDE])
SMALL = {"channels": 16, "gene_channels": 16, "gene_layers": 1, "num_tokens": 20, "dropout": 0.0}


def spatia(slide=SLIDE, *, open_gates=True, **arguments):
    model = Spatia.for_slides([slide], **{**SMALL, **arguments}).eval()
    if open_gates:
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.data.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return model


def whole(model, slide=SLIDE):
    """The slide as one batch."""
    (tile,) = TileLoader([model.prepare(slide)], slide.num_cells, model.num_hops)
    return tile


NICHES = [
    {"niche": "grid"},
    {"niche": "knn"},
    {"niche": "radius", "niche_um": 27.0},
    {"niche": "labels", "niche_key": "niche"},
]


def test_context_adds_nothing_before_training():
    """SPATIA fact 16: the gates at the start."""
    model = spatia(open_gates=False)
    batch = whole(model)
    assert_close(model(**model.inputs(batch)).cell, model.encode(batch), rtol=0, atol=0)


def test_without_niche_and_tissue_it_is_the_cell_model():
    """SPATIA fact 16: the switches."""
    model = spatia(use_niche=False, use_tissue=False)
    model.context_encoder.gate.data.zero_()
    batch = whole(model)
    assert_close(model(**model.inputs(batch)).cell, model.encode(batch), rtol=0, atol=0)


@pytest.mark.parametrize("arguments", NICHES, ids=lambda a: a["niche"])
@torch.no_grad()
def test_tiles_give_what_the_whole_slide_gives(arguments):
    model = spatia(**arguments)
    data = model.prepare(SLIDE)
    expected = embed_data(model, data, tile_size=SLIDE.num_cells)
    tiled = embed_data(model, data, tile_size=40)
    for level, value in expected.items():
        assert_close(tiled[level], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arguments", NICHES[:3], ids=lambda a: a["niche"])
@torch.no_grad()
def test_where_the_slide_lies_means_nothing(arguments):
    """SPATIA fact 17: translation."""
    model = spatia(**arguments)
    batch = whole(model)
    moved = batch.clone()
    for key in ("pos", "niche_pos", "tissue_pos"):
        moved[key] = batch[key] + torch.tensor([300.0, -50.0])
    expected, got = (model(**model.inputs(b)) for b in (batch, moved))
    assert_close(got.cell, expected.cell, rtol=1e-3, atol=1e-4)
    assert_close(got.tissue, expected.tissue, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_order_of_cells_means_nothing():
    """SPATIA fact 17: permutation."""
    model = spatia()
    data = model.prepare(SLIDE)
    order = torch.randperm(SLIDE.num_cells, generator=torch.Generator().manual_seed(0)).numpy()
    shuffled = model.prepare(SLIDE[order])
    a = embed_data(model, data, tile_size=100)
    b = embed_data(model, shuffled, tile_size=100)
    for level in a:
        assert_close(b[level], a[level][order], rtol=1e-3, atol=1e-4)


def test_other_niches_do_not_reach_a_niche_before_the_tissue_does():
    """SPATIA fact 18: by gradient."""
    model = spatia()
    batch = whole(model)
    z = model.encode(batch).detach().requires_grad_()
    out = model.context(z, batch)
    niche = int(batch.niche[0])
    (gradient,) = torch.autograd.grad(out.alone[niche].sum(), z, retain_graph=True)
    inside = batch.niche == niche
    assert (gradient[inside] != 0).any()
    assert (gradient[~inside] == 0).all()
    region = int(batch.tissue[niche])
    (gradient,) = torch.autograd.grad(out.niche[niche].sum(), z, retain_graph=True)
    here = batch.tissue_of_cell == region
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
    together = model(**model.inputs(Batch.from_data_list(batches)))
    apart = [model(**model.inputs(batch)) for batch in batches]
    for level in ("cell", "niche", "tissue"):
        expected = torch.cat([getattr(out, level) for out in apart])
        assert_close(getattr(together, level), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_niche_of_one_cell_works():
    """SPATIA fact 19."""
    model = spatia(niche_um=2.0)
    batch = whole(model)
    assert batch.num_niches == SLIDE.num_cells
    assert model(**model.inputs(batch)).cell.isfinite().all()


@pytest.mark.parametrize("use_gene", [True, False])
@pytest.mark.parametrize("use_image", [True, False])
@pytest.mark.parametrize("use_niche", [True, False])
@pytest.mark.parametrize("use_tissue", [True, False])
@torch.no_grad()
def test_every_switch_works_with_every_other(use_gene, use_image, use_niche, use_tissue):
    switches = {
        "use_gene": use_gene,
        "use_image": use_image,
        "use_niche": use_niche,
        "use_tissue": use_tissue,
    }
    if not (use_gene or use_image):
        with pytest.raises(ValueError, match="would read nothing"):
            spatia(**switches)
        return
    model = spatia(**switches)
    batch = whole(model)
    assert model(**model.inputs(batch)).cell.shape == (240, 16)
    if not use_gene:
        del batch.image
        with pytest.raises(ValueError, match="reads images alone"):
            model.inputs(batch)


@torch.no_grad()
def test_images_of_niches_and_regions_reach_the_cells():
    model = spatia(niche_image=True, tissue_image=True)
    batch = whole(model)
    assert batch.niche_image.shape[1:] == (1, 32, 32)
    expected = model(**model.inputs(batch))
    for key, level in (("niche_image", "niche"), ("tissue_image", "tissue")):
        changed = batch.clone()
        changed[key] = 1 - batch[key]
        got = model(**model.inputs(changed))
        assert not torch.isclose(getattr(got, level), getattr(expected, level)).all()


def test_a_saved_model_is_the_same_model(tmp_path):
    model = spatia(labels=["cell_type"], niche="knn")
    model.save_pretrained(tmp_path)
    again = Spatia.from_pretrained(tmp_path)
    assert again.labels == model.labels
    batch = whole(model)
    with torch.no_grad():
        assert_close(model(**model.inputs(batch)).cell, again(**again.inputs(batch)).cell)


@pytest.mark.parametrize(
    ("preset", "low", "high"), [("tiny", 0.1e6, 1e6), ("small", 20e6, 40e6), ("base", 120e6, 180e6)]
)
def test_presets_have_the_size_they_say(preset, low, high):
    """SPATIA §2.2: about 155 million parameters are reported for the published model."""
    with torch.device("meta"):
        model = getattr(Spatia, preset)(PANEL)
    assert low < model.num_parameters < high
    assert f"{model.num_parameters:,}" in repr(model)


def test_a_given_image_encoder_is_left_as_it_is(tmp_path):
    """SPATIA fact 14: nothing initialises its weights anew."""
    options = {"image_options": {"patch_size": 8, "depth": 1, "embed_dim": 32, "num_heads": 2}}
    image = {"img_size": 32, "in_chans": 1, "num_classes": 0, **options["image_options"]}
    trained = timm.create_model("vit_tiny_patch16_224", **image)
    save_file(trained.state_dict(), tmp_path / "vit.safetensors")
    model = spatia(checkpoint=str(tmp_path / "vit.safetensors"), **options)
    own = model.cell_encoder.image.backbone.state_dict()
    for name, value in trained.state_dict().items():
        assert_close(own[name], value, rtol=0, atol=0)
    (tmp_path / "vit.safetensors").unlink()  # a saved model has its own weights
    model.save_pretrained(tmp_path / "model")
    assert Spatia.from_pretrained(tmp_path / "model").num_parameters == model.num_parameters


def test_window_sizes_are_told_where_crops_are_zoomed():
    slide = make_tissue(100, num_genes=30, image="dapi", seed=0)
    slide.adata.obs["window_um"] = 10.0 + torch.arange(100).numpy() / 10
    model = spatia(slide, window_key="window_um")
    batch = whole(model, slide)
    with torch.no_grad():
        got = model.encode(batch)
        batch.window_um = batch.window_um.flip(0)
        assert not torch.isclose(model.encode(batch), got).all()


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="'niche' grid, knn, radius or labels, got 'square'"):
        Spatia.tiny(PANEL, niche="square")
    with pytest.raises(ValueError, match="'likelihood' zinb or gaussian"):
        Spatia.tiny(PANEL, likelihood="poisson")
    with pytest.raises(ValueError, match="'preset' tiny, small, base, got 'huge'"):
        Spatia.for_slides([SLIDE], "huge")
    genes = make_tissue(100, image=None)
    with pytest.raises(ValueError, match="an image with the slides, got none"):
        Spatia.for_slides([genes], use_image=True)
