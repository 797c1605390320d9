"""Crops at the border of an image: mirrored, named, and as many as the cells."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from spatiagraph.data import CropSource, GenePanel, Slide, SlideImage
from spatiagraph.data.recipe import KNN, Crop, Recipe
from spatiagraph.data.reflected import ReflectedCrops


def slide_of(pixels, mpp, pos):
    n = len(pos)
    adata = anndata.AnnData(
        np.ones((n, 3), np.float32), obs=pd.DataFrame(index=[f"c{i}" for i in range(n)])
    )
    adata.obsm["spatial"] = np.asarray(pos, dtype=float)
    return Slide(adata, SlideImage([pixels], mpp=mpp), slide_id="s", check=False)


def test_crops_of_a_spot_at_the_published_scale():
    """ST-Align fact A12: 0.2 px per full-resolution px, a spot of 100 px across."""
    mpp = 55 / (0.2 * 100)  # µm per pixel of the image
    sides = [Crop(window, 1).native_px(mpp) for window in (100.0, 200.0)]
    assert sides == [36, 72]
    assert Crop(100.0, 1).native_px(0.25) == 400
    pixels = np.zeros((200, 300, 3), np.uint8)
    centre = np.array([150.5, 90.5])  # x, y of the middle of a pixel
    pixels[86:95, 146:155] = 255
    slide = slide_of(pixels, mpp, [centre * mpp, [10 * mpp, 90 * mpp], [299 * mpp, 199 * mpp]])
    recipe = Recipe(
        GenePanel(["0", "1", "2"]),
        graph=KNN(1),
        levels=(),
        crops=(
            Crop(100.0, 36, reflect=True),
            Crop(200.0, 72, name="wide_image", reflect=True),
        ),
    )
    data = recipe(slide)
    whole = data.dense()
    for key, side in (("image", 36), ("wide_image", 72)):
        crop = whole[key][0].mean(0)
        rows, columns = (crop > 0.5).nonzero().float().mean(0).tolist()
        assert abs(rows - (side - 1) / 2) <= 1
        assert abs(columns - (side - 1) / 2) <= 1
        assert whole[key].shape == (3, 3, side, side)
        assert len(whole[f"{key}_mask"]) == len(whole[f"{key}_padded"]) == 3
        assert bool(whole[f"{key}_mask"].all())
    assert data.image_padded.tolist() == [False, True, True]
    assert data.wide_image_padded.tolist() == [False, True, True]
    assert len(data.x) == len(data.pos) == 3


@pytest.mark.parametrize("size_px", [12, 24, 7])
def test_beyond_the_border_lies_the_mirror_image(size_px):
    """Every crop is the one that the image mirrored at its border has there, to a pixel."""
    y, x = np.mgrid[:64, :80]
    waves = [np.sin(x / 9), np.cos(y / 11), np.sin((x + y) / 13)]
    smooth = (127.5 + 100 * np.stack(waves, 2)).astype(np.uint8)
    pos = np.array([[3.0, 4.0], [40.0, 30.0], [78.0, 62.0], [40.0, 1.5], [90.0, 5.0]])
    slide = slide_of(smooth, 1.0, pos)
    found, inside = ReflectedCrops(slide, pos, 24.0, size_px).read()
    assert inside.tolist() == [True, True, True, True, False]
    margin = 32
    wide = np.pad(smooth, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    image = SlideImage([wide], mpp=1.0, origin_um=(-margin, -margin))
    truth = torch.from_numpy(image.crops(pos[:4], 24.0, size_px)[0])
    error = (found[:4] - truth).abs()
    assert float(error.mean()) < (0.02 if size_px == 24 else 0.05)
    plain = CropSource(slide, pos, 24.0, size_px).read()[0]
    assert torch.equal(found[1], plain[1])
    assert float((plain[:1] - truth[:1]).abs().mean()) > 0.1
    assert not bool(found[4].any())


def test_some_of_the_crops_are_the_same_ones():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (60, 60, 3), dtype=np.uint8)
    pos = generator.uniform(1, 59, (20, 2))
    source = ReflectedCrops(slide_of(pixels, 1.0, pos), pos, 16.0, 8)
    rows = torch.tensor([7, 3, 11])
    part = source.select(rows)
    assert isinstance(part, ReflectedCrops)
    assert torch.equal(part.padded, source.padded[rows])
    assert torch.equal(part.read()[0], source.read(rows)[0])
    assert torch.equal(part.read(torch.tensor([2]))[0], source.read(rows[2:])[0])
    assert torch.equal(source.read()[0][rows], source.read(rows)[0])


def test_names_of_second_crops_do_not_clash():
    panel = GenePanel(["0"])
    with pytest.raises(ValueError, match="one crop and one feature of a kind"):
        Recipe(panel, levels=(), crops=(Crop(10.0), Crop(20.0)))
    with pytest.raises(ValueError, match="names of their own, .* 'depth'"):
        Recipe(panel, levels=(), crops=(Crop(10.0), Crop(20.0, name="depth")))
    recipe = Recipe(panel, levels=(), crops=(Crop(10.0), Crop(20.0, name="wide", reflect=True)))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
