"""Grammar of conditions: text into a tree; nothing is looked up or executed.

.. code-block:: text

    condition = all ("or" all)*                          also written |
    all       = part ("and" part)*                       also written &
    part      = "not" part | "(" condition ")" | test    also written ~
    test      = value (("==" | "!=" | "<" | "<=" | ">" | ">=") value)+
              | column ["not"] "in" "[" constant ("," constant)* "]"
              | ("isna" | "notna") "(" column ")"        also column.isna()
              | column
    value     = column | constant
    column    = name | "`" any characters "`"
    constant  = number | "'" text "'" | True | False
"""

import re
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

EXAMPLE = "\"cell_type == 'T cell' and area > 50\""
_LONGEST, _DEEPEST = 10_000, 50  # characters, parentheses inside each other
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
    |(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<quoted>`[^`]+`)
    |(?P<name>[^\W\d]\w*)
    |(?P<sign>==|!=|<=|>=|[<>()\[\],&|~.+-])
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMPARE = ("==", "!=", "<", "<=", ">", ">=")
_WORDS = {"&": "and", "|": "or", "~": "not"}
_RESERVED = ("and", "or", "not", "in", "True", "False")
_HINTS = {"=": "; equality is written ==", "@": "; there are no variables"}


@dataclass(frozen=True)
class Column:
    """Name of a column, and where it stands in the text."""

    name: str
    start: int


@dataclass(frozen=True)
class Constant:
    """Number, text, or truth value, and where it stands in the text."""

    value: bool | int | float | str
    start: int


@dataclass(frozen=True)
class Comparison:
    """``left sign right``."""

    left: Column | Constant
    sign: str
    right: Column | Constant


@dataclass(frozen=True)
class Membership:
    """``column in [constants]``."""

    column: Column
    constants: tuple[Constant, ...]


@dataclass(frozen=True)
class Missing:
    """``isna(column)``."""

    column: Column


@dataclass(frozen=True)
class Flag:
    """A column of true and false by itself."""

    column: Column


@dataclass(frozen=True)
class Not:
    """Negation."""

    part: "Condition"


@dataclass(frozen=True)
class Combination:
    """``parts`` of which all must hold, or any."""

    word: str  # "and", "or"
    parts: "tuple[Condition, ...]"


Condition = Comparison | Membership | Missing | Flag | Not | Combination


def parse(text: str) -> Condition:
    """The tree of a condition.

    Raises:
        ValueError: If the text is not of the grammar; says where.

    Examples:
        >>> parse("not age > 50")
        Not(part=Comparison(left=Column(name='age', start=4), sign='>', right=Constant(value=50, start=10)))
    """  # noqa: E501
    if len(text) > _LONGEST:
        raise ValueError(f"Expected a condition of at most {_LONGEST} characters, got {len(text)}")
    return _Parser(text).parse()


def refusal(text: str, start: int, what: str) -> ValueError:
    """Error about a position in a condition."""
    return ValueError(f"{what}, at character {start + 1} of the condition {text!r}")


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


class _Parser:
    """Recursive descent: one method per line of the grammar."""

    def __init__(self, text: str):
        self._text = text
        self._tokens = [*self._split(), _Token("end", "", len(text))]
        self._depth = 0

    def parse(self) -> Condition:
        found = self._any()
        if self._token.kind != "end":
            self._refuse("'and', 'or' or the end")
        return found

    def _split(self) -> list[_Token]:
        tokens, start, end = [], 0, len(self._text.rstrip())
        while start < end:
            found = _TOKEN.match(self._text, start)
            if found is None:
                start = end - len(self._text[start:end].lstrip())
                self._refuse("a name, a number or a text in quotes", self._text[start:end], start)
            kind = str(found.lastgroup)
            tokens.append(_Token(kind, found[kind], found.start(kind)))
            start = found.end()
        return tokens

    @property
    def _token(self) -> _Token:
        return self._tokens[0]

    def _refuse(self, wanted: str, found: str | None = None, start: int | None = None) -> NoReturn:
        found = self._token.text if found is None else found
        got = f"{found[:20]!r}{_HINTS.get(found[:1], '')}" if found else "its end"
        place = self._token.start if start is None else start
        message = f"Expected a condition such as {EXAMPLE}, and in it {wanted}, got {got}"
        raise refusal(self._text, place, message)

    def _next(self) -> _Token:
        return self._tokens.pop(0)

    def _took(self, *words: str) -> str | None:
        """One of these words or signs if it comes next, and a step over it."""
        kind, text, _ = self._token
        word = _WORDS.get(text, text) if kind in ("name", "sign") else None
        if word not in words:
            return None
        self._next()
        return word

    def _take(self, word: str) -> None:
        if self._took(word) is None:
            self._refuse(repr(word))

    def _any(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(f"at most {_DEEPEST} parentheses inside each other")
        parts = [self._all()]
        while self._took("or"):
            parts.append(self._all())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Combination("or", tuple(parts))

    def _all(self) -> Condition:
        parts = [self._part()]
        while self._took("and"):
            parts.append(self._part())
        return parts[0] if len(parts) == 1 else Combination("and", tuple(parts))

    def _part(self) -> Condition:
        negated = False
        while self._took("not"):
            negated = not negated
        if self._took("("):
            found = self._any()
            self._take(")")
        else:
            found = self._missing() or self._test()
        return Not(found) if negated else found

    def _missing(self) -> Condition | None:
        word, after = self._token.text, [t.text for t in self._tokens[1:5]]
        if word in ("isna", "notna") and after[:1] == ["("]:
            self._next()
            self._take("(")
            column = self._column()
            self._take(")")
        elif after in ([".", "isna", "(", ")"], [".", "notna", "(", ")"]):
            column, word = self._column(), after[1]
            del self._tokens[:4]
        else:
            return None
        return Missing(column) if word == "isna" else Not(Missing(column))

    def _test(self) -> Condition:
        values, comparisons = [self._value()], list[Condition]()
        while sign := self._took(*_COMPARE):
            values.append(self._value())
            comparisons.append(Comparison(values[-2], sign, values[-1]))
        if len(comparisons) > 1:
            return Combination("and", tuple(comparisons))
        if comparisons:
            return comparisons[0]
        column = values[0]
        if not isinstance(column, Column):
            self._refuse("a comparison")
        if self._token.text == "not" and self._tokens[1].text == "in":
            self._next()
            self._next()
            return Not(Membership(column, self._constants()))
        return Membership(column, self._constants()) if self._took("in") else Flag(column)

    def _value(self) -> Column | Constant:
        kind, text, _ = self._token
        is_column = kind == "quoted" or (kind == "name" and text not in _RESERVED)
        return self._column() if is_column else self._constant()

    def _column(self) -> Column:
        kind, text, start = self._token
        if kind == "quoted":
            text = text[1:-1]
        elif kind != "name" or text in _RESERVED:
            self._refuse("the name of a column")
        self._next()
        return Column(text, start)

    def _constants(self) -> tuple[Constant, ...]:
        opened = self._took("[", "(") or self._refuse("a list such as ['A', 'B']")
        found = [self._constant()]
        while self._took(","):
            found.append(self._constant())
        self._take("]" if opened == "[" else ")")
        return tuple(found)

    def _constant(self) -> Constant:
        start, sign = self._token.start, self._took("-", "+")
        kind, text, _ = self._token
        value: bool | int | float | str
        if kind == "number":
            value = self._number(text) * (-1 if sign == "-" else 1)
        elif kind == "text" and sign is None:
            value = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
        elif kind == "name" and text in ("True", "False") and sign is None:
            value = text == "True"
        else:
            self._refuse("a column, a number, a text in quotes, True or False")
        self._next()
        return Constant(value, start)

    def _number(self, text: str) -> int | float:
        if text.isdecimal() and len(text) <= 18:
            return int(text)
        value = float(text)
        if value == float("inf"):
            self._refuse("a number within the range of floats")
        return value
