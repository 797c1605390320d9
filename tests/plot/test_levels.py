import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from spatiagraph import plot
from spatiagraph.data import make_tissue
from spatiagraph.plot.levels import group_outlines

GRID = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1).reshape(-1, 2) * 10


@pytest.fixture(scope="module")
def slide():
    return make_tissue(300, num_genes=20, image="he", mpp=1.0, seed=0)


def lines(ax):
    return [c for c in ax.collections if isinstance(c, LineCollection)]


def test_outlines_run_midway_between_groups_and_nowhere_else():
    half = pd.Series(np.where(GRID[:, 0] < 25, "left", "right"))
    found = group_outlines(GRID, half)
    assert_allclose(found[..., 0], 25)
    low, high = np.sort(np.sort(found[..., 1], axis=1), axis=0).T
    assert_allclose(low[1:], [5, 15, 25, 35, 45])
    assert_allclose(high[:-1], [5, 15, 25, 35, 45])
    assert len(group_outlines(GRID, pd.Series(["one"] * 36))) == 0


def test_there_is_no_line_across_a_gap_in_the_tissue():
    apart = np.concatenate([GRID, GRID + [500, 0]])
    groups = pd.Series(np.repeat(["a", "b"], 36))
    assert len(group_outlines(apart, groups)) == 0


def test_outlines_do_not_depend_on_the_order_of_cells(slide):
    groups = slide.adata.obs["niche"].reset_index(drop=True)
    order = np.random.default_rng(0).permutation(300)
    first = group_outlines(slide.pos, groups)
    again = group_outlines(slide.pos[order], groups.iloc[order].reset_index(drop=True))
    middles = [lines.mean(1)[np.lexsort(lines.mean(1).T)] for lines in (first, again)]
    assert_allclose(middles[0], middles[1], atol=1e-6)


def test_one_cell_and_cells_in_a_row_have_outlines_too():
    assert group_outlines(np.zeros((1, 2)), pd.Series(["a"])).shape == (0, 2, 2)
    row = np.stack([np.arange(4.0) * 10, np.zeros(4)], 1)
    found = group_outlines(row, pd.Series(list("aabb")))
    assert_allclose(found[..., 0], 15)


def test_each_level_is_outlined_on_the_finer_one(slide):
    axes = plot.hierarchy(slide, {"cell": None, "niche": "niche", "region": "region"})
    titles = ["Cells: cell_type (8)", "Niches: niche (5)"]
    assert [ax.get_title() for ax in axes[:2]] == titles
    assert axes[2].get_title().startswith("Region: region")
    assert [len(lines(ax)) for ax in axes] == [1, 1, 0]
    groups = slide.adata.obs["niche"].reset_index(drop=True)
    drawn = np.array(lines(axes[0])[0].get_segments())
    assert_allclose(drawn, group_outlines(slide.pos, groups))
    assert all(ax.get_xlim() == axes[0].get_xlim() for ax in axes)
    assert not axes[0].images


def test_scattered_groups_are_not_outlined():
    dots = plot.hierarchy(GRID, {"cell": np.arange(36) % 2, "niche": np.arange(36) % 7})
    assert not lines(dots[0])


def test_levels_that_are_not_known_have_no_panel(slide):
    (only,) = plot.hierarchy(slide.pos, {"niche": slide.adata.obs["niche"]})
    assert only.get_title() == "Niches: niche (5)"
    with pytest.raises(ValueError, match="at least one level"):
        plot.hierarchy(slide.pos)
    with pytest.raises(ValueError, match="axes for cell, niche, got 1"):
        plot.hierarchy(slide, axes=[Figure().add_subplot()])


def test_levels_are_those_that_the_slide_was_embedded_at(slide):
    adata = slide.adata.copy()
    adata.uns["spatiagraph"] = {"name": "own", "levels": ["plot", "region"]}
    adata.obs["own_plot"] = np.arange(300) // 30
    axes = plot.hierarchy(adata)
    titles = [ax.get_title().split(" (")[0] for ax in axes]
    assert titles == ["Cells: cell_type", "Plot: own_plot", "Region: region"]


def test_many_groups_are_counted_not_listed(slide, tmp_path):
    numbers = np.arange(300) // 5
    ax = plot.hierarchy(slide.pos, {"tissue": numbers}, save=tmp_path / "levels.png")[0]
    assert ax.get_title() == "Tissue (60)"
    assert ax.get_legend() is None
    assert (tmp_path / "levels.png").stat().st_size > 5000
