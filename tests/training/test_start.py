"""The start of a run is fitted to the cells that are trained on, and to no others."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch.testing import assert_close

from spatiagraph.data import Cohort, Slide, make_tissue
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.models import ContextModel, Spatia, SpatialFormer, default_recipe
from spatiagraph.training import fit
from spatiagraph.training.validation import GRID, StoredSlides
from tests.models.test_st_align import blocks, new_model
from tests.training.test_validation import Watch

RUN = {"max_steps": 1, "lr": 1e-9, "accelerator": "cpu", "progress": False, "logger": False}


def planted(slide, share=0.1):
    """The slide with a gene that is counted in the held-out blocks alone, and its row."""
    block = spatial_blocks(slide.pos, num_folds=GRID[0] * GRID[1], seed=0, grid=GRID)
    counts = slide.counts.toarray()
    counts[:, 3] = np.where(block < round(share * GRID[0] * GRID[1]), 9, 0)
    adata = slide.adata.copy()
    adata.X = csr_matrix(counts)
    return Slide(adata, slide.image, slide_id=slide.slide_id)


def tissue(num_cells=500, seed=0, slide_id="tissue"):
    return make_tissue(num_cells, num_genes=30, image=None, seed=seed, slide_id=slide_id)


def context(slides):
    return ContextModel.for_slides(slides, default_recipe(slides, image=False), channels=8)


def spots():
    return blocks(rows=12, columns=20)


CASES = {
    "context": (tissue, context, lambda m: [m.cell_encoder.genes.mean]),
    "spatia": (
        tissue,
        lambda slides: Spatia.for_slides(slides, num_genes=None),
        lambda m: [m.cell_encoder.profile.mean],
    ),
    "st-align": (spots, new_model, lambda m: [m.provider.mean, m.niche.start.gene_mean]),
    "spatialformer": (
        tissue,
        lambda slides: SpatialFormer.from_options(slides, channels=16),
        lambda m: [m.similarity.mean],
    ),
}


@pytest.mark.filterwarnings("ignore:Expected spots of at least 6 clusters")  # of two blocks
@pytest.mark.parametrize("case", CASES)
def test_a_gene_of_held_out_cells_alone_is_not_known_at_the_start(case):
    make, build, means_of = CASES[case]
    slide = planted(make())
    model = build([slide])
    gene = model.panel.symbols.index(slide.symbols[3])
    assert all(mean[gene] > 0.01 for mean in means_of(model))
    fit(model, slide, validation=0.1, **RUN)
    for mean in means_of(model):
        assert mean[gene] == 0
        assert (mean > 0).sum() > 20


def test_means_and_decay_are_those_of_the_cells_that_are_trained_on():
    slide = tissue()
    model = context([slide])
    task = Watch(model)
    before, decay = model.cell_encoder.genes.mean.clone(), model.weight_decay
    model.weight_decay = 7.0  # of a start that has seen all cells
    result = fit(model, slide, task=task, validation=0.1, **{**RUN, "max_steps": 9}, tile_size=99)
    rows = task.cells(True)
    counts, depth = slide.counts.toarray()[rows], np.asarray(slide.depth)[rows, None]
    expected = np.sqrt(counts / depth * np.sort(depth.ravel())[(len(depth) - 1) // 2]).mean(0)
    found = model.cell_encoder.genes.mean
    np.testing.assert_allclose(found[model.panel.align(slide).genes], expected, rtol=1e-4)
    assert not torch.allclose(before, found, rtol=1e-3)
    assert result.record["weight_decay"] == model.weight_decay == decay


def test_slides_that_are_validated_on_are_taken_out_of_the_start():
    slides = [tissue(), tissue(200, 1, "other")]
    recipe = default_recipe(slides, image=False)
    both, alone = (ContextModel.for_slides(s, recipe, channels=8) for s in (slides, slides[:1]))
    fit(both, slides[0], validation=slides[1], **RUN)
    assert_close(both.cell_encoder.genes.mean, alone.cell_encoder.genes.mean, rtol=0, atol=0)


@pytest.mark.parametrize("how", ["fitted", "by hand", "other slides"])
def test_a_model_that_was_trained_or_starts_from_other_slides_is_left_as_it_is(how):
    slide = tissue()
    model = context([tissue(200, 1, "other")] if how == "other slides" else [slide])
    if how == "fitted":
        fit(model, slide, **RUN)
    elif how == "by hand":
        with torch.no_grad():
            next(model.context_encoder.parameters()).add_(0.1)
    before = model.cell_encoder.genes.linear.weight.clone()
    changed = how == "by hand"
    said = pytest.warns(UserWarning, match="has seen the cells that are held out")
    with said if changed else nullcontext():
        fit(model, slide, validation=0.1, **RUN)
    assert_close(model.cell_encoder.genes.linear.weight, before, rtol=0, atol=0)


@pytest.mark.parametrize("image", [None, "he"])
def test_slides_of_a_cohort_are_read_one_at_a_time(tmp_path, image):
    """A stored slide has no image: its statistics stay those of the model."""
    slides = [make_tissue(200, num_genes=20, image=image, seed=s, slide_id=f"s{s}") for s in (0, 1)]
    model = Spatia.for_slides(slides, num_genes=None)
    cohort = Cohort.create(tmp_path / "c.zarr", slides, model.recipe, tile_size=128)
    before = model.cell_encoder.profile.mean.clone()
    fit(model, cohort, validation=0.1, **RUN)
    assert not torch.allclose(model.cell_encoder.profile.mean, before)
    again = StoredSlides(cohort.part(["s1", "s0"]))
    assert [slide.slide_id for slide in again] == ["s1", "s0"]
    assert again[0] is not again[0]
