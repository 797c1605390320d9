from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.data import PairBatch
from spatiagraph.data.recipe import Crop
from spatiagraph.models import ImageGenerator
from spatiagraph.models.generator import TINY
from spatiagraph.nn import Condition
from spatiagraph.tasks import ImageFlow

NET = replace(TINY, channels=8, condition_channels=8, head_channels=8)
STATES = [("a", "b", "forth"), ("b", "a", "back"), ("a", "c", "away")]
PLAIN = {"gamma": 0.0, "drop_probability": 0.0, "flip_probability": 0.0, "contrast_weight": 0.0}


def generator(*, moving: bool = True, context=None, transitions=()) -> ImageGenerator:
    torch.manual_seed(0)
    widths = tuple((context or {}).values())
    conditioner = NET.conditioner(widths, num_transitions=len(transitions))
    unet = NET.unet(1, conditioned=conditioner is not None)
    known = {"context": context, "transitions": transitions, "crop": Crop(size_px=16)}
    model = ImageGenerator(unet, conditioner, **known)
    for parameter in model.unet.parameters() if moving else ():
        nn.init.normal_(parameter, std=0.1)
    return model


def pairs(num: int = 12) -> PairBatch:
    random = torch.Generator().manual_seed(0)
    return PairBatch(
        image=torch.rand(num, 1, 16, 16, generator=random),
        target_image=torch.rand(num, 1, 16, 16, generator=random),
        confidence=torch.rand(num, generator=random),
        condition=Condition(
            context=torch.randn(num, 4, generator=random), transition=torch.arange(num) % 3
        ),
    )


def loss_of(task: ImageFlow, batch: PairBatch, seed: int = 0):
    return task.train().loss(batch, torch.Generator().manual_seed(seed))


class Look(nn.Module):
    """A frozen look at images: mean grey of each row."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.weight * image.mean(3).flatten(1)


def test_without_its_extras_it_is_plain_flow_matching():
    """SPATIA fact 29: beside twenty lines that know nothing of the library."""
    model, batch = generator(), pairs()
    task = ImageFlow(model, **PLAIN)
    total = loss_of(task, batch).loss
    random = torch.Generator().manual_seed(0)
    for _ in range(2):  # mirrors are drawn first
        torch.rand(12, generator=random)
    t = torch.rand(12, generator=random)
    x0, x1 = 2 * batch.image - 1, 2 * batch.target_image - 1
    xt = (1 - t.view(-1, 1, 1, 1)) * x0 + t.view(-1, 1, 1, 1) * x1
    assert_close(total, ((model.unet(xt, t) - (x1 - x0)) ** 2).mean())


def test_an_untrained_generator_pays_the_whole_way():
    """SPATIA fact 31: weighted by confidence."""
    batch = pairs()
    task = ImageFlow(generator(moving=False), drop_probability=0.0, mean_confidence=0.5)
    way = (2 * (batch.target_image - batch.image)).square().flatten(1).mean(1)
    assert_close(loss_of(task, batch).loss, (batch.confidence / 0.5 * way).mean())


def test_equal_confidences_weigh_nothing():
    """SPATIA fact 28."""
    batch = pairs()._replace(confidence=torch.full((12,), 0.3))
    first, second = (ImageFlow(generator(), **{**PLAIN, "gamma": g}) for g in (0.0, 1.0))
    assert_close(loss_of(first, batch).loss, loss_of(second, batch).loss)


def test_each_term_adds_its_weight_times_itself():
    """SPATIA fact 23, for the terms of generation."""
    model = generator(context={"X": 4}, transitions=STATES)
    given = {**PLAIN, "gamma": 1.0}
    batch = pairs(24)
    plain = loss_of(ImageFlow(model, **given), batch)
    both = ImageFlow(model, Look(), **{**given, "contrast_weight": 0.5}, morphology_weight=2.0)
    full = loss_of(both, batch)
    assert set(full.parts) == {"flow", "contrast", "morphology"}
    assert_close(full.parts["flow"], plain.loss.detach())
    expected = plain.loss + 0.5 * full.parts["contrast"] + 2.0 * full.parts["morphology"]
    assert_close(full.loss, expected)


def test_the_network_of_morphology_is_left_as_it_is():
    """SPATIA fact 36: gradients reach the generator through it and stop there."""
    model, look = generator(context={"X": 4}, transitions=STATES), Look()
    task = ImageFlow(model, look, **PLAIN, morphology_weight=1.0)
    output = loss_of(task, pairs(24))
    (output.loss - output.loss.detach()).backward()
    assert look.weight.grad is None
    assert not look.training
    assert model.unet.net.conv_out.weight.grad.abs().max() > 0


def exact_velocity(model: ImageGenerator, batch: PairBatch) -> None:
    """Let a generator know the way of each pair of a batch."""
    way = 2 * (batch.target_image - batch.image)
    model.unet.forward = lambda x, t, z, keep=None: way.clone()


def test_a_generator_that_arrives_has_the_morphology_of_the_targets():
    """SPATIA fact 30: both sides are shown to the network in [0, 1], where it was trained."""
    model, look, batch = generator(context={"X": 4}, transitions=STATES), Look(), pairs(24)
    exact_velocity(model, batch)
    seen: list[torch.Tensor] = []
    look.register_forward_pre_hook(lambda _, images: seen.append(images[0]))
    task = ImageFlow(model, look, **PLAIN, morphology_weight=1.0)
    assert_close(float(loss_of(task, batch).parts["morphology"]), 0.0, atol=1e-6, rtol=0)
    ends, targets = seen
    assert_close(ends, batch.target_image, atol=1e-5, rtol=0)
    assert torch.equal(targets, batch.target_image)


def recorded(model: ImageGenerator) -> list[Condition]:
    """Conditions that a generator embeds from now on."""
    seen: list[Condition] = []
    embed = model.embed
    model.embed = lambda condition: seen.append(condition) or embed(condition)  # type: ignore
    return seen


def test_the_wrong_condition_differs_in_its_transition_alone():
    """SPATIA fact 37: of every pair, and anew in each step."""
    model, batch = generator(context={"X": 4}, transitions=STATES), pairs(24)
    seen = recorded(model)
    for seed in range(5):
        loss_of(ImageFlow(model), batch, seed)
    rights, wrongs = seen[::2], seen[1::2]
    for right, wrong in zip(rights, wrongs, strict=True):
        assert torch.equal(right.transition, batch.condition.transition)
        assert (wrong.transition != right.transition).all()
        assert torch.equal(wrong.context, right.context)
    drawn = torch.stack([wrong.transition for wrong in wrongs])
    assert (drawn.min(0).values != drawn.max(0).values).any()  # of two others both come up


@pytest.mark.parametrize("dropped", [0.0, 0.5, 1.0])
def test_pairs_without_a_condition_are_not_contrasted(dropped):
    """Both errors of such a pair are the same, which would count as a margin that is not held."""
    model, batch = generator(context={"X": 4}, transitions=STATES), pairs(24)
    keeps: list[torch.Tensor] = []
    unet = model.unet.forward
    model.unet.forward = lambda x, t, z, keep: keeps.append(keep) or unet(x, t, z, keep)
    task = ImageFlow(model, drop_probability=dropped)
    errors: list[torch.Tensor] = []
    forward = model.forward
    model.forward = lambda x, *rest: errors.append(forward(x, *rest)) or errors[-1]  # type: ignore
    found = loss_of(task, batch).parts["contrast"]
    keep = keeps[0]
    assert torch.equal(keeps[0], keeps[1])
    assert int(keep.sum()) == {0.0: 24, 1.0: 0}.get(dropped, int(keep.sum()))
    if not keep.any():
        assert found == 0
        return
    image, target = mirrored_as_in(task, batch)
    way = 2 * (target - image)
    right, wrong = (((v - way) ** 2).flatten(1).mean(1)[keep].detach() for v in errors)
    expected = (right - wrong + 0.1 * right.mean()).clamp(min=0).mean()
    assert expected > 0
    assert_close(found, expected)


def mirrored_as_in(task: ImageFlow, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as the first draws of a step mirror them."""
    random = torch.Generator().manual_seed(0)
    image, target = batch.image, batch.target_image
    for axis in (2, 3):
        drawn = torch.rand(len(image), generator=random) < task.flip_probability
        drawn = drawn.view(-1, 1, 1, 1)
        image, target = (torch.where(drawn, x.flip(axis), x) for x in (image, target))
    return image, target


def test_groups_too_small_to_compare_cost_nothing():
    model = generator(context={"X": 4}, transitions=STATES)
    task = ImageFlow(model, Look(), **PLAIN, morphology_weight=1.0)
    assert loss_of(task, pairs(12)).parts["morphology"] == 0  # 4 of each transition


def test_the_share_of_dropped_conditions_is_the_one_asked_for():
    """SPATIA fact 34."""
    model = generator(context={"X": 4}, transitions=STATES)
    seen: list[torch.Tensor] = []
    model.unet.forward = lambda x, t, z, keep: seen.append(keep) or torch.zeros_like(x)
    task = ImageFlow(model, contrast_weight=0.0)
    batch = pairs(1000)
    for seed in range(10):
        loss_of(task, batch, seed)
    share = 1 - torch.cat(seen).float().mean()
    assert abs(float(share) - 0.1) < 0.02


def test_both_images_of_a_pair_are_mirrored_alike():
    model = generator(moving=False)
    batch = pairs()
    batch = batch._replace(target_image=batch.image.clone())
    assert loss_of(ImageFlow(model, flip_probability=0.5), batch).loss == 0


def test_one_transition_has_no_wrong_one():
    model = generator(context={"X": 4}, transitions=STATES[:1])
    batch = pairs()
    only = batch.condition._replace(transition=torch.zeros(12, dtype=torch.long))
    batch = batch._replace(condition=only)
    assert set(loss_of(ImageFlow(model), batch).parts) == {"flow"}


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="Expected 'profile'"):
        ImageFlow(generator(), morphology_weight=0.1)
    with pytest.raises(ValueError, match="'drop_probability' in"):
        ImageFlow(generator(), drop_probability=1.5)
