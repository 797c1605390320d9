"""Encodings: known values, and what they do under rigid motion."""

import math

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.graph import (
    distance_rbf,
    edge_direction,
    normalize_positions,
    position_encoding,
)

RECTANGLE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [3.0, 4.0]], dtype=torch.float64)
UNIT = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)


def turned(pos, degrees):
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return pos @ pos.new_tensor([[cos, sin], [-sin, cos]])


def side(pos):
    return float((pos[1] - pos[0]).norm())


def test_bbox_normalisation_of_a_3_4_5_rectangle():
    """SToFM fact A11."""
    pos, scale = normalize_positions(RECTANGLE, "bbox")
    assert_close(pos.abs(), pos.new_tensor([30.0, 40.0]).expand(4, 2))
    assert_close(torch.pdist(pos).sort().values, pos.new_tensor([60, 60, 80, 80, 100, 100]))
    assert scale == pytest.approx(20)


def test_bbox_normalisation_depends_on_orientation_and_rms_does_not():
    """SToFM fact A11."""
    for degrees, bbox in ((0, 70.7107), (45, 50.0)):
        pos = turned(UNIT, degrees)
        assert side(normalize_positions(pos, "bbox").pos) == pytest.approx(bbox, abs=1e-4)
        assert side(normalize_positions(pos, "rms").pos) == pytest.approx(40.8248, abs=1e-4)


@pytest.mark.parametrize("norm", ["bbox", "rms"])
def test_moving_and_scaling_change_no_normalised_position(norm):
    """SToFM fact A11."""
    pos, scale = normalize_positions(RECTANGLE, norm)
    moved, moved_scale = normalize_positions(7 * RECTANGLE + 1e4, norm)
    assert_close(moved, pos)
    assert moved_scale == pytest.approx(scale / 7)


def test_normalisation_none_keeps_positions_and_a_pile_is_only_centred():
    assert normalize_positions(UNIT, "none") == (UNIT, 1.0)
    assert normalize_positions(torch.full((3, 2), 5.0)).pos.tolist() == [[0, 0]] * 3
    with pytest.raises(ValueError, match="got 'max'"):
        normalize_positions(UNIT, "max")


def test_position_encoding_has_the_published_lengths():
    encoded = position_encoding(torch.tensor([[10.0, -3.0]], dtype=torch.float64))
    assert encoded.shape == (1, 512)
    length = 2 * 1000 ** (torch.arange(128, dtype=torch.float64) / 127)  # 2 µm to 2000 µm
    parts = [(10 / length).sin(), (10 / length).cos(), (-3 / length).sin(), (-3 / length).cos()]
    assert_close(encoded[0], torch.cat(parts))


def test_position_encoding_relative_to_a_centre_does_not_know_where_the_slide_lies():
    """SPATIA fact 17 (positions)."""
    moved = RECTANGLE + 12345.0
    assert_close(
        position_encoding(moved - moved.mean(0), 64),
        position_encoding(RECTANGLE - RECTANGLE.mean(0), 64),
    )


def test_position_encoding_refuses_an_odd_width():
    with pytest.raises(ValueError, match="multiple of 4.*got 6 channels"):
        position_encoding(UNIT, 6)


def test_distance_rbf_peaks_at_its_centres():
    basis = distance_rbf(torch.tensor([0.0, 50.0, 100.0, 1000.0]), 5, max_um=100)
    assert basis[:3].argmax(1).tolist() == [0, 2, 4]
    assert_close(basis[1], torch.exp(-0.5 * torch.tensor([4.0, 1, 0, 1, 4])))
    assert basis[3].max() < 1e-6
    with pytest.raises(ValueError, match="'num_basis' of at least 2"):
        distance_rbf(torch.zeros(1), 1)


def test_directions_point_from_target_to_source():
    pos, edges = (
        torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]),
        torch.tensor([[1, 0, 2], [0, 1, 1]]),
    )
    assert_close(edge_direction(pos, edges), torch.tensor([[0.6, 0.8], [-0.6, -0.8], [0.0, 0.0]]))


def test_directions_can_be_differentiated_where_cells_coincide():
    pos = torch.zeros(2, 2, requires_grad=True)
    edge_direction(pos, torch.tensor([[0], [1]])).sum().backward()
    assert pos.grad.isfinite().all()
