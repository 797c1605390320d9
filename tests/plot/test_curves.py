import numpy as np
import pandas as pd
import pytest

from spatiagraph import plot

HISTORY = pd.DataFrame(
    {"epoch": [0, 1, 2], "cells": 9, "seconds": 0.1, "lr": 1e-3, "loss": [3.0, 2, 1], "cell": 1.0}
)


def test_training_curve_counts_epochs_from_one():
    (line,) = plot.training_curve(HISTORY).lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, 3], [2, 2], [3, 1]])
    (later,) = plot.training_curve(HISTORY[1:]).lines
    np.testing.assert_array_equal(later.get_xydata(), [[2, 2], [3, 1]])


def test_each_part_of_the_loss_has_its_own_scale():
    figure = plot.training_curves(HISTORY)
    assert [ax.get_title() for ax in figure.axes] == ["loss", "cell"]
    assert figure.axes[1].get_ylim() != figure.axes[0].get_ylim()


def test_health_is_drawn_after_the_parts_and_many_panels_wrap():
    healthy = HISTORY.assign(effective_rank=[8.0, 7, 6], grad_norm=1.0, a=1.0, b=1.0)
    figure = plot.training_curves(healthy)
    titles = ["loss", "cell", "a", "b", "gradient norm", "effective rank"]
    assert [ax.get_title() for ax in figure.axes] == titles
    assert figure.axes[5].get_ylim()[0] == 0
    (line,) = plot.training_curve(healthy, "effective_rank").lines
    np.testing.assert_array_equal(line.get_ydata(), [8, 7, 6])
    with pytest.raises(ValueError, match="column 'rank'"):
        plot.training_curve(healthy, "rank")


def test_gates_are_numbers_of_the_history_and_no_curves():
    moved = HISTORY.assign(moved=0.2, gates_moved=0.1, **{"gates_moved.context.levels.0": 0.1})
    titles = [ax.get_title() for ax in plot.training_curves(moved).axes]
    assert titles == ["loss", "cell", "distance from the start"]


def test_validation_is_drawn_beside_what_was_trained_on():
    validated = HISTORY.assign(val_loss=[3.5, 3, 4], val_cell=2.0, val_other=1.0)
    figure = plot.training_curves(validated)
    assert [ax.get_title() for ax in figure.axes] == ["loss", "cell", "val_other"]
    train, held_out = figure.axes[0].lines
    np.testing.assert_array_equal(held_out.get_ydata(), [3.5, 3, 4])
    assert [line.get_label() for line in (train, held_out)] == ["training", "validation"]


def test_one_epoch_can_be_drawn(tmp_path):
    plot.training_curves(HISTORY[:1], save=tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_a_history_without_loss_is_refused():
    with pytest.raises(ValueError, match="column 'loss'"):
        plot.training_curve(HISTORY.drop(columns="loss"))


def test_bars_are_as_long_as_the_scores_with_the_first_on_top():
    scores = pd.DataFrame({"ARI": [0.5, -0.1], "std": [0.1, np.nan]}, index=["ours", "PCA"])
    ax = plot.score_bars(scores, "ARI", error="std", highlight="ours")
    assert [bar.get_width() for bar in ax.patches] == [0.5, -0.1]
    assert ax.yaxis_inverted()
    with pytest.raises(ValueError, match="column 'NMI'"):
        plot.score_bars(scores, "NMI")
