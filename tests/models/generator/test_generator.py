from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import GenePanel, Slide, make_tissue
from spatiagraph.data.loader import read_crops
from spatiagraph.data.recipe import Crop
from spatiagraph.flow import LinearPath, Sampling
from spatiagraph.models import ImageGenerator
from spatiagraph.models.generator import SIZES, TINY
from spatiagraph.nn import Condition, GaussianMap
from spatiagraph.pairing import gene_signature, pair_states

NET = replace(TINY, channels=8, condition_channels=8, head_channels=8)
SMALL = Crop(size_px=16)
STATES = [("type1", "type2", "larger"), ("type1", "type0", "smaller")]
SLIDE = make_tissue(120, num_types=3, num_niches=2, num_genes=20, image="dapi", seed=0)
PANEL = GenePanel.from_slides([SLIDE])
SLIDE.adata.obsm["X_cell"] = np.random.default_rng(0).normal(3, 9, (120, 4)).astype(np.float32)


def small(size=NET, *, context=None, transitions=(), crop=SMALL, **parts) -> ImageGenerator:
    """A generator of parts."""
    torch.manual_seed(0)
    widths = tuple((context or {}).values())
    conditioner = size.conditioner(widths, num_transitions=len(transitions))
    unet = size.unet(1, conditioned=conditioner is not None)
    given = {"context": context, "transitions": transitions, "crop": crop, **parts}
    return ImageGenerator(unet, conditioner, **given).eval()


def moving(size=NET, **parts) -> ImageGenerator:
    """A generator with weights as training might leave them."""
    model = small(size, **parts)
    torch.manual_seed(1)
    for parameter in model.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def images(num: int = 3) -> torch.Tensor:
    return torch.rand(num, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_an_untrained_generator_returns_the_control_unchanged():
    """SPATIA fact 31."""
    control = images()
    made = small(context={"X": 4}).generate(control, Condition(torch.rand(3, 4)), Sampling(3))
    assert_close(made, control)


@pytest.mark.parametrize("injection", ["additive", "film", "cross"])
@pytest.mark.parametrize("name", SIZES)
def test_every_size_follows_its_condition(name, injection):
    narrow = {"channels": 32, "condition_channels": 8, "head_channels": 8, "num_blocks": 1}
    model = moving(replace(SIZES[name], injection=injection, **narrow), context={"X": 4})
    first, second = (
        model.generate(images(), Condition(torch.full((3, 4), value)), Sampling(1))
        for value in (0.0, 5.0)
    )
    assert (first - second).abs().max() > 1e-5


def test_a_generator_in_training_makes_the_images_of_one_that_is_not():
    """SPATIA defect 12: no dropout while it is asked, and training goes on as before."""
    model, control = moving(replace(NET, dropout=0.5), context={"X": 4}), images()
    condition = Condition(torch.ones(3, 4))
    expected = model.eval().generate(control, condition, Sampling(2))
    assert torch.equal(model.train().generate(control, condition, Sampling(2)), expected)
    assert model.training


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.bfloat16, 0.03), (torch.float16, 3e-3), (torch.float64, 1e-5)]
)
@pytest.mark.parametrize("injection", ["additive", "film", "cross"])
def test_weights_of_another_precision_make_nearly_the_same_images(injection, dtype, atol):
    size, given = replace(NET, injection=injection), {"context": {"X": 4}, "transitions": STATES}
    model, control = small(size, **given), images()
    torch.nn.init.normal_(model.unet.net.conv_out.weight, std=0.1)
    condition = Condition(torch.ones(3, 4), transition=torch.tensor([0, 1, 0]))
    expected = model.generate(control, condition, Sampling(2))
    made = model.to(dtype).generate(control, condition, Sampling(2))
    assert made.dtype == torch.float32
    assert (expected - control).abs().max() > 0.05
    assert_close(made, expected, atol=atol, rtol=0)


def test_images_do_not_depend_on_the_targets():
    """SPATIA fact 38: the generator has no way to look at them."""
    model, control = moving(context={"X_cell": 4}, transitions=STATES), images(5)
    rows = np.arange(5)
    condition = model.known(SLIDE, rows)._replace(transition=torch.zeros(5, dtype=torch.long))
    first = model.generate(control, condition, Sampling(2))
    other = make_tissue(120, num_types=3, num_niches=2, num_genes=20, image="dapi", seed=0)
    changed = SLIDE.adata.obsm["X_cell"].copy()
    changed[5:] = 0
    other.adata.obsm["X_cell"] = changed
    again = model.known(other, rows)._replace(transition=condition.transition)
    assert torch.equal(model.generate(control, again, Sampling(2)), first)


def test_guidance_off_is_the_condition_alone_and_minus_one_is_none():
    """SPATIA fact 33."""
    model, control = moving(context={"X": 4}), images()
    condition = Condition(torch.randn(3, 4))
    passes = 0

    def count(*args):
        nonlocal passes
        passes += 1

    handle = model.unet.register_forward_hook(count)
    alone = model.generate(control, condition, Sampling(100, guidance=0.0))
    assert passes == 200
    both = model.generate(control, condition, Sampling(100, guidance=0.2))
    assert passes == 600
    handle.remove()
    assert (both - alone).abs().max() > 1e-5
    free = Sampling(2, guidance=-1.0)
    other = model.generate(control, Condition(torch.randn(3, 4)), free)
    assert_close(model.generate(control, condition, free), other)


def test_a_flow_from_noise_needs_no_control_and_depends_on_the_seed():
    model = moving(context={"X": 4}, path=LinearPath("noise"))
    condition = Condition(torch.zeros(3, 4))

    def made(seed: int) -> torch.Tensor:
        return model.generate(None, condition, Sampling(2, seed=seed))

    assert made(0).shape == (3, 1, 16, 16)
    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))
    source = torch.Generator().manual_seed(1)  # in place of the seed
    assert torch.equal(model.generate(None, condition, Sampling(2), generator=source), made(1))


def test_a_generator_can_do_without_condition():
    model = moving()
    assert model.conditioner is None
    assert model.generate(images(), Condition(), Sampling(2)).shape == (3, 1, 16, 16)


def test_genes_can_be_conditioned_on():
    model = ImageGenerator.for_slides([SLIDE], NET, panel=PANEL, crop=SMALL)
    known = model.known(SLIDE, np.array([3, 1]))
    assert known.context is None
    assert known.genes.shape == (2, 20)
    expected = np.log1p(SLIDE.counts[3].toarray() / SLIDE.depth[3] * 1e4)
    assert_close(known.genes[:1], torch.from_numpy(expected).float())


def test_genes_that_a_slide_does_not_measure_are_missing_not_zero():
    model = ImageGenerator.for_slides([SLIDE], NET, panel=PANEL, crop=SMALL)
    less = Slide(SLIDE.adata[:, 5:].copy(), SLIDE.image, slide_id="less")
    genes = model.known(less, np.arange(4)).genes
    assert genes[:, :5].isnan().all()
    assert genes[:, 5:].isfinite().all()


@pytest.mark.parametrize("injection", ["additive", "film", "cross"])
def test_a_saved_generator_makes_the_same_images(tmp_path, injection):
    pairs = pair_states([SLIDE], STATES, states_key="cell_type", niche_key=None)
    delta = gene_signature([SLIDE], pairs, panel=PANEL, donors=["donor0"])
    model = ImageGenerator.for_slides(
        [SLIDE],
        replace(NET, injection=injection),
        context=["X_cell"],
        panel=PANEL,
        transitions=STATES,
        states_key="cell_type",
        signatures=["genes"],
        crop=Crop(12.0, 16),
        path=LinearPath(noise=0.1),
    )
    model.initialize([SLIDE], pairs, delta_genes=delta)
    torch.manual_seed(1)
    for parameter in model.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.eval().save_pretrained(tmp_path)
    again = ImageGenerator.from_pretrained(tmp_path)
    assert again.transitions == model.transitions
    assert again.states_key == "cell_type"
    assert (again.path, again.window_um, again.panel) == (LinearPath(noise=0.1), 12.0, PANEL)
    condition = model.known(SLIDE, np.arange(3))._replace(transition=torch.tensor([0, 1, 0]))
    first, second = (m.generate(images(), condition, Sampling(2)) for m in (model, again))
    assert torch.equal(first, second)


def test_the_scale_of_embeddings_is_that_of_the_controls():
    pairs = pair_states([SLIDE], STATES, states_key="cell_type", niche_key=None)
    model = ImageGenerator.for_slides(
        [SLIDE], NET, context=["X_cell"], transitions=STATES, crop=SMALL
    )
    assert_close(model.conditioner.mean, torch.from_numpy(SLIDE.adata.obsm["X_cell"].mean(0)))
    model.initialize([SLIDE], pairs)
    rows = pairs["control_row"].to_numpy()
    expected = torch.from_numpy(SLIDE.adata.obsm["X_cell"][rows].mean(0))
    assert_close(model.conditioner.mean, expected)


def test_what_does_not_fit_is_refused():
    model = small(context={"X_cell": 4}, transitions=STATES)
    with pytest.raises(ValueError, match=r"images \[3, 1, 16, 16\].*got \[3, 3, 16, 16\]"):
        model.start(torch.rand(3, 3, 16, 16), 3)
    with pytest.raises(ValueError, match="images of the control cells"):
        model.start(None, 3)
    with pytest.raises(ValueError, match="got 'large'. .*'larger'"):
        model.number_of("large")
    with pytest.raises(ValueError, match="divisible by 4"):
        small(crop=Crop(size_px=18))
    with pytest.raises(ValueError, match="'crop' of cells"):
        small(crop=Crop(of="niche"))
    narrow = small(context={"X_cell": 3})
    with pytest.raises(ValueError, match="width 3 as in training, got 4"):
        narrow.known(SLIDE, np.arange(2))


def test_slides_that_cannot_train_a_generator_are_refused():
    with pytest.raises(ValueError, match="embed it first"):
        ImageGenerator.for_slides([SLIDE], context=["X_spatia"])
    with pytest.raises(ValueError, match=r"genes or morphology, got \['shape'\]"):
        ImageGenerator.for_slides([SLIDE], transitions=STATES, signatures=["shape"])
    with pytest.raises(ValueError, match="Expected an image"):
        ImageGenerator.for_slides([make_tissue(50, image=None)], panel=PANEL)
    pairs = pair_states([SLIDE], STATES[:1], states_key="cell_type", niche_key=None)
    partial = gene_signature([SLIDE], pairs, panel=PANEL, donors=["donor0"])
    model = ImageGenerator.for_slides([SLIDE], NET, transitions=STATES, signatures=["genes"])
    with pytest.raises(ValueError, match=r"none for \['smaller'\]"):
        model.initialize([SLIDE], delta_genes=partial)


def test_flows_start_at_images_with_the_mean_of_the_other_state(tmp_path):
    """Before training, what is generated is the closed form: see ``nn.GaussianMap``."""
    pairs = pair_states([SLIDE], STATES, states_key="cell_type", niche_key=None)
    parts = {"transitions": STATES, "states_key": "cell_type", "crop": SMALL}
    model = ImageGenerator.for_slides([SLIDE], NET, **parts)
    plain = ImageGenerator.for_slides([SLIDE], NET, **parts, transport=None)
    model.initialize([SLIDE], pairs)
    rows = pairs[pairs["transition"] == "larger"]
    control, target = (
        read_crops(SLIDE, rows[c].to_numpy(), SMALL) for c in ("control_row", "target_row")
    )
    condition = Condition(transition=torch.zeros(len(rows)).long())
    made = model.generate(control, condition, Sampling(2))
    away = (control.mean(0) - target.mean(0)).abs().mean()
    assert (made.mean(0) - target.mean(0)).abs().mean() < 0.3 * away
    assert_close(plain.generate(control, condition, Sampling(2)), control)
    again = ImageGenerator.from_pretrained(model.save_pretrained(tmp_path))
    assert_close(again.generate(control, condition, Sampling(2)), made)


def test_a_map_of_other_transitions_or_images_is_refused():
    with pytest.raises(ValueError, match=r"2 transitions of images \[1, 16, 16\], got one of 1"):
        small(transitions=STATES, transport=GaussianMap((1, 16, 16), 1))
    with pytest.raises(ValueError, match=r"got one of 2 of \[1, 8, 8\]"):
        small(transitions=STATES, transport=GaussianMap((1, 8, 8), 2))
    with pytest.raises(ValueError, match="no 'transport' where flows start at noise"):
        small(transitions=STATES, transport=GaussianMap((1, 16, 16), 2), path=LinearPath("noise"))


def test_parts_of_different_conditions_are_refused():
    unet, conditioner = NET.unet(1), NET.conditioner([4], num_transitions=2)
    known = {"context": {"X": 4}, "transitions": STATES, "crop": SMALL}
    ImageGenerator(unet, conditioner, **known)
    for other, message in (
        ({"context": {"X": 3}}, r"embeddings of width \(3,\), got one of \(4,\)"),
        ({"transitions": ()}, "of transitions 0, got one of 2"),
        ({"panel": PANEL}, "of genes 20, got one of 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageGenerator(unet, conditioner, **{**known, **other})
    wide = replace(NET, condition_channels=16).unet(1)
    with pytest.raises(ValueError, match="'unet' with a condition of 8 channels.*got 16"):
        ImageGenerator(wide, conditioner, **known)
    with pytest.raises(ValueError, match="a condition of None channels.*got 8"):
        ImageGenerator(unet, crop=SMALL)
