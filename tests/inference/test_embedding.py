import numpy as np
import pytest
import torch

from spatiagraph import keys
from spatiagraph.data import Cohort, Slide, make_tissue
from spatiagraph.data.cohort import merge_cohort
from spatiagraph.data.cohort.embedded import embedding_notes
from spatiagraph.data.recipe import Annotated, Grid, Neighborhoods, Parts
from spatiagraph.inference import embed, search_slides
from spatiagraph.inference.embedded import level_names, model_name, other_vectors
from spatiagraph.inference.embedding import embed_data
from spatiagraph.models import ContextModel, Spatia, default_recipe
from spatiagraph.nn.weights import weights_hash
from spatiagraph.retrieval import NicheIndex, Selection


def perturbed(slide, tissue=Parts(256)) -> ContextModel:  # noqa: B008  # a rule is frozen
    """A model with every gate open, as training would leave it."""
    recipe = default_recipe([slide], image=False, levels=(Neighborhoods(15), tissue))
    model = ContextModel.for_slides([slide], recipe, channels=16, num_layers=2)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.1
    return model


@pytest.mark.parametrize("num_cells", [1500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_tiles_with_halo_equal_the_whole_slide(num_cells):
    slide = make_tissue(num_cells, num_genes=60, image=None, seed=0)
    model = perturbed(slide, Parts(100))
    data = model.recipe(slide)
    tiled = embed_data(model, data, tile_size=max(200, num_cells // 10))
    whole = embed_data(model, data, tile_size=num_cells)
    for level in ("cell", "niche", "tissue"):
        assert np.abs(tiled[level] - whole[level]).max() <= 1e-5


def test_embed_writes_where_the_ecosystem_looks():
    slide = make_tissue(200, num_genes=40, image=None, seed=0)
    model = perturbed(slide)
    adata = embed(model, slide, progress=False)
    for key in ("X_context", "X_context_niche", "X_context_tissue"):
        assert adata.obsm[key].shape == (200, 16)
        assert np.isfinite(adata.obsm[key]).all()
    assert adata.obsp[keys.CONNECTIVITIES].sum() == 200 * model.recipe.graph.k
    row = adata.obsp[keys.DISTANCES][7]
    expected = np.linalg.norm(slide.pos[row.indices] - slide.pos[7], axis=1)
    np.testing.assert_allclose(row.data, expected, rtol=1e-3)
    record = adata.uns[keys.UNS]["embed"]["slides"]["synthetic"]
    assert record["panel_coverage"] == 1.0


def test_embed_is_deterministic():
    slide = make_tissue(200, num_genes=40, image=None, seed=0)
    model = perturbed(slide)
    first, second = (embed_data(model, model.recipe(slide)) for _ in range(2))
    np.testing.assert_array_equal(first["niche"], second["niche"])


def test_cells_without_a_niche_may_fill_a_tile():
    slide = make_tissue(200, num_genes=40, image=None, seed=0)
    alone = np.arange(200) % 4 == 0
    slide.adata.obs["area"] = np.where(alone, None, slide.adata.obs["niche"].astype(str))
    model = Spatia.for_slides(
        [slide],
        recipe=Spatia.default_recipe([slide], levels=(Annotated("area"), Grid(217.6))),
    )
    data = model.recipe(slide)
    whole, tiled = (embed_data(model, data, tile_size=size) for size in (8192, 20))
    for level, value in whole.items():
        assert np.isnan(value).any(axis=1).tolist() == (alone & (level != "cell")).tolist()
        np.testing.assert_allclose(tiled[level], value, atol=1e-5)


def test_a_model_is_left_in_the_mode_of_its_parts():
    slide = make_tissue(200, num_genes=40, image=None, seed=0)
    model = perturbed(slide).train()
    model.head.eval()
    modes = [module.training for module in model.modules()]
    embed(model, slide, progress=False)
    assert [module.training for module in model.modules()] == modes


def test_embed_refuses_a_slide_smaller_than_a_niche():
    slide = make_tissue(200, num_genes=40, image=None, seed=0)
    with pytest.raises(ValueError, match="Expected at least 16 cells .* got 5"):
        embed(perturbed(slide), slide[:5], progress=False)


@pytest.mark.parametrize(
    "part", ["cell_encoder.genes.mean", "context_encoder.levels.0.top_down.gate"]
)
def test_embeddings_that_are_not_finite_are_not_written(part):
    slide = make_tissue(200, num_genes=30, image=None, seed=0)
    model = perturbed(slide)
    model.state_dict()[part].fill_(torch.inf)
    with pytest.raises(ValueError, match=r"Expected finite embeddings.* for \d+ of 200 cells"):
        embed(model, slide, progress=False)
    assert not slide.adata.obsm.keys() - {"spatial"}


@pytest.mark.parametrize("family", [ContextModel, Spatia])
def test_a_slide_without_a_third_of_its_genes_lands_where_it_was(family):
    """A cell does not move because fewer of its counts were looked at."""
    slide = make_tissue(600, num_genes=120, image=None, seed=0)
    model = family.for_slides([slide])
    kept = np.random.default_rng(0).permutation(120)[:80]
    part = Slide(slide.adata[:, np.sort(kept)].copy(), slide_id="part")
    whole, fewer = (embed_data(model, model.recipe(s))["cell"] for s in (slide, part))
    shift = (fewer - whole).mean(0) / whole.std(0)
    assert np.sqrt((shift**2).mean()) < 0.2
    model.gene_share.zero_()  # as before: depth is the total of what was measured
    uncorrected = embed_data(model, model.recipe(part))["cell"]
    assert np.sqrt((((uncorrected - whole).mean(0) / whole.std(0)) ** 2).mean()) > 0.3


def test_embeddings_of_two_models_of_a_kind_stand_beside_each_other():
    """Names, notes and searches are those of the one that was made last."""
    slide = make_tissue(200, num_genes=40, image=None, seed=0)
    adata = embed(perturbed(slide), slide, progress=False)
    first = {key: adata.obsm[key].copy() for key in adata.obsm if key.startswith("X_context")}
    plain = ContextModel.for_slides([slide], channels=8)
    name = keys.start_name("context")
    embed(plain, slide, name=name, progress=False)
    for key, value in first.items():
        np.testing.assert_array_equal(adata.obsm[key], value)
        own = keys.embedding_key(name) + key.removeprefix("X_context")
        assert adata.obsm[own].shape == (200, 8)
    assert keys.group_key(name, "tissue") in adata.obs
    assert model_name(adata) == name
    assert level_names(adata) == ("niche", "tissue")
    found = search_slides([slide], Selection(cells="cell7"), k=3)
    assert found.index.key == keys.embedding_key(name, "niche")
    assert found.index.model == weights_hash(plain)
    older = NicheIndex.from_slides({"synthetic": adata}, "X_context_niche")
    assert older.model is None  # and never that of the other
    embed(perturbed(slide), slide, progress=False)
    assert other_vectors(adata) == ()  # of a name that begins as another would be some


def test_a_cohort_keeps_embeddings_by_their_name(tmp_path):
    slide = make_tissue(200, num_genes=40, image=None, seed=0, slide_id="s0")
    model = ContextModel.for_slides([slide], channels=8)
    cohort = Cohort.create(tmp_path / "c.zarr", [slide], model.recipe, tile_size=100)
    embed(model, cohort, progress=False)
    for shard in ("0/2", "1/2"):
        embed(model, cohort, name="start_context", shard=shard, progress=False)
    cohort = merge_cohort(cohort.path)
    obsm = cohort["s0"].adata.obsm
    np.testing.assert_array_equal(obsm["X_start_context_niche"], obsm["X_context_niche"])
    assert embedding_notes(cohort.part()).name == "start_context"
