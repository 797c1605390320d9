import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from PIL import Image

from spatiagraph import plot
from spatiagraph.data import Slide
from spatiagraph.data.outlines import Outlines
from spatiagraph.data.synthetic import make_tissue
from spatiagraph.plot.maps import cell_values


@pytest.fixture(scope="module")
def slide():
    return make_tissue(300, num_genes=20, image="he", mpp=1.0, seed=0)


def _discs(ax):
    return next(c for c in ax.collections if isinstance(c, EllipseCollection))


def test_maps_look_like_the_image_with_y_downwards_and_equal_scales(slide):
    ax = plot.spatial(slide, "niche")
    assert ax.yaxis_inverted()
    assert not ax.xaxis_inverted()
    assert ax.get_aspect() == 1
    x0, y0, x1, y1 = slide.image.extent_um
    assert_allclose(ax.images[0].get_extent(), (x0, x1, y1, y0))  # row 0 lies at the smallest y
    assert ax.images[0].origin == "upper"
    assert_allclose(_discs(ax).get_offsets(), slide.pos)


def test_each_cell_wears_the_colour_of_its_category_in_the_legend(slide):
    ax = plot.spatial(slide, "cell_type", image=False)
    named = {
        text.get_text(): to_hex(handle.get_color())
        for text, handle in zip(
            ax.get_legend().get_texts(), ax.get_legend().legend_handles, strict=True
        )
    }
    shown = [to_hex(c) for c in _discs(ax).get_facecolor()]
    assert shown == [named[t] for t in slide.adata.obs["cell_type"]]
    assert len(set(named.values())) == 8


def test_amounts_get_a_colour_bar_and_missing_ones_are_grey(slide):
    amount = np.linspace(0, 1, 300)
    amount[[7, 8]] = np.nan, np.inf
    ax = plot.spatial(slide.pos, amount)
    assert len(ax.figure.axes) == 2
    assert [to_hex(c) for c in _discs(ax).get_facecolor()[7:9]] == [plot.colors.MISSING.lower()] * 2
    gene = plot.spatial(slide.adata, "Gene3")
    assert gene.get_title() == "Gene3"


def test_only_the_window_is_drawn(slide):
    ax = plot.spatial(slide, "niche", window_um=(20, 30, 60, 70))
    assert (ax.get_xlim(), ax.get_ylim()) == ((20, 60), (70, 30))
    offsets = np.asarray(_discs(ax).get_offsets())
    assert ((offsets >= (20, 30)) & (offsets <= (60, 70))).all()


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_save_writes_a_file(slide, tmp_path, suffix):
    path = tmp_path / f"map.{suffix}"
    plot.spatial(slide, "niche", save=path)
    assert path.stat().st_size > 5000
    if suffix == "png":
        assert np.asarray(Image.open(path).convert("L")).std() > 10


def test_drawing_leaves_no_trace_in_pyplot(slide):
    before = plt.get_fignums()
    ax = Figure().add_subplot()
    assert plot.spatial(slide, "niche", ax=ax) is ax
    plot.spatial(slide, "niche")
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("width", "length"), [(1000, 200), (999, 100), (60, 10), (12_500, 2000), (3, 0.5)]
)
def test_scale_bars_are_round_and_at_most_a_fifth(width, length):
    assert plot.canvas.bar_length_um(width) == pytest.approx(length)


def test_scale_bar_is_as_long_as_it_says(slide):
    ax = plot.spatial(slide, "niche")
    bar = next(a for a in ax.artists if hasattr(a, "size_bar"))
    rectangle = bar.size_bar.get_children()[0]
    assert bar.txt_label.get_text() == f"{rectangle.get_width():g} µm"


def test_mistakes_are_told(slide):
    with pytest.raises(ValueError, match="'cell_typ'; nearest: cell_type"):
        plot.spatial(slide, "cell_typ")
    with pytest.raises(ValueError, match="got 3 for 300 cells"):
        plot.spatial(slide, [1, 2, 3])
    adata = slide.adata.copy()
    del adata.obsm["spatial"]
    with pytest.raises(ValueError, match=r"obsm\['spatial'\]"):
        plot.spatial(adata, "niche")


def test_names_with_numbers_are_sorted_by_the_numbers_unless_someone_ordered_them():
    names = [f"cluster {i}" for i in range(12)]
    assert plot.colors.categories(pd.Series(names[::-1])) == names
    assert plot.colors.categories(pd.Series(names, dtype="category")) == names
    mine = pd.Categorical(names, categories=sorted(names), ordered=True)
    assert plot.colors.categories(pd.Series(mine)) == sorted(names)
    backwards = pd.Series(pd.Categorical(names, categories=names[::-1]))
    assert plot.colors.categories(backwards) == names[::-1]
    assert plot.colors.categories(pd.Series([10, 9, 2])) == [2, 9, 10]


def test_cells_with_outlines_fill_them_on_a_map():
    slide = make_tissue(50, num_genes=20, image=None, seed=0)
    square = np.array([[-3.0, -2.0], [3.0, -2.0], [3.0, 2.0], [-3.0, 2.0]])
    corners = (slide.pos[:49, None] + square).reshape(-1, 2)
    ptr = np.append(4 * np.arange(50), 4 * 49)
    outlined = Slide(slide.adata, slide_id="s", outlines=Outlines(corners, ptr))
    discs, shapes = plot.spatial(outlined, "niche").collections
    assert len(discs.get_offsets()) == 1  # the cell without one
    assert len(shapes.get_paths()) == 49
    np.testing.assert_allclose(shapes.get_paths()[7].vertices[:4], corners[28:32])
    assert len(plot.spatial(outlined, "niche", outlines=False).collections) == 1


def test_categories_keep_their_order_and_colours_can_be_chosen():
    values = pd.Series(pd.Categorical(["b", "a"], categories=["b", "a", "c"]))
    assert list(plot.category_colors(values, {"a": "#000000"}).items()) == [
        ("b", plot.PALETTE[0]),
        ("a", "#000000"),
    ]
    assert list(plot.category_colors(pd.Series([10, 9, 9]))) == [9, 10]


def test_sixty_categories_have_sixty_colours():
    colors = list(plot.category_colors(pd.Series(range(61))).values())
    assert len(set(colors[:60])) == 60
    assert colors[60] == colors[0] == plot.PALETTE[0]
    # half of 0x00, 0x72, 0xB2 and half of 0x20, then of 0xF0
    assert colors[20] == "#104969"
    assert colors[40] == "#78B1D1"


def test_found_groups_take_the_colour_of_what_they_overlap():
    found, truth = pd.Series([0, 0, 0, 1, 1, 2]), pd.Series(list("bbacca"))
    assert plot.colors.match_categories(found, truth) == {0: "b", 1: "c", 2: "a"}


def test_groups_that_share_no_cell_share_no_colour():
    found, truth = pd.Series([0, 0, 1]), pd.Series(list("aab"))
    assert plot.colors.match_categories(found, truth) == {0: "a", 1: "b"}
    found, truth = pd.Series([0, 0, 0, 1]), pd.Series(list("aaba"))
    assert plot.colors.match_categories(found, truth) == {0: "a"}


def test_a_gene_is_drawn_as_the_logarithm_of_its_counts(slide):
    counts = slide.adata[:, "Gene3"].X.toarray().ravel()
    adata = slide.adata.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    adata.uns["log1p"] = {"base": None}
    values = cell_values(adata, "Gene3", 300)
    assert_allclose(values, np.log1p(counts), rtol=1e-6)
    del adata.layers["counts"]
    assert_allclose(cell_values(adata, "Gene3", 300), np.log1p(counts), rtol=1e-6)
