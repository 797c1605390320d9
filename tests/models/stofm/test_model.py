"""SToFM from a slide to embeddings: facts about the whole pipeline."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

import spatiagraph as sg
from spatiagraph.data import Slide
from spatiagraph.graph.pairs import NodeKind
from spatiagraph.models import SToFM, SubSlices, model_class

KD = SubSlices(max_cells=200, num_neighbors=12)


def tissue(num=500, seed=0):
    return sg.make_tissue(num, num_genes=40, image=None, seed=seed)


def moved(slide, pos, rows=None):
    """The same cells elsewhere, or in another order."""
    adata = slide.adata.copy()
    adata.obsm["spatial"] = pos
    return Slide(adata[rows].copy() if rows is not None else adata, slide_id="moved", check=False)


@pytest.fixture(scope="module")
def slide():
    return tissue()


@pytest.fixture(scope="module")
def model(slide):
    """With weights away from the start, where positions say nearly nothing."""
    model = SToFM.for_slides([slide], slices=KD)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.encoder.named_parameters():
        if parameter.dim() > 1 or "bias.mlp" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return model


@pytest.fixture(scope="module")
def embedded(model, slide):
    return sg.embed(model, slide[:], progress=False)


def embedding(model, slide, **options):
    return sg.embed(model, slide, progress=False, **options).obsm["X_stofm"]


def test_it_is_known_by_its_name_and_writes_what_it_knows(embedded, model):
    assert model_class("stofm") is SToFM
    assert embedded.obsm["X_stofm"].shape == embedded.obsm["X_stofm_cell"].shape == (500, 64)
    assert_allclose(np.linalg.norm(embedded.obsm["X_stofm_cell"], axis=1), 1, atol=1e-5)
    assert sorted(embedded.obs["stofm_sub_slice"].unique()) == [0, 1, 2, 3]
    notes = embedded.uns["spatiagraph"]["stofm"]
    assert embedded.obs["stofm_virtual"].nunique() == notes["num_virtual_cells"] > 1
    assert notes["clustering"] == "leiden"
    away = np.sqrt(((embedded.obsm["spatial"] - embedded.obsm["spatial"].mean(0)) ** 2).sum(1))
    assert notes["units_per_um"] == pytest.approx(100 / math.sqrt(12 * (away**2).mean()), rel=1e-5)


def test_the_pipeline_does_not_depend_on_how_the_slide_lies(model, slide, embedded):
    """SToFM fact A1."""
    turn = np.array([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    turned = moved(slide, slide.pos @ turn.T + 900)
    assert_allclose(embedding(model, turned), embedded.obsm["X_stofm"], atol=1e-3)


def test_the_published_rules_do_depend_on_how_the_slide_lies(model, slide):
    """SToFM fact A1: with ``norm="bbox"`` and ``partition="grid"`` embeddings are not invariant."""
    turn = np.array([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    rules = replace(KD, norm="bbox", partition="grid")
    published = SToFM(model.recipe, model.cell_encoder, model.encoder, slices=rules)
    straight = embedding(published, slide[:])
    turned = embedding(published, moved(slide, slide.pos @ turn.T + 900))
    assert np.abs(turned - straight).max() > 0.1  # hundred times what ours differ by, at least


def test_every_cell_has_one_row_in_the_order_of_the_file(model):
    """SToFM fact A17."""
    large = tissue(2500, seed=4)
    first = embedding(model, large[:], tile_size=300)
    assert (np.abs(first).sum(1) > 0).sum() == 2500
    rows = np.random.default_rng(0).permutation(2500)
    assert_allclose(embedding(model, moved(large, large.pos, rows)), first[rows], atol=1e-4)
    assert_allclose(embedding(model, large[:], tile_size=5000), first, atol=1e-4)


def test_each_sub_slice_has_cls_all_virtual_cells_and_its_cells(model, slide):
    """SToFM fact A13: the rows of virtual cells are those of the slide, bit for bit."""
    data = model.prepare(slide)
    num, seen = len(data.virtual_x), []
    for batch in model.batches([data], 1):
        assert batch.kind[: num + 1].tolist() == [NodeKind.CLS] + [NodeKind.VIRTUAL] * num
        assert torch.equal(batch.z[1 : num + 1], data.virtual_x)
        assert torch.equal(batch.place[1 : num + 1], data.virtual_pos)
        assert bool((batch.z[0] == 0).all())
        assert bool((batch.cell_index[: num + 1] == -1).all())
        seen += batch.cell_index[batch.core].tolist()
        assert_close(batch.z[batch.core], data.z[batch.cell_index[batch.core]])
    assert sorted(seen) == list(range(500))


def test_a_far_cell_is_felt_through_virtual_cells_alone(model, slide):
    """SToFM fact A14."""
    data = model.prepare(slide)
    batches = list(model.batches([data], 1))
    first = model(*model.inputs(batches[0])).cell
    far = batches[-1].cell_index[batches[-1].core][0]
    data.z = data.z.clone()
    data.z[far] = -data.z[far]
    again = next(iter(model.batches([data], 1)))
    assert_close(model(*model.inputs(again)).cell, first, atol=0, rtol=0)
    data.virtual_x = data.virtual_x + 0.1
    other = next(iter(model.batches([data], 1)))
    assert not torch.allclose(model(*model.inputs(other)).cell, first, atol=1e-3)


def test_an_overlap_gives_cells_at_a_border_more_of_what_is_around_them(model, slide):
    """Seams: beside a sub-slice centred on them, cells at borders differ less than with ``kd``."""
    data = model.prepare(slide)
    near = torch.cdist(data.place, data.place).topk(9, largest=False).indices[:, 1:]
    border = (data.part[near] != data.part.unsqueeze(1)).any(1).nonzero().squeeze(1)[::5]
    off = {}
    for partition in ("kd", "overlap"):
        cut = SToFM(
            model.recipe, model.cell_encoder, model.encoder,
            slices=replace(KD, partition=partition, halo=100),
        )  # fmt: skip
        whole = torch.from_numpy(embedding(cut, slide[:]))
        differences = []
        for row in border.tolist():
            centred = copy.copy(data)
            around = (
                (centred.place - centred.place[row]).norm(dim=1).topk(200, largest=False).indices
            )
            centred.part = torch.ones_like(centred.part)
            centred.part[around] = 0
            centred.core = torch.arange(500) == row
            (batch,) = model.batches([centred], 1)
            alone = model(*model.inputs(batch)).cell[batch.core][0].detach()
            differences.append((whole[row] - alone).norm() / alone.norm())
        off[partition] = torch.stack(differences).mean().item()
    assert off["overlap"] < 0.9 * off["kd"], off
