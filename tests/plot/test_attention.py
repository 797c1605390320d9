"""Maps of attention between images and genes."""

import numpy as np
import pytest
import torch

from spatiagraph import plot
from spatiagraph.nn import AttentionMaps


def maps(num=4, heads=2, tokens=3):
    generator = torch.Generator().manual_seed(0)
    return AttentionMaps(
        *(torch.randn(num, heads, tokens, tokens, generator=generator).softmax(3) for _ in range(2))
    )


def shown(ax):
    return np.asarray(ax.images[0].get_array())


def test_panels_are_means_over_spots_and_heads_each_way(tmp_path):
    found = maps()
    image, genes = plot.attention_maps(found, save=tmp_path / "maps.png")
    np.testing.assert_allclose(shown(image), found.image.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(shown(genes), found.genes.mean((0, 1)), rtol=1e-6)
    assert (image.get_ylabel(), image.get_xlabel()) == ("image token", "gene token")
    assert image.images[0].get_clim() == genes.images[0].get_clim()
    assert (tmp_path / "maps.png").stat().st_size > 0


def test_one_head_of_some_spots():
    found = maps()
    image, _ = plot.attention_maps(found, spots=[1, 3], head=1)
    np.testing.assert_allclose(shown(image), found.image[[1, 3], 1].mean(0), rtol=1e-6)
    for wrong, message in (
        ({"spots": [4]}, r"'spots' in \[0, 4\)"),
        ({"head": 2}, r"'head' in \[0, 2\)"),
        ({"axes": [image]}, "two axes, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            plot.attention_maps(found, **wrong)
