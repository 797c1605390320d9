"""The map of a report in a real browser, without a network."""

import base64
import json
import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image

from spatiagraph.data import Slide, make_tissue
from spatiagraph.data.outlines import Outlines
from spatiagraph.data.variability import gene_variability
from spatiagraph.plot.colors import category_colors
from spatiagraph.report import Report
from spatiagraph.report.coloring import scatter_columns
from spatiagraph.report.gene_values import gene_values
from spatiagraph.report.packed_outlines import pack_outlines
from spatiagraph.report.scatter import cell_scatter
from spatiagraph.retrieval import in_region, read_region

SLIDE = make_tissue(400, num_genes=30, image="he", seed=0)
NICHE = SLIDE.adata.obs["niche"].reset_index(drop=True)
CELL = 123  # the one looked for


def write(path, slide=SLIDE, **arguments):
    columns = scatter_columns(slide, {"niche": slide.adata.obs["niche"].reset_index(drop=True)})
    scatter = cell_scatter(slide, columns, **arguments)
    return Report("Cells").section("Cells").add_scatter(scatter).write(path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("scatter") / "page.html")


@pytest.fixture
def opened(browser, page):
    """The page, offline, and what it asked for and complained of."""
    yield from open_page(browser, page)


def open_page(browser, page):
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    tab = context.new_page()
    asked, complaints = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda line: complaints.append(f"{line.type}: {line.text}"))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(page.as_uri())
    tab.wait_for_selector(".scatter[data-ready]")
    tab.wait_for_function("Bokeh.documents[0].is_idle")
    tab.wait_for_timeout(100)  # the picture appears in the next frame
    yield tab, asked, complaints
    context.close()


def place(tab, row):
    """Where on the page a cell is drawn."""
    script = """([x, y]) => {
        const view = [...Bokeh.index.roots][0], box = view.el.getBoundingClientRect();
        const frame = view.frame;
        return [box.x + frame.x_scale.compute(x), box.y + frame.y_scale.compute(y)];
    }"""
    return tab.evaluate(script, SLIDE.pos[row].tolist())


def colour(tab, row, path):
    """Colour of the page where a cell is drawn, 0 to 255."""
    tab.wait_for_timeout(100)
    tab.screenshot(path=path)
    x, y = place(tab, row)
    return np.asarray(Image.open(path).convert("RGB"))[round(y), round(x)].astype(int)


def as_rgb(code):
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)])


def test_the_page_opens_without_network_and_complaints(opened):
    tab, asked, complaints = opened
    assert len(asked) >= 1
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    assert not [line for line in complaints if not line.startswith("log:")]
    assert tab.locator(".scatter canvas").count() >= 1
    box = tab.locator(".scatter .canvas").bounding_box()
    assert box["width"] > 900
    assert box["height"] > 500


def test_hovering_tells_what_is_known_of_a_cell(opened):
    tab, _, _ = opened
    tab.mouse.move(*place(tab, CELL))
    row = tab.locator(".bk-tooltip-row-value")
    row.first.wait_for(state="visible")
    shown = row.all_inner_texts()
    obs = SLIDE.adata.obs.iloc[CELL]
    for known in (obs.name, obs["cell_type"], obs["niche"], f"{SLIDE.depth[CELL]:.0f}"):
        assert str(known) in shown


def test_another_choice_is_another_colour_and_legend(opened, tmp_path):
    tab, _, complaints = opened
    tab.locator(".scatter input[type=range]").fill("1")
    types = SLIDE.adata.obs["cell_type"]
    for column, values in {"niche": NICHE, "cell_type": types}.items():
        tab.select_option(".scatter select", label=column)
        wanted = as_rgb(category_colors(values)[values.iloc[CELL]])
        np.testing.assert_allclose(colour(tab, CELL, tmp_path / "a.png"), wanted, atol=3)
        legend = tab.locator(".legend:visible").inner_text()
        assert all(str(name) in legend for name in values.unique())
    tab.select_option(".scatter select", label="molecules")
    ends = [int(SLIDE.depth.argmin()), int(SLIDE.depth.argmax())]
    shown = [colour(tab, row, tmp_path / "b.png") for row in ends]
    for hue, wanted in zip(shown, ("#440154", "#fde725"), strict=True):  # both ends of viridis
        np.testing.assert_allclose(hue, as_rgb(wanted), atol=3)
    assert not [line for line in complaints if not line.startswith("log:")]


def test_a_gene_that_is_typed_colours_the_map(opened, tmp_path):
    tab, _, complaints = opened
    tab.locator(".scatter input[type=range]").fill("1")
    offered = tab.locator("datalist option").evaluate_all("all => all.map(one => one.value)")
    assert offered == sorted(SLIDE.symbols, key=str.lower)
    column = SLIDE.counts.toarray()[:, 3]
    tab.locator(".scatter .gene").fill(SLIDE.symbols[3].lower())
    for row, wanted in ((int(column.argmin()), "#440154"), (int(column.argmax()), "#fde725")):
        np.testing.assert_allclose(colour(tab, row, tmp_path / "a.png"), as_rgb(wanted), atol=3)
    legend = tab.locator(".legend:visible").inner_text()
    assert SLIDE.symbols[3] in legend
    assert "log(1 + count)" in legend
    tab.select_option(".scatter select", label="molecules")
    assert tab.locator(".scatter .gene").input_value() == ""
    tab.locator(".scatter .gene").fill("no gene")  # changes nothing
    assert SLIDE.symbols[3] not in tab.locator(".legend:visible").inner_text()
    assert not [line for line in complaints if not line.startswith("log:")]


def test_genes_of_a_large_panel_are_the_most_variable_ones():
    every = gene_values(SLIDE, np.arange(400))
    few = gene_values(SLIDE, np.arange(400), budget=400 * 5)
    assert len(every) == 30
    order = np.argsort(-gene_variability(SLIDE.counts))[:5]
    assert set(few) == {SLIDE.symbols[gene] for gene in order}
    for name, packed in few.items():
        code = np.frombuffer(base64.b64decode(packed.data), np.uint8)
        value = packed.low + code / 255 * (packed.high - packed.low)
        wanted = np.log1p(SLIDE.counts[:, [SLIDE.symbols.index(name)]].toarray().ravel())
        np.testing.assert_allclose(value, wanted, atol=packed.high / 255)


def test_an_outline_drawn_with_the_lasso_is_a_region_to_search_with(opened, tmp_path):
    tab, _, complaints = opened
    tab.locator(".bk-tool-icon-lasso-select").click()
    places = np.array([place(tab, row) for row in range(SLIDE.num_cells)])
    x, y = places[CELL]
    corners = np.array([(-60, -40), (60, -40), (60, 40), (-60, 40)]) + (x, y)
    tab.mouse.move(*corners[0])
    tab.mouse.down()
    for corner in [*corners[1:], corners[0]]:
        tab.mouse.move(*corner, steps=5)
    tab.mouse.up()
    with tab.expect_download() as saved:
        tab.locator(".drawn a").click()
    saved.value.save_as(tmp_path / "region.geojson")
    inside = (np.abs(places - (x, y)) < (60, 40)).all(axis=1)
    found = in_region(SLIDE.pos, read_region(tmp_path / "region.geojson"))
    assert inside.sum() > 3
    np.testing.assert_array_equal(found, inside)
    assert not [line for line in complaints if not line.startswith("log:")]


def test_the_wheel_zooms_in_where_the_pointer_is(opened):
    tab, _, _ = opened
    before = place(tab, CELL)
    other = place(tab, 0)
    tab.mouse.move(*before)
    tab.mouse.wheel(0, -300)
    tab.wait_for_timeout(100)
    after = np.array([place(tab, CELL), place(tab, 0)])
    np.testing.assert_allclose(after[0], before, atol=1)
    apart = np.subtract(other, before)
    stretch = (after[1] - after[0]) / apart
    assert (stretch > 1.05).all()
    np.testing.assert_allclose(stretch[0], stretch[1], rtol=1e-3)  # µm stay as long in x as in y


def test_cells_in_view_fill_their_outlines(browser, tmp_path):
    """A long bar where a cell is, far beyond the disc that it would be; others keep theirs."""
    corners = pd.DataFrame(
        {
            "cell_id": str(SLIDE.adata.obs_names[CELL]),
            "x_um": SLIDE.pos[CELL, 0] + np.array([-1.0, 40.0, 40.0, -1.0]),
            "y_um": SLIDE.pos[CELL, 1] + np.array([-2.0, -2.0, 2.0, 2.0]),
        }
    )
    outlines = Outlines.from_table(corners, SLIDE.adata.obs_names)
    slide = Slide(SLIDE.adata, slide_id="outlined", outlines=outlines)
    page = write(tmp_path / "page.html", slide)
    for tab, _, complaints in open_page(browser, page):
        wanted = as_rgb(category_colors(NICHE)[NICHE.iloc[CELL]])
        x, y = place(tab, CELL)
        edge = tab.evaluate(
            "(x) => [...Bokeh.index.roots][0].frame.x_scale.compute(x)",
            float(SLIDE.pos[CELL, 0]) + 40,
        )
        start = tab.evaluate(
            "(x) => [...Bokeh.index.roots][0].frame.x_scale.compute(x)", float(SLIDE.pos[CELL, 0])
        )
        tab.screenshot(path=tmp_path / "a.png")
        picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
        bar = picture[round(y), round(x) : round(x + edge - start) - 1]
        assert (np.abs(bar - wanted) < 4).all(axis=1).mean() > 0.8
        tab.select_option(".scatter select", label="molecules")
        tab.wait_for_timeout(200)
        tab.screenshot(path=tmp_path / "b.png")
        again = np.asarray(Image.open(tmp_path / "b.png").convert("RGB")).astype(int)
        assert (np.abs(again[round(y), round(x + (edge - start) / 2)] - wanted) > 10).any()
        shapes = "Bokeh.documents[0].get_model_by_name('outlines').data_source.data.xs.length"
        assert tab.evaluate(shapes) == slide.num_cells
        tab.mouse.move(x, y)
        tab.mouse.wheel(0, -600)
        tab.wait_for_timeout(600)
        assert 0 < tab.evaluate(shapes) < slide.num_cells  # those in view alone
        assert not [line for line in complaints if not line.startswith("log:")]


def test_packed_outlines_are_those_of_the_cells_drawn():
    corners = np.array([[0.0, 0], [4, 0], [4, 3], [10, 10], [12, 10], [12, 13.3], [10, 13]])
    outlines = Outlines(corners, np.array([0, 3, 3, 7]))
    packed = pack_outlines(outlines, np.array([1, 2]))
    ptr = np.frombuffer(base64.b64decode(packed["ptr"]), "<u4")
    xy = np.frombuffer(base64.b64decode(packed["xy"]), "<u2").reshape(-1, 2)
    assert ptr.tolist() == [0, 0, 4]
    np.testing.assert_allclose(packed["low"] + packed["step"] * xy, corners[3:], atol=1e-4)
    assert pack_outlines(outlines, np.array([1])) is None
    assert pack_outlines(None, np.array([1])) is None


def test_a_large_slide_is_thinned_and_the_page_says_so(tmp_path, page):
    html = write(tmp_path / "page.html", max_cells=50).read_text(encoding="utf-8")
    assert "50 of 400 cells, drawn at random" in html
    assert "Thinned" not in page.read_text(encoding="utf-8")
    scatter = cell_scatter(SLIDE, {"niche": NICHE}, max_cells=50)
    assert len(np.unique(scatter.rows)) == 50
    again = cell_scatter(SLIDE, {"niche": NICHE}, max_cells=50)
    np.testing.assert_array_equal(scatter.rows, again.rows)


def test_cells_in_one_row_are_seen_when_thinned():
    row = AnnData(np.ones((50, 2), np.float32))
    row.obsm["spatial"] = np.stack([10.0 * np.arange(50), np.zeros(50)], 1)
    slide = Slide(row, slide_id="row", check=False)
    item = cell_scatter(slide, {"x": pd.Series(range(50))}, max_cells=20).item
    radii = re.findall(r'"radius": {"type": "value", "value": ([0-9.]+)}', json.dumps(item))
    assert radii
    assert all(float(radius) >= 4.5 for radius in radii)


def test_names_of_the_user_cannot_end_the_script(tmp_path):
    evil = "</script><script>alert(1)</script>"
    scatter = cell_scatter(SLIDE, {evil: pd.Series([evil, "b"] * 200)})
    html = Report("T").add_scatter(scatter).html()
    assert evil not in html
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    (genes,) = re.findall(r'<script type="application/json" class="genes">(.*?)</script>', html)
    assert len(json.loads(genes)) == 30
    assert json.loads(data)["target_id"] == "scatter1-plot"


def test_only_scripts_known_by_their_hash_may_run(page):
    html = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    allowed = policy.split("script-src ")[1].split()
    assert len(allowed) == html.count("<script>")
    assert all(source.startswith("'sha256-") for source in allowed)
    assert "script-src" not in Report("T").html()


def test_columns_that_tell_nothing_are_not_offered():
    slide = make_tissue(100, num_genes=30, seed=0)
    obs = slide.adata.obs
    obs["one"], obs["each"], obs["again"] = "a", obs.index, obs["niche"]
    columns = scatter_columns(slide, {"domains": obs["niche"].reset_index(drop=True)})
    assert list(columns)[0] == "domains"
    assert {"cell_type", "molecules"} <= columns.keys()
    assert not {"one", "each", "again", "niche"} & columns.keys()


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="got 2 for 400 cells"):
        cell_scatter(SLIDE, {"niche": pd.Series([1, 2])})
    with pytest.raises(ValueError, match="columns to colour by"):
        cell_scatter(SLIDE, {})
