"""Figures of what groups of cells are."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

from spatiagraph.data import make_tissue, marker_genes
from spatiagraph.plot import amounts_by_group, composition_bars, dot_plot, enrichment_map

SLIDE = make_tissue(300, num_genes=25, image=None, seed=0)
NICHE = SLIDE.adata.obs["niche"].reset_index(drop=True)


def test_dots_are_as_large_as_the_share_and_as_dark_as_the_mean():
    markers = marker_genes(SLIDE, NICHE, num=2)
    figure = dot_plot(markers)
    (dots,) = figure.axes[0].collections
    share = markers.pivot_table(index="group", columns="gene", values="share", sort=False)
    assert_allclose(dots.get_sizes() / 130, share.to_numpy().ravel())
    hue = dots.get_array().reshape(share.shape)
    assert_allclose(hue.min(axis=0), 0)
    assert_allclose(hue.max(axis=0), 1)
    with pytest.raises(ValueError, match="marker genes"):
        dot_plot(markers[:0])


def test_bars_are_shares_that_add_up():
    parts = pd.Series(np.where(np.arange(300) % 3 == 0, "a", "b"))
    ax = composition_bars(NICHE, parts, palette={"a": "#ff0000"})
    width = np.array([bar.get_width() for bar in ax.patches]).reshape(2, -1)
    assert_allclose(width.sum(axis=0), 1)
    expected = pd.crosstab(NICHE, parts, normalize="index")["a"]
    assert_allclose(width[0], expected)
    assert to_hex(ax.patches[0].get_facecolor()) == "#ff0000"


def test_rows_follow_the_numbers_in_the_names_of_groups():
    groups = pd.Series([str(i % 11) for i in range(44)])
    ax = composition_bars(groups, pd.Series(["a", "b"] * 22))
    assert [t.get_text() for t in ax.get_yticklabels()] == [str(i) for i in range(11)]


def test_boxes_stand_at_the_medians_of_their_groups():
    depth = np.asarray(SLIDE.depth, float)
    figure = amounts_by_group({"molecules": depth}, NICHE)
    (ax,) = figure.axes
    medians = [line.get_xdata()[0] for line in ax.lines if line.get_color() == "black"]
    expected = pd.Series(depth).groupby(NICHE, observed=True).median()
    assert set(np.round(expected, 3)) <= set(np.round(medians, 3))


def test_zero_is_white_in_a_map_of_enrichment():
    ax = enrichment_map(np.array([[4.0, 0.0], [0.0, -2.0]]), ["a", "b"])
    (picture,) = ax.images
    assert to_hex(picture.cmap(picture.norm(0.0))).startswith("#f7")
    assert {t.get_text() for t in ax.texts} == {"4", "0", "-2"}
