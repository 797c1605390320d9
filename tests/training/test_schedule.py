"""Schedules of a run: known values, and that a run follows them."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import spatiagraph as sg
from spatiagraph.models import ContextModel, STAlign
from spatiagraph.training import CosineSchedule, scaled_lr


def test_values_of_the_published_schedules():
    """ST-Align fact A13: 100 epochs of 10 steps, 2 of warm-up, 64 spots on one device."""
    schedule, steps = CosineSchedule(warmup=0.02, end_lr=1e-6, end_weight_decay=0.4), 1000
    peak = scaled_lr(64)
    assert peak == scaled_lr(16, 4) == pytest.approx(1.25e-4)
    assert scaled_lr(256) == STAlign.lr
    assert schedule.lr(0, steps, peak) == 0
    for step in (19, 20):
        assert schedule.lr(step, steps, peak) == pytest.approx(1.25e-4, rel=1e-9)
    assert schedule.lr(999, steps, peak) == pytest.approx(1.0003e-6, rel=1e-4)
    decays = [schedule.weight_decay(step, steps, 0.04) for step in (0, 500, 1000)]
    assert decays == pytest.approx([0.04, 0.22, 0.4])
    assert CosineSchedule(end_weight_decay=None).weight_decay(500, steps, 0.04) == 0.04
    rates = [schedule.lr(step, steps, peak) for step in range(steps)]
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    with pytest.raises(ValueError, match="'warmup' as a share of the steps, got 2"):
        CosineSchedule(warmup=2)
    with pytest.raises(ValueError, match="'end_lr' of 0 or more, got -1"):
        CosineSchedule(end_lr=-1)
    with pytest.raises(ValueError, match="of at least 1, got 0 and 1"):
        scaled_lr(0)


class Seen(Callback):
    """Rates and decays that the optimiser was called with."""

    def __init__(self):
        self.values = []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.values.append([(g["lr"], g["weight_decay"]) for g in optimizer.param_groups])


@pytest.mark.filterwarnings("ignore:.*cells are few.*")
def test_a_run_follows_its_schedule():
    """ST-Align fact A13: matrices have the decay of the step, vectors none."""
    slide = sg.make_tissue(120, num_genes=20, image=None, seed=0)
    model = ContextModel.for_slides([slide], channels=8)
    seen, schedule = Seen(), CosineSchedule(warmup=0.25, end_lr=1e-4, end_weight_decay=0.4)
    torch.manual_seed(0)
    result = sg.fit(
        model, [slide], max_steps=8, lr=1e-2, weight_decay=0.04, schedule=schedule, tile_size=30,
        callbacks=seen, accelerator="cpu", progress=False,
    )  # fmt: skip
    assert result.record["schedule"] == {"warmup": 0.25, "end_lr": 1e-4, "end_weight_decay": 0.4}
    # Lightning clears gradients before the step, so the decay is that of the step before
    steps = [step for step, _ in zip(seen.values, range(8), strict=False)]
    rates = [groups[0][0] for groups in steps]
    assert rates == pytest.approx([schedule.lr(i, 8, 1e-2) for i in range(8)])
    assert all(groups[1][1] == 0 for groups in steps)
    decays = [groups[0][1] for groups in steps]
    expected = [schedule.weight_decay(i, 8, 0.04) for i in range(8)]
    assert decays[1:] == pytest.approx(expected[:-1])
