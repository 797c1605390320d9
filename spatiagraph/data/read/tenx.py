"""10x feature-barcode matrices: HDF5 or a Matrix Market folder → AnnData."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy.sparse import csc_matrix, csr_matrix

from spatiagraph import keys
from spatiagraph._files import check_file
from spatiagraph.data.checks import check_names
from spatiagraph.data.read.controls import CONTROL_COUNTS
from spatiagraph.data.read.matrix_market import read_matrix_market
from spatiagraph.data.read.structure import open_hdf5
from spatiagraph.data.read.tables import DAMAGED, check_text, listed, member, unreadable
from spatiagraph.data.sparse import canonical, compressed
from spatiagraph.data.transcripts import is_control

_GENES = "Gene Expression"
_MEND = "Is the file damaged, incomplete, or older than Cell Ranger 3?"


def find_matrix(folder: Path, stems: Sequence[str], *, loose: bool = False) -> Path | None:
    """First matrix with one of the names, as ``<stem>.h5``, ``*_<stem>.h5`` or folder ``<stem>``.

    Args:
        folder: Where to look.
        stems: Names in order of preference.
        loose: Take the folder itself, if nothing else is there, where it holds the three files of
            a Matrix Market folder.
    """
    for stem in stems:
        files = [member(folder, f"{stem}.h5"), *listed(folder, f"*_{stem}.h5")]
        found = next((p for p in [*files, member(folder, stem)] if p.exists()), None)
        if found is not None:
            return found
    is_one = loose and (listed(folder, "matrix.mtx") or listed(folder, "matrix.mtx.gz"))
    return folder if is_one else None


def read_matrix(path: Path) -> tuple[AnnData, int]:
    """Read counts of genes; other features, such as controls, are left out.

    Args:
        path: ``.h5`` file of Cell Ranger ≥ 3, or a folder with ``matrix.mtx``,
            ``features.tsv`` and ``barcodes.tsv``, each possibly gzipped.

    Returns:
        Barcodes × genes; ``var_names`` are unique symbols, ``var["gene_ids"]`` Ensembl ids.
        ``obs["control_counts"]`` is the sum over control features, if there are any, and the
        second value their number.

    Raises:
        ValueError: The file is no such matrix or damaged, a barcode is there twice, or a file of
            the folder is missing.
    """
    matrix, barcodes, features = _from_folder(path) if path.is_dir() else _from_h5(path)
    if matrix.shape != (len(barcodes), len(features)):
        raise ValueError(
            f"Expected {path.name} of shape {[len(barcodes), len(features)]} (barcodes × features),"
            f" got {list(matrix.shape)}"
        )
    check_names(barcodes, f"barcodes in {path.name}", "Are two files joined in it?")
    genes = (features["feature_types"] == _GENES).to_numpy()
    var = features[genes].set_index(make_index_unique(pd.Index(features["symbol"][genes])))
    adata = AnnData(
        csr_matrix(matrix[:, np.flatnonzero(genes)], dtype=np.float32),
        obs=pd.DataFrame(index=barcodes),
        var=var[[keys.GENE_IDS, "feature_types"]].rename_axis(None),
    )
    control = np.flatnonzero(~genes & is_control(features["symbol"]))
    if len(control):
        adata.obs[CONTROL_COUNTS] = np.asarray(matrix[:, control].sum(axis=1)).ravel()
    return adata, len(control)


def _from_h5(path: Path) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    with open_hdf5(path, _MEND) as file:
        group = file.child("matrix").as_group()
        data = group.child("data").as_dataset("biuf", "counts").values()
        indices, indptr, size = (
            group.child(key).as_dataset("iu", "integers").values()
            for key in ("indices", "indptr", "shape")
        )
        if size.shape != (2,):
            raise group.child("shape").wrong("two sizes", f"shape {list(size.shape)}")
        shape = (int(size[0]), int(size[1]))  # features × barcodes
        if not all(0 <= n < 2**31 for n in shape):
            raise group.child("shape").wrong("two sizes below 2^31", str(list(shape)))
        barcodes = pd.Index(group.child("barcodes").texts(), dtype=object)
        table = group.child("features").as_group()
        columns = {"symbol": "name", keys.GENE_IDS: "id", "feature_types": "feature_type"}
        texts = {name: table.child(key).texts() for name, key in columns.items()}
    lengths = {name: len(values) for name, values in texts.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Expected features of one length in {path.name}, got {lengths}. {_MEND}")
    features = pd.DataFrame(texts)
    by_barcode = compressed(csc_matrix, data, indices, indptr, shape, f"{path.name}: matrix")
    return canonical(by_barcode.T.tocsr()), barcodes, features


def _from_folder(path: Path) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    files = {}
    for name in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
        names = (name, "genes.tsv") if name == "features.tsv" else (name,)  # Cell Ranger 2
        places = (member(path, f"{n}{zipped}") for n in names for zipped in ("", ".gz"))
        found = next((p for p in places if p.exists()), None)
        if found is None:
            raise ValueError(f"Expected {name} or {name}.gz in {path}, found neither")
        check_file(found, "a file of the matrix")
        files[name] = found
    matrix = csr_matrix(read_matrix_market(files["matrix.mtx"]).T)
    barcodes, features = _read_tsv(files["barcodes.tsv"]), _read_tsv(files["features.tsv"])
    if features.shape[1] < 2:
        raise ValueError(
            f"Expected ids and symbols in {files['features.tsv'].name}, got one column"
        )
    types = features[2] if features.shape[1] > 2 else _GENES
    return (
        matrix,
        pd.Index(barcodes[0].to_numpy(), dtype=object),
        pd.DataFrame({"symbol": features[1], keys.GENE_IDS: features[0], "feature_types": types}),
    )


def _read_tsv(path: Path) -> pd.DataFrame:
    """A table without header; "NA" and "nan" are names in it as others are."""
    try:
        check_text(path)
        return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False)
    except DAMAGED as err:
        raise unreadable(path, err) from err
