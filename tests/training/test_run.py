"""Options of a run, and what Lightning's users expect of them."""

import logging
import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from spatiagraph.tasks import LossOutput, Task
from spatiagraph.training import Run, fit, train

QUIET = Run(max_epochs=3, accelerator="cpu", progress=False)


class Line(Task):
    """y = w x, learned from mappings of tensors."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(1, 1)
        nn.init.zeros_(self.model.weight)
        nn.init.zeros_(self.model.bias)
        self.seen: list[float] = []

    def loss(self, batch, generator=None):
        self.seen.append(float(torch.rand((), generator=generator)))
        error = (self.model(batch["x"]) - batch["y"]).square().mean()
        return LossOutput(error, {"square": error.detach()}, len(batch["x"]))


class Interrupt(Callback):
    """Ctrl-C at the end of the first batch of an epoch."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def batches(num=6, slope=2.0) -> DataLoader:
    x = torch.linspace(-1, 1, 4 * num).view(num, 4, 1)
    random = torch.Generator().manual_seed(0)
    return DataLoader([{"x": a, "y": slope * a} for a in x], batch_size=None, generator=random)


class Kept(Logger):
    """Logger that remembers."""

    def __init__(self):
        super().__init__()
        self.rows: list[dict[str, float]] = []

    name, version = "kept", 0

    def log_metrics(self, metrics, step=None):
        self.rows.append(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass


def test_any_mapping_of_tensors_is_trained_on_and_validated():
    result = train(Line(), batches(), validation=batches(2), run=QUIET, lr=0.1)
    assert {"loss", "square", "val_loss", "val_square"} <= set(result.history)
    assert result.history["cells"].tolist() == [24.0] * 3
    assert result.history["val_loss"].is_monotonic_decreasing


def test_validation_that_scores_nothing_is_refused():
    class Nothing(Line):
        def loss(self, batch, generator=None):
            return super().loss(batch, generator)._replace(n=0 if not self.training else 4)

    with pytest.raises(ValueError, match="something to score in what is held out"):
        train(Nothing(), batches(), validation=batches(2), run=QUIET)


def test_loggers_and_callbacks_see_loss_validation_and_parts(tmp_path):
    kept = Kept()
    best = ModelCheckpoint(tmp_path, monitor="val_loss", filename="{epoch}-{val_loss:.3f}")
    run = QUIET.replace(logger=[kept, CSVLogger(tmp_path)], callbacks=[best], lr=0.1)
    history = train(Line(), batches(), validation=batches(2), run=run).history
    logged = {name: value for row in kept.rows for name, value in row.items()}
    for name in ("loss", "square", "val_loss", "val_square"):
        assert logged[name] == pytest.approx(history[name].iloc[-1])
    assert best.best_model_score == pytest.approx(history["val_loss"].min())


def test_early_stopping_of_lightning_can_watch_the_validation_loss():
    stop = EarlyStopping("val_loss", patience=1)
    history = train(
        Line(), batches(), validation=batches(2, -2.0), run=QUIET, callbacks=stop
    ).history
    assert len(history) == 2


@pytest.mark.parametrize("average", [None, 0.5])
def test_patience_stops_and_keeps_the_best_weights(average):
    """Validated on what training leads away from, from half a way on."""
    task, held_out = Line(), batches(2, 0.5)
    run = QUIET.replace(max_epochs=20, patience=2, lr=0.1, average=average)
    history = train(task, batches(), validation=held_out, run=run).history
    best = int(history["val_loss"].idxmin())
    assert len(history) == best + 3 < 20
    with torch.no_grad():
        errors = [(task.model(batch["x"]) - batch["y"]).square().mean() for batch in held_out]
    assert float(torch.stack(errors).mean()) == pytest.approx(history["val_loss"].min())


def test_without_patience_the_best_weights_are_kept_as_well():
    task, held_out = Line(), batches(2, 0.5)
    history = train(task, batches(), validation=held_out, run=QUIET, max_epochs=9, lr=0.1).history
    assert len(history) == 9
    assert history["val_loss"].iloc[-1] > history["val_loss"].min()
    with torch.no_grad():
        errors = [(task.model(batch["x"]) - batch["y"]).square().mean() for batch in held_out]
    assert float(torch.stack(errors).mean()) == pytest.approx(history["val_loss"].min())


def test_a_start_that_training_only_makes_worse_is_kept_and_said(caplog):
    task, held_out = Line(), batches(2, -2.0)
    bias = float(task.model.bias.detach())
    history = train(task, batches(), validation=held_out, run=QUIET, lr=0.1).history
    assert task.model.weight.item() == 0
    assert task.model.bias.item() == bias
    expected = torch.stack([(bias - b["y"]).square().mean() for b in held_out]).mean()
    assert history["start_val_loss"].tolist() == [pytest.approx(float(expected))] * 3
    assert "did not lower the validation loss of the start" in caplog.text


def test_a_run_within_its_first_pass_keeps_its_start_and_says_so(caplog):
    task = Line()
    start = {name: value.clone() for name, value in task.model.state_dict().items()}
    options = {"validation": batches(2, -2.0), "max_steps": 2, "lr": 0.1}
    history = train(task, batches(), run=QUIET.replace(max_epochs=None), **options).history
    assert "val_loss" not in history
    for name, value in task.model.state_dict().items():
        assert torch.equal(value, start[name])
    assert "the start was kept. Give it more steps" in caplog.text


def test_patience_waits_for_the_least_number_of_steps():
    options = {"validation": batches(2, -2.0), "patience": 1, "max_epochs": 9}
    for least, epochs in ((None, 1), (13, 3)):  # of 6 steps each
        history = train(Line(), batches(), run=QUIET, min_steps=least, **options).history
        assert len(history) == epochs


def test_passes_follow_from_the_steps_where_a_run_says_nothing():
    history = train(Line(), batches(), run=QUIET.replace(max_epochs=None), num_steps=13).history
    assert history["steps"].tolist() == [6, 12, 18]
    fewer = QUIET.replace(max_epochs=None, accumulate_grad_batches=2)
    assert train(Line(), batches(), run=fewer, num_steps=4).history["steps"].tolist() == [3, 6]


def test_the_sum_of_learning_rates_is_that_of_every_step():
    """One step of warm-up, then a cosine to a hundredth: 18 steps."""
    history = train(Line(), batches(), run=QUIET, lr=0.1).history
    rest = [0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * i / 17)) for i in range(17)]
    assert history["lr_sum"].iloc[-1] == pytest.approx(0.1 * (1 + sum(rest)))


def test_a_run_that_was_interrupted_counts_the_rates_before(tmp_path):
    run = QUIET.replace(out=tmp_path)
    tasks = [Line(), Line(), Line()]
    tasks[1].load_state_dict(tasks[0].state_dict())
    whole = train(tasks[0], batches(), validation=batches(2), run=QUIET).history
    with pytest.raises(KeyboardInterrupt):
        train(tasks[1], batches(), validation=batches(2), run=run, callbacks=Interrupt(1))
    found = train(tasks[2], batches(), validation=batches(2), run=run).history
    for column in ("lr_sum", "start_val_loss", "steps"):
        assert found[column].tolist() == whole[column].tolist()


def test_a_run_that_stopped_early_and_is_called_again_is_the_same(tmp_path):
    run = QUIET.replace(max_epochs=9, patience=2, lr=0.1, out=tmp_path)
    validation = batches(2, -2.0)
    tasks, histories = [], []
    for _ in range(2):
        tasks.append(Line())
        histories.append(train(tasks[-1], batches(), validation=validation, run=run).history)
    assert histories[0].equals(histories[1])
    assert_close(tasks[0].model.weight, tasks[1].model.weight, rtol=0, atol=0)


def test_validation_draws_the_same_in_every_epoch_and_training_anew():
    task = Line()
    train(task, batches(2), validation=batches(2), run=QUIET)
    start, later = torch.tensor(task.seen).split([2, 12])  # validated before the first step, too
    draws = later.view(3, 2, 2)  # epoch, training or validation, batch
    assert torch.equal(start, draws[0, 1])
    assert torch.equal(draws[0, 1], draws[1, 1])
    assert draws[:, 0].unique().numel() == 6


def test_batches_of_one_step_draw_differently_and_count_fully():
    task = Line()
    run = QUIET.replace(max_epochs=2, accumulate_grad_batches=2)
    history = train(task, batches(5), run=run).history
    assert len(set(task.seen)) == 10
    assert history["loss"].iloc[0] == pytest.approx(history["square"].iloc[0])


def test_steps_can_be_limited():
    task = Line()
    train(task, batches(4), run=QUIET, max_steps=6)
    assert len(task.seen) == 6


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": torch.tensor([[1.0], [torch.nan]]), "y": torch.ones(2, 1)}, "'x' of 1 of 2 rows"),
        ({"x": torch.full((2, 1), 1e30), "y": torch.ones(2, 1)}, "own numbers are finite"),
    ],
)
def test_a_loss_that_is_not_finite_is_blamed_on_the_batch(batch, message):
    task = Line()
    nn.init.constant_(task.model.weight, 1e30)
    with pytest.raises(ValueError, match=message):
        train(task, DataLoader([batch], batch_size=None), run=QUIET)


def test_no_progress_is_silent(capfd, monkeypatch):
    ours = logging.getLogger("spatiagraph")
    monkeypatch.setattr(ours, "handlers", [])  # a command that was tested before shows its own
    train(Line(), batches(), run=QUIET)
    assert capfd.readouterr() == ("", "")


def test_a_run_is_frozen_and_options_go_before_its_fields():
    with pytest.raises(FrozenInstanceError):
        QUIET.lr = 1.0
    assert len(train(Line(), batches(), run=QUIET, max_epochs=1).history) == 1
    assert QUIET.max_epochs == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "at least one epoch, got max_epochs=0"),
        ({"lr": float("nan")}, r"a learning rate in \(0, 1000\]"),
        ({"lr": 1e39}, r"a learning rate in \(0, 1000\]"),
        ({"weight_decay": 1e300}, r"'weight_decay' in \[0, 1000\]"),
        ({"average": 1.0}, r"a decay in \[0, 1\), got 1.0"),
        ({"patience": 0}, "'patience' of at least 1, got 0"),
        ({"min_steps": 0}, "'min_steps' of at least 1, got 0"),
        ({"weight_decay": -1.0}, r"'weight_decay' in \[0, 1000\], got -1.0"),
        ({"num_workers": -1}, "'num_workers' of at least 0, got -1"),
        ({"patience": 3}, "'validation' with patience=3"),
        ({"epochs": 3}, r"of train\(\) or a field of Run, got 'epochs': did you mean 'max_epochs'"),
        ({"run": {"lr": 1}}, "'run' as a Run, got a dict"),
        ({"strategy": "fsdp"}, "leaves the weights whole, such as 'ddp', got 'fsdp'"),
        ({"strategy": ModelParallelStrategy()}, "weights whole, .* got <.*ModelParallelStrategy"),
    ],
)
def test_options_out_of_range_or_unknown_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        train(Line(), batches(), **options)


def test_names_of_the_function_itself_are_offered_too():
    with pytest.raises(ValueError, match="got 'tilesize': did you mean 'tile_size'"):
        fit(None, [], tilesize=3)
