"""JSON from anyone: what is wrong is said in one line, with the file and the place."""

import json
from typing import Literal

import pytest

from spatiagraph._json import Schema, parse_json, read_json, validated


class Region(Schema):
    name: str
    size_um: float
    corners: tuple[tuple[float, float], ...] = ()


DAMAGED = {
    b"": "Expected JSON in 'f.json', unreadable in line 1: Expecting value",
    b'{"a": 1,\n"b": ': "unreadable in line 2: Expecting value",
    b'{"a": 1}}': "unreadable in line 1: Extra data",
    b'{"a": \n "\xff\xfe"}': "Expected UTF-8 text in 'f.json', got byte 0xff in line 2",
    '{"a": 1}'.encode("utf-16"): "Expected UTF-8 text",
    b'{"a": 1, "a": 2}': "Expected every key once in 'f.json', got 'a' more often",
    b"[1,\n\n NaN]": "Expected finite numbers in 'f.json', got NaN in line 3",
    b"[-Infinity]": "got -Infinity in line 1",
    b"[1e999]": "got 1e999 in line 1",
    b"[%b]" % (b"1" * 5000): "got 11111111111111111111 in line 1",
    b"[" * 100_000: "at most 64 deep in 'f.json', got 100,000",
    b'{"a":' * 65 + b"1" + b"}" * 65: "at most 64 deep in 'f.json', got 65",
    b'["\\ud800"]': "got half a character",
    b'"' + b'\\"' * 1_000_000: "unreadable in line 1: Unterminated string",
}


@pytest.mark.parametrize("data", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_text_is_one_line_with_its_place(data):
    with pytest.raises(ValueError, match="^Expected") as caught:
        parse_json(data, "'f.json'")
    assert DAMAGED[data] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sound_text_is_read_as_it_is(tmp_path):
    value = {"[[[": ["NaN", '"', "\\", "é", "\U0001f9ec"], "b": [1e300, -0.5, None, True], "c": {}}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), "\ufeff[1]"):
        (tmp_path / "f.json").write_text(text, encoding="utf-8")
        assert read_json(tmp_path / "f.json") == (value if text[0] == "{" else [1])
    assert parse_json(b"[" * 64 + b"]" * 64, "here") is not None


def test_size_is_known_before_anything_is_parsed(tmp_path):
    (tmp_path / "f.json").write_text("[" + "1," * 1000 + "1]")
    with pytest.raises(ValueError, match="at most 1,000 bytes of JSON in '.*f.json', got more"):
        read_json(tmp_path / "f.json", max_bytes=1000)
    with pytest.raises(ValueError, match="Expected a JSON file at '.*', found none"):
        read_json(tmp_path)


WRONG = {
    "no object": ([], "an object as 'a.regions.0' of 'f.json', got []"),
    "missing": ({"name": "x"}, "Expected the key 'a.regions.0.size_um' in 'f.json', found none"),
    "unknown": ({"name": "x", "size_um": 1, "b": 1}, "no key 'a.regions.0.b' in 'f.json'"),
    "text": ({"name": "x", "size_um": "1"}, "a valid number as 'a.regions.0.size_um' of 'f.json'"),
    "bool": ({"name": "x", "size_um": True}, "got True"),
    "number": ({"name": 5, "size_um": 1.0}, "valid string as 'a.regions.0.name'"),
    "pair": ({"name": "x", "size_um": 1.0, "corners": [[1]]}, "'a.regions.0.corners.0.1'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_value_of_another_shape_is_named(case):
    value, message = WRONG[case]
    with pytest.raises(ValueError, match="^Expected") as caught:
        validated({"regions": [value]}, dict[str, list[Region]], "'f.json'", at="a")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_of_the_right_shape_is_taken():
    region = validated({"name": "x", "size_um": 2, "corners": [[1, 2.5]]}, Region, "here")
    assert region == Region(name="x", size_um=2.0, corners=((1.0, 2.5),))
    assert validated("l2", Literal["cosine", "l2"], "here") == "l2"
