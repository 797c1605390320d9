"""What crops and their measured features teach."""

import torch
from torch.testing import assert_close

from spatiagraph.nn import MorphologyProfile
from spatiagraph.tasks import MorphologyRegression


def batch(num=6):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(num, 1, 16, 16, generator=generator),
        "morphology": torch.rand(num, 10, generator=generator).double() * 50,
    }


def small():
    torch.manual_seed(0)
    model = MorphologyProfile(1, channels=(4, 4, 4, 4), hidden_channels=8)
    model.initialize(batch()["morphology"])
    return model


def test_the_loss_is_the_squared_error_of_standardised_features():
    task, data = MorphologyRegression(small()), batch()
    mean, std = data["morphology"].mean(0), data["morphology"].std(0, correction=0)
    known = (task.model(data["image"]) - (data["morphology"] - mean) / std).square().mean()
    found = task.loss(data)
    assert_close(found.loss, known, check_dtype=False)
    assert found.n == 6
    task.model.network[-1].weight.data.zero_()
    task.model.network[-1].bias.data.zero_()
    assert_close(task.loss(data).loss, torch.tensor(1.0))  # of the mean predictor


def test_cells_that_could_not_be_measured_teach_nothing():
    task, data = MorphologyRegression(small()), batch()
    fewer = {key: value[1:] for key, value in data.items()}
    known = task.loss(fewer)
    data["morphology"][0, 3] = torch.nan
    found = task.loss(data)
    assert_close(found.loss, known.loss)
    assert found.n == 5
    data["morphology"][:] = torch.nan
    nothing = task.loss(data)
    nothing.loss.backward()
    assert (nothing.n, nothing.loss.item()) == (0, 0.0)
    assert all(p.grad.isfinite().all() for p in task.model.parameters())
