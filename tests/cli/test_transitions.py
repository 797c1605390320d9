"""Transitions as they are typed."""

import pytest

from spatiagraph.cli.transitions import parse_transitions


def test_states_with_a_colon_are_separated_by_two():
    assert parse_transitions(["CL:0000084::CL:0000236", "CL:1::b::tag:1", "a:b", "a:b:c"]) == [
        ("CL:0000084", "CL:0000236", "CL:0000084 to CL:0000236"),
        ("CL:1", "b", "tag:1"),
        ("a", "b", "a to b"),
        ("a", "b", "c"),
    ]


@pytest.mark.parametrize("text", ["a", "a:", "CL:1:CL:2", "a::b::c::d", "a::"])
def test_others_are_refused_with_the_way_to_write_them(text):
    with pytest.raises(ValueError, match="a colon in them are separated by two"):
        parse_transitions([text])
