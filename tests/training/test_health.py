import logging

import pandas as pd
import pytest
import torch

import spatiagraph as sg
from spatiagraph.data import make_tissue, spots_of_cells
from spatiagraph.models import ContextModel, STAlign
from spatiagraph.tasks import LossOutput, MaskedGenes
from spatiagraph.tasks.base import Watched
from spatiagraph.training.folder import read_history
from spatiagraph.training.health import (
    RankMeter,
    collapse_warning,
    effective_rank,
    gradient_norm,
    progress_of,
    run_warnings,
)
from spatiagraph.training.movement import Movement


def test_rank_is_that_of_equal_singular_values_and_does_not_depend_on_their_directions():
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    z = torch.randn(5000, 3, generator=generator) @ turn[:3]
    assert effective_rank(z) == pytest.approx(3, abs=0.01)
    p = torch.tensor([0.75, 0.25])  # two directions, one three times as long
    known = float(torch.exp(-(p * p.log()).sum()))
    assert effective_rank(torch.diag(p) @ turn[:2]) == pytest.approx(known, abs=1e-4)


def test_rank_of_nothing_and_of_broken_rows():
    assert effective_rank(torch.zeros(5, 3)) == 0
    z = torch.eye(3).repeat(2, 1)
    z[3:] = torch.nan
    assert effective_rank(z) == pytest.approx(3, abs=1e-4)


def test_gradient_norm_is_that_of_all_gradients_together():
    layer = torch.nn.Linear(2, 1)
    assert gradient_norm(layer) is None
    layer.weight.grad, layer.bias.grad = torch.tensor([[2.0, 3.0]]), torch.tensor([6.0])
    assert gradient_norm(layer) == pytest.approx(7)


def test_history_has_gradient_norm_and_rank_of_every_epoch(tmp_path):
    slide = make_tissue(200, num_genes=30, seed=0)
    model = ContextModel.for_slides([slide], channels=8, seed=0)
    hooks = len(model.context_encoder._forward_hooks)
    run = sg.fit(model, [slide], max_epochs=2, progress=False, accelerator="cpu", out=tmp_path)
    assert (run.history["grad_norm"] > 0).all()
    assert run.history["effective_rank"].between(1, 8.01).all()
    assert "effective_rank" in (tmp_path / "history.csv").read_text()
    assert len(model.context_encoder._forward_hooks) == hooks


def test_a_task_without_embeddings_has_no_rank():
    other = RankMeter(torch.nn.Linear(2, 2))
    assert RankMeter(None).value() is None
    slide = make_tissue(200, num_genes=30, seed=0)
    task = MaskedGenes(ContextModel.for_slides([slide], channels=8, seed=0))
    meter = RankMeter(task.embedder)
    assert task.embedder is task.model.context_encoder
    assert (meter.value(), other.value()) == (None, None)
    meter.close()


@pytest.mark.parametrize(
    ("ranks", "collapsed"),
    [([8, 7.9], False), ([8, 2.1], False), ([8, 1.9], True), ([1.6, 1.4], True), ([5.0], False)],
)
def test_embeddings_that_became_alike_are_told(ranks, collapsed):
    warning = collapse_warning(pd.DataFrame({"effective_rank": ranks}))
    assert (warning is not None) == collapsed
    assert collapse_warning(pd.DataFrame({"loss": [1.0]})) is None


class Flat(MaskedGenes):
    """Pulls all cells to one point, as a loss without a counterweight does."""

    def loss(self, batch, generator=None):
        out = self.model(*self.model.inputs(batch))
        loss = (out.cell - 20).square().mean()
        return LossOutput(loss, {}, int(batch.core.sum()))


def test_a_run_that_collapses_says_so_in_the_log(caplog):
    slide = make_tissue(200, num_genes=30, seed=0)
    task = Flat(ContextModel.for_slides([slide], channels=8, seed=0))
    with caplog.at_level(logging.WARNING, "spatiagraph.training.progress"):
        run = sg.fit(
            task.model, [slide], task=task, max_epochs=40, lr=0.1, progress=False, accelerator="cpu"
        )
    assert run.history["effective_rank"].iloc[-1] < 2
    assert "embeddings collapsed" in caplog.text


def test_movement_is_relative_to_how_much_cells_differ_at_the_start():
    slide = make_tissue(150, num_genes=30, image=None, seed=0)
    model = ContextModel.for_slides([slide], channels=8)
    (batch,) = model.batches([model.recipe(slide)], 150)
    movement = Movement(model.train(), batch)
    names = {"context", "context.change", "context.levels.0", "context.levels.1"}
    columns = {"moved", "gates_moved", *(f"gates_moved.{name}" for name in names)}
    assert movement.values() == dict.fromkeys(columns, 0.0)
    start = torch.from_numpy(sg.embed(model, slide, progress=False).obsm["X_context"])
    with torch.no_grad():  # twice as long: each cell moves by its own length
        model.cell_encoder.genes.linear.weight.mul_(2)
        model.context_encoder.levels[0].top_down.gate[:4] = 0.3  # 4 of 32 channels of gates
        model.context_encoder.levels[0].top_down.linear.weight.zero_()
        model.context_encoder.levels[0].top_down.linear.bias.zero_()
    length, spread = start.square().sum(), (start - start.mean(0)).square().sum()
    found = movement.values()
    assert found["moved"] == pytest.approx(float((length / spread).sqrt()), rel=1e-4)
    assert found["gates_moved"] == pytest.approx((4 * 0.3**2 / 32) ** 0.5)
    assert found["gates_moved.context.levels.0"] == pytest.approx((4 * 0.3**2 / 8) ** 0.5)
    assert found["gates_moved.context.levels.1"] == found["gates_moved.context"] == 0
    assert model.training


def test_gates_of_what_is_fused_are_gates():
    slide = spots_of_cells(make_tissue(400, num_genes=30, image="he", seed=0), 40.0)
    model = STAlign.for_slides([slide], "tiny", num_genes=None)
    movement = Movement(model, next(iter(model.batches([model.prepare(slide)]))))
    with torch.no_grad():
        model.spot.start.fused_gate.fill_(1.0)
    found = movement.values()
    assert found["gates_moved"] == pytest.approx((1 / 6) ** 0.5)  # one of six
    assert found["gates_moved.spot.start.fused"] == 1
    assert found["gates_moved.niche.start.fused"] == 0


def test_a_run_that_cannot_have_moved_says_so_in_one_line(caplog):
    slide = make_tissue(150, num_genes=30, image=None, seed=0)
    how = {"accelerator": "cpu", "progress": False, "max_epochs": 2}
    for lr, said in ((1e-4, True), (1e-1, False)):
        model = ContextModel.for_slides([slide], channels=8)
        caplog.clear()
        history = sg.fit(model, [slide], lr=lr, **how).history
        assert ("too short to learn" in caplog.text) == said
        assert (history["moved"].iloc[-1] < 0.01) == said
    assert progress_of(history).startswith("loss ")
    assert "moved embeddings by" in progress_of(history)


def test_warnings_of_a_run_are_about_its_last_row():
    good = pd.DataFrame({"lr_sum": [0.01, 1.0], "moved": [0.0, 0.9], "steps": [2, 200]})
    good["cells"] = 500
    assert run_warnings(good) == []
    (few,) = run_warnings(good.assign(cells=499))
    assert few.startswith("499 cells are few to learn from")
    assert run_warnings(pd.DataFrame({"loss": [1.0]})) == []
    for lowest, warned in ((1.9, False), (2.0, True), (2.1, True)):
        history = good.assign(val_loss=[2.5, lowest], start_val_loss=2.0)
        assert len(run_warnings(history)) == warned


def test_a_run_whose_watched_score_rose_is_not_told_that_its_start_was_kept():
    history = pd.DataFrame({"val_loss": [3.0], "start_val_loss": [2.0]})
    history[["val_recall@10", "start_val_recall@10"]] = 0.6, 0.1
    assert run_warnings(history, Watched("recall@10", highest=True)) == []
    assert len(run_warnings(history)) == 1


COLUMNS = ["epoch", "steps", "cells", "seconds", "lr", "lr_sum", "loss", "val_loss"]
COLUMNS += ["start_val_loss", "moved", "gates_moved", "effective_rank", "gradient_norm"]


@pytest.mark.parametrize("gone", COLUMNS)
def test_a_history_that_lacks_a_column_is_refused_or_judged_without(tmp_path, gone):
    whole = pd.DataFrame({name: [1.0, 2.0] for name in COLUMNS})
    whole.drop(columns=gone).to_csv(tmp_path / "history.csv", index=False)
    try:
        history = read_history(tmp_path)
    except ValueError as err:
        refused = str(err)
    else:
        assert progress_of(history)
        assert isinstance(run_warnings(history), list)
        refused = None
    needed = {"epoch", "loss", "steps", "lr_sum", "cells", "val_loss", "moved"}
    assert (refused is not None) == (gone in needed)
    assert refused is None or gone in refused
