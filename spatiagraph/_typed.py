"""Types of arguments, looked at where a person calls: a wrong one is named, not met later."""

import functools
import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse arguments of other types than the annotations say; what they cannot say passes.

    Numbers of NumPy are numbers, lists and arrays may stand for tuples, and a class is one's own
    sub-class of it, too.

    Raises:
        TypeError: Names the argument, what was expected and what came.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        hints = _hints(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            kind = signature.parameters[name].kind
            if kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                continue
            if name in hints and not _is(value, hints[name]):
                raise TypeError(
                    f"Expected {name!r} as {_words(hints[name])}, got {type(value).__name__} "
                    f"{value!r:.60}"
                )
        return function(*args, **kwargs)

    return checked


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function)


def _is(value: Any, annotation: Any) -> bool:
    """Check that a value is of an annotation, or may be."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_is(value, part) for part in parts)
    if origin is Literal:
        return any(type(part) is type(value) and part == value for part in parts) or (
            isinstance(value, str) and all(isinstance(part, str) for part in parts)
        )  # which word it is, the function says
    if origin is tuple and ... not in parts:
        return (
            isinstance(value, Sequence | np.ndarray)
            and not isinstance(value, str | bytes)
            and len(value) == len(parts)
            and all(_is(v, part) for v, part in zip(value, parts, strict=True))
        )
    if origin is Sequence:
        return isinstance(value, Iterable) and not isinstance(value, str | bytes)
    if origin is Mapping:
        return isinstance(value, Mapping)
    if annotation in (None, types.NoneType):
        return value is None
    if annotation is bool:
        return isinstance(value, bool | np.bool_)
    if annotation in (int, float):
        scalar = value[()] if isinstance(value, np.ndarray) and value.shape == () else value
        number = Integral if annotation is int else Real
        return isinstance(scalar, number) and not isinstance(scalar, bool | np.bool_)
    if origin is os.PathLike:
        return isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)
    if isinstance(annotation, type) and not getattr(annotation, "_is_protocol", False):
        return origin is not None or isinstance(value, annotation)
    return True


def _words(annotation: Any) -> str:
    """An annotation as a person would say it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(part) for part in get_args(annotation)))
    if get_origin(annotation) is os.PathLike:
        return "path"
    if annotation in (None, types.NoneType):
        return "None"
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if get_args(annotation) or not isinstance(annotation, type):
        return str(annotation).rpartition("typing.")[2].replace("collections.abc.", "")
    return annotation.__name__
