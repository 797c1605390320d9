import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix

from spatiagraph.data.image import SlideImage
from spatiagraph.data.slide import Slide, check_unique_ids


def cells(num_cells: int = 12, num_genes: int = 5, seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2.0, (num_cells, num_genes)).astype(np.float32)
    counts[:, 0] += 1  # no empty cell
    adata = AnnData(
        csr_matrix(counts),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(num_cells)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(num_genes)]),
    )
    adata.obsm["spatial"] = rng.uniform(0, 20 * np.sqrt(num_cells), (num_cells, 2))
    return adata


def picture(width_um: float = 100.0) -> SlideImage:
    return SlideImage([np.zeros((50, 50), np.uint8)], mpp=width_um / 50)


def test_slide_shows_positions_counts_and_depth():
    adata = cells()
    slide = Slide(adata, slide_id="s", donor="d")
    assert (slide.num_cells, slide.num_genes, len(slide)) == (12, 5, 12)
    assert slide.pos.dtype == np.float64
    assert slide.counts.dtype == slide.depth.dtype == np.float32
    np.testing.assert_array_equal(slide.pos, adata.obsm["spatial"])
    np.testing.assert_array_equal(slide.counts.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(slide.depth, adata.X.toarray().sum(1))


@pytest.mark.parametrize("form", [csr_matrix, csc_matrix, np.asarray, lambda x: x.astype(np.int64)])
def test_counts_are_csr_float32_whatever_the_storage(form):
    adata = cells()
    dense = adata.X.toarray()
    adata.X = form(dense)
    counts = Slide(adata, slide_id="s").counts
    assert isinstance(counts, csr_matrix)
    assert counts.dtype == np.float32
    np.testing.assert_array_equal(counts.toarray(), dense)


def test_layer_of_counts_comes_before_x():
    adata = cells()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    np.testing.assert_array_equal(
        Slide(adata, slide_id="s").counts.toarray(), adata.layers["counts"].toarray()
    )


def test_backed_anndata_gives_the_same_slide(tmp_path):
    adata = cells()
    adata.write_h5ad(tmp_path / "s.h5ad")
    backed = Slide(anndata.read_h5ad(tmp_path / "s.h5ad", backed="r"), slide_id="s")
    try:
        np.testing.assert_array_equal(backed.counts.toarray(), adata.X.toarray())
        np.testing.assert_array_equal(backed[[2, 0]].counts.toarray(), adata.X.toarray()[[2, 0]])
    finally:
        backed.adata.file.close()


def test_slide_leaves_the_given_anndata_as_it_was():
    adata = cells()
    slide = Slide(adata, slide_id="s")
    slide.adata.obsm["X_new"] = np.zeros((12, 3))
    slide.adata.obs["niche"] = 0
    slide.adata.uns["spatiagraph"] = {}
    assert list(adata.obsm) == ["spatial"]
    assert not len(adata.obs.columns)
    assert not adata.uns
    assert slide.adata.X is adata.X  # shared, not copied


@pytest.mark.parametrize(
    "rows",
    [
        [3, 1],
        np.array([3, 1]),
        slice(2, 5),
        np.arange(12) % 3 == 0,
        ["c3", "c1"],
        4,
    ],
)
def test_rows_of_a_slide_are_a_slide(rows):
    adata = cells()
    slide = Slide(adata, picture(), slide_id="s", donor="d", expression="normalized")
    part = slide[rows]
    want = adata[np.atleast_1d(rows) if not isinstance(rows, slice) else rows]
    np.testing.assert_array_equal(part.pos, want.obsm["spatial"])
    np.testing.assert_array_equal(part.counts.toarray(), want.X.toarray())
    assert part.image is slide.image
    assert (part.slide_id, part.donor, part.expression) == ("s", "d", "normalized")


def test_rows_keep_only_their_molecules():
    molecules = pd.DataFrame(
        {"x_um": [0.0, 1, 2], "y_um": 0.0, "gene": "g0", "cell_id": ["c1", "c2", None]}
    )
    slide = Slide(cells(), transcripts=molecules, slide_id="s")
    assert slide[["c1", "c5"]].transcripts["cell_id"].tolist() == ["c1"]
    assert len(slide.transcripts) == 3


def test_repr_says_what_is_there():
    slide = Slide(cells(), picture(), slide_id="s", donor="d", expression="normalized")
    assert "Slide('s': 12 cells × 5 genes (normalized)" in repr(slide)
    assert "image 1 ch at 2 µm/px, donor 'd')" in repr(slide)


def test_one_cell_is_a_slide():
    assert Slide(cells(1), slide_id="s").num_cells == 1


def test_symbols_and_ids_come_from_where_they_are():
    adata = cells(num_genes=2)
    assert Slide(adata, slide_id="s").gene_ids is None
    adata.var["gene_ids"] = ["ENSG00000187608", "ENSG00000162545.7"]
    slide = Slide(adata, slide_id="s")
    assert slide.symbols == ["g0", "g1"]
    assert slide.gene_ids == ["ENSG00000187608", "ENSG00000162545"]
    adata.var_names = adata.var["gene_ids"].to_numpy()
    del adata.var["gene_ids"]
    assert Slide(adata, slide_id="s").symbols == ["ENSG00000187608", "ENSG00000162545"]
    adata.var["symbol"] = ["ISG15", "CAMK2N1"]
    slide = Slide(adata, slide_id="s")
    assert slide.symbols == ["ISG15", "CAMK2N1"]
    assert slide.gene_ids == ["ENSG00000187608", "ENSG00000162545"]


def duplicate_ids(adata):
    adata.obs_names = ["c0", *adata.obs_names[1:-1], "c0"]


def duplicate_genes(adata):
    adata.var_names = ["g0", "g0", "g2", "g3", "g4"]


def nan_position(adata):
    adata.obsm["spatial"][7, 1] = np.nan


def infinite_position(adata):
    adata.obsm["spatial"][[3, 4, 5, 6, 7, 8, 9]] = np.inf


def no_positions(adata):
    adata.obsm["spatial_px"] = adata.obsm.pop("spatial")


def three_columns(adata):
    adata.obsm["spatial"] = np.c_[adata.obsm["spatial"], np.zeros(adata.n_obs)]


def negative(adata):
    adata.X[2, 0] = -1


def fractional(adata):
    adata.X = adata.X.log1p()


def normalised(adata):
    adata.X = adata.X * 100.5


def nan_value(adata):
    adata.X[5, 1] = np.nan


def empty_cells(adata):
    adata.X = csr_matrix(adata.X.toarray() * (np.arange(12) != 9)[:, None])


def pixels(adata):
    adata.obsm["spatial"] *= 50


BAD = {
    duplicate_ids: r"unique cell ids, got 2 of 12 .*row 0 'c0', row 11 'c0'",
    duplicate_genes: r"unique gene names, got 2 of 5 .*row 0 'g0', row 1 'g0'",
    nan_position: r"NaN or infinity for 1 of 12 cells: row 7 'c7'",
    infinite_position: r"for 7 of 12 cells: row 3 'c3', .*row 7 'c7' and 2 more",
    no_positions: r"obsm\['spatial'\], got none. Nearest: 'spatial_px'",
    three_columns: r"shape \[12, 2\] \(x, y\), got \[12, 3\].*Keep the x and y",
    negative: r"negative values in row 2 'c2'.*layers\['counts'\]",
    fractional: r"fractional values in row 0 'c0'.*log-transformed.*expression=\"normalized\"",
    normalised: r"fractional values in .*looks normalised",
    nan_value: r"NaN or infinity in row 5 'c5'",
    empty_cells: r"got none in 1 of 12 cells: row 9 'c9'. Pass drop_empty=True",
    pixels: r"Expected positions in µm",
}


@pytest.mark.parametrize("spoil", BAD)
def test_bad_slides_are_refused_naming_rows_and_way_out(spoil):
    """SPATIA fact 8: raw counts that are no whole numbers are refused, among others."""
    adata = cells()
    spoil(adata)
    with pytest.raises(ValueError, match=BAD[spoil]):
        Slide(adata, slide_id="s")


@pytest.mark.parametrize("shape", [(0, 5), (4, 0)])
def test_empty_slides_are_refused(shape):
    adata = AnnData(np.zeros(shape, np.float32))
    adata.obsm["spatial"] = np.zeros((shape[0], 2))
    with pytest.raises(ValueError, match=f"got {shape[0]} cells × {shape[1]} genes in 's'"):
        Slide(adata, slide_id="s")


@pytest.mark.parametrize("spoil", [fractional, normalised])
def test_normalized_expression_is_accepted_when_asked_for(spoil):
    adata = cells()
    spoil(adata)
    slide = Slide(adata, slide_id="s", expression="normalized")
    np.testing.assert_array_equal(slide.counts.toarray(), adata.X.toarray())


@pytest.mark.parametrize("spoil", [negative, nan_value, empty_cells])
def test_normalized_expression_is_still_checked(spoil):
    adata = cells()
    spoil(adata)
    with pytest.raises(ValueError, match="Expected"):
        Slide(adata, slide_id="s", expression="normalized")


def test_no_expression_at_all_is_refused():
    adata = AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["g"]))
    adata.obsm["spatial"] = np.zeros((1, 2))
    with pytest.raises(ValueError, match="or X, got neither"):
        Slide(adata, slide_id="s")


def test_image_that_does_not_cover_the_cells_is_refused_with_both_extents():
    adata = cells()
    outside = int((adata.obsm["spatial"] >= 20).any(1).sum())
    with pytest.raises(
        ValueError, match=rf"{outside} of 12 .*spans x 0 to 20, .*mpp=0.4.*image_mpp"
    ):
        Slide(adata, picture(20.0), slide_id="s")


def test_a_few_cells_on_the_rim_may_lie_outside_of_the_image():
    adata = cells(100)
    adata.obsm["spatial"][:5] -= (300.0, 0.0)
    Slide(adata, picture(210.0), slide_id="s")
    adata.obsm["spatial"][5] -= (300.0, 0.0)
    with pytest.raises(ValueError, match="6 of 100 cells"):
        Slide(adata, picture(210.0), slide_id="s")


@pytest.mark.parametrize(
    ("molecules", "message"),
    [
        (pd.DataFrame({"x": [1.0], "y_um": [1.0], "gene": ["a"]}), "got no x_um. Nearest: "),
        (pd.DataFrame({"x_um": [np.nan], "y_um": [1.0], "gene": ["a"]}), "1 of 1 rows"),
    ],
)
def test_bad_molecules_are_refused(molecules, message):
    with pytest.raises(ValueError, match=message):
        Slide(cells(), transcripts=molecules, slide_id="s")


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"slide_id": ""}, ValueError, "non-empty string, got ''"),
        ({"slide_id": "s", "expression": "log"}, ValueError, "got 'log'"),
        ({"slide_id": "s", "adata": "path.h5ad"}, TypeError, "to be an AnnData, got str"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, error, message):
    with pytest.raises(error, match=message):
        Slide(**{"adata": cells(), **kwargs})


def test_two_slides_with_one_id_are_refused():
    slides = [Slide(cells(), slide_id=s) for s in ("a", "b", "a")]
    check_unique_ids(slides[:2])
    with pytest.raises(ValueError, match="got 'a' for slides 0 and 2"):
        check_unique_ids(slides)


def test_duplicate_entries_are_summed_without_touching_the_users_matrix():
    matrix = csr_matrix((np.ones(3, np.float32), [1, 1, 0], [0, 2, 3]), shape=(2, 2))
    adata = AnnData(matrix, obs=pd.DataFrame(index=["a", "b"]))
    adata.obsm["spatial"] = np.array([[0.0, 0.0], [6.0, 8.0]])
    np.testing.assert_array_equal(Slide(adata, slide_id="s").counts.toarray(), [[0, 2], [1, 0]])
    assert adata.X.nnz == 3


def test_a_slide_is_no_array():
    adata = AnnData(np.ones((2, 3), np.float32), obs=pd.DataFrame(index=["a", "b"]))
    slide = Slide(adata, slide_id="s", check=False)
    with pytest.raises(TypeError, match="an array, got a Slide: take its counts"):
        np.asarray(slide)
