import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal

from spatiagraph import plot


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_becomes_a_picture(channels):
    image = np.random.default_rng(0).random((channels, 4, 6), dtype=np.float32)
    rgb = plot.galleries.as_rgb(image)
    assert rgb.shape == (4, 6, 3)
    assert_array_equal(rgb[..., 0], image[0])
    assert_array_equal(rgb[..., 1], image[min(1, channels - 1)])
    assert_array_equal(rgb[..., 2], image[2] if channels > 2 else image[0])  # two: magenta, green


def test_missing_crops_are_named_not_drawn_black():
    images = np.zeros((7, 3, 8, 8), np.float32)
    mask = np.arange(7) != 2
    figure = plot.gallery(images, [str(i) for i in range(7)], mask=mask, num_columns=4)
    axes = figure.axes
    assert len(axes) == 8
    assert [len(ax.images) for ax in axes] == [1, 1, 0, 1, 1, 1, 1, 0]
    assert "outside" in axes[2].texts[0].get_text()
    assert axes[3].get_title() == "3"


def test_a_scale_bar_lies_below_all_titles():
    figure = plot.gallery(np.zeros((5, 1, 8, 8)), list("abcde"), num_columns=4, window_um=40)
    assert [len(ax.artists) for ax in figure.axes] == [0, 0, 0, 0, 1, 0, 0, 0]


def test_gallery_refuses_what_does_not_match():
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        plot.gallery(np.zeros((3, 8, 8)))
    with pytest.raises(ValueError, match="'titles' per image, got 2"):
        plot.gallery(np.zeros((3, 1, 8, 8)), ["a", "b"])


def test_a_transition_is_read_from_top_to_bottom():
    rng = np.random.default_rng(0)
    images = rng.random((3, 10, 3, 8, 8), dtype=np.float32)
    names = [f"cell{i}" for i in range(10)]
    figure = plot.transition_gallery(*images, labels=names, max_cells=4)
    grid = np.array(figure.axes).reshape(3, 4)
    assert [line[0].get_ylabel() for line in grid] == ["control", "generated", "target"]
    assert [ax.get_title() for ax in grid[0]] == names[:4]
    for line, row in zip(grid, images, strict=True):
        for ax, image in zip(line, row, strict=False):
            assert_array_equal(ax.images[0].get_array(), plot.galleries.as_rgb(image))
            assert ax.images[0].get_clim() == (0, 1)


def test_each_row_of_a_transition_has_its_scale():
    images = np.full((3, 4, 1, 8, 8), 0.5, np.float32)
    figure = plot.transition_gallery(*images, window_um=20.0)
    grid = np.array(figure.axes).reshape(3, 4)
    for line in grid:
        assert [len(ax.artists) for ax in line] == [0, 0, 0, 1]
        assert line[-1].artists[0].txt_label.get_text() == "2 µm"
        assert {ax.images[0].get_extent()[1] for ax in line} == {20.0}


def test_a_transition_without_target_has_two_rows(tmp_path):
    images = np.full((2, 1, 8, 8), 0.5, np.float32)
    axes = Figure().subplots(2, 2)
    figure = plot.transition_gallery(images, images, axes=axes, save=tmp_path / "a.png")
    assert figure is axes[0, 0].figure
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert len(figure.axes) == 4


def test_transitions_that_do_not_match_are_refused():
    images = np.zeros((2, 3, 8, 8), np.float32)
    with pytest.raises(ValueError, match=r"'target' as large as 'control' .* got \(1, 3, 8, 8\)"):
        plot.transition_gallery(images, images, images[:1])
    with pytest.raises(ValueError, match="got 1 for 2"):
        plot.transition_gallery(images, images, labels=["a"])
    with pytest.raises(ValueError, match=r"Expected axes \[2, 2\], got \[1, 2\]"):
        plot.transition_gallery(images, images, axes=Figure().subplots(1, 2, squeeze=False))
    broken = images.copy()
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"finite values in 'generated', images \[1\]"):
        plot.transition_gallery(images, broken)
