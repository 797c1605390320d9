"""Objects as JSON and back: a closed set of classes, built from arguments that were checked.

A saved object is a tree ``{"class": "spatiagraph.nn.genes.GeneEncoder", "args": {…}}``; classes
that describe themselves by ``to_dict`` have ``"dict"`` in place of ``"args"``. Reading one runs
no code but the constructors of :func:`savable <spatiagraph._savable.savable>` classes, with
arguments of the types that the constructor names.

A class that has changed reads what its older versions wrote by a class method
``upgrade_config(args) → args``, which is handed the saved arguments, parts not yet built, and
returns those of today.
"""

import difflib
import inspect
import math
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from spatiagraph._json import shortened, validated
from spatiagraph._savable import find_class, full_name, is_savable, nearest_class

BUILDING_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
)  # fmt: skip
"""Errors of constructors, and of libraries below them, on arguments that do not go together."""


def to_config(value: Any) -> Any:
    """JSON-ready description of a plain value, an object of a savable class, or a container.

    Raises:
        ValueError: If a part cannot be described, naming its type.
    """
    if hasattr(value, "config_args"):
        arguments = {key: to_config(item) for key, item in value.config_args().items()}
        return {"class": full_name(type(value)), "args": arguments}
    if hasattr(value, "to_dict"):
        return {"class": full_name(type(value)), "dict": value.to_dict()}
    if isinstance(value, Mapping):
        return {str(key): to_config(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_config(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"Expected finite numbers as constructor arguments, got {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"Expected plain values or Configurable modules as constructor arguments, got "
        f"{type(value).__name__}: derive it from spatiagraph.nn.config.Configurable to save it"
    )


def from_config(
    config: Any,
    custom: Mapping[str, type] | None = None,
    *,
    where: str = "the saved configuration",
    at: str = "",
) -> Any:
    """Build an object from the description of :func:`to_config`.

    Args:
        config: The JSON tree.
        custom: Classes outside this package by their full name.
        where: What to call the tree in a message: a file in quotation marks.
        at: Place of the tree in the file.

    Raises:
        ValueError: If a class is not savable and not in ``custom``, or arguments are not those of
            its constructor.
    """
    return _Builder(custom or {}, where).value(config, Any, at)


def build(cls: type, arguments: Any, *, where: str, at: str = "") -> Any:
    """Build an object of a known class from saved arguments.

    Args:
        cls: The class.
        arguments: Its arguments by name, as JSON values.
        where: What to call the source in a message: a file in quotation marks.
        at: Place of the arguments in the source.

    Raises:
        ValueError: If they are not those of its constructor.
    """
    return _Builder({}, where).instance(cls, arguments, at)


class _Builder:
    """Objects of one tree."""

    def __init__(self, custom: Mapping[str, type], where: str):
        self.custom = custom
        self.where = where

    def value(self, value: Any, annotation: Any, at: str) -> Any:
        """What a parameter of an annotation gets."""
        if not _holds_objects(annotation):
            return validated(value, annotation, self.where, at=at)
        if isinstance(value, dict) and "class" in value:
            return self._node(value, annotation, at)
        if annotation is Any or annotation is object:
            if isinstance(value, dict):
                return {key: self.value(item, Any, _inside(at, key)) for key, item in value.items()}
            if isinstance(value, list):
                return [self.value(item, Any, _inside(at, i)) for i, item in enumerate(value)]
            return value
        members = _members(annotation)
        if value is None and type(None) in members:
            return None
        for member in members:
            origin, parts = get_origin(member), get_args(member)
            if isinstance(value, list) and origin in (list, tuple, Sequence):
                made = [self.value(v, parts[0], _inside(at, i)) for i, v in enumerate(value)]
                return tuple(made) if origin is tuple else made
            if isinstance(value, dict) and origin in (dict, Mapping):
                return {k: self.value(v, parts[1], _inside(at, k)) for k, v in value.items()}
            if isinstance(value, dict) and hasattr(member, "to_dict"):
                return self.instance(member, value, at)  # written by the to_dict of its owner
        plain = [member for member in members if not _holds_objects(member)]
        if [member for member in plain if member is not type(None)]:
            return validated(value, Union[tuple(plain)], self.where, at=at)  # noqa: UP007
        raise self._error(f"Expected {_words(annotation)}", at, value)

    def instance(self, cls: type, arguments: Any, at: str) -> Any:
        """An object of a class from arguments that are checked before it is built."""
        given = validated(arguments, dict[str, Any], self.where, at=at)
        try:
            if hasattr(cls, "upgrade_config"):
                given = cls.upgrade_config(given)
            bound = self._bind(cls, given, at)
            return cls(*bound.args, **bound.kwargs)
        except ValueError as err:
            if self.where in str(err):
                raise
            raise ValueError(f"{err} (a {cls.__name__} as {self._place(at)})") from err
        except BUILDING_ERRORS as err:
            reason = " ".join(f"{type(err).__name__}: {err}".split())
            raise ValueError(
                f"Expected arguments that a {cls.__name__} can be built from as "
                f"{self._place(at)}, got {shortened(given, 200)}: {shortened_text(reason)}"
            ) from err

    def _node(self, node: dict[str, Any], annotation: Any, at: str) -> Any:
        name = validated(node["class"], str, self.where, at=_inside(at, "class"))
        cls = self._class(name, _inside(at, "class"))
        kinds = [kind for kind in ("args", "dict") if kind in node]
        if len(kinds) != 1 or len(node) != 2:
            raise self._error('Expected "class" and its "args" or "dict"', at, sorted(node))
        made = self.instance(cls, node[kinds[0]], _inside(at, kinds[0]))
        if not any(_accepts(member, made) for member in _members(annotation)):
            raise self._error(f"Expected {_words(annotation)}", _inside(at, "class"), name)
        return made

    def _class(self, name: str, at: str) -> type:
        if name in self.custom:
            return self.custom[name]
        if (cls := find_class(name)) is not None:
            return cls
        if not name.startswith("spatiagraph."):
            raise self._error(
                f"Expected a class of spatiagraph; pass custom={{{shortened(name)}: YourClass}} if "
                "you trust this one:",
                at,
                name,
            )
        near = nearest_class(name)
        hint = f" ({near}?)" if near else ""
        raise self._error(f"Expected a class that is meant to be saved{hint}", at, name)

    def _bind(self, cls: type, given: dict[str, Any], at: str) -> inspect.BoundArguments:
        signature = inspect.signature(cls)
        accepted = _parameters(cls)
        fixed = getattr(cls, "unsaved", {})
        open_ended = _var(signature, inspect.Parameter.VAR_KEYWORD)
        if stray := [key for key in given if key not in accepted]:
            if open_ended is None or hasattr(cls, "keywords"):
                near = difflib.get_close_matches(stray[0], accepted, n=1)
                hint = f"; near it: {near[0]!r}" if near else ""
                raise ValueError(
                    f"Expected arguments of a {cls.__name__} as {self._place(at)}, got "
                    f"{shortened(stray[0])}{hint}"
                )
        values: dict[str, Any] = {}
        for key, item in given.items():
            value = self.value(item, accepted.get(key, (Any, None))[0], _inside(at, key))
            if is_savable(cls):
                self._check_range(key, value, _inside(at, key))
            if key in fixed and value != fixed[key]:
                raise self._error(
                    f"Expected {fixed[key]!r}, since a saved model has weights of its own and "
                    "names no other source of them,",
                    _inside(at, key),
                    value,
                )
            values[key] = value
        for key, (_, required) in accepted.items():
            if required and key not in values:
                raise ValueError(
                    f"Expected the key {_inside(at, key)!r} in {self.where}, found none"
                )
        own = {key: values.pop(key) for key in list(values) if key in signature.parameters}
        if values and open_ended is not None:
            own[open_ended] = values
        return inspect.BoundArguments(
            signature,
            {key: own[key] for key in signature.parameters if key in own},
        )

    def _check_range(self, name: str, value: Any, at: str) -> None:
        """Refuse values by the names of our arguments: negative sizes, lengths of zero."""
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if name.endswith(("_um", "_px")) and number <= 0:
                raise self._error("Expected a length above 0", at, number)
            if name in ("channels", "heads", "max_len") and number <= 0:
                raise self._error("Expected a size above 0", at, number)
            if name.endswith("dropout") and not 0 <= number <= 1:
                raise self._error("Expected a share between 0 and 1", at, number)
            if isinstance(number, int) and number < 0:
                raise self._error("Expected a size of 0 or more", at, number)

    def _error(self, expected: str, at: str, value: Any) -> ValueError:
        return ValueError(f"{expected} as {self._place(at)}, got {shortened(value)}")

    def _place(self, at: str) -> str:
        return f"{at!r} of {self.where}" if at else self.where


def _parameters(cls: type) -> dict[str, tuple[Any, bool]]:
    """Annotation of each argument, and whether it must be given.

    What ``**kwargs`` may hold is said by ``cls.keywords``: a class whose arguments they are.
    """
    try:
        hints = get_type_hints(inspect.unwrap(cls.__init__))  # type: ignore[misc]
    except NameError as err:
        raise ValueError(
            f"Expected annotations of {full_name(cls)} that can be read when it runs: {err}"
        ) from err
    result: dict[str, tuple[Any, bool]] = {}
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        stated = parameter.annotation
        annotation = hints.get(parameter.name, Any if stated is parameter.empty else stated)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            result[parameter.name] = list[annotation], False  # type: ignore[valid-type]
        else:
            required = parameter.default is inspect.Parameter.empty
            result[parameter.name] = annotation, required
    if hasattr(cls, "keywords"):
        more = _parameters(cls.keywords)
        result.update({k: (a, False) for k, (a, _) in more.items() if k not in result})
    return result


def _var(signature: inspect.Signature, kind: Any) -> str | None:
    return next((p.name for p in signature.parameters.values() if p.kind is kind), None)


def _members(annotation: Any) -> tuple[Any, ...]:
    """Alternatives of an annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for part in get_args(annotation) for m in _members(part))
    return (annotation,)


def _holds_objects(annotation: Any) -> bool:
    """Whether more than plain JSON values can come of it."""
    if annotation in (Any, object):
        return True
    if get_origin(annotation) is Literal:
        return False
    if get_origin(annotation) is Annotated:
        return _holds_objects(get_args(annotation)[0])
    if get_origin(annotation) is not None:
        return any(_holds_objects(part) for part in get_args(annotation) if part is not ...)
    return annotation not in (bool, int, float, str, type(None))


def _accepts(annotation: Any, value: object) -> bool:
    if annotation in (Any, object):
        return True
    return isinstance(annotation, type) and isinstance(value, annotation)


def _words(annotation: Any) -> str:
    names = (
        "null" if m is type(None) else getattr(m, "__name__", str(m)) for m in _members(annotation)
    )
    return " or ".join(names)


def _inside(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


def shortened_text(text: str, length: int = 300) -> str:
    """A text cut to some characters."""
    return text if len(text) <= length else f"{text[:length]}…"
