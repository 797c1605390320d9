import math

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.losses import UncertaintyWeights

TERMS = {"mt": torch.tensor(2.0), "co": torch.tensor(0.5), "pc": torch.tensor(0.7)}


@pytest.mark.parametrize(("where", "slope"), [("inside", 0.75), ("outside", 0.25)])
def test_both_places_of_the_fade_start_alike(where, slope):
    """SpatialFormer fact F21."""
    weights = UncertaintyWeights(["mt", "co", "pc"], ["co"], where)
    total = weights(TERMS, fade=0.5)
    assert_close(total, torch.tensor(2.95))
    total.backward()
    assert_close(weights.log_variance["co"].grad, torch.tensor(slope))


@pytest.mark.parametrize("fade", [0.5, 0.01])
def test_inside_the_learned_weight_undoes_the_fade(fade):
    """SpatialFormer fact F21: at the best weight of a loss of 0.4."""
    best = {"outside": math.log(0.4), "inside": math.log(0.4 * fade)}
    value = {}
    for where, s in best.items():
        weights = UncertaintyWeights(["co"], ["co"], where)
        weights.log_variance["co"].data.fill_(s)
        loss = torch.tensor(0.4, requires_grad=True)
        total = weights({"co": loss}, fade)
        total.backward()
        value[where] = total.item()
        assert_close(weights.log_variance["co"].grad, torch.tensor(0.0), atol=1e-6, rtol=0)
        expected = 2.5 if where == "inside" else 2.5 * fade
        assert_close(loss.grad, torch.tensor(expected))
    if fade == 0.01:
        assert value["inside"] == pytest.approx(-4.52, abs=0.01)
        assert value["outside"] == pytest.approx(0.0008, abs=1e-4)


def test_the_fade_is_linear_after_its_start():
    """SpatialFormer fact F24."""
    weights = UncertaintyWeights(["co"], ["co"])
    assert [weights.fade(k, 1100) for k in (0, 100, 600, 1100)] == [1, 1, 0.5, 0]
    assert weights.fade(50, 60) == 1  # a run that is over before


def test_a_missing_term_is_left_out_with_its_uncertainty():
    weights = UncertaintyWeights(["mt", "co"], ["co"])
    weights({"mt": torch.tensor(1.0)}).backward()
    assert weights.log_variance["co"].grad is None
    with pytest.raises(ValueError, match=r"got \['pc'\]"):
        UncertaintyWeights(["mt"], ["pc"])
