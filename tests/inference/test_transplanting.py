import numpy as np
import pytest
import torch

from spatiagraph.data import Slide, make_tissue
from spatiagraph.data.recipe import Annotated, Grid
from spatiagraph.inference import embed, transplant
from spatiagraph.models import ContextModel, Spatia

SLIDE = make_tissue(250, num_genes=30, image="dapi", seed=0)


def opened(model):
    """A model whose context reaches its cells, as after training."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "gate" in name or parameter.dim() < 2:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def context_model() -> ContextModel:
    return opened(ContextModel.for_slides([SLIDE], channels=8, seed=0))


@pytest.mark.parametrize("kind", [ContextModel, Spatia])
def test_a_cell_in_its_own_place_is_embedded_as_it_is(kind):
    model = opened(kind.for_slides([SLIDE], seed=0))
    embed(model, SLIDE, progress=False)
    rows = np.array([3, 200, 17])
    for key, value in transplant(model, SLIDE, rows, rows, batch_size=2).items():
        np.testing.assert_allclose(value, SLIDE.adata.obsm[key][rows], rtol=1e-4, atol=1e-4)


def test_it_equals_a_slide_on_which_two_cells_changed_places():
    model = opened(ContextModel.for_slides([SLIDE], channels=8, image=None, seed=0))
    neighbor = int(np.argsort(np.hypot(*(SLIDE.pos - SLIDE.pos[10]).T))[1])
    for cell, place in ((10, 180), (10, neighbor)):
        adata = SLIDE.adata.copy()
        counts = adata.X.tolil()
        counts[[cell, place]] = counts[[place, cell]]
        adata.X = counts.tocsr()
        adata = embed(model, Slide(adata, slide_id="exchanged"), progress=False)
        for key, value in transplant(model, SLIDE, [cell], [place]).items():
            np.testing.assert_allclose(value[0], adata.obsm[key][place], rtol=1e-4, atol=1e-4)


def test_another_place_changes_the_niche_and_ids_name_cells():
    model = context_model()
    here, there = (transplant(model, SLIDE, ["cell3"], [place]) for place in ("cell3", "cell200"))
    assert np.abs(here["X_context_niche"] - there["X_context_niche"]).max() > 1e-2


def test_a_place_without_a_niche_has_no_embedding_of_one():
    """As :func:`embed` leaves it."""
    adata = SLIDE.adata.copy()
    adata.obs["area"] = np.where(np.arange(250) == 7, None, adata.obs["niche"].astype(str))
    slide = Slide(adata, slide_id="labelled")
    recipe = Spatia.default_recipe([slide], levels=(Annotated("area"), Grid(217.6)))
    model = opened(Spatia.for_slides([slide], recipe=recipe))
    embed(model, slide, progress=False)
    for key, value in transplant(model, slide, [9, 7], [9, 7]).items():
        np.testing.assert_allclose(value, slide.adata.obsm[key][[9, 7]], rtol=1e-4, atol=1e-4)
        assert np.isnan(value[1]).all() == (key != f"X_{model.name}")
    alone = transplant(model, slide, [9], [7])  # no edge and no niche in the batch
    assert np.isfinite(alone.pop(f"X_{model.name}")).all()
    assert all(np.isnan(value).all() for value in alone.values())


def test_a_model_in_training_stays_so():
    model = context_model().train()
    transplant(model, SLIDE, [1], [2])
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("cells", "positions", "message"),
    [
        ([1, 2], [3], "2 cells and 1 positions"),
        ([], [], "0 cells and 0 positions"),
        (["nobody"], [3], "got \\['nobody'\\]"),
        ([1], [250], "rows below 250, got \\[250\\]"),
    ],
)
def test_cells_that_are_not_there_are_refused(cells, positions, message):
    with pytest.raises(ValueError, match=message):
        transplant(context_model(), SLIDE, cells, positions)
