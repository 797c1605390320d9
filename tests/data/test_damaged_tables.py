"""Damage done to each table of a vendor's folder: named in one line, or the slide is the same."""

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest
from fuzzing.vendors import VENDORS

from spatiagraph.data.read import read

TABLES = {
    "xenium": ["transcripts.parquet", "cells.parquet"],
    "merscope": [
        "cell_by_gene.csv", "cell_metadata.csv", "detected_transcripts.csv",
        "images/micron_to_mosaic_pixel_transform.csv",
    ],
    "cosmx": [
        "S1_fov_positions_file.csv", "S1_exprMat_file.csv", "S1_metadata_file.csv",
        "S1_tx_file.csv.gz",
    ],
    "spaceranger": [
        "spatial/tissue_positions.csv", "filtered_feature_bc_matrix/barcodes.tsv",
        "filtered_feature_bc_matrix/features.tsv", "filtered_feature_bc_matrix/matrix.mtx.gz",
    ],
}  # fmt: skip
EVERY = [(vendor, name) for vendor, names in TABLES.items() for name in names]
UNCOUNTED = ("detected_transcripts.csv", "S1_tx_file.csv.gz", "S1_fov_positions_file.csv")
"""Tables whose rows nothing else counts: text that ends early is a smaller table."""


def empty(content):
    return b""


def other_kind(content):
    return b"PK\x03\x04" + content[4:]


def noise(content):
    return np.random.default_rng(0).bytes(len(content))


def utf16(content):
    return content.decode().encode("utf-16")


def latin(content):
    """A sign that is no UTF-8 in the first field of the header."""
    return b"\xb5" + content


def nul(content):
    middle = len(content) // 2
    return content[:middle] + bytes(20) + content[middle + 20 :]


def ragged(content):
    lines = content.split(b"\n")
    lines[2] += b",7,7" if b"," in lines[2] else b"\t7\t7"
    return b"\n".join(lines)


def cut(content):
    return content[: len(content) * 7 // 10]


def words(content):
    """Text where a number of the third row was."""
    lines = content.split(b"\n")
    mark = next(m for m in (b",", b"\t", b" ") if m in lines[2])
    lines[2] = mark.join(b"many" for _ in lines[2].split(mark))
    return b"\n".join(lines)


def content_of(folder):
    """What is read, and what is said meanwhile."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        slide = read(folder)
    found = [slide.counts.toarray(), slide.pos, list(slide.adata.obs_names), slide.symbols]
    if slide.transcripts is not None:
        found += [slide.transcripts[c].astype(str).to_numpy() for c in ("x_um", "gene", "cell_id")]
    return found, " ".join(str(w.message) for w in heard)


def check(folder, whole, name, column="nothing"):
    known = [part for part in name.split("/") if part != "spatial"] + [repr(column)]
    try:
        found, said = content_of(folder)
    except ValueError as err:
        said = str(err)
        assert any(part in said for part in known), said
        assert "\n" not in said
        return
    if any(part in said for part in known):  # cells that were left out, with a warning
        return
    for have, want in zip(found, whole, strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize(("vendor", "name"), EVERY)
@pytest.mark.parametrize(
    "damage",
    [empty, other_kind, noise, utf16, latin, nul, ragged, cut, words],
    ids=lambda f: f.__name__,
)
def test_a_damaged_table_is_named_or_changes_nothing(tmp_path, vendor, name, damage):
    VENDORS[vendor](tmp_path / vendor)
    (whole, _), file = content_of(tmp_path / vendor), tmp_path / vendor / name
    content = file.read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    as_text = damage in (utf16, latin, ragged, words)
    if as_text and name.endswith(".parquet"):
        pytest.skip("no text")
    if damage in (words, ragged, latin) and name.endswith(("barcodes.tsv", "features.tsv")):
        pytest.skip("all of it is names")
    if damage in (cut, nul) and name.endswith(UNCOUNTED):
        pytest.skip("a smaller table, or another name, is a table")
    damaged = damage(content)
    file.write_bytes(gzip.compress(damaged) if name.endswith(".gz") else damaged)
    check(tmp_path / vendor, whole, name)


@pytest.mark.parametrize("damage", [empty, other_kind, noise, nul, cut], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("vendor", "name"), [t for t in EVERY if t[1].endswith(".gz")])
def test_packed_tables_that_are_damaged_are_named(tmp_path, vendor, name, damage):
    VENDORS[vendor](tmp_path / vendor)
    file = tmp_path / vendor / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=name.rpartition("/")[2]) as caught:
        content_of(tmp_path / vendor)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TABLES["xenium"])
@pytest.mark.parametrize("values", ["many", b"\xb5", None, [1.0], True])
def test_parquet_columns_of_other_types_are_named_or_change_nothing(tmp_path, name, values):
    VENDORS["xenium"](tmp_path / "x")
    (whole, _), file = content_of(tmp_path / "x"), tmp_path / "x" / name
    table = pd.read_parquet(file)
    for column in table.columns:
        if column in ("cell_id", "feature_name") and isinstance(values, str | bool | None):
            continue  # other names than before, as good as any
        changed = table.copy()
        changed[column] = pd.Series([values] * len(table), dtype=object)
        changed.to_parquet(file)
        if values is None and column != "qv":
            with pytest.raises(ValueError, match="finite .*coordinates"):
                content_of(tmp_path / "x")
            continue
        check(tmp_path / "x", whole, name, column)
