"""Errors and warnings of the library as a person at the command line reads them."""

import re
from collections.abc import Mapping

_ITEM = r"""(?:'[^']{1,80}'|"[^"]{1,80}"|[\w.:/+|-]{1,80})"""
_LIST = re.compile(rf"{_ITEM}(?:, {_ITEM}){{12,}}")
_KEPT = 8  # items of a long list


def as_typed(text: str, options: Mapping[str, bool]) -> str:
    """Arguments of Python as options: ``mpp=0.5`` is ``--mpp 0.5``.

    Args:
        text: A message.
        options: Name of each argument, and whether its option is a flag.

    Examples:
        >>> flags = {"pitch_um": False, "drop_empty": True}
        >>> as_typed("pass pitch_um=100 or drop_empty=True", flags)
        'pass --pitch-um 100 or --drop-empty'
        >>> as_typed("Pass drop_empty=True to read(), or filter them out", flags)
        'Pass --drop-empty, or filter them out'
    """
    if not options:
        return text
    names = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.'\[-])({names})=(\([^)]*\)|[^\s,;:)]*)")

    def typed(found: re.Match[str]) -> str:
        name, value = found.groups()
        end = "." if value.endswith(".") and not value.endswith("..") else ""
        value = value.removesuffix(".") if end else value
        if name == "image" and value == "False":
            return f"--no-image{end}"
        flag = f"--{name.replace('_', '-')}"
        if options[name] or not value:
            return f"{flag}{end}"
        plain = value.strip("'\"()").replace(", ", " ")
        return f"{flag} {plain}{end}"

    return re.sub(r"(--[\w-]+(?: [^\s:;,]+)?) to read\(\)", r"\1", pattern.sub(typed, text))


def cut_lists(text: str) -> str:
    """Cut lists of more than a dozen names; what is left is enough to see what they are.

    Examples:
        >>> cut_lists("found " + ", ".join(f"g{i}" for i in range(300)))
        'found g0, g1, g2, g3, g4, g5, g6, g7 and 292 more'
    """

    def cut(found: re.Match[str]) -> str:
        items = re.findall(_ITEM, found[0])
        return f"{', '.join(items[:_KEPT])} and {len(items) - _KEPT} more"

    return _LIST.sub(cut, text)


def in_one_line(text: str, options: Mapping[str, bool]) -> str:
    """A message in one line, with options as typed and long lists cut.

    Args:
        text: The message.
        options: As of :func:`as_typed`.
    """
    return cut_lists(as_typed(" ".join(text.split()), options))
