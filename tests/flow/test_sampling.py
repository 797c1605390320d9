from dataclasses import FrozenInstanceError

import pytest

from spatiagraph.flow import Sampling


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "'num_steps' of at least 1, got 0"),
        ({"num_steps": float("nan")}, "'num_steps' of at least 1, got nan"),
        ({"seed": -1}, "'seed' of at least 0, got -1"),
        ({"method": "leapfrog"}, "euler, midpoint, heun, dopri5; got 'leapfrog'"),
        ({"guidance": float("inf")}, "'guidance' as a number, got inf"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def test_it_does_not_change_in_the_hands_of_those_who_share_it():
    sampling = Sampling(3)
    with pytest.raises(FrozenInstanceError):
        sampling.num_steps = 4
