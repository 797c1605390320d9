from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from spatiagraph.report import Report
from spatiagraph.report.page import as_text


class Links(HTMLParser):
    """Everything a browser would load, and the tags that are left open."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self):
        super().__init__()
        self.sources, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parse(html):
    links = Links()
    links.feed(html)
    assert links.open == []
    return links


def figure():
    drawn = Figure(figsize=(2, 2))
    drawn.subplots().plot([1, 2])
    return drawn


def test_a_page_loads_nothing_from_elsewhere():
    page = Report("Title").section("Maps").add_figure(figure(), alt="a line")
    page.add_figures([(figure(), "one", ""), (figure(), "two", "below")])
    sources = parse(page.html()).sources
    assert sum(s.startswith("data:image/png;base64,") for s in sources) == 3
    assert all(s.startswith(("data:", "#")) for s in sources)


def test_text_of_the_user_cannot_become_markup():
    evil = "<script>alert('x')</script>"
    page = Report(evil, evil).section(evil).add_text(evil).add_warnings([evil])
    page.add_table({evil: evil}).add_table(pd.DataFrame({evil: [evil]}, index=[evil]))
    page.add_figure(figure(), alt=evil, caption=evil)
    html = page.html()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 10
    parse(html)


def test_a_table_shows_every_value_and_sets_off_one_row():
    table = pd.DataFrame({"ARI": [0.5, np.nan], "n": [12_000, 3]}, index=["ours", "other"])
    html = Report("T").add_table(table, highlight="ours").html()
    assert '<tr class="best"><th scope="row">ours</th><td class=number>0.5</td>' in html
    assert "–" in html
    assert "12\u202f000" in html


@pytest.mark.parametrize("missing", [None, np.nan, np.float32("nan"), pd.NA, pd.NaT])
def test_what_is_missing_is_a_dash(missing):
    assert as_text(missing) == "–"
    assert as_text([1, missing]) == "1, –"


def test_numbers_of_a_column_have_as_many_decimals():
    table = pd.DataFrame({"ARI": [0.45, 0.448, np.nan], "cells": [1, 20, 3]}, index=list("abc"))
    html = Report("T").add_table(table).html()
    for shown in (">0.450<", ">0.448<", ">–<", ">20<"):
        assert shown in html
    assert ">0.45<" not in html


def test_a_failed_write_leaves_the_old_page(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")

    class Broken(Report):
        def html(self):
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        Broken("T").write(page)
    assert page.read_text() == "old"
    assert list(tmp_path.iterdir()) == [page]


def test_a_page_is_written_into_a_new_folder(tmp_path):
    path = Report("T").section("S").add_text("there").write(tmp_path / "new" / "page.html")
    assert "there" in path.read_text(encoding="utf-8")


def test_commands_in_warnings_are_code_and_nothing_else_is_markup():
    page = Report("a").section("b").add_warnings(["`spatiagraph <b>` or `", "5 `\u00b5m"]).html()
    assert "<li><code>spatiagraph &lt;b&gt;</code> or `</li><li>5 `\u00b5m</li>" in page
