"""Damaged sparse matrices: refused at every door, with the key and the place."""

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.io import mmwrite
from scipy.sparse import csc_matrix, csr_matrix

from spatiagraph.data.read import read
from spatiagraph.data.read.tenx import read_matrix
from spatiagraph.data.slide import Slide
from spatiagraph.data.sparse import as_csr, check_compressed, compressed
from spatiagraph.data.tokens import bin_tokens, rank_tokens
from spatiagraph.evaluate.inputs import as_expression

CELLS, GENES = 12, 5


def good() -> csr_matrix:
    rng = np.random.default_rng(0)
    dense = rng.poisson(2.0, (CELLS, GENES)) + np.eye(CELLS, GENES)
    return csr_matrix(dense, dtype=np.float32)


def index_past_the_end(arrays):
    arrays["indices"][5] = 9999


def index_below_zero(arrays):
    arrays["indices"][5] = -3


def index_of_billions(arrays):
    arrays["indices"][5] = 2_000_000_000


def falling_indptr(arrays):
    arrays["indptr"][3] = arrays["indptr"][5] + 1


def negative_indptr(arrays):
    arrays["indptr"][2] = -4


def indptr_that_starts_late(arrays):
    arrays["indptr"][0] = 1


def indptr_that_ends_late(arrays):
    arrays["indptr"][-1] += 7


def indptr_that_ends_early(arrays):
    arrays["indptr"][-1] -= 1


def short_indptr(arrays):
    arrays["indptr"] = arrays["indptr"][:-1]


def long_indptr(arrays):
    arrays["indptr"] = np.append(arrays["indptr"], arrays["indptr"][-1])


def short_indices(arrays):
    arrays["indices"] = arrays["indices"][:-1]


def short_data(arrays):
    arrays["data"] = arrays["data"][:-1]


def fractional_indices(arrays):
    arrays["indices"] = arrays["indices"] + 0.5


DAMAGES = {
    index_past_the_end: "got 9999 at place 5",
    index_below_zero: "got -3 at place 5",
    index_of_billions: "got 2000000000 at place 5",
    falling_indptr: "indptr never to fall",
    negative_indptr: "indptr never to fall",
    indptr_that_starts_late: "indptr from 0 to",
    indptr_that_ends_late: "indptr from 0 to",
    indptr_that_ends_early: "indptr from 0 to",
    short_indptr: f"indptr of length {CELLS + 1}",
    long_indptr: f"indptr of length {CELLS + 1}",
    short_indices: "of one length",
    short_data: "of one length",
    fractional_indices: "integers in",
}
damages = pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)


def arrays_of(matrix):
    return {key: getattr(matrix, key).copy() for key in ("data", "indices", "indptr")}


def damaged_in_memory(damage) -> csr_matrix:
    """What scipy itself takes: its arrays are written to behind its back."""
    matrix, arrays = good(), arrays_of(good())
    damage(arrays)
    matrix.has_canonical_format  # noqa: B018  # remembered from before the damage
    for key, value in arrays.items():
        setattr(matrix, key, value)
    return matrix


def cells(x=None) -> AnnData:
    adata = AnnData(
        good() if x is None else x,
        obs=pd.DataFrame(index=[f"c{i}" for i in range(CELLS)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]),
    )
    adata.obsm["spatial"] = np.random.default_rng(1).uniform(0, 60, (CELLS, 2))
    return adata


def full() -> AnnData:
    """A sparse matrix in every slot that may hold one."""
    adata = cells()
    adata.raw = adata.copy()
    adata.layers["counts"] = good()
    adata.obsm["sparse"] = good()
    adata.varm["sparse"] = csr_matrix(good().T)
    adata.obsp["pairs"] = csr_matrix(good() @ good().T)
    adata.varp["pairs"] = csr_matrix(good().T @ good())
    adata.uns["deep"] = {"er": good()}
    adata.layers["by_gene"] = csc_matrix(good())
    return adata


SLOTS = [
    "X", "raw/X", "layers/counts", "layers/by_gene", "obsm/sparse", "varm/sparse", "obsp/pairs",
    "varp/pairs", "uns/deep/er",
]  # fmt: skip


def rewrite(group, damage):
    """Damage the three arrays of a sparse matrix in an open HDF5 file."""
    arrays = {key: group[key][:] for key in ("data", "indices", "indptr")}
    damage(arrays)
    for key, value in arrays.items():
        del group[key]
        group[key] = value
        group[key].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


@damages
def test_a_damaged_matrix_is_refused_with_key_and_place(damage):
    arrays = arrays_of(good())
    damage(arrays)
    with pytest.raises(ValueError, match=DAMAGES[damage]):
        compressed(csr_matrix, **arrays, shape=(CELLS, GENES), where="X")
    with pytest.raises(ValueError, match=DAMAGES[damage]):
        check_compressed(damaged_in_memory(damage), "X")


@pytest.mark.parametrize("kind", [csr_matrix, csc_matrix])
def test_a_good_matrix_is_the_one_scipy_makes(kind):
    matrix = kind(good())
    made = compressed(kind, **arrays_of(matrix), shape=matrix.shape, where="X")
    np.testing.assert_array_equal(made.toarray(), good().toarray())
    empty = kind((4, 3))
    check_compressed(empty, "X")


@damages
@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_of_an_h5ad_is_looked_at(tmp_path, slot, damage):
    full().write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        rewrite(file[slot], damage)
    with pytest.raises(ValueError, match=rf"a\.h5ad.*{slot}"):
        read(tmp_path / "a.h5ad", assume_um=True)


@damages
def test_a_slide_in_memory_is_looked_at(damage):
    adata = cells()
    adata.obsp["pairs"] = csr_matrix(good() @ good().T)
    Slide(adata, slide_id="s", assume_um=True)
    broken = damaged_in_memory(damage)
    for key in ("data", "indices", "indptr"):
        setattr(adata.X, key, getattr(broken, key))
    with pytest.raises(ValueError, match=DAMAGES[damage]):
        Slide(adata, slide_id="s", assume_um=True)


@damages
def test_no_kernel_follows_damaged_counts(damage):
    broken = damaged_in_memory(damage)
    for tokens in (
        lambda: rank_tokens(broken, np.arange(GENES)),
        lambda: bin_tokens(broken),
        lambda: as_expression(broken),
    ):
        with pytest.raises(ValueError, match=DAMAGES[damage]):
            tokens()


@damages
def test_a_10x_file_is_looked_at(tmp_path, damage):
    text = h5py.string_dtype()
    arrays = arrays_of(good())
    damage(arrays)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("matrix")
        for key, value in arrays.items():
            group[key] = value
        group["shape"] = [GENES, CELLS]
        group.create_dataset("barcodes", data=[f"c{i}" for i in range(CELLS)], dtype=text)
        features = group.create_group("features")
        for key in ("name", "id"):
            features.create_dataset(key, data=[f"g{i}" for i in range(GENES)], dtype=text)
        features.create_dataset("feature_type", data=["Gene Expression"] * GENES, dtype=text)
    with pytest.raises(ValueError, match=rf"m\.h5: matrix.*|{DAMAGES[damage]}"):
        read_matrix(tmp_path / "m.h5")


@pytest.mark.parametrize("line", ["99 1 3\n", "1 99 3\n", "0 1 3\n", "-1 1 3\n"])
def test_a_matrix_market_file_with_an_index_outside_is_refused(tmp_path, line):
    with (tmp_path / "matrix.mtx").open("wb") as stream:
        mmwrite(stream, csr_matrix(good().T, dtype=int))
    text = (tmp_path / "matrix.mtx").read_text().splitlines(keepends=True)
    (tmp_path / "matrix.mtx").write_text("".join([*text[:-1], line]))
    (tmp_path / "barcodes.tsv").write_text("\n".join(f"c{i}" for i in range(CELLS)))
    (tmp_path / "features.tsv").write_text("\n".join(f"g{i}\tG{i}" for i in range(GENES)))
    with pytest.raises(ValueError, match=r"matrix\.mtx"):
        read_matrix(tmp_path)


@damages
def test_the_table_of_a_store_is_looked_at(tmp_path, damage):
    pytest.importorskip("spatialdata")
    import zarr

    from spatiagraph.data.writing import write

    write(Slide(cells(), slide_id="s", assume_um=True), tmp_path / "s.zarr")
    path = tmp_path / "s.zarr" / "tables" / "table" / "X"
    group = zarr.open_group(path, mode="a")
    arrays = {key: group[key][:] for key in ("data", "indices", "indptr")}
    damage(arrays)
    for key, value in arrays.items():
        attributes = dict(group[key].attrs)
        group.create_array(key, data=value, overwrite=True).attrs.update(attributes)
    with pytest.raises(ValueError, match=r"X|table"):
        read(tmp_path / "s.zarr", assume_um=True)


def test_entries_out_of_order_are_sorted_and_repeated_ones_added_up_with_a_warning(tmp_path):
    adata = cells()
    adata.write_h5ad(tmp_path / "a.h5ad")
    expected = read(tmp_path / "a.h5ad", assume_um=True).counts
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        last = file["X/indptr"][1]
        for key in ("data", "indices"):
            file[f"X/{key}"][:last] = file[f"X/{key}"][:last][::-1]
    np.testing.assert_array_equal(
        read(tmp_path / "a.h5ad", assume_um=True).counts.toarray(), expected.toarray()
    )
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        file["X/indices"][:2] = file["X/indices"][0]
        values = file["X/data"][:2]
        gene = int(file["X/indices"][0])
    with pytest.warns(UserWarning, match=r"a\.h5ad: X has 1 entries that occur more than once"):
        slide = read(tmp_path / "a.h5ad", assume_um=True)
    assert slide.counts[0, gene] == values.sum()
    assert slide.adata.X.has_canonical_format


def test_complex_counts_and_positions_are_refused(tmp_path):
    with pytest.raises(ValueError, match="real numbers in X, got complex64"):
        Slide(cells(good().astype(np.complex64)), slide_id="s", assume_um=True)
    with pytest.raises(ValueError, match="real numbers in X, got complex"):
        Slide(cells(good().toarray() * 1j), slide_id="s", assume_um=True)
    with pytest.raises(ValueError, match="got complex128"):
        as_csr(np.ones((2, 2)) * 1j, "X")
    adata = cells()
    adata.obsm["spatial"] = adata.obsm["spatial"] + 1j
    with pytest.raises(ValueError, match=r"real numbers in obsm\['spatial'\], got complex128"):
        Slide(adata, slide_id="s", assume_um=True)
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=r"real numbers in obsm\['spatial'\], got complex128"):
        read(tmp_path / "a.h5ad", assume_um=True)
