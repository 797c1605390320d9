"""What can be wrong with bytes, with an array, and with a value of a JSON file."""

import numpy as np


class NoSuchDamageError(Exception):
    """This cannot be done to that."""


def _place(data, rng):
    if not data:
        raise NoSuchDamageError
    return int(rng.integers(len(data)))


def flip_bit(data, rng):
    place = _place(data, rng)
    return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]


def flip_bytes(data, rng):
    found = bytearray(data)
    for _ in range(16):
        found[_place(data, rng)] = int(rng.integers(256))
    return bytes(found)


def header(data, rng):
    """An extreme number near the beginning, where sizes stand."""
    place = min(_place(data, rng), int(rng.integers(256)))
    word = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x10"])
    return data[:place] + bytes(word) + data[place + 4 :]


def truncate(data, rng):
    return data[: _place(data, rng)]


def empty(data, rng):
    return b""


def zeros(data, rng):
    place = _place(data, rng)
    return data[:place] + bytes(len(data[place : place + 512])) + data[place + 512 :]


def repeat(data, rng):
    place = _place(data, rng)
    return data[:place] + data[place // 2 :]


def garbage(data, rng):
    return rng.bytes(max(1, len(data) // 2))


def utf16(data, rng):
    try:
        return data.decode("utf-8").encode("utf-16")
    except UnicodeDecodeError as err:
        raise NoSuchDamageError from err


def latin1(data, rng):
    place = _place(data, rng)
    return data[:place] + "é".encode("latin-1") + data[place:]


BYTES = {
    f.__name__: f
    for f in (flip_bit, flip_bytes, header, truncate, empty, zeros, repeat, garbage, utf16, latin1)
}
LOST = ("truncate", "empty", "garbage")
"""Of the damages to bytes, those after which a binary file cannot be whole."""


def _floats(array):
    if array.dtype.kind not in "iufb" or array.size == 0:
        raise NoSuchDamageError
    return array.astype(np.float64 if array.dtype.kind != "f" else array.dtype)


def _with(value):
    def put(array, rng):
        array = _floats(array).copy()
        array.reshape(-1)[int(rng.integers(array.size))] = value
        return array

    return put


def _integer(value):
    def put(array, rng):
        if array.dtype.kind not in "iu" or array.size == 0:
            raise NoSuchDamageError
        array = array.astype(np.int64).copy()
        array.reshape(-1)[int(rng.integers(array.size))] = value
        return array

    return put


def _rows(change):
    def put(array, rng):
        if array.ndim == 0 or len(array) == 0:
            raise NoSuchDamageError
        return change(array)

    return put


def _complex(array, rng):
    return _floats(array).astype(np.complex128) + 1j


def _fraction(array, rng):
    return _floats(array) + 0.25


ARRAYS = {
    "nan": _with(np.nan),
    "inf": _with(np.inf),
    "negative": _with(-7.0),
    "negative integer": _integer(-7),
    "huge": _with(1e30),
    "huge integer": _integer(2**62),
    "large integer": _integer(9999),
    "fraction": _fraction,
    "complex": _complex,
    "text": lambda array, rng: array.astype(str).astype(object),
    "bytes": lambda array, rng: array.astype("S8"),
    "bool": lambda array, rng: _floats(array) > 0,
    "half": lambda array, rng: _floats(array).astype(np.float16),
    "shorter": _rows(lambda array: array[:-1]),
    "longer": _rows(lambda array: np.concatenate([array, array[:1]])),
    "none": _rows(lambda array: array[:0]),
    "one": _rows(lambda array: array[:1]),
    "reversed": _rows(lambda array: array[::-1].copy()),
    "same": _rows(lambda array: np.repeat(array[:1], len(array), 0)),
    "another axis": lambda array, rng: array[..., None],
    "scalar": lambda array, rng: array.reshape(-1)[:1].reshape(()) if array.size else array,
}
WRONG = ("nan", "inf", "complex", "shorter", "longer", "none", "one", "text", "scalar")
"""Of the damages to arrays, those after which the array cannot mean anything else."""


def _deep(rng):
    value = []
    for _ in range(int(rng.choice([20, 100, 900]))):
        value = [value] if rng.integers(2) else {"a": value}
    return value


VALUES = {
    "null": lambda value, rng: None,
    "text": lambda value, rng: "text",
    "no text": lambda value, rng: "",
    "unicode": lambda value, rng: "\u202e\U0001f9ec\u0000é" * int(rng.integers(1, 50)),
    "long text": lambda value, rng: "x" * 100_000,
    "path": lambda value, rng: "../../../../etc/passwd",
    "zero": lambda value, rng: 0,
    "negative": lambda value, rng: -1,
    "fraction": lambda value, rng: 0.5,
    "huge": lambda value, rng: 10 ** int(rng.choice([9, 18, 30, 400])),
    "large": lambda value, rng: 1e300,
    "nan": lambda value, rng: float("nan"),
    "inf": lambda value, rng: float("inf"),
    "true": lambda value, rng: True,
    "list": lambda value, rng: [value],
    "object": lambda value, rng: {"a": value},
    "empty list": lambda value, rng: [],
    "empty object": lambda value, rng: {},
    "deep": lambda value, rng: _deep(rng),
    "number as text": lambda value, rng: str(value),
}
