"""Transitions in one call: what it may look at, and what it is called again with."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from spatiagraph.data import Slide, SlideImage, make_tissue, pairs_of_cells
from spatiagraph.data.recipe import Crop
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import score_generation
from spatiagraph.flow import Sampling
from spatiagraph.inference import generate, score_transitions
from spatiagraph.models import ImageGenerator
from spatiagraph.models.generator import TINY
from spatiagraph.nn.weights import weights_hash
from spatiagraph.pairing import pair_states
from spatiagraph.tasks import ImageFlow, LossOutput, Task
from spatiagraph.training import Pairing, Run, fit_generator, fit_transitions

STATES = [("type1", "type2", "larger"), ("type1", "type0", "smaller")]
NET = replace(TINY, channels=8, condition_channels=8, head_channels=8)
CROP = Crop(size_px=16)
ONE_STEP = {"sampling": Sampling(1), "progress": False}
RUN = {"max_epochs": 1, "morphology_epochs": 1, "accelerator": "cpu", "progress": False}
SLIDE = make_tissue(400, num_types=3, num_niches=2, num_genes=20, image="dapi", seed=0)
SLIDE.adata.obsm["X_cell"] = np.random.default_rng(0).normal(size=(400, 4)).astype("f4")


def changed(rows, image=SLIDE.image) -> Slide:
    """The slide with other genes and embeddings of some cells."""
    adata = SLIDE.adata.copy()
    counts = SLIDE.counts.toarray()
    counts[rows] = counts[rows][:, ::-1] ** 2 + 1
    adata.X = csr_matrix(counts)
    adata.obsm["X_cell"][rows] += 9
    return Slide(adata, image, slide_id=SLIDE.slide_id, donor=SLIDE.donor)


def new(slide=SLIDE, transitions=STATES, *, use_morphology=True) -> ImageGenerator:
    """A generator that wants the signatures of its transitions."""
    return ImageGenerator.for_slides(
        [slide],
        NET,
        context=["X_cell"],
        transitions=transitions,
        states_key="cell_type",
        signatures=["genes", "morphology"] if use_morphology else ["genes"],
        crop=CROP,
    )


def fitted_to(slide, transitions=STATES, *, use_morphology=True, **options):
    generator = new(slide, transitions, use_morphology=use_morphology)
    return fit_transitions(slide, generator, **{**RUN, **options})


@pytest.fixture(scope="module")
def fitted():
    return fitted_to(SLIDE)


def test_nothing_of_held_out_cells_reaches_the_generator(fitted):
    test = spatial_blocks(SLIDE.pos) == 0
    again = fitted_to(changed(test))
    assert weights_hash(again.generator) == weights_hash(fitted.generator)
    other = fitted_to(changed(~test))
    assert weights_hash(other.generator) != weights_hash(fitted.generator)


def test_cells_are_trained_on_or_held_out(fitted):
    test = spatial_blocks(SLIDE.pos) == 0
    for side in ("control_row", "target_row"):
        assert not test[fitted.pairs[side]].any()
        assert test[fitted.held_out[side]].all()


def test_nothing_is_aligned_unless_asked_for():
    fitted = fit_transitions(SLIDE, new(), **{**RUN, "morphology_epochs": 0})
    assert fitted.morphology is None
    assert "morphology" not in fitted.history
    assert bool(fitted.generator.conditioner.delta_morphology.any())
    with pytest.raises(ValueError, match="at least one epoch, got max_epochs=-1"):
        fit_transitions(SLIDE, new(), **{**RUN, "morphology_epochs": -1})


def test_a_network_of_morphology_learns_from_as_many_nuclei_as_it_may():
    with pytest.raises(ValueError, match="got 3 and 0 of 3: give more crops"):
        fit_transitions(SLIDE, new(), **RUN, max_nuclei=3)


def test_a_fifth_says_which_weights_are_kept():
    """Steps far too large make images worse: those of the start are kept, and it is said."""
    slide = make_tissue(1500, num_types=3, num_niches=2, num_genes=20, image="dapi", seed=0)
    slide.adata.obsm["X_cell"] = np.zeros((1500, 4), dtype="f4")
    model = new(slide, use_morphology=False)
    fitted = fit_transitions(slide, model, **RUN, lr=0.3, average=None)
    fold = spatial_blocks(slide.pos)
    for side, folds in (("held_out", {0}), ("validation", {1}), ("pairs", {2, 3, 4})):
        rows = getattr(fitted, side)[["control_row", "target_row"]].to_numpy()
        assert set(fold[rows.ravel()]) == folds
    last = fitted.history.iloc[-1]
    assert last["val_image_distance"] > last["start_val_image_distance"]
    for when, kept in (("in time", True), ("unasked", False)):
        if not kept:
            fitted = fit_transitions(slide, new(slide, use_morphology=False), validate=False, **RUN)
            assert fitted.validation is None, when
        moved = any(bool(p.any()) for p in fitted.generator.unet.net.conv_out.parameters())
        assert moved != kept, when


def test_called_again_it_gives_the_same_and_refuses_what_changed(tmp_path, fitted):
    for _ in range(2):
        found = fitted_to(SLIDE, out=tmp_path)
        assert weights_hash(found.generator) == weights_hash(fitted.generator)
    again = changed(np.array([], dtype=int))
    again.adata.obsm["X_cell"] += 1  # embedded anew
    with pytest.raises(ValueError, match=r"another run \(different: conditions, pairs\)"):
        fitted_to(again, out=tmp_path)


def test_editing_the_target_changes_no_image(fitted):
    """SPATIA fact 38: neither its pixels, nor its genes, nor its embedding."""
    rows = fitted.held_out[["control_row", "target_row"]].to_numpy()
    control, target = next(r for r in rows if np.abs(np.subtract(*SLIDE.pos[r])).max() > 40)
    pixels = SLIDE.image.pixels(slice(None), slice(None)).copy()
    x, y = ((SLIDE.pos[target] - SLIDE.image.origin_um) / SLIDE.image.mpp).astype(int)
    around = (slice(max(y - 10, 0), y + 10), slice(max(x - 10, 0), x + 10))
    pixels[around] = 0
    kept = {key: getattr(SLIDE.image, key) for key in ("mpp", "origin_um", "value_range")}
    image = SlideImage([pixels], **kept)
    edited = changed([target], image)

    def made(slide, cell):
        ask = {"transition": "larger", "cells": [cell], **ONE_STEP}
        return generate(fitted.generator, slide, **ask).images

    np.testing.assert_array_equal(made(edited, control), made(SLIDE, control))
    assert not np.array_equal(made(edited, target), made(SLIDE, target))


def test_a_single_transition_has_no_wrong_one():
    only = fitted_to(SLIDE, STATES[:1], use_morphology=False)
    scores = score_transitions(only.generator, [SLIDE], only.held_out, max_pairs=6, **ONE_STEP)
    who = set(scores.table.index.get_level_values("generator"))
    assert who == {"generated", "identity", "random_target", "start"}
    assert len(scores.pairs) == len(scores.generated) == 6
    assert scores.window_um == only.generator.window_um


def test_pairs_that_do_not_fit_are_refused(fitted):
    def score(pairs):
        score_transitions(fitted.generator, [SLIDE], pairs, progress=False)

    with pytest.raises(ValueError, match=r"'slide' of .* got \['elsewhere'\]"):
        score(fitted.held_out.assign(slide="elsewhere"))
    with pytest.raises(ValueError, match=r"of \['larger', 'smaller'\], got \['sideways'\]"):
        score(fitted.held_out.assign(transition="sideways"))
    with pytest.raises(ValueError, match=r"got \[\]"):
        score(fitted.held_out[:0])
    with pytest.raises(ValueError, match="'transition' of"):
        score(pairs_of_cells([SLIDE]))


def test_cells_that_are_not_embedded_are_left_out_or_named():
    """A cell without a niche has no embedding of its niche: no NaN is trained on, or made."""
    slide = changed(np.array([], dtype=int))
    control = np.flatnonzero(slide.adata.obs["cell_type"] == "type1")
    slide.adata.obsm["X_cell"][control[::3]] = np.nan
    found = fitted_to(slide, use_morphology=False)
    for pairs in (found.pairs, found.held_out):
        assert not np.isin(pairs["control_row"], control[::3]).any()
    ask = {"transition": "larger", **ONE_STEP}
    made = generate(found.generator, slide, **ask)
    assert made.cells["row"].tolist() == sorted({*control} - {*control[::3]})
    assert np.isfinite(made.images).all()
    name = slide.adata.obs_names[control[0]]
    with pytest.raises(ValueError, match=f"NaN on slide 'synthetic' for row {control[0]} '{name}'"):
        generate(found.generator, slide, cells=[name], **ask)
    given = {"X_cell": np.full((1, 4), np.nan)}
    with pytest.raises(ValueError, match="leave out cells without a niche"):
        generate(found.generator, slide, cells=[control[1]], context=given, **ask)


def test_the_run_of_the_generator_says_how_it_is_trained(tmp_path):
    plain = fitted_to(SLIDE, use_morphology=False, out=tmp_path, average=None)
    averaged = fitted_to(SLIDE, use_morphology=False)
    assert weights_hash(plain.generator) != weights_hash(averaged.generator)
    run = Run(max_epochs=1, accelerator="cpu", progress=False)
    same = fit_transitions(SLIDE, new(use_morphology=False), run=run)
    assert weights_hash(same.generator) == weights_hash(plain.generator)
    precision = {"average": None, "precision": "bf16-mixed"}
    with pytest.raises(ValueError, match="different: precision '32-true' → 'bf16-mixed'"):
        fitted_to(SLIDE, use_morphology=False, out=tmp_path, **precision)


def test_pairs_may_be_made_before_and_those_across_the_border_are_left_out(fitted):
    pairs = pair_states([SLIDE], STATES, states_key="cell_type", niche_key=None, max_cells=None)
    found = fit_transitions(SLIDE, new(use_morphology=False), pairs, **RUN)
    test = spatial_blocks(SLIDE.pos) == 0
    sides = test[pairs[["control_row", "target_row"]].to_numpy()].sum(1)
    assert len(found.pairs) == (sides == 0).sum()
    assert len(found.held_out) == (sides == 2).sum()
    assert (sides == 1).any()
    with pytest.raises(ValueError, match="fifth that is held out: Expected pairs, got none of 0"):
        fit_transitions(SLIDE, new(use_morphology=False), pairs[:0], **RUN)
    with pytest.raises(ValueError, match="'transitions' and 'states_key', got one without"):
        fit_transitions(SLIDE, ImageGenerator.for_slides([SLIDE], NET, crop=CROP), **RUN)


def test_pairing_is_by_its_options():
    with pytest.raises(ValueError, match="In the fifth that is held out"):
        fit_transitions(SLIDE, new(use_morphology=False), Pairing(min_cells=10_000), **RUN)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_a_generator_learns_in_half_precision(fitted, precision):
    model = ImageGenerator.for_slides([SLIDE], NET, context=["X_cell"], crop=CROP)
    before = weights_hash(model.unet)
    profile = copy.deepcopy(fitted.morphology.model)
    run = {"max_epochs": 1, "accelerator": "cpu", "progress": False, "precision": precision}
    pairs = fitted.pairs[:64].drop(columns="transition")
    history = fit_generator(model, [SLIDE], pairs, profile=profile, **run).history
    assert history["morphology"].iloc[0] > 0
    assert weights_hash(model.unet) != before
    assert {parameter.isfinite().all().item() for parameter in model.parameters()} == {True}
    made = generate(model, SLIDE, cells=[0, 1], **ONE_STEP)
    assert made.images.dtype == np.float32
    assert np.isfinite(made.images).all()


class Reconstruction(Task):
    """A task of someone else's."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def loss(self, batch, generator=None):
        condition = batch.condition
        velocity = self.model(batch.image, batch.confidence, self.model.embed(condition))
        return LossOutput((velocity - batch.target_image).square().mean(), {}, len(batch.image))


def test_a_generator_can_be_trained_by_any_task():
    model = ImageGenerator.for_slides([SLIDE], NET, context=["X_cell"], crop=CROP)
    fit = fit_generator(
        model,
        [SLIDE],
        pairs_of_cells([SLIDE], {SLIDE.slide_id: np.arange(20)}),
        task=Reconstruction(model),
        max_epochs=1,
        accelerator="cpu",
        progress=False,
    )
    assert fit.record["task"] == {"class": "Reconstruction"}


def test_a_task_must_be_that_of_the_generator(fitted):
    model, other = (
        ImageGenerator.for_slides([SLIDE], NET, context=["X_cell"], crop=CROP) for _ in range(2)
    )
    given = {"slides": [SLIDE], "pairs": pairs_of_cells([SLIDE]), "task": ImageFlow(model)}
    with pytest.raises(ValueError, match="a task of another one"):
        fit_generator(other, **given)
    with pytest.raises(ValueError, match="'profile' beside the task"):
        fit_generator(model, **given, profile=fitted.morphology.model)


def test_the_wrong_condition_is_scored_on_images_of_another_transition(fitted):
    """SPATIA fact 41: the table beside the same scores of images that are made here."""
    pairs = fitted.held_out.groupby("transition").head(8).reset_index(drop=True)
    scores = score_transitions(fitted.generator, [SLIDE], pairs, **ONE_STEP)
    tags = [tag for _, _, tag in STATES]
    sides = {"generated": np.empty_like(scores.control), "wrong": np.empty_like(scores.control)}
    for tag, group in pairs.groupby("transition"):
        (other,) = set(tags) - {tag}
        for side, transition in (("generated", tag), ("wrong", other)):
            rows = group["control_row"].to_numpy()
            made = generate(fitted.generator, SLIDE, transition=transition, cells=rows, **ONE_STEP)
            sides[side][group.index] = made.images[:, 0]
    generator, start = fitted.generator, np.empty_like(scores.control)
    for tag, group in pairs.groupby("transition"):
        image = torch.from_numpy(scores.control[group.index])
        number = torch.full((len(group),), generator.number_of(tag))
        x = generator.start(image, len(image), transition=number)
        start[group.index] = generator.decode(x).clamp(0, 1).detach().numpy()
    assert np.abs(start - scores.control).max() > 0
    assert np.abs(sides["generated"] - sides["wrong"]).max() > 0
    np.testing.assert_array_equal(scores.generated, sides["generated"])
    again = score_generation(
        sides["generated"],
        scores.target,
        scores.control,
        pairs["transition"].tolist(),
        wrong=sides["wrong"],
        start=start,
        mpp=CROP.window_um / CROP.size_px,
        component="center",
    )
    pd.testing.assert_frame_equal(scores.table, again)
    targets = pairs.groupby("transition")["target_row"].nunique()
    assert scores.table.loc["generated", "num_targets"][tags].tolist() == targets[tags].tolist()
