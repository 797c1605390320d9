import math

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data.tokens import location_index
from spatiagraph.nn.genomic_position import GenomicPosition, sinusoidal_encoding


def test_sinusoidal_encoding_matches_the_formula():
    code = sinusoidal_encoding(torch.tensor([[0, 7]]), 4)
    slow = 7 / 10_000**0.5
    by_hand = [math.sin(7), math.sin(slow), math.cos(7), math.cos(slow)]
    assert_close(code, torch.tensor([[[0.0, 0.0, 1.0, 1.0], by_hand]]))


def test_sinusoidal_encoding_tells_any_two_places_apart():
    code = sinusoidal_encoding(torch.arange(3000), 32)
    assert torch.cdist(code, code).fill_diagonal_(1.0).min() > 0.05


def test_close_genes_share_a_code_and_chromosomes_do_not():
    """SPATIA fact 7."""
    index = location_index(["1", "1", "1", "2"], [1_000, 9_000, 40_000, 9_000])
    position = GenomicPosition(4, 8)
    position.locate(torch.from_numpy(index))
    code = position(torch.arange(4))
    assert_close(code[0], code[1], rtol=0, atol=0)
    assert len(code.unique(dim=0)) == 3


def test_genes_of_unknown_place_have_no_code():
    position = GenomicPosition(3, 8)
    assert not position(torch.arange(3)).any()
    position.locate(torch.tensor([0, -1, 0]))
    assert position(torch.arange(3)).any(1).tolist() == [True, False, True]


def test_genomic_position_rejects_another_panel_and_odd_widths():
    with pytest.raises(ValueError, match=r"each of 3 genes, got shape \[2\]"):
        GenomicPosition(3, 8).locate(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="even number of 'channels', got 7"):
        sinusoidal_encoding(torch.arange(3), 7)
