"""Weight decay towards the start: known values, and a run that goes on."""

import copy

import pytest
import torch
from torch import nn

import spatiagraph as sg
from spatiagraph.heads.regression import STRENGTHS
from spatiagraph.models import ContextModel
from spatiagraph.models.base import DECAY
from spatiagraph.training.optimizer import AdamWTowardStart


def pulled(parameter: nn.Parameter, lr: float = 0.1, pull: float = 2.0) -> AdamWTowardStart:
    group = {"params": [parameter], "weight_decay": 0.0, "toward_start": True, "pull": pull}
    return AdamWTowardStart([group], lr=lr)


def test_a_step_is_that_of_adamw_and_a_share_of_the_way_back():
    start = torch.tensor([[3.0, -2.0]])
    parameter, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = pulled(parameter)
    reference = torch.optim.AdamW([plain], lr=0.1, weight_decay=0.0)
    expected = start.clone()
    for gradient in ([1.0, -1.0], [0.5, 2.0], [0.0, 1.0]):
        before = plain.detach().clone()
        for p, o in ((parameter, optimizer), (plain, reference)):
            p.grad = torch.tensor([gradient])
            o.step()
        moved = expected + (plain.detach() - before)
        expected = moved + 0.1 * 2.0 * (start - moved)
        torch.testing.assert_close(parameter.detach(), expected)


def test_without_a_gradient_nothing_moves_and_a_strong_pull_stops_at_the_start():
    still = nn.Parameter(torch.ones(2, 2))
    optimizer = pulled(still)
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 2))
    strong = pulled(still, lr=1.0, pull=100.0)
    still.grad = torch.ones(2, 2)
    strong.step()
    torch.testing.assert_close(still.detach(), torch.ones(2, 2))


def test_a_run_that_goes_on_pulls_to_where_it_began():
    first = nn.Parameter(torch.zeros(1, 3))
    optimizer = pulled(first)
    first.grad = torch.ones(1, 3)
    optimizer.step()
    second = nn.Parameter(first.detach().clone())
    resumed = pulled(second)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as from a file
    for _ in range(3):
        for p, o in ((first, optimizer), (second, resumed)):
            p.grad = torch.full((1, 3), -1.0)
            o.step()
    assert torch.equal(first, second)
    assert torch.equal(resumed.state[second]["start"], torch.zeros(1, 3))


@pytest.mark.filterwarnings("ignore:.*cells are few.*")
def test_decoders_stay_near_their_start_and_other_matrices_fall():
    """A pull of 1 / lr takes every step back: what is anchored ends where it began."""
    slide = sg.make_tissue(120, num_genes=20, image=None, seed=0)
    model = ContextModel.for_slides([slide], channels=8)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = {"accelerator": "cpu", "progress": False, "tile_size": 60}
    sg.fit(model, slide, max_steps=1, lr=1e-2, weight_decay=100.0, **options)
    end = dict(model.named_parameters())
    for name in ("head.linear.weight", "niche_head.linear.weight"):
        torch.testing.assert_close(end[name].detach(), start[name])
    matrix = "context_encoder.conv.layers.0.mlp.0.weight"
    assert end[matrix].norm() < 0.2 * start[matrix].norm()


def test_noise_is_held_to_the_start_more_than_signal():
    """Decay follows the ridge strength that predicts left out cells best."""
    slide = sg.make_tissue(100, num_genes=20, image=None, seed=0)
    model = ContextModel.for_slides([slide], channels=8)
    assert model.weight_decay == DECAY * model.head.strength
    x = torch.from_numpy(slide.counts.toarray()).float()
    z = torch.randn(len(x), 8, generator=torch.Generator().manual_seed(0))
    model.head.initialize(x, z)  # of which nothing can be told
    assert model.head.strength == max(STRENGTHS)
    result = sg.fit(model, slide, max_steps=1, accelerator="cpu", progress=False)
    assert result.record["weight_decay"] == model.weight_decay
