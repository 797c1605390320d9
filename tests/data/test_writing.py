import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.neighbors import NearestNeighbors

from spatiagraph.data import Outlines, Slide, make_tissue, write
from spatiagraph.data.read import read
from spatiagraph.inference.generated import GeneratedImages


@pytest.mark.parametrize("image", ["he", "dapi"])
def test_a_zarr_opens_again_with_image_and_molecules_in_place(tmp_path, image):
    pytest.importorskip("spatialdata")
    slide = make_tissue(200, num_genes=30, image=image, transcripts=True, seed=3)
    slide.adata.obsm["X_mine"] = np.ones((200, 4), np.float32)
    again = read(write(slide, tmp_path / "slide.zarr"))
    assert_allclose(again.pos, slide.pos)
    assert_array_equal(again.counts.toarray(), slide.counts.toarray())
    assert list(again.adata.obs_names) == list(slide.adata.obs_names)
    assert_array_equal(again.adata.obsm["X_mine"], slide.adata.obsm["X_mine"])
    assert again.image.mpp == pytest.approx(slide.image.mpp)
    assert again.image.origin_um == pytest.approx(slide.image.origin_um)
    full = slide.image.shape
    assert again.image.shape == full
    window = (slice(0, full[0]), slice(0, full[1]))
    assert_array_equal(again.image.pixels(*window), slide.image.pixels(*window))
    assert len(again.transcripts) == len(slide.transcripts)
    assert_allclose(again.transcripts["x_um"], slide.transcripts["x_um"])
    assert (again.transcripts["cell_id"].isna() == slide.transcripts["cell_id"].isna()).all()


def test_a_zarr_holds_outlines_and_sizes_that_spatialdata_reads(tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    tissue = make_tissue(50, num_genes=20, image=None, seed=0)
    square = np.array([[-3.0, -2.0], [3.0, -2.0], [3.0, 2.0], [-3.0, 2.0]])
    corners = (tissue.pos[:49, None] + square).reshape(-1, 2)
    outlines = Outlines(corners, np.append(4 * np.arange(50), 4 * 49))  # the last has none
    slide = Slide(tissue.adata, slide_id="s", outlines=outlines)
    store = spatialdata.read_zarr(write(slide, tmp_path / "slide.zarr"))
    shapes = store["cell_outlines"]
    assert list(shapes.index) == list(slide.adata.obs_names[:49])
    assert_allclose(shapes.area, 24.0)
    assert_allclose(shapes.centroid.x, slide.pos[:49, 0])
    radius = store["cells"]["radius"].to_numpy()
    apart = NearestNeighbors(n_neighbors=2).fit(slide.pos).kneighbors()[0][:, 0]
    assert_allclose(radius, 0.45 * np.median(apart))
    table = spatialdata.join_spatialelement_table(
        sdata=store, spatial_element_names="cells", table_name="table", how="left"
    )[1]
    assert list(table.obs_names) == list(slide.adata.obs_names)


def test_large_images_are_written_as_pyramids(tmp_path):
    pytest.importorskip("spatialdata")
    slide = make_tissue(3000, num_genes=20, image="dapi", mpp=0.25)
    again = read(write(slide, tmp_path / "slide.zarr"))
    assert min(slide.image.shape[:2]) > 1024
    assert again.image.num_levels > 1


def test_an_h5ad_opens_again_without_arguments(tmp_path):
    slide = make_tissue(100, num_genes=20, slide_id="s1", donor="d1")
    again = read(write(slide, tmp_path / "slide.h5ad"))
    assert_array_equal(again.counts.toarray(), slide.counts.toarray())
    assert_allclose(again.pos, slide.pos)


def test_a_new_store_replaces_an_old_one_and_nothing_else_is_left(tmp_path):
    pytest.importorskip("spatialdata")
    write(make_tissue(50, num_genes=20), tmp_path / "slide.zarr")
    write(make_tissue(60, num_genes=20), tmp_path / "slide.zarr")
    assert read(tmp_path / "slide.zarr").num_cells == 60
    assert [p.name for p in tmp_path.iterdir()] == ["slide.zarr"]


def test_molecules_of_a_cell_called_0_stay_in_it(tmp_path):
    pytest.importorskip("spatialdata")
    slide = make_tissue(50, num_genes=20, transcripts=True, seed=0)
    slide.adata.obs_names = [str(i) for i in range(50)]
    cell = slide.transcripts["cell_id"]
    slide.transcripts["cell_id"] = cell.str.removeprefix("cell").astype(object)
    again = read(write(slide, tmp_path / "slide.zarr"))
    assert (again.transcripts["cell_id"] == "0").sum() > 0
    found, given = again.transcripts["cell_id"], slide.transcripts["cell_id"]
    assert found.astype(object).equals(given.astype(object))  # pandas 3 reads text as such


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.h5ad or \.zarr, got slide\.csv"):
        write(make_tissue(50, num_genes=20), tmp_path / "slide.csv")


def test_results_of_a_slide_in_a_store_find_its_image_again(tmp_path):
    slide = make_tissue(100, num_genes=20, image="dapi", seed=0)
    write(slide, tmp_path / "slide.zarr")
    write(read(tmp_path / "slide.zarr"), tmp_path / "results.h5ad")
    again = read(tmp_path / "results.h5ad")
    first, second = (s.image.crops(slide.pos[:20], 12.0, 16)[0] for s in (slide, again))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_folder_of_other_things_is_not_replaced(tmp_path):
    folder = tmp_path / "slide.zarr"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for write_there in (
        lambda: write(make_tissue(50, num_genes=20, image=None), folder),
        lambda: GeneratedImages(np.zeros(0), np.zeros(0), pd.DataFrame(), 1.0).save(folder),
    ):
        with pytest.raises(FileExistsError, match="slide.zarr' holds something else"):
            write_there()
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
