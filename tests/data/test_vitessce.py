"""What is written for Vitessce opens with the readers of its formats, and lies in one place."""

import json
import warnings

import anndata
import numpy as np
import pytest
import zarr

from spatiagraph.data import Outlines, Slide, make_tissue, write_vitessce


def outlined():
    tissue = make_tissue(60, num_genes=20, image="he", seed=0)
    triangle = np.array([[-3.0, -2.0], [3.0, -2.0], [0.0, 3.0]])
    corners = (tissue.pos[:59, None] + triangle).reshape(-1, 2)
    ptr = np.append(3 * np.arange(60), 3 * 59)  # the last cell has none
    tissue.adata.obs["cell_type"] = tissue.adata.obs["cell_type"].where(np.arange(60) > 3)
    tissue.adata.obsm["X_umap"] = tissue.pos / 7
    return Slide(tissue.adata, tissue.image, slide_id="s", outlines=Outlines(corners, ptr))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    pytest.importorskip("ome_zarr")
    slide = outlined()
    return slide, write_vitessce(slide, tmp_path_factory.mktemp("vitessce") / "view")


def test_cells_open_as_anndata_with_all_that_the_configuration_names(written):
    slide, config = written
    said = json.loads(config.read_text())
    files = said["datasets"][0]["files"]
    options = files[0]["options"]
    cells = anndata.read_zarr(config.parent / files[0]["url"])
    assert (config.parent / "cells.zarr" / ".zgroup").exists()  # of the older format
    np.testing.assert_allclose(cells.X.toarray(), np.log1p(slide.counts.toarray()), rtol=1e-6)
    assert cells.var_names.tolist() == slide.symbols
    assert cells.obs_names.tolist() == slide.adata.obs_names.tolist()
    paths = [options[k]["path"] for k in ("obsFeatureMatrix", "obsLocations", "obsSegmentations")]
    paths += [e["path"] for e in [*options["obsSets"], *options["obsEmbedding"]]]
    store = zarr.open_group(config.parent / "cells.zarr", mode="r")
    for path in paths:
        assert path in store, path
    assert {"niche", "cell_type"} <= {e["name"] for e in options["obsSets"]}
    assert cells.obs["cell_type"].iloc[:4].tolist() == ["none"] * 4
    np.testing.assert_allclose(cells.obsm["spatial"], slide.pos, rtol=1e-6)
    polygons = cells.obsm["outlines"]
    np.testing.assert_allclose(polygons[7], slide.outlines.corners[21:24], rtol=1e-5)
    np.testing.assert_allclose(polygons[59], np.repeat(slide.pos[59:], 3, axis=0), rtol=1e-5)


def test_the_image_lies_where_the_cells_do(written):
    slide, config = written
    reader = pytest.importorskip("ome_zarr.reader")
    io = pytest.importorskip("ome_zarr.io")
    (node,) = list(reader.Reader(io.parse_url(config.parent / "image.zarr"))())[:1]
    assert [axis["unit"] for axis in node.metadata["axes"][1:]] == ["micrometer"] * 2
    finest = node.metadata["coordinateTransformations"][0]
    (scale,) = [t["scale"] for t in finest if t["type"] == "scale"]
    (shift,) = [t["translation"] for t in finest if t["type"] == "translation"]
    pixels = np.asarray(node.data[0])
    x0, y0 = slide.image.origin_um
    np.testing.assert_allclose(shift[1:], [y0, x0], atol=1e-6)
    height, width, _ = slide.image.shape
    sides = np.array(pixels.shape[1:]) * scale[1:]
    np.testing.assert_allclose(sides, np.array([height, width]) * slide.image.mpp, rtol=1e-3)
    whole, _ = slide.image.thumbnail(4096)
    np.testing.assert_array_equal(np.moveaxis(pixels, 0, -1), whole)


def test_vitessce_takes_the_configuration(written):
    _, config = written
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its widgets are not installed
        vitessce = pytest.importorskip("vitessce")
    said = json.loads(config.read_text())
    again = vitessce.VitessceConfig.from_dict(said).to_dict()
    assert again["datasets"] == said["datasets"]
    views = {view.value for view in vitessce.ViewType}
    files = {kind.value for kind in vitessce.FileType}
    assert {view["component"] for view in said["layout"]} <= views
    assert {file["fileType"] for file in said["datasets"][0]["files"]} <= files


def test_a_slide_of_places_alone_needs_no_extra(tmp_path):
    slide = make_tissue(40, num_genes=20, image=None, seed=0)
    config = json.loads(write_vitessce(slide, tmp_path / "a", groups=["niche"]).read_text())
    (file,) = config["datasets"][0]["files"]
    assert file["options"]["obsSets"] == [{"name": "niche", "path": "obs/niche"}]
    assert not {"obsSegmentations", "obsEmbedding"} & file["options"].keys()
    with pytest.raises(ValueError, match=r"obs\['nich'\], got none. Nearest: 'niche'"):
        write_vitessce(slide, tmp_path / "b", groups=["nich"])
    assert not (tmp_path / "b").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="a new folder"):
        write_vitessce(make_tissue(60, num_genes=20, image=None), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
