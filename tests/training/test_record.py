"""What a record of a run says of its weights."""

import torch
from torch import nn

from spatiagraph.training.record import weights_hash


def model(value: torch.Tensor) -> nn.Module:
    module = nn.Linear(2, 1)
    nn.init.ones_(module.weight)
    nn.init.zeros_(module.bias)
    module.register_buffer("mean", value)
    return module


def test_equal_weights_have_one_hash_however_they_are_stored():
    plain = torch.ones(1, 1)
    expanded = torch.ones(1).as_strided((1, 1), (0, 0))  # what a reduction over all may leave
    transposed = torch.arange(6.0).reshape(3, 2).T
    assert weights_hash(model(plain)) == weights_hash(model(expanded))
    assert weights_hash(model(transposed)) == weights_hash(model(transposed.contiguous()))


def test_another_weight_another_hash():
    assert weights_hash(model(torch.ones(1))) != weights_hash(model(torch.zeros(1)))
