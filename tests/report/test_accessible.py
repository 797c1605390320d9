"""A report can be used without seeing it, without a mouse, and with weak eyes (WCAG 2.1, AA)."""

import numpy as np
import pandas as pd
import pytest

from spatiagraph.data import make_tissue
from spatiagraph.report import Generation, slide_page
from spatiagraph.retrieval import NicheIndex

CONTRAST = """() => {
  const channel = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) =>
    0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const rgb = (text) => (text.match(/[0-9.]+/g) || []).map(Number);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("script, style, noscript")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgb(style.color)), light(behind(node))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24;
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) found.push(node.outerHTML.slice(0, 90));
  }
  return found;
}"""
UNNAMED = """() => [...document.querySelectorAll("input, select, button, textarea, a, summary")]
  .filter((node) => !(node.labels && [...node.labels].some((l) => l.textContent.trim()))
    && !node.textContent.trim() && !node.getAttribute("aria-label"))
  .map((node) => node.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """A report with all its parts, what is folded away unfolded."""
    slide = make_tissue(300, num_genes=20, image="he", seed=0)
    z = np.eye(5)[slide.adata.obs["niche"].cat.codes] + 0.01 * np.random.default_rng(0).random(
        (300, 5)
    )
    slide.adata.obsm["X_context_niche"] = z.astype(np.float32)
    slide.adata.obsm["X_umap"] = slide.pos  # a picture of its own, which need not be made here
    images = np.full((3, 3, 8, 8), 0.5, np.float32)
    page = slide_page(
        slide,
        run={"model": "ContextModel", "max_epochs": 2, "slides": {"synthetic": {"cells": 300}}},
        history=pd.DataFrame({"epoch": [0, 1], "loss": [2.0, 1.5]}),
        domains={"domains": slide.adata.obs["niche"]},
        labels="niche",
        scores=pd.DataFrame({"ARI": [0.9, 0.4]}, index=["spatiagraph", "pca30"]),
        highlight="spatiagraph",
        index=NicheIndex.from_slides({"synthetic": slide.adata}, "X_context_niche"),
        coverage=pd.DataFrame({"coverage": [0.5]}, index=["synthetic"]),
        missing=["GENE1"],
        warnings=["Something to know"],
        generation=[Generation(images, images, title="a to b")],
    )
    path = page.write(tmp_path_factory.mktemp("accessible") / "page.html")
    tab = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True).new_page()
    tab.goto(path.as_uri())
    tab.wait_for_selector(".scatter[data-ready]")
    tab.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    yield tab
    tab.context.close()


def test_axe_finds_nothing_wrong(opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(opened)
    assert found.response["testEngine"]["name"] == "axe-core"
    assert len(found.response["passes"]) > 20
    assert found.violations_count == 0, found.generate_report()


def test_every_picture_says_what_there_is_to_see(opened):
    texts = opened.locator("img").evaluate_all("all => all.map(one => one.alt)")
    assert len(texts) > 8
    assert all(len(text) > 15 for text in texts), texts


def test_every_control_and_link_has_a_name(opened):
    assert opened.evaluate(UNNAMED) == []


def test_headings_go_down_one_level_at_a_time(opened):
    levels = opened.locator("h1, h2, h3, h4").evaluate_all("all => all.map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) <= 1


def test_text_stands_out_from_what_is_behind_it(opened):
    assert opened.evaluate(CONTRAST) == []


def test_the_page_has_a_language_a_title_and_marks_of_its_parts(opened):
    assert opened.locator("html").get_attribute("lang") == "en"
    assert opened.title()
    for part in ("header", "main", "footer", "nav[aria-label]"):
        assert opened.locator(part).count() == 1
    ids = opened.evaluate("() => [...document.querySelectorAll('[id]')].map(n => n.id)")
    assert len(ids) == len(set(ids))
    for target in opened.locator("nav a").evaluate_all("all => all.map(a => a.hash.slice(1))"):
        assert target in ids


def test_columns_and_rows_of_tables_are_headed(opened):
    bare = "all => all.filter(t => !t.querySelector('th[scope]')).length"
    assert opened.locator("table").count() > 3
    assert opened.locator("table").evaluate_all(bare) == 0


def test_what_is_folded_opens_from_the_keyboard(opened):
    summary = opened.locator("section > details > summary").first
    opened.evaluate(
        "() => document.querySelectorAll('details').forEach((d) => { d.open = false; })"
    )
    summary.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("section > details").first.evaluate("d => d.open")


def test_a_narrow_screen_scrolls_in_one_direction(opened):
    opened.set_viewport_size({"width": 360, "height": 700})
    opened.wait_for_timeout(300)  # the map takes its new width in the next frames
    beyond = opened.evaluate(
        "() => [...document.querySelectorAll('body *')].filter((node) => "
        "!node.closest('.scroll, .canvas') && node.getBoundingClientRect().right > 361)"
        ".map((node) => node.outerHTML.slice(0, 80))"
    )
    opened.set_viewport_size({"width": 1100, "height": 900})
    assert beyond == []
