"""What merging tokens, steps and guidance cost in time, and merging in accuracy: ratios in one run.

``pytest -m benchmark tests/benchmarks/test_bench_generation.py -s`` prints a line per case.
"""

import time
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

from spatiagraph.data import make_tissue
from spatiagraph.flow import Sampling
from spatiagraph.models import ImageGenerator
from spatiagraph.models.generator import TINY
from spatiagraph.nn import Condition, TokenMergingProcessor, set_token_merging

pytestmark = pytest.mark.benchmark

RATIOS = (0.0, 0.25, 0.5, 0.75)
CHANNELS = 128


def seconds(calls, repeats=7):
    """Median CPU time of each call. They take turns, so that what else runs disturbs all alike."""
    times = {name: [] for name in calls}
    for i in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if i:  # the first turn does not count
                times[name].append(time.process_time() - start)
    return {name: median(each) for name, each in times.items()}


def report(capsys, **figures):
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    with capsys.disabled():
        print("\n" + "  ".join(f"{name}={value}" for name, value in rounded.items()))


def layer(ratio):
    """Attention with the same random weights each time, merging tokens unless told not to."""
    torch.manual_seed(0)
    attn = Attention(
        CHANNELS, heads=4, dim_head=32, norm_num_groups=32, residual_connection=True, bias=True
    )
    if ratio is not None:
        attn.set_processor(TokenMergingProcessor(ratio))
    return attn.eval()


def features(side, num=4):
    """Crops seen by three random convolutions: as smooth as what an attention layer gets."""
    slide = make_tissue(400, image="dapi", seed=0)
    crops, _ = slide.image.crops(slide.pos[:num], window_um=32, size_px=2 * side)
    torch.manual_seed(0)
    layers = [
        torch.nn.Conv2d(1, CHANNELS, 3, stride=2, padding=1),
        torch.nn.SiLU(),
        torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        torch.nn.SiLU(),
        torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    ]
    with torch.no_grad():
        return torch.nn.Sequential(*layers)(torch.from_numpy(crops))


@pytest.mark.parametrize("side", [32, 64])
def test_attention_with_merged_tokens(capsys, side):
    """The error is that of what attention adds, for random weights; for noise instead of an image,
    in which no two tokens are alike, it is given beside it.
    """
    images = {"image": features(side), "noise": torch.randn(4, CHANNELS, side, side)}
    plain, *merging = (layer(r) for r in (None, *RATIOS))
    with torch.no_grad():
        known = {name: plain(x) for name, x in images.items()}
        layers = dict(zip((None, *RATIOS), (plain, *merging), strict=True))
        took = seconds({r: partial(attn, images["image"]) for r, attn in layers.items()})
        for ratio, attn in zip(RATIOS, merging, strict=True):
            error = {
                name: float((attn(x) - known[name]).norm() / (known[name] - x).norm())
                for name, x in images.items()
            }
            report(
                capsys,
                tokens=side**2,
                ratio=ratio,
                ms=1e3 * took[ratio],
                faster=took[None] / took[ratio],
                error_image=error["image"],
                error_noise=error["noise"],
            )
            assert ratio or error == {"image": 0, "noise": 0}


@pytest.mark.parametrize("attention_from", [4, 1])
def test_images_per_second(capsys, attention_from):
    """Midpoint steps of the tiny generator, 4 images of 32 pixels.

    By default 64 tokens attend to each other, at a quarter of the resolution; with
    ``attention_from=1`` all 1,024 pixels do too.
    """
    num, steps = 4, (10, 25, 100) if attention_from == 4 else (10,)
    slide = make_tissue(100, num_genes=20, image="dapi", seed=0)
    slide.adata.obsm["X"] = np.random.default_rng(0).standard_normal((100, 32), dtype=np.float32)
    size = replace(TINY, attention_from=attention_from)
    model = ImageGenerator.for_slides([slide], size, context=["X"]).eval()
    crops, _ = slide.image.crops(slide.pos[:num], window_um=13.6, size_px=32)
    image = torch.from_numpy(crops)
    condition: Condition = model.known(slide, np.arange(num))
    cases = [(n, guidance, ratio) for n in steps for guidance in (0.0, 0.2) for ratio in (0.0, 0.5)]

    def generate(num_steps, guidance, ratio):
        set_token_merging(model, ratio)
        model.generate(image, condition, Sampling(num_steps, guidance=guidance))

    took = seconds({case: partial(generate, *case) for case in cases}, repeats=3)
    for case in cases:
        num_steps, guidance, ratio = case
        report(
            capsys,
            attention_from=attention_from,
            steps=num_steps,
            guidance=guidance,
            merged=ratio,
            images_per_second=num / took[case],
            beside_first=took[cases[0]] / took[case],
        )
