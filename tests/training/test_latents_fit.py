"""An autoencoder of crops, and a flow between its latents."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import make_tissue
from spatiagraph.data.recipe import Crop
from spatiagraph.flow import LinearPath, Sampling
from spatiagraph.inference import generate
from spatiagraph.models import ImageGenerator
from spatiagraph.models.generator import TINY
from spatiagraph.nn import Condition, ImageLatents
from spatiagraph.pairing import pair_states
from spatiagraph.training import fit_generator, fit_latents

OPTIONS = {"accelerator": "cpu", "progress": False}
STATES = [("type1", "type2", "larger"), ("type1", "type0", "smaller")]


def small():
    torch.manual_seed(0)
    return ImageLatents(1, channels=(8, 16))


@pytest.fixture(scope="module")
def crops():
    """Bars at random places and of random widths, ``[N, 1, 16, 16]``."""
    rng = np.random.default_rng(0)
    column = np.arange(16)
    centre, width = rng.uniform(4, 12, (400, 1)), rng.uniform(1, 3, (400, 1))
    bar = np.clip(width - np.abs(column - centre) + 0.5, 0, 1)
    return np.broadcast_to(bar[:, None, None], (400, 1, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(crops):
    return fit_latents(crops, small(), max_epochs=8, lr=3e-3, held_out=0.2, **OPTIONS)


def test_it_gives_images_back_that_it_has_not_seen(crops, fitted):
    start = fit_latents(crops, small(), max_epochs=1, lr=1e-9, held_out=0.2, **OPTIONS)
    assert fitted.mean_squared_error < 0.25 * fitted.baseline
    assert fitted.mean_squared_error < 0.25 * start.mean_squared_error
    z = fitted.model.encode(2 * torch.from_numpy(crops) - 1)
    assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=0.1, rtol=0)
    assert not any(p.requires_grad for p in fitted.model.parameters())


def test_what_a_run_keeps_has_the_scale_of_its_latents(crops, tmp_path):
    model = fit_latents(crops[:60], small(), max_epochs=1, out=tmp_path, **OPTIONS).model
    again = ImageLatents.from_pretrained(tmp_path / "model")
    assert torch.equal(again.std, model.std)
    assert not torch.equal(model.std, torch.ones(4))
    more = fit_latents(crops[:60], again, max_epochs=1, **OPTIONS).model  # frozen, it learns more
    assert not torch.equal(more.net.decoder.conv_in.weight, model.net.decoder.conv_in.weight)


def test_crops_that_do_not_fit_are_refused(crops):
    with pytest.raises(ValueError, match="1, H, W"):
        fit_latents(np.repeat(crops, 3, axis=1), small(), **OPTIONS)
    with pytest.raises(ValueError, match="2 crops to learn from"):
        fit_latents(crops[:3], small(), **OPTIONS)
    with pytest.raises(ValueError, match="divide by 255"):
        fit_latents((255 * crops).astype(np.uint8), small(), **OPTIONS)


@pytest.fixture(scope="module")
def slide():
    return make_tissue(120, num_types=3, num_niches=2, num_genes=20, image="dapi", seed=0)


def generator(slide, latents, **options):
    size = replace(TINY, channels=8, condition_channels=8, head_channels=8)
    given = {"transitions": STATES, "states_key": "cell_type", "crop": Crop(size_px=16)}
    return ImageGenerator.for_slides([slide], size, latents=latents, **given, **options)


def test_a_flow_between_latents_learns_and_is_saved(slide, fitted, tmp_path):
    model = generator(slide, fitted.model)
    before = {k: v.clone() for k, v in model.latents.state_dict().items()}
    image = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    condition = Condition(transition=torch.zeros(3, dtype=torch.long))
    made = model.generate(image, condition, Sampling(2))
    # at rest it returns what the autoencoder makes of the control
    assert_close(made, model.decode(model.encode(image)).clamp(0, 1))
    pairs = pair_states([slide], STATES, states_key="cell_type", niche_key=None)
    flow = fit_generator(model, slide, pairs, max_epochs=30, lr=3e-3, **OPTIONS).history["flow"]
    assert flow[-8:].mean() < 0.9 * flow[:8].mean()
    assert all(torch.equal(v, before[k]) for k, v in model.latents.state_dict().items())
    model.save_pretrained(tmp_path)
    again = ImageGenerator.from_pretrained(tmp_path)
    first, second = (
        generate(m, slide, transition="larger", cells=np.arange(4), sampling=Sampling(2),
                 device="cpu", progress=False).images
        for m in (model, again)
    )  # fmt: skip
    assert first.shape == (4, 1, 1, 16, 16)
    assert np.array_equal(first, second)
    assert not torch.allclose(model.generate(image, condition, Sampling(2)), made)


def test_a_flow_from_noise_starts_at_latents(slide, fitted):
    model = generator(slide, fitted.model, path=LinearPath("noise"))
    start = model.start(None, 2, torch.Generator().manual_seed(0))
    assert start.shape == (2, 4, 8, 8)
    assert start.std() > 0.8


def test_parts_that_do_not_fit_are_refused(slide):
    with pytest.raises(ValueError, match="'latents' of 1 image channels"):
        generator(slide, ImageLatents(3))
    with pytest.raises(ValueError, match="divisible by 128"):
        generator(slide, ImageLatents(1, channels=(8,) * 6))
    unet = TINY.unet(1, conditioned=False)
    with pytest.raises(ValueError, match="on the 4 channels of the latents"):
        ImageGenerator(unet, crop=Crop(size_px=64), latents=small())
