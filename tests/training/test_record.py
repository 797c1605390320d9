"""What a record of a run says of its weights."""

import torch
from torch import nn

from spatiagraph.data import SlideImage, make_tissue
from spatiagraph.data.content import content_hash
from spatiagraph.nn.weights import weights_hash


def model(value: torch.Tensor) -> nn.Module:
    module = nn.Linear(2, 1)
    nn.init.ones_(module.weight)
    nn.init.zeros_(module.bias)
    module.register_buffer("mean", value)
    return module


def test_equal_weights_have_one_hash_however_they_are_stored():
    plain = torch.ones(1, 1)
    expanded = torch.ones(1).as_strided((1, 1), (0, 0))  # what a reduction over all may leave
    transposed = torch.arange(6.0).reshape(3, 2).T
    assert weights_hash(model(plain)) == weights_hash(model(expanded))
    assert weights_hash(model(transposed)) == weights_hash(model(transposed.contiguous()))


def test_another_weight_another_hash():
    assert weights_hash(model(torch.ones(1))) != weights_hash(model(torch.zeros(1)))


def test_another_image_of_the_same_cells_is_other_content():
    """A run must not go on with another stain, or with an image that was moved."""
    first, again, moved, without = (make_tissue(100, num_genes=20, image="dapi") for _ in range(4))
    image = moved.image
    pixels = image.pixels(slice(0, image.shape[1]), slice(0, image.shape[2]))
    x_um, y_um = image.origin_um
    moved.image = SlideImage([pixels], mpp=image.mpp, origin_um=(x_um + 3, y_um))
    without.image = None
    assert content_hash(first) == content_hash(again)
    assert len({content_hash(slide) for slide in (first, moved, without)}) == 3
