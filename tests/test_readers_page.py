"""The table of data sets in ``docs/readers.md`` is what ``read`` gives today."""

import ast
import re
import warnings
from pathlib import Path

import pytest

import spatiagraph as sg
from spatiagraph.data import Slide

NO_SLIDES = {"gene_tables", "spatialformer_tables"}
"""Folders of tables: names and places of genes, and a published vocabulary."""
PAGE = Path(__file__).parents[1] / "docs" / "readers.md"
ROW = re.compile(r"^\| `(read\(.+?\))` \| (.+) \|$", re.MULTILINE)


def rows(title: str) -> list[tuple[str, list[str]]]:
    """Calls and the other cells of the table under a heading."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S)
    return [(call, rest.split(" | ")) for call, rest in ROW.findall(section)]


def call(text: str, folder: Path) -> Slide | list[Slide]:
    """Run ``read(…)`` as it is written, its files taken from a folder; some cells may be empty."""
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Call)
    arguments = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
    if isinstance(arguments.get("image"), str):
        arguments["image"] = folder / arguments["image"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dropped .* cells")
        warnings.filterwarnings("ignore", message=".* channels of the image of .* show")
        warnings.filterwarnings("ignore", message="Intensities of .* proteins are negative")
        return sg.read(folder / ast.literal_eval(node.args[0]), **arguments)


def facts(found: Slide | list[Slide]) -> list[str]:
    """Cells, genes, scale, image and molecules as the page writes them; cells of all sections."""
    slides = found if isinstance(found, list) else [found]
    slide = slides[0]
    mpp = slide.adata.uns["spatiagraph"]["read"].get("mpp")
    image = "–"
    if slide.image is not None:
        height, width, channels = slide.image.shape
        image = f"{width} × {height} px, {channels} ch, {slide.image.mpp:.4g} µm/px"
    molecules = "–" if slide.transcripts is None else f"{len(slide.transcripts):,}"
    scale = "1" if mpp is None else f"{mpp:.4g}"
    num_cells = sum(slide.num_cells for slide in slides)
    return [f"{num_cells:,}", f"{slide.num_genes:,}", scale, image, molecules]


@pytest.mark.parametrize(("text", "cells"), rows("Opens"))
def test_what_opens_is_what_the_page_says(real_data, text, cells):
    if ".zarr" in text or "merscope" in text:
        pytest.importorskip("spatialdata")
    assert facts(call(text, real_data)) == cells


@pytest.mark.parametrize(("text", "cells"), rows("Refused"))
def test_what_is_refused_is_refused_for_the_reason_on_the_page(real_data, text, cells):
    if ".zarr" in text:
        pytest.importorskip("spatialdata")
    with pytest.raises(ValueError, match=re.escape(cells[0].strip("`"))):
        call(text, real_data)


def test_every_data_set_is_on_the_page(real_data):
    vendors = real_data / "vendor_folders"
    listed = [ast.literal_eval(text[5:].split(",")[0].rstrip(")")) for text, _ in rows("Opens")]
    listed += [ast.literal_eval(text[5:].split(",")[0].rstrip(")")) for text, _ in rows("Refused")]
    folders = [p for p in [*real_data.iterdir(), *vendors.iterdir()] if p.is_dir() and p != vendors]
    sets = [p for p in folders if p.name not in NO_SLIDES]
    for path in [*sets, *real_data.rglob("*.h5ad")]:
        name = str(path.relative_to(real_data))
        assert any(other == name or other.startswith(name + "/") for other in listed), name
