import itertools

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn.patches import patchify


def test_patches_run_row_by_row_with_channels_last():
    image = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 8)
    assert_close(patches[0, 4], image[0, :, 2:4, 2:4].movedim(0, -1).flatten())


@pytest.mark.parametrize("channels", [1, 3])
def test_each_patch_is_its_part_of_the_image(channels):
    image = torch.rand(2, channels, 6, 9)
    patches = patchify(image, 3).view(2, 2, 3, 3, 3, channels)
    for row, column in itertools.product(range(2), range(3)):
        part = image[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        assert_close(patches[:, row, column].movedim(-1, 1), part, rtol=0, atol=0)


def test_patches_must_fill_the_image():
    with pytest.raises(ValueError, match=r"patches of 4 px fill, got \[1, 1, 6, 8\]"):
        patchify(torch.rand(1, 1, 6, 8), 4)
