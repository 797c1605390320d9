"""Small folders as instruments write them."""

import gzip
import json

import h5py
import numpy as np
import pandas as pd
import tifffile
from PIL import Image
from scipy.io import mmwrite
from scipy.sparse import csr_matrix

GENES = ["AXL", "CD3E", "VIM", "KRT8", "PTPRC", "EPCAM"]
CONTROL = "NegControlProbe_1"
CELLS = 30


def _counts():
    return np.random.default_rng(0).poisson(3.0, (CELLS, len(GENES))) + 1


def _centres():
    y, x = np.mgrid[:5, :6]
    jitter = np.random.default_rng(1).uniform(-3, 3, (CELLS, 2))
    return np.stack([x.ravel(), y.ravel()], 1) * 12.0 + 20 + jitter


def _molecules():
    """One row per count, at the centre of its cell."""
    row, gene = (a.ravel() for a in np.mgrid[:CELLS, : len(GENES)])
    many = _counts().ravel()
    row, gene = np.repeat(row, many), np.repeat(gene, many)
    return row, np.array(GENES)[gene], _centres()[row]


def _write_tenx(path, names):
    matrix = csr_matrix(np.c_[_counts(), np.full(CELLS, 2)])
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(matrix, key)
        group["shape"] = matrix.shape[::-1]
        group.create_dataset("barcodes", data=list(names), dtype=text)
        features = group.create_group("features")
        features.create_dataset("name", data=[*GENES, CONTROL], dtype=text)
        ids = [f"ENSG0000000000{i}" for i in range(len(GENES))]
        features.create_dataset("id", data=[*ids, CONTROL], dtype=text)
        kinds = ["Gene Expression"] * len(GENES) + ["Negative Control Probe"]
        features.create_dataset("feature_type", data=kinds, dtype=text)


def xenium(folder):
    folder.mkdir()
    names = [f"c{i}" for i in range(CELLS)]
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125}))
    row, gene, pos = _molecules()
    table = pd.DataFrame({"cell_id": np.array(names)[row], "feature_name": gene})
    table[["x_location", "y_location"]] = pos
    table["qv"] = 40.0
    table.to_parquet(folder / "transcripts.parquet")
    _write_tenx(folder / "cell_feature_matrix.h5", names)
    at = pd.DataFrame(_centres(), columns=["x_centroid", "y_centroid"])
    at.insert(0, "cell_id", names)
    at.to_parquet(folder / "cells.parquet")
    tifffile.imwrite(folder / "morphology_mip.ome.tif", np.full((500, 500), 9, np.uint16))


def merscope(folder):
    (folder / "images").mkdir(parents=True)
    cells = 614155123100000001 + np.arange(CELLS)  # beyond what a float can hold
    table = pd.DataFrame(_counts(), columns=GENES)
    table.insert(0, "cell", cells)
    table.to_csv(folder / "cell_by_gene.csv", index=False)
    table = pd.DataFrame(_centres(), cells, columns=["center_x", "center_y"])
    table.rename_axis("EntityID").to_csv(folder / "cell_metadata.csv")
    row, gene, pos = _molecules()
    table = pd.DataFrame({"global_x": pos[:, 0], "global_y": pos[:, 1], "global_z": 0.0})
    table["gene"], table["cell_id"] = gene, cells[row]
    table.to_csv(folder / "detected_transcripts.csv")
    matrix = folder / "images" / "micron_to_mosaic_pixel_transform.csv"
    np.savetxt(matrix, [[5.0, 0, 0], [0, 5.0, 0], [0, 0, 1]])
    tifffile.imwrite(folder / "images" / "mosaic_DAPI_z0.tif", np.full((600, 600), 9, np.uint16))


def cosmx(folder):
    folder.mkdir()
    field, number = np.repeat([1, 2], CELLS // 2), np.tile(np.arange(CELLS // 2) + 1, 2)
    pos = _centres() / 0.12028 + np.where(field == 2, 4256, 0)[:, None] * [1, 0]
    fields = pd.DataFrame({"fov": [1, 2], "x_global_px": [0, 4256], "y_global_px": [0, 0]})
    fields.to_csv(folder / "S1_fov_positions_file.csv", index=False)
    table = pd.DataFrame({"fov": field, "cell_ID": number})
    pd.concat([table, pd.DataFrame(_counts(), columns=GENES)], axis=1).to_csv(
        folder / "S1_exprMat_file.csv", index=False
    )
    table[["CenterX_global_px", "CenterY_global_px"]] = pos
    table.to_csv(folder / "S1_metadata_file.csv", index=False)
    row, gene, _ = _molecules()
    table = pd.DataFrame({"fov": field[row], "cell_ID": number[row]})
    table[["x_global_px", "y_global_px"]] = pos[row]
    table["z"], table["target"] = 3, gene
    table.to_csv(folder / "S1_tx_file.csv.gz", index=False)


def spaceranger(folder):
    spatial, matrix = folder / "spatial", folder / "filtered_feature_bc_matrix"
    spatial.mkdir(parents=True)
    matrix.mkdir()
    row, column = (a.ravel() for a in np.mgrid[:5, :6])
    column = 2 * column + row % 2
    names = [f"B{i}-1" for i in range(CELLS)]
    spots = pd.DataFrame({"barcode": names, "in_tissue": 1})
    spots["array_row"], spots["array_col"] = row, column
    spots["pxl_row_in_fullres"] = np.rint(row * 50 * np.sqrt(3) * 1.4 + 100).astype(int)
    spots["pxl_col_in_fullres"] = np.rint(column * 50 * 1.4 + 100).astype(int)
    spots.to_csv(spatial / "tissue_positions.csv", index=False)
    factors = {"tissue_lowres_scalef": 0.1, "tissue_hires_scalef": 0.2}
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.new("RGB", (300, 300), (9, 90, 9)).save(spatial / "tissue_hires_image.png")
    with gzip.open(matrix / "matrix.mtx.gz", "wb") as stream:
        mmwrite(stream, csr_matrix(_counts().T))
    pd.Series(names).to_csv(matrix / "barcodes.tsv", index=False, header=False)
    features = pd.DataFrame({"id": [f"ENSG{i:011}" for i in range(len(GENES))], "name": GENES})
    features["type"] = "Gene Expression"
    features.to_csv(matrix / "features.tsv", index=False, header=False, sep="\t")


VENDORS = {f.__name__: f for f in (xenium, merscope, cosmx, spaceranger)}
