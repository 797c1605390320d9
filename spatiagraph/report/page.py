"""``Report``: builds one self-contained HTML page, section by section."""

import base64
import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import spatiagraph
from spatiagraph._files import replaced_file
from spatiagraph.report.style import CSS
from spatiagraph.report.text import as_text

if TYPE_CHECKING:
    from spatiagraph.report.scatter import Scatter

_PNG_UP_TO = 250_000  # bytes; larger pictures hold an image and are smaller as JPEG
_DPI = 130
# nothing may be loaded from anywhere, and no script run but our own: the page is all there is
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Report:
    """An HTML page that works offline: pictures are inside, nothing is loaded from elsewhere.

    Every ``add_…`` returns the report, and all text is escaped.

    Args:
        title: Title of the page.
        subtitle: A line below it.

    Examples:
        >>> page = Report("My slide").section("Cells").add_text("There are 300 cells.")
        >>> "300 cells" in page.html()
        True
    """

    def __init__(self, title: str, subtitle: str = ""):
        self.title = title
        self.subtitle = subtitle
        self._numbers: dict[str, str] = {}
        self._sections: list[tuple[str, list[str]]] = []
        self._appendix: list[tuple[str, list[str]]] = []
        self._current: list[str] | None = None
        self._num_scatters = 0

    def add_numbers(self, numbers: Mapping[str, Any]) -> Self:
        """Key figures at the top: name → value."""
        self._numbers |= {name: as_text(value) for name, value in numbers.items()}
        return self

    def section(self, title: str) -> Self:
        """Start a section; what is added next goes there."""
        self._current = []
        self._sections.append((title, self._current))
        return self

    def appendix(self, title: str) -> Self:
        """Start a section that is folded away, after all that are not; what is added goes there."""
        self._current = []
        self._appendix.append((title, self._current))
        return self

    def add_text(self, text: str) -> Self:
        """A paragraph."""
        return self._add(f"<p>{escape(text)}</p>")

    def add_table(
        self,
        table: pd.DataFrame | Mapping[str, Any],
        *,
        caption: str = "",
        highlight: object = None,
        fold: str = "",
    ) -> Self:
        """A table.

        Args:
            table: A data frame, whose index becomes the first column; or name → value.
            caption: A line above it.
            highlight: Index of the row to set off.
            fold: Title under which the table is folded away; shown at once when empty.
        """
        html = _table(table, caption, highlight)
        if fold:
            html = f"<details><summary>{escape(fold)}</summary>{html}</details>"
        return self._add(html)

    def add_figure(self, figure: Figure | Axes, *, alt: str, caption: str = "") -> Self:
        """A matplotlib figure.

        Args:
            figure: The figure, or axes in it.
            alt: What there is to see, for people who cannot.
            caption: A line below it.
        """
        return self._add(_figure(figure, alt, caption))

    def add_figures(self, figures: Sequence[tuple[Figure | Axes, str, str]]) -> Self:
        """Figures side by side where the screen is wide enough: (figure, alt, caption) each."""
        html = "".join(_figure(*each) for each in figures)
        return self._add(f'<div class="figures">{html}</div>')

    def add_scatter(self, scatter: "Scatter") -> Self:
        """A map to move about in, from :func:`spatiagraph.report.scatter.cell_scatter`."""
        from spatiagraph.report.scatter import scatter_html

        self._num_scatters += 1
        return self._add(scatter_html(scatter, f"scatter{self._num_scatters}"))

    def add_warnings(self, warnings: Sequence[str]) -> Self:
        """Add warnings, commands in backticks as code; nothing if there are none."""
        if not warnings:
            return self
        lines = [re.sub("`([^`]+)`", r"<code>\1</code>", escape(str(w))) for w in warnings]
        items = "".join(f"<li>{line}</li>" for line in lines)
        return self._add(f'<div class="warnings" role="note"><ul>{items}</ul></div>')

    def html(self) -> str:
        """The page."""
        sections = [*self._sections, *self._appendix]
        links = "".join(
            f'<a href="#s{i}">{escape(title)}</a>' for i, (title, _) in enumerate(sections)
        )
        numbers = "".join(
            f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in self._numbers.items()
        )
        shown = len(self._sections)
        body = "".join(
            _section(f"s{i}", title, parts, folded=i >= shown)
            for i, (title, parts) in enumerate(sections)
        )
        scripts = self._scripts()
        allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
        policy = f"{_POLICY}; script-src {allowed}" if scripts else _POLICY
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f"<title>{escape(self.title)}</title><style>{CSS}</style></head>\n<body>"
            f'<header><h1>{escape(self.title)}</h1><p class="subtitle">{escape(self.subtitle)}</p>'
            f'<dl class="numbers">{numbers}</dl><nav aria-label="Sections">{links}</nav></header>\n'
            f"<main>{body}</main>\n"
            f"<footer>spatiagraph {escape(spatiagraph.__version__)}</footer>"
            f"{''.join(f'<script>{script}</script>' for script in scripts)}</body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page; a failed write leaves an older one as it was.

        Raises:
            OSError: If the place cannot be written to.
        """
        with replaced_file(path) as new:
            new.write_text(self.html(), encoding="utf-8")
        return Path(path)

    def _scripts(self) -> list[str]:
        if not self._num_scatters:
            return []
        from spatiagraph.report.scatter import scatter_scripts

        return scatter_scripts()

    def _add(self, html: str) -> Self:
        if self._current is None:
            self.section("Summary")
        assert self._current is not None
        self._current.append(html)
        return self


def _section(name: str, title: str, parts: Sequence[str], *, folded: bool) -> str:
    head, body = f"<h2>{escape(title)}</h2>", "".join(parts)
    if folded:
        body = f"<details><summary>{head}</summary>{body}</details>"
    else:
        body = head + body
    return f'<section id="{name}">{body}</section>\n'


def _column(values: Sequence[Any]) -> list[str]:
    """Values of a column as text, numbers with as many decimals."""
    texts = [as_text(value) for value in values]
    numbers = [isinstance(v, float) and not pd.isna(v) and "e" not in t
               for v, t in zip(values, texts, strict=True)]  # fmt: skip
    decimals = [len(t.partition(".")[2]) for t, n in zip(texts, numbers, strict=True) if n]
    if not decimals or max(decimals) > 4:
        return texts
    places = max(decimals)
    return [
        f"{value:.{places}f}" if number else text
        for value, text, number in zip(values, texts, numbers, strict=True)
    ]


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _figure(figure: Figure | Axes, alt: str, caption: str) -> str:
    whole: Any = figure if isinstance(figure, Figure) else figure.figure
    buffer = io.BytesIO()
    whole.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", facecolor="white")
    kind = "png"
    if buffer.tell() > _PNG_UP_TO:
        picture = Image.open(buffer).convert("RGB")
        buffer, kind = io.BytesIO(), "jpeg"
        picture.save(buffer, "JPEG", quality=88, optimize=True, progressive=True)
    width = round(Image.open(buffer).width * 96 / _DPI)
    data = base64.b64encode(buffer.getvalue()).decode()
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img width="{width}" alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'
        f"{note}</figure>"
    )


def _table(table: pd.DataFrame | Mapping[str, Any], caption: str, highlight: object) -> str:
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    if isinstance(table, Mapping):
        rows = "".join(
            f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(as_text(v))}</td></tr>'
            for k, v in table.items()
        )
        return f'<div class="scroll"><table>{title}<tbody>{rows}</tbody></table></div>'
    numeric = [pd.api.types.is_numeric_dtype(t) for t in table.dtypes]
    corner = escape(str(table.index.name or ""))
    head = f'<th scope="col">{corner}</th>' if corner else "<td></td>"
    head += "".join(
        f'<th scope="col"{" class=number" if n else ""}>{escape(str(c))}</th>'
        for c, n in zip(table.columns, numeric, strict=True)
    )
    body = ""
    texts = [_column(table.iloc[:, i].tolist()) for i in range(table.shape[1])]
    lines = list(zip(*texts, strict=True)) or [()] * len(table)
    for name, row in zip(table.index, lines, strict=True):
        cells = "".join(
            f"<td{' class=number' if n else ''}>{escape(text)}</td>"
            for text, n in zip(row, numeric, strict=True)
        )
        best = ' class="best"' if highlight is not None and name == highlight else ""
        body += f'<tr{best}><th scope="row">{escape(str(name))}</th>{cells}</tr>'
    return (
        f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
