"""Weighted objectives on one view, of batches of any kind."""

import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.tasks import Objective, ObjectiveTask

CROPS = {"image": torch.tensor([[0.0], [0.5], [1.0]])}


class Brightness(Objective):
    """Squared error of what the model makes of crops, against a brightness."""

    def __init__(self, name: str, brightness: float, weight: float):
        super().__init__(weight)
        self.name, self.brightness = name, brightness

    def forward(self, view):
        return (view - self.brightness).square().mean()


class OfCrops(ObjectiveTask):
    """A task without tissue: a batch is a mapping of crops."""

    def view(self, batch, streams):
        assert streams.device == self.model.weight.device
        return self.model(batch["image"])

    def count(self, batch):
        return len(batch["image"])


def test_a_batch_need_not_be_tissue():
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    objectives = [Brightness("dark", 0.0, 1.0), Brightness("light", 1.0, 0.5)]
    output = OfCrops(model, objectives).loss(CROPS)
    mean = 1.25 / 3  # of the squares of 0, 1/2 and 1, from either end
    assert output.n == 3
    assert_close(output.parts, {"dark": torch.tensor(mean), "light": torch.tensor(mean)})
    assert_close(output.loss.detach(), torch.tensor(1.5 * mean))
    assert "'image' of 1 of 3 rows" in OfCrops(model, objectives).blame(
        {"image": torch.tensor([[0.0], [torch.nan], [1.0]])}
    )
