"""Validation of a fit: never trained on, scored alike, resumed exactly."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.testing import assert_close

from spatiagraph.data import make_tissue
from spatiagraph.data.loader import NicheBatches
from spatiagraph.data.recipe import Crop, Grid, Neighborhoods, Parts
from spatiagraph.models import ContextModel, default_recipe
from spatiagraph.tasks import MaskedGenes
from spatiagraph.training import fit

SLIDE = make_tissue(800, num_genes=40, image=None, seed=0)
OTHER = make_tissue(200, num_genes=40, image=None, seed=1, slide_id="other")
RUN = {"max_epochs": 3, "tile_size": 200, "accelerator": "cpu", "progress": False, "seed": 3}


LEVELS = (Neighborhoods(15), Parts(60))


def model(levels=LEVELS) -> ContextModel:
    recipe = default_recipe([SLIDE], image=False, levels=levels)
    return ContextModel.for_slides([SLIDE], recipe, channels=8)


class Watch(MaskedGenes):
    """Remembers which cells were scored, in training and in validation."""

    def __init__(self, model):
        super().__init__(model)
        self.scored: dict[bool, list[torch.Tensor]] = {True: [], False: []}

    def loss(self, batch, generator=None):
        self.scored[self.training].append(batch.cell_index[batch.core])
        return super().loss(batch, generator)

    def cells(self, training: bool) -> np.ndarray:
        return torch.cat(self.scored[training]).unique().numpy()


@pytest.mark.parametrize("batches", [None, NicheBatches()])
def test_blocks_are_scored_after_every_epoch_and_never_trained_on(batches):
    mine = model() if batches is None else model((Grid(), Parts(8)))
    task = Watch(mine)
    history = fit(mine, SLIDE, task=task, validation=0.1, batches=batches, **RUN).history
    trained, held_out = task.cells(True), task.cells(False)
    assert len(held_out) == 80
    assert not np.isin(trained, held_out).any()
    assert 200 < len(trained) < 720  # without those within reach
    assert {"val_loss", "val_cell"} <= set(history)
    assert history["cells"].eq(len(trained)).all()
    graph = mine.recipe(SLIDE).edge_index
    source, target = graph[0].numpy(), graph[1].numpy()
    seen = np.isin(np.arange(800), held_out)
    for _ in range(mine.num_hops):  # what validation cells see
        seen[source[seen[target]]] = True
    assert not seen[trained].any()


def test_crops_of_trained_cells_share_no_pixel_with_those_held_out():
    slide = make_tissue(800, num_genes=40, image="dapi", seed=0)
    recipe = default_recipe([slide], crops=(Crop(40.0, 16),))
    mine = ContextModel.for_slides([slide], recipe, channels=8)
    task = Watch(mine)
    fit(mine, slide, task=task, validation=0.05, **{**RUN, "max_epochs": 1})
    tree = cKDTree(slide.pos[task.cells(False)])
    near = tree.query(slide.pos[task.cells(True)], p=np.inf)[0]  # along the axes, as windows lie
    assert near.min() > 40.0


def test_the_largest_window_of_a_cell_keeps_tissue_apart():
    """Of several crops of each cell, as ST-Align has, whichever comes first."""
    slide = make_tissue(800, num_genes=40, image="dapi", seed=0)
    recipe = default_recipe([slide], crops=(Crop(10.0, 16), Crop(40.0, 16, name="around")))
    mine = ContextModel.for_slides([slide], recipe, channels=8)
    task = Watch(mine)
    fit(mine, slide, task=task, validation=0.05, **{**RUN, "max_epochs": 1})
    tree = cKDTree(slide.pos[task.cells(False)])
    assert tree.query(slide.pos[task.cells(True)], p=np.inf)[0].min() > 40.0


def test_nothing_is_held_out_unasked():
    few = make_tissue(300, num_genes=40, image=None, seed=0)
    task = Watch(model())
    result = fit(task.model, few, task=task, **RUN)
    assert "val_loss" not in result.history
    assert result.record["validation"] is None
    assert len(np.unique(task.cells(True))) == 300


def test_slides_of_their_own_are_validated_on_whole():
    mine = model()
    task = Watch(mine)
    result = fit(mine, SLIDE, task=task, validation=OTHER, **RUN)
    assert len(task.cells(False)) == 200
    assert len(task.cells(True)) == 800
    assert set(result.record["validation"]) == {"other"}


def test_validation_changes_no_step_and_the_last_weights_stay_where_they_are_best():
    plain, validated = model(), model()
    fit(plain, SLIDE, **RUN)
    history = fit(validated, SLIDE, validation=[OTHER], **RUN).history
    assert history["val_loss"].idxmin() == len(history) - 1
    for name, value in plain.state_dict().items():
        assert_close(validated.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("average", [None, 0.9])
def test_an_interrupted_run_with_validation_and_patience_resumes_to_the_bit(tmp_path, average):
    from tests.training.test_fitting import StopIn

    options = {**RUN, "validation": 0.1, "patience": 3, "average": average}
    whole, resumed = model(), model()
    expected = fit(whole, SLIDE, **options, out=tmp_path / "whole").history
    with pytest.raises(KeyboardInterrupt):
        fit(model(), SLIDE, **options, out=tmp_path / "broken", callbacks=[StopIn(2)])
    found = fit(resumed, SLIDE, **options, out=tmp_path / "broken").history
    for name, value in whole.state_dict().items():
        assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    assert found["val_loss"].tolist() == expected["val_loss"].tolist()


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (1.5, "between 0 and 1, got 1.5"),
        (0.0, "between 0 and 1, got 0.0"),
        ("some", "as slides or a share, got 'some'"),
        ([], "got none"),
        ([SLIDE], r"got \['synthetic'\] again"),
        ([OTHER, OTHER], r"got \['other'\] again"),
    ],
)
def test_validation_sets_that_cannot_be_are_refused(validation, message):
    with pytest.raises(ValueError, match=message):
        fit(model(), SLIDE, validation=validation, **RUN)


def test_blocks_that_leave_nothing_within_reach_to_train_on_are_refused():
    small = make_tissue(100, num_genes=40, image=None, seed=0)
    with pytest.raises(ValueError, match="got none of 100: give a smaller share"):
        fit(model(), small, validation=0.95, **RUN)


def test_donors_that_are_trained_on_and_validated_on_are_named(caplog):
    """ST-Align fact A16: what a score on another section of a donor says, and what not."""
    train, other, far = (
        make_tissue(150, num_genes=20, seed=i, slide_id=f"section{i}") for i in range(3)
    )
    train.donor, other.donor, far.donor = "ann", "ann", "bob"

    def said(validation):
        caplog.clear()
        fit(
            ContextModel.for_slides([train], image=None, channels=8), [train],
            validation=validation, max_steps=1, progress=False, accelerator="cpu",
        )  # fmt: skip
        return "donors that are trained on, ['ann']" in caplog.text

    assert said([other, far])
    assert not said([far])
    assert not said(0.2)
