"""SPATIA from the command line: what it does, and what it refuses."""

import anndata
import pandas as pd
import pytest

from spatiagraph.data import make_tissue, write
from spatiagraph.models import Spatia

SMALL = ("--model", "spatia", "--epochs", 1, "--accelerator", "cpu", "--channels", 8)


@pytest.fixture(scope="module")
def spatia(run, tmp_path_factory):
    """Folder with ``slide.h5ad`` and ``run``, trained to classify types."""
    folder = tmp_path_factory.mktemp("spatia")
    slide = run.tissue(folder / "slide.h5ad")
    done = run("fit", slide, "--out", folder / "run", *SMALL, "--classify", "cell_type")
    assert done.exit_code == 0, done.output
    return folder


def test_it_trains_and_embeds(run, spatia, tmp_path):
    out = tmp_path / "out.h5ad"
    done = run("embed", spatia / "run", spatia / "slide.h5ad", "--out", out)
    assert done.exit_code == 0, done.output
    assert anndata.read_h5ad(out).obsm["X_spatia"].shape == (300, 8)
    assert Spatia.from_pretrained(spatia / "run" / "model").labels is not None


def test_a_search_shows_each_niche_once(run, spatia, tmp_path):
    embedded, out = tmp_path / "embedded.h5ad", tmp_path / "hits.csv"
    run("embed", spatia / "run", spatia / "slide.h5ad", "--out", embedded)
    done = run("search", embedded, "--cell", "cell7", "-k", 2, "--out", out)
    assert done.exit_code == 0, done.output
    hits = pd.read_csv(out)
    assert hits["rank"].tolist() == [1, 2]
    groups = anndata.read_h5ad(embedded).obs["spatia_niche"]
    assert len({groups["cell7"], *hits["spatia_niche"]}) == 3
    assert hits["distance"].is_monotonic_increasing
    assert hits["distance"].gt(0).all()
    done = run("search", embedded, "--cell", "cell7", "-k", 2, "--level", "tissue")
    run.refused(done, "a tissue beside that of cell7")


def test_options_of_the_other_model_are_refused(run, spatia, tmp_path):
    slide = spatia / "slide.h5ad"
    done = run("fit", slide, "--out", tmp_path / "a", *SMALL, "--neighbors", 3)
    run.refused(done, "--model spatia", "--neighbors of --model context")
    done = run("fit", slide, "--out", tmp_path / "b", *run.small, "--preset", "tiny")
    run.refused(done, "--model context", "--preset of --model spatia")
    assert not any(tmp_path.iterdir())


def test_columns_and_classes_that_are_not_known_are_refused(run, spatia, tmp_path):
    slide = spatia / "slide.h5ad"
    done = run("fit", slide, "--out", tmp_path / "a", *SMALL, "--classify", "celltype")
    run.refused(done, "celltype", "cell_type")
    adata = anndata.read_h5ad(slide)
    renamed = adata.obs["cell_type"].astype(str).to_numpy()
    renamed[:7] = "osteoclast"
    adata.obs["cell_type"] = renamed
    adata.write_h5ad(tmp_path / "other.h5ad")
    done = run("embed", spatia / "run", tmp_path / "other.h5ad", "--out", tmp_path / "out.h5ad")
    run.refused(done, "osteoclast", "7")
    assert not (tmp_path / "out.h5ad").exists()


def test_a_slide_with_few_of_the_genes_is_refused(run, spatia, tmp_path):
    adata = anndata.read_h5ad(spatia / "slide.h5ad")
    names = [f"other{i}" for i in range(adata.n_vars)]
    names[:3] = adata.var_names[:3]
    adata.var_names = names
    adata.write_h5ad(tmp_path / "other.h5ad")
    done = run("embed", spatia / "run", tmp_path / "other.h5ad", "--out", tmp_path / "out.h5ad")
    run.refused(done, "at least 10% of the panel, got 3 of 40 genes", "Gene3")


def test_crops_larger_than_the_image_are_refused(run, tmp_path):
    slide = make_tissue(300, num_genes=40, image="dapi")
    write(slide, tmp_path / "slide.zarr")
    done = run(
        "fit", tmp_path / "slide.zarr", "--out", tmp_path / "run", *SMALL, "--window-um", 5000
    )
    run.refused(done, "5000", "image")


def test_a_slide_with_nothing_to_read_is_refused():
    genes_alone = make_tissue(300, num_genes=40, image=None)
    model = Spatia.for_slides([make_tissue(300, num_genes=40, image="dapi")], genes=False)
    batch = model.recipe(genes_alone)
    with pytest.raises(ValueError, match="Expected a slide with an image: the model reads images"):
        model.inputs(batch)
    with pytest.raises(ValueError, match="would read nothing"):
        Spatia.for_slides([genes_alone], genes=False)
    empty = genes_alone.adata.copy()
    empty.X = empty.layers["counts"] = empty.X * 0
    with pytest.raises(ValueError, match="no count in all 300 cells and no image"):
        type(genes_alone)(empty, slide_id="empty")
