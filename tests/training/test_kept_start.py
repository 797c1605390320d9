"""A run keeps its model as it was before the first step, and loses it to nothing."""

import shutil

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.testing import assert_close

from spatiagraph.data import make_tissue
from spatiagraph.data.recipe import Neighborhoods, Parts
from spatiagraph.models import ContextModel, SpatialFormer, default_recipe
from spatiagraph.training import fit, has_start, load_start, tune_neighbors

SLIDE = make_tissue(300, num_genes=20, image=None, seed=0)
RUN = {"max_epochs": 2, "lr": 1e-2, "accelerator": "cpu", "progress": False, "logger": False}


def model():
    levels = (Neighborhoods(15), Parts(60))
    recipe = default_recipe([SLIDE], image=False, levels=levels)
    return ContextModel.for_slides([SLIDE], recipe, channels=8)


def weights_of(some):
    return {name: value.clone() for name, value in some.state_dict().items()}


def assert_equal(weights, expected):
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(weights[name], value, rtol=0, atol=0)


class Fail(Callback):
    """End the run in an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("out of time")


def test_the_model_of_before_the_first_step_is_kept_beside_the_trained_one(tmp_path):
    mine = model()
    before = weights_of(mine)
    fit(mine, SLIDE, **RUN, out=tmp_path / "run")
    start = load_start(tmp_path / "run")
    assert isinstance(start, ContextModel)
    assert_equal(start.state_dict(), before)
    assert_equal(ContextModel.from_pretrained(tmp_path / "run" / "model").state_dict(),
                 mine.state_dict())  # fmt: skip
    assert not torch.equal(mine.head.linear.weight, start.head.linear.weight)
    files = {path.name for path in (tmp_path / "run" / "start").iterdir()}
    assert files == {"config.json", "model.safetensors"}


def test_a_start_that_is_fitted_again_without_held_out_tissue_is_the_one_that_is_kept(tmp_path):
    mine = model()
    seen = mine.cell_encoder.genes.mean.clone()
    fit(mine, SLIDE, validation=0.1, **{**RUN, "lr": 1e-9}, out=tmp_path / "run")
    start = load_start(tmp_path / "run").cell_encoder.genes.mean
    assert_close(start, mine.cell_encoder.genes.mean)  # no buffer moves
    assert not torch.allclose(start, seen)


def test_a_run_that_goes_on_keeps_the_start_of_its_first_call(tmp_path):
    mine, again = model(), model()
    before = weights_of(mine)
    with pytest.raises(RuntimeError, match="out of time"):
        fit(mine, SLIDE, **RUN, out=tmp_path / "run", callbacks=[Fail(1)])
    with torch.no_grad():  # a checkpoint stands in its place, so nothing of it is trained
        again.head.linear.weight.zero_()
    fit(again, SLIDE, **RUN, out=tmp_path / "run")
    assert_equal(load_start(tmp_path / "run").state_dict(), before)
    fit(again, SLIDE, **RUN, out=tmp_path / "run")  # that of a run that is done as well
    assert_equal(load_start(tmp_path / "run").state_dict(), before)


def test_a_run_that_fails_in_its_first_epoch_leaves_no_start(tmp_path):
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "mine.txt").write_text("kept")
    with pytest.raises(RuntimeError, match="out of time"):
        fit(model(), SLIDE, **RUN, out=tmp_path, callbacks=[Fail(0)])
    assert not has_start(tmp_path)
    assert [path.name for path in (tmp_path / "start").iterdir()] == ["mine.txt"]
    other = ContextModel.for_slides([SLIDE], channels=4)
    fit(other, SLIDE, **RUN, out=tmp_path)
    assert load_start(tmp_path).cell_encoder.genes.linear.weight.shape[0] == 4


def test_a_second_stage_starts_from_the_model_of_the_first(tmp_path):
    mine = model()
    fit(mine, SLIDE, **RUN)
    first = weights_of(mine)
    fit(mine, SLIDE, **RUN, out=tmp_path / "second")
    assert_equal(load_start(tmp_path / "second").state_dict(), first)


def test_a_run_of_before_starts_were_kept_goes_on_and_has_none(tmp_path):
    with pytest.raises(RuntimeError, match="out of time"):
        fit(model(), SLIDE, **RUN, out=tmp_path / "run", callbacks=[Fail(1)])
    shutil.rmtree(tmp_path / "run" / "start")
    fit(model(), SLIDE, **RUN, out=tmp_path / "run")
    assert not has_start(tmp_path / "run")
    with pytest.raises(ValueError, match="kept its model before training, found no start in"):
        load_start(tmp_path / "run")


@pytest.mark.parametrize("mode", ["probe", "lora"])
def test_changes_of_low_rank_keep_no_start_and_other_tuning_does(tmp_path, mode):
    if mode == "lora":
        pytest.importorskip("peft")
    mine = SpatialFormer.from_options([SLIDE], channels=16)
    before = weights_of(mine)
    options = {**RUN, "max_epochs": None, "max_steps": 1, "out": tmp_path / "run"}
    tune_neighbors(mine, SLIDE, mode, **options)
    assert has_start(tmp_path / "run") == (mode == "probe")
    if mode == "probe":
        assert_equal(load_start(tmp_path / "run").state_dict(), before)


def test_a_refused_change_of_low_rank_leaves_the_start_of_another_run(tmp_path):
    pytest.importorskip("peft")
    mine = SpatialFormer.from_options([SLIDE], channels=16)
    options = {**RUN, "max_epochs": None, "max_steps": 1, "out": tmp_path / "run"}
    tune_neighbors(mine, SLIDE, "probe", **options)
    with pytest.raises(ValueError, match="Expected"):
        tune_neighbors(mine, SLIDE, "lora", **options)
    assert has_start(tmp_path / "run")
