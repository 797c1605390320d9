"""Words of libraries, in words that a person can act on."""

import pytest

from spatiagraph._reasons import reason


def error_of(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever it is
        call()
    return caught.value


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bytes([0xB5]).decode(), "byte 0xb5, which is no UTF-8 text"),
        (lambda: "a\udce3".encode(), "a name that is no UTF-8 text"),
        (lambda: open("/nowhere/a.csv"), "no such file or directory"),
        (lambda: {}["obs"], "obs"),
        (lambda: None.x, "'nothing' object has no attribute 'x'"),
    ],
)
def test_a_reason_is_one_line_without_the_names_of_python(call, words):
    assert reason(error_of(call)) == words
