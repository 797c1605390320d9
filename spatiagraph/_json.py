"""Bounded reading of untrusted JSON files, validated by a schema.

What a file holds is known to be JSON of a bearable size before it is parsed, and to have the
expected shape before anything is made of it. Whatever is wrong is a ``ValueError`` of one line
that names the file and the place in it.
"""

import itertools
import json
import math
import os
import re
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

MAX_BYTES = 64 * 2**20
"""Most bytes of a file, unless its reader allows more."""
MAX_DEPTH = 64
"""Most objects and lists inside each other."""
_GZIP = b"\x1f\x8b"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)', re.DOTALL)
_ENDLESS = re.compile(rb"-?NaN|-?Infinity|[0-9]{64,}")
_EXPONENT = re.compile(rb"[eE]\+?[0-9]{3,}")
_MANTISSA = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?\Z")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Schema(BaseModel):
    """Keys and types of a JSON object; a sub-class lists them.

    Types are taken at their word: no number in quotation marks, no 1.0 for 1, nothing that is not
    finite, and no key that is not listed.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


def read_json(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH
) -> Any:
    """Read a JSON file.

    Args:
        path: The file, possibly gzipped.
        max_bytes: Largest size.
        max_depth: Most objects and lists inside each other.

    Raises:
        ValueError: If there is no file, or what :func:`parse_json` says.
    """
    place = Path(path)
    if not place.is_file():  # nor a pipe, which would be waited for
        raise ValueError(f"Expected a JSON file at {str(place)!r}, found none")
    with place.open("rb") as file:
        data = file.read(max_bytes + 1)
    if data.startswith(_GZIP):
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, max_bytes + 1)
        except zlib.error as err:
            raise ValueError(f"Expected JSON in {str(place)!r}, got a damaged archive") from err
    return parse_json(data, repr(str(place)), max_bytes=max_bytes, max_depth=max_depth)


def parse_json(
    data: bytes, where: str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH
) -> Any:
    """Read JSON text.

    Args:
        data: The text, in UTF-8.
        where: What to call it in a message: a file in quotation marks.
        max_bytes: Largest size.
        max_depth: Most objects and lists inside each other.

    Raises:
        ValueError: If the text is too large, nested too deep, no UTF-8 or no JSON, gives a key
            twice, or has numbers that are not finite or have 64 digits or more.
    """
    if len(data) > max_bytes:
        raise ValueError(
            f"Expected at most {max_bytes:,} bytes of JSON in {where}, got more: is this the file "
            "that was meant?"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ValueError(
            f"Expected UTF-8 text in {where}, got byte {data[err.start]:#04x} in "
            f"{_line(data, err.start)}"
        ) from err
    bare = _STRING.sub(b'""', data)  # strings hold no line breaks: lines stay the same
    _check_depth(bare, where, max_depth)
    _check_numbers(bare, where)
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as err:
        raise ValueError(
            f"Expected JSON in {where}, unreadable in line {err.lineno}: {err.msg}. Is the file "
            "complete?"
        ) from err
    except _RepeatedKeyError as err:
        raise ValueError(f"Expected every key once in {where}, got {err} more often") from err
    if _SURROGATE.search(data):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as err:
            raise ValueError(
                f"Expected Unicode text in {where}, got half a character (\\ud800 to \\udfff)"
            ) from err
    return value


def validated(value: Any, schema: Any, where: str, *, at: str = "") -> Any:
    """Validate a parsed JSON value against a schema.

    Args:
        value: What :func:`read_json` gave.
        schema: A sub-class of :class:`Schema`, or any annotation: ``list[Region]``,
            ``dict[str, float]``, ``Literal["cosine", "l2"]``.
        where: What to call the source in a message: a file in quotation marks.
        at: Place of the value in the source, such as ``"model.args"``.

    Raises:
        ValueError: With the first place that differs, what was expected there and what came.
    """
    try:
        # by way of JSON, where a list may become a tuple and still no text a number
        return _adapter(schema).validate_json(to_json(value), strict=True)
    except ValidationError as err:
        raise ValueError(_message(err, where, at)) from err


@lru_cache(maxsize=256)
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _message(err: ValidationError, where: str, at: str) -> str:
    first, *others = err.errors(include_url=False)
    place = ".".join([*([at] if at else []), *(str(part) for part in first["loc"])])
    inside = f"{place!r} of {where}" if place else where
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "missing":
        return f"Expected the key {place!r} in {where}, found none{more}"
    if first["type"] == "extra_forbidden":
        return f"Expected no key {place!r} in {where}, which nothing reads{more}"
    if first["type"].startswith("union_tag"):  # of objects told apart by the value of one key
        key = first["ctx"]["discriminator"].strip("'")
        place = ".".join([*([place] if place else []), key])
        if first["type"] == "union_tag_not_found":
            return f"Expected the key {place!r} in {where}, found none{more}"
        tags, tag = first["ctx"]["expected_tags"], shortened(first["ctx"]["tag"])
        return f"Expected one of {tags} as {place!r} of {where}, got {tag}{more}"
    expected = first["msg"].removeprefix("Value error, ")
    expected = re.sub(r"^\w+ should have (.*) after validation, not \d+$", r"\1", expected)
    expected = expected.removeprefix("Input should be ")
    if first["type"] == "value_error":
        return f"{inside}: {expected}{more}"
    return f"Expected {expected} as {inside}, got {shortened(first['input'])}{more}"


def shortened(value: Any, length: int = 60) -> str:
    """Text of a value, cut to some characters."""
    text = repr(value[: length + 1] if isinstance(value, str | list) else value)
    return text if len(text) <= length else f"{text[:length]}…"


class _RepeatedKeyError(Exception):
    """A key that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(shortened(key))
            seen.add(key)
    return result


def _check_depth(bare: bytes, where: str, max_depth: int) -> None:
    brackets = np.frombuffer(bare.translate(None, _NOT_BRACKETS), dtype=np.uint8)
    step = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    if brackets.size and (deepest := int(step.cumsum().max())) > max_depth:
        raise ValueError(
            f"Expected objects and lists at most {max_depth} deep in {where}, got {deepest:,}"
        )


def _check_numbers(bare: bytes, where: str) -> None:
    for found in itertools.chain(_ENDLESS.finditer(bare), _EXPONENT.finditer(bare)):
        word = found.group()
        if found.re is _EXPONENT:  # looked for first, and then back: ten times as fast
            mantissa = _MANTISSA.search(bare, max(0, found.start() - 64), found.start())
            if mantissa is None or math.isfinite(float(mantissa.group() + word)):
                continue
            word = mantissa.group() + word
        raise ValueError(
            f"Expected finite numbers in {where}, got {word[:20].decode()} in "
            f"{_line(bare, found.start())}"
        )


def _line(data: bytes, place: int) -> str:
    return f"line {data.count(10, 0, place) + 1}"
