"""``spatiagraph report``: the picture of a slide that lies elsewhere, and what a page warns of."""

import anndata
import numpy as np
import pytest
from PIL import Image

import spatiagraph as sg

pytestmark = pytest.mark.usefixtures("without_umap", "few_members")  # UMAPs: the tests of reports


@pytest.fixture(scope="module")
def apart(run, workplace, tmp_path_factory):
    """An embedded file in one folder, and the picture that it was read with in another."""
    folder = tmp_path_factory.mktemp("apart")
    pos = sg.read(workplace / "slide.h5ad").adata.obsm["spatial"]
    low, mpp = pos.min(0) - 20, (np.ptp(pos, axis=0).max() + 40) / 400
    pixels = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    (folder / "pictures").mkdir()
    Image.fromarray(pixels).save(folder / "pictures" / "he.png")
    place = ("--image", folder / "pictures" / "he.png", "--image-mpp", mpp, "--origin-um", *low)
    (folder / "cells").mkdir()
    out = folder / "cells" / "embedded.h5ad"
    done = run("embed", workplace / "run", workplace / "slide.h5ad", *place, "--out", out)
    assert done.exit_code == 0, done.output
    return folder


def test_a_picture_that_is_not_used_is_said_on_the_page_and_option_brings_it_back(
    run, apart, tmp_path
):
    embedded, picture = apart / "cells" / "embedded.h5ad", apart / "pictures" / "he.png"
    done = run("report", embedded, "--out", tmp_path / "without.html")
    assert done.exit_code == 0, done.output
    assert "warning:" in done.stderr
    without = (tmp_path / "without.html").read_text()
    assert "is not used: it does not lie beside embedded.h5ad" in without
    done = run("report", embedded, "--image", picture, "--out", tmp_path / "with.html")
    assert done.exit_code == 0, done.output
    assert "warning:" not in done.stderr
    page = (tmp_path / "with.html").read_text()
    assert "is not used" not in page
    assert len(page) > len(without) + 50_000  # the pixels


def test_cells_that_are_taken_for_unlabelled_are_counted_aloud(run, workplace, tmp_path):
    adata = anndata.read_h5ad(workplace / "embedded.h5ad")
    adata.obs["area"] = adata.obs["niche"].astype(str)
    adata.obs.loc[adata.obs_names[:30], "area"] = "NA"
    adata.write_h5ad(tmp_path / "a.h5ad")
    line = ("report", tmp_path / "a.h5ad", "--labels", "area", "--out", tmp_path / "a.html")
    done = run(*line)
    assert done.exit_code == 0, done.output
    assert "30 of 300 cells have no label in obs['area'] (NA)" in done.stdout
    done = run(*line, "--unlabelled", "")  # a region called NA
    assert done.exit_code == 0, done.output
    assert "have no label" not in done.stdout


def test_a_missing_picture_is_refused_before_the_work(run, apart, tmp_path):
    embedded = apart / "cells" / "embedded.h5ad"
    done = run("report", embedded, "--image", tmp_path / "no.png", "--out", tmp_path / "a.html")
    run.refused(done, "image of embedded.h5ad", "no.png")
