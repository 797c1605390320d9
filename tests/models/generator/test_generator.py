import numpy as np
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import GenePanel, Slide, make_tissue
from spatiagraph.models import ImageGenerator
from spatiagraph.nn import Condition
from spatiagraph.pairing import gene_signature, pair_states

NET = {"channels": 8, "num_blocks": 1, "condition_channels": 8, "head_channels": 8}
STATES = [("type1", "type2", "larger"), ("type1", "type0", "smaller")]
SLIDE = make_tissue(120, num_types=3, num_niches=2, num_genes=20, image="dapi", seed=0)
SLIDE.adata.obsm["X_cell"] = np.random.default_rng(0).normal(3, 9, (120, 4)).astype(np.float32)


def small(**options) -> ImageGenerator:
    torch.manual_seed(0)
    return ImageGenerator(image_channels=1, **{"size_px": 16, **NET, **options}).eval()


def moving(**options) -> ImageGenerator:
    """A generator with weights as training might leave them."""
    model = small(**options)
    torch.manual_seed(1)
    for parameter in model.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def images(num: int = 3) -> torch.Tensor:
    return torch.rand(num, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_an_untrained_generator_returns_the_control_unchanged():
    """SPATIA fact 31."""
    control = images()
    made = small(context={"X": 4}).generate(control, Condition(torch.rand(3, 4)), num_steps=3)
    assert_close(made, control)


def test_a_generator_in_training_makes_the_images_of_one_that_is_not():
    """SPATIA defect 12: no dropout while it is asked, and training goes on as before."""
    model, control = moving(context={"X": 4}, dropout=0.5), images()
    condition = Condition(torch.ones(3, 4))
    expected = model.eval().generate(control, condition, num_steps=2)
    assert torch.equal(model.train().generate(control, condition, num_steps=2), expected)
    assert model.training


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.bfloat16, 0.03), (torch.float16, 3e-3), (torch.float64, 1e-5)]
)
@pytest.mark.parametrize("injection", ["additive", "film", "cross"])
def test_weights_of_another_precision_make_nearly_the_same_images(injection, dtype, atol):
    given = {"context": {"X": 4}, "transitions": STATES, "injection": injection}
    model, control = small(**given), images()
    torch.nn.init.normal_(model.unet.net.conv_out.weight, std=0.1)
    condition = Condition(torch.ones(3, 4), transition=torch.tensor([0, 1, 0]))
    expected = model.generate(control, condition, num_steps=2)
    made = model.to(dtype).generate(control, condition, num_steps=2)
    assert made.dtype == torch.float32
    assert (expected - control).abs().max() > 0.05
    assert_close(made, expected, atol=atol, rtol=0)


def test_images_do_not_depend_on_the_targets():
    """SPATIA fact 38: the generator has no way to look at them."""
    model, control = moving(context={"X_cell": 4}, transitions=STATES), images(5)
    rows = np.arange(5)
    condition = model.known(SLIDE, rows)._replace(transition=torch.zeros(5, dtype=torch.long))
    first = model.generate(control, condition, num_steps=2)
    other = make_tissue(120, num_types=3, num_niches=2, num_genes=20, image="dapi", seed=0)
    changed = SLIDE.adata.obsm["X_cell"].copy()
    changed[5:] = 0
    other.adata.obsm["X_cell"] = changed
    again = model.known(other, rows)._replace(transition=condition.transition)
    assert torch.equal(model.generate(control, again, num_steps=2), first)


def test_guidance_off_is_the_condition_alone_and_minus_one_is_none():
    """SPATIA fact 33."""
    model, control = moving(context={"X": 4}), images()
    condition = Condition(torch.randn(3, 4))
    passes = 0

    def count(*args):
        nonlocal passes
        passes += 1

    handle = model.unet.register_forward_hook(count)
    alone = model.generate(control, condition, num_steps=100, guidance=0.0)
    assert passes == 200
    both = model.generate(control, condition, num_steps=100, guidance=0.2)
    assert passes == 600
    handle.remove()
    assert (both - alone).abs().max() > 1e-5
    other = model.generate(control, Condition(torch.randn(3, 4)), num_steps=2, guidance=-1.0)
    assert_close(model.generate(control, condition, num_steps=2, guidance=-1.0), other)


def test_a_flow_from_noise_needs_no_control_and_depends_on_the_seed():
    model = moving(context={"X": 4}, source="noise")
    condition = Condition(torch.zeros(3, 4))

    def made(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return model.generate(None, condition, num_steps=2, generator=generator)

    assert made(0).shape == (3, 1, 16, 16)
    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))


def test_a_generator_can_do_without_condition():
    model = moving()
    assert model.conditioner is None
    assert model.generate(images(), Condition(), num_steps=2).shape == (3, 1, 16, 16)


def test_genes_can_be_conditioned_on():
    model = ImageGenerator.for_slides([SLIDE], use_genes=True, size_px=16, **NET)
    known = model.known(SLIDE, np.array([3, 1]))
    assert known.context is None
    assert known.genes.shape == (2, 20)
    expected = np.log1p(SLIDE.counts[3].toarray() / SLIDE.depth[3] * 1e4)
    assert_close(known.genes[:1], torch.from_numpy(expected).float())


def test_genes_that_a_slide_does_not_measure_are_missing_not_zero():
    model = ImageGenerator.for_slides([SLIDE], use_genes=True, size_px=16, **NET)
    less = Slide(SLIDE.adata[:, 5:].copy(), SLIDE.image, slide_id="less")
    genes = model.known(less, np.arange(4)).genes
    assert genes[:, :5].isnan().all()
    assert genes[:, 5:].isfinite().all()


@pytest.mark.parametrize("injection", ["additive", "film", "cross"])
def test_a_saved_generator_makes_the_same_images(tmp_path, injection):
    pairs = pair_states([SLIDE], STATES, states_key="cell_type", niche_key=None)
    panel = GenePanel.from_slides([SLIDE])
    delta = gene_signature([SLIDE], pairs, panel=panel, donors=["donor0"])
    model = ImageGenerator.for_slides(
        [SLIDE],
        context=["X_cell"],
        use_genes=True,
        transitions=STATES,
        states_key="cell_type",
        pairs=pairs,
        delta_genes=delta,
        injection=injection,
        size_px=16,
        **NET,
    )
    torch.manual_seed(1)
    for parameter in model.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.eval().save_pretrained(tmp_path)
    again = ImageGenerator.from_pretrained(tmp_path)
    assert again.transitions == model.transitions
    assert again.states_key == "cell_type"
    condition = model.known(SLIDE, np.arange(3))._replace(transition=torch.tensor([0, 1, 0]))
    first, second = (m.generate(images(), condition, num_steps=2) for m in (model, again))
    assert torch.equal(first, second)


def test_the_scale_of_embeddings_is_that_of_the_controls():
    pairs = pair_states([SLIDE], STATES, states_key="cell_type", niche_key=None)
    model = ImageGenerator.for_slides(
        [SLIDE], context=["X_cell"], transitions=STATES, pairs=pairs, size_px=16, **NET
    )
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
        small(size_px=18)
    narrow = small(context={"X_cell": 3})
    with pytest.raises(ValueError, match="width 3 as in training, got 4"):
        narrow.known(SLIDE, np.arange(2))


def test_slides_that_cannot_train_a_generator_are_refused():
    with pytest.raises(ValueError, match="embed it first"):
        ImageGenerator.for_slides([SLIDE], context=["X_spatia"])
    with pytest.raises(ValueError, match="preset tiny, small, base"):
        ImageGenerator.for_slides([SLIDE], "huge")
    with pytest.raises(ValueError, match="Expected an image"):
        ImageGenerator.for_slides([make_tissue(50, image=None)], use_genes=True)
    pairs = pair_states([SLIDE], STATES[:1], states_key="cell_type", niche_key=None)
    panel = GenePanel.from_slides([SLIDE])
    partial = gene_signature([SLIDE], pairs, panel=panel, donors=["donor0"])
    with pytest.raises(ValueError, match=r"none for \['smaller'\]"):
        ImageGenerator.for_slides([SLIDE], transitions=STATES, delta_genes=partial)
