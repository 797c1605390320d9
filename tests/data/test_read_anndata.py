"""AnnData as people have it: where the counts are, where the places are, what was measured."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import spatiagraph as sg

POS = np.random.default_rng(0).uniform(0, 150, (200, 2))
COUNTS = np.random.default_rng(1).poisson(2, (200, 12)).astype(np.float32) + 1


def cells(**obs):
    adata = anndata.AnnData(COUNTS.copy(), obs=pd.DataFrame(obs, [f"c{i}" for i in range(200)]))
    adata.var_names = [f"G{i}" for i in range(12)]
    adata.obsm["spatial"] = POS.copy()
    return adata


def test_an_anndata_is_read_as_a_file_is_and_is_not_changed(tmp_path):
    adata = cells()
    adata.obsm["spatial"] = POS / 0.1
    before = adata.copy()
    slide = sg.read(adata, mpp=0.1)
    np.testing.assert_allclose(slide.pos, POS)
    np.testing.assert_array_equal(adata.obsm["spatial"], before.obsm["spatial"])
    assert not adata.uns
    slide.adata.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_allclose(sg.read(tmp_path / "a.h5ad").pos, POS)
    adata.write_h5ad(tmp_path / "b.h5ad")
    backed = anndata.read_h5ad(tmp_path / "b.h5ad", backed="r")
    np.testing.assert_allclose(sg.read(backed, mpp=0.1).pos, POS)


def test_a_slide_is_called_what_its_table_calls_it():
    assert sg.Slide(cells()).slide_id == "slide"
    assert sg.Slide(cells(sample=["s1"] * 200)).slide_id == "s1"
    assert sg.read(cells(library_id=["l1"] * 200)).slide_id == "l1"
    assert sg.Slide(sg.read(cells(), slide_id="mine").adata).slide_id == "mine"
    assert sg.Slide(cells(sample=["s1"] * 200), slide_id="other").slide_id == "other"


@pytest.mark.parametrize("place", ["raw_counts", "umi", "raw"])
def test_counts_in_another_layer_are_named_and_taken(place):
    adata = cells()
    if place == "raw":
        adata.raw = adata
    else:
        adata.layers[place] = COUNTS.copy()
    adata.X = np.log1p(adata.X)
    with pytest.raises(ValueError, match=f"counts_layer='{place}'"):
        sg.read(adata)
    np.testing.assert_array_equal(sg.read(adata, counts_layer=place).counts.toarray(), COUNTS)


def test_raw_brings_its_own_genes():
    adata = cells()
    adata.raw = adata
    few = adata[:, :4].copy()
    few.X = np.log1p(few.X)
    assert sg.read(few, counts_layer="raw").num_genes == 12
    with pytest.raises(ValueError, match=r"layers\['nope'\], got none.*'X', 'raw'"):
        sg.read(few, counts_layer="nope")


def test_a_layer_called_raw_that_is_not_read_is_told_of():
    adata = cells()
    adata.layers["raw_counts"] = COUNTS + 1
    with pytest.warns(UserWarning, match="counts_layer='raw_counts'"):
        sg.read(adata)
    np.testing.assert_array_equal(sg.read(adata, counts_layer="X").counts.toarray(), COUNTS)


def test_x_can_be_chosen_over_the_layer_of_counts():
    adata = cells()
    adata.layers["counts"] = COUNTS + 1
    np.testing.assert_array_equal(sg.read(adata).counts.toarray(), COUNTS + 1)
    np.testing.assert_array_equal(sg.read(adata, counts_layer="X").counts.toarray(), COUNTS)


def test_coordinates_may_be_columns_of_obs():
    adata = cells(cx=POS[:, 0], cy=POS[:, 1], word="a")
    del adata.obsm["spatial"]
    with pytest.raises(ValueError, match="x_key=… and y_key=…"):
        sg.read(adata)
    np.testing.assert_array_equal(sg.read(adata, x_key="cx", y_key="cy").pos, POS)
    with pytest.raises(ValueError, match="both x_key and y_key"):
        sg.read(adata, x_key="cx")
    with pytest.raises(ValueError, match=r"obs\['cz'\], got none. Nearest: 'c"):
        sg.read(adata, x_key="cx", y_key="cz")
    with pytest.raises(ValueError, match=r"Expected numbers in obs\['word'\]"):
        sg.read(adata, x_key="cx", y_key="word")


def test_columns_that_contradict_the_coordinates_are_refused():
    adata = cells(x_pixel=POS[:, 1], y_pixel=POS[:, 0])
    with pytest.raises(ValueError, match="the other way around.*x_key='y_pixel'"):
        sg.read(adata, x_key="x_pixel", y_key="y_pixel", mpp=1.0)


def test_cells_without_a_place_are_refused_or_dropped():
    adata = cells()
    adata.obsm["spatial"][3] = np.nan
    with pytest.raises(ValueError, match="row 3 'c3'.*drop_unplaced=True"):
        sg.read(adata)
    with pytest.warns(UserWarning, match="Dropped 1 of 200 cells that have no place"):
        assert sg.read(adata, drop_unplaced=True).num_cells == 199


@pytest.mark.parametrize("cofactor", [5.0, 150.0])
def test_intensities_are_transformed_and_kept(cofactor):
    adata = cells()
    adata.X = COUNTS * 321.5
    with pytest.raises(ValueError, match="fractional"):
        sg.read(adata)
    slide = sg.read(adata, kind="protein", cofactor=cofactor)
    assert slide.expression == "normalized"
    np.testing.assert_allclose(slide.counts.toarray(), np.arcsinh(COUNTS * 321.5 / cofactor), 1e-5)
    np.testing.assert_allclose(slide.adata.layers["intensities"].toarray(), COUNTS * 321.5, 1e-6)


def test_the_centred_log_ratio_does_not_see_the_brightness_of_a_cell():
    adata = cells()
    adata.X = COUNTS * 1e4
    bright = cells()
    bright.X = COUNTS * 1e4 * np.linspace(1, 9, 200)[:, None].astype(np.float32)
    one, two = (
        sg.read(a, kind="protein", transform="clr").counts.toarray() for a in (adata, bright)
    )
    np.testing.assert_allclose(one, two, rtol=2e-3)


def test_scaled_intensities_are_moved_and_not_transformed_again():
    adata = cells()
    adata.X = (COUNTS - COUNTS.mean(0)) / COUNTS.std(0)
    with pytest.warns(UserWarning, match="12 proteins are negative"):
        slide = sg.read(adata, kind="protein")
    np.testing.assert_allclose(slide.counts.toarray(), adata.X - adata.X.min(0), atol=1e-5)
    with pytest.raises(ValueError, match="transform='none'"):
        sg.read(adata, kind="protein", transform="arcsinh")


TYPES = np.array(["B", "T", "tumour"])[np.arange(200) % 3]


def test_types_are_features_of_one_column_each():
    slide = sg.read(cells(cell_type=TYPES), kind="types", type_key="cell_type")
    assert slide.symbols == ["B", "T", "tumour"]
    np.testing.assert_array_equal(slide.counts.toarray(), TYPES[:, None] == slide.symbols)
    with pytest.raises(ValueError, match="type_key=…"):
        sg.read(cells(cell_type=TYPES), kind="types")
    with pytest.raises(ValueError, match=r"obs\['types'\], got none"):
        sg.read(cells(cell_type=TYPES), kind="types", type_key="types")


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_a_table_of_places_and_types_is_a_slide(tmp_path, suffix):
    table = pd.DataFrame({"x": POS[:, 0] * 2, "y": POS[:, 1] * 2, "cell_type": TYPES})
    table["region"] = np.where(POS[:, 0] < np.median(POS[:, 0]), "r1", "r2")
    path = tmp_path / f"cells.{suffix}"
    table.to_parquet(path) if suffix == "parquet" else table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="kind='types' with type_key"):
        sg.read(path)
    slide = sg.read(path, kind="types", type_key="cell_type", mpp=0.5)
    np.testing.assert_allclose(slide.pos, POS)
    slides = sg.read(path, kind="types", type_key="cell_type", mpp=0.5, sample_key="region")
    assert sorted(s.slide_id for s in slides) == ["r1", "r2"]
    with pytest.raises(ValueError, match="column 'cx' of cells.*got none"):
        sg.read(path, kind="types", type_key="cell_type", x_key="cx", y_key="y")


def test_sections_without_a_type_have_it_as_zero():
    adata = cells(cell_type=np.where(np.arange(200) < 100, TYPES, "B"), sample=["a", "b"] * 100)
    adata.obs["sample"] = np.repeat(["a", "b"], 100)
    for slide in sg.read(adata, kind="types", type_key="cell_type", sample_key="sample"):
        assert slide.symbols == ["B", "T", "tumour"]


def test_proteins_and_types_are_trained_on_and_searched():
    adata = cells(cell_type=TYPES)
    adata.X = COUNTS * 300
    for slide in (
        sg.read(adata, kind="protein"),
        sg.read(cells(cell_type=TYPES), kind="types", type_key="cell_type"),
    ):
        model = sg.models.ContextModel.for_slides([slide], channels=8)
        sg.fit(model, [slide], max_epochs=1, accelerator="cpu", progress=False)
        found = sg.embed(model, slide)
        z = found.obsm["X_context_niche"]
        assert np.isfinite(z).all()
        assert len(sg.NicheIndex.build(z, found.obs).search(z[:2], k=3)) == 6


def test_folders_of_vendors_refuse_what_chooses_parts_of_a_table(real_data):
    folder = real_data / "vendor_folders" / "xenium_V1_FF_Mouse_Brain" / "sample1"
    with pytest.raises(ValueError, match="Expected counts_layer='raw' with an .h5ad"):
        sg.read(folder, counts_layer="raw")


def test_sparse_layers_are_taken_too():
    adata = cells()
    adata.layers["raw_counts"] = csr_matrix(COUNTS)
    adata.X = csr_matrix(np.log1p(COUNTS))
    np.testing.assert_array_equal(
        sg.read(adata, counts_layer="raw_counts").counts.toarray(), COUNTS
    )
