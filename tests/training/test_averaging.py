import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.testing import assert_close

from spatiagraph.data import make_tissue
from spatiagraph.models import ContextModel
from spatiagraph.tasks import MaskedGenes
from spatiagraph.training import TaskModule, WarmAverage, fit

SLIDE = make_tissue(200, num_genes=30, image=None, seed=0)
RUN = {"max_epochs": 3, "tile_size": 80, "accelerator": "cpu", "progress": False, "average": 0.9}


def model() -> ContextModel:
    return ContextModel.for_slides([SLIDE], channels=8, seed=0)


class Keep(Callback):
    """The weights after every step."""

    def __init__(self):
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        state = pl_module.task.model.state_dict()
        self.steps.append({name: value.clone() for name, value in state.items()})


class StopIn(Callback):
    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_a_model_ends_with_the_average_of_its_steps():
    """SPATIA fact 39: decays of min(d, (1 + n) / (10 + n)), from the start on."""
    trained, keep = model(), Keep()
    expected = {name: value.clone() for name, value in trained.named_parameters()}
    fit(trained, [SLIDE], **RUN, callbacks=[keep])
    for n, step in enumerate(keep.steps):
        decay = min(0.9, (1 + n) / (10 + n))
        expected = {k: decay * v + (1 - decay) * step[k] for k, v in expected.items()}
    for name, parameter in trained.named_parameters():
        assert_close(parameter, expected[name])


def test_the_first_step_is_averaged_by_a_tenth():
    """SPATIA fact 39."""
    trained, keep = model(), Keep()
    start = {name: value.detach().clone() for name, value in trained.named_parameters()}
    run = {**RUN, "max_epochs": 1, "tile_size": 4096}
    fit(trained, [SLIDE], **run, callbacks=[keep])
    assert len(keep.steps) == 1
    for name, parameter in trained.named_parameters():
        assert_close(parameter, 0.1 * start[name] + 0.9 * keep.steps[0][name])


def test_an_averaged_run_resumes_to_the_bits_of_an_uninterrupted_one(tmp_path):
    """SPATIA fact 39."""
    whole, broken, resumed = model(), model(), model()
    fit(whole, [SLIDE], **RUN, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(broken, [SLIDE], **RUN, out=tmp_path / "run", callbacks=[StopIn(2)])
    fit(resumed, [SLIDE], **RUN, out=tmp_path / "run")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_that_is_over_gives_its_average_again(tmp_path):
    """SPATIA fact 39."""
    first, again = model(), model()
    run = {**RUN, "max_epochs": 1}
    fit(first, [SLIDE], **run, out=tmp_path)
    fit(again, [SLIDE], **run, out=tmp_path)
    saved = ContextModel.from_pretrained(tmp_path / "model")
    for a, *others in zip(first.parameters(), again.parameters(), saved.parameters(), strict=True):
        for b in others:
            assert torch.equal(a, b)


def test_validation_sees_the_average_and_training_goes_on_from_the_weights():
    """SPATIA fact 39: train, evaluate, train restores the weights exactly."""
    callback = WarmAverage(0.9)
    net = TaskModule(MaskedGenes(model()))
    callback.setup(None, net, "fit")
    before = [parameter.clone() for parameter in net.parameters()]
    for parameter in net.parameters():
        parameter.data += 1  # a step; the average is still at the start
    callback.on_validation_epoch_start(None, net)
    for parameter, start in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter, start)
    callback.on_validation_epoch_end(None, net)
    for parameter, start in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter, start + 1)


def test_the_average_is_kept_on_the_device_of_the_model():
    """Lightning makes it before the model moves; on another device every step would wait."""
    callback = WarmAverage(0.9)
    net = TaskModule(MaskedGenes(model()))
    callback.setup(None, net, "fit")
    net.to("meta")
    callback.on_fit_start(None, net)
    checkpoint = {"state_dict": {}}
    callback.on_save_checkpoint(None, net, checkpoint)
    assert {value.device.type for value in checkpoint["state_dict"].values()} == {"meta"}


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        WarmAverage(1.0)
