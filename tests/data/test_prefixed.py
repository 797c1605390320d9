"""Folders as public archives have them: names behind a prefix, no folders inside, all gzipped."""

import gzip
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from fuzzing.vendors import VENDORS

import spatiagraph as sg
from spatiagraph._json import read_json
from spatiagraph.data.molecules.table import MoleculeTable
from spatiagraph.data.places import check_place, listed, member

PREFIXES = ["GSM1234567_", "GSM1234567_tumour-2.", "A "]


def flattened(folder, prefix, zipped=()):
    """Files of all folders inside in one, each behind a prefix."""
    for path in [p for p in sorted(folder.rglob("*")) if p.is_file()]:
        target = folder / f"{prefix}{path.name}"
        path.rename(target)
        if path.suffix in zipped:
            with gzip.open(f"{target}.gz", "wb") as out:
                out.write(target.read_bytes())
            target.unlink()
    for inside in [p for p in folder.iterdir() if p.is_dir()]:
        shutil.rmtree(inside)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("vendor", ["xenium", "merscope", "cosmx"])
def test_names_behind_a_prefix_are_those_of_the_maker(tmp_path, vendor, prefix):
    VENDORS[vendor](tmp_path / "s")
    whole = sg.read(tmp_path / "s", image=False)
    folder = tmp_path / "s"
    for path in [p for p in folder.iterdir() if p.is_file()]:
        path.rename(folder / f"{prefix}{path.name}")
    check_place(folder)
    slide = sg.read(folder, image=False)
    np.testing.assert_array_equal(slide.pos, whole.pos)
    np.testing.assert_array_equal(slide.counts.toarray(), whole.counts.toarray())
    assert len(slide.transcripts) == len(whole.transcripts)
    assert MoleculeTable(folder).path.name.startswith(prefix)


def test_a_xenium_slide_keeps_its_image_and_its_scale_behind_a_prefix(tmp_path):
    VENDORS["xenium"](tmp_path / "s")
    flattened(tmp_path / "s", "GSM1_")
    assert sg.read(tmp_path / "s").image.mpp == 0.2125


@pytest.mark.parametrize("missing", ["experiment.xenium", "transcripts.parquet", "morphology_mip*"])
def test_a_xenium_slide_of_which_only_counts_and_cells_were_published(tmp_path, missing):
    VENDORS["xenium"](tmp_path / "s")
    whole = sg.read(tmp_path / "s", image=False)
    for name in ("experiment.xenium", "transcripts.parquet", "morphology_mip*"):
        for path in listed(tmp_path / "s", name):
            path.unlink()
    flattened(tmp_path / "s", "GSM1_")
    check_place(tmp_path / "s")
    np.testing.assert_array_equal(sg.read(tmp_path / "s").pos, whole.pos)


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_a_xenium_slide_of_which_only_transcripts_were_published(tmp_path, prefix, suffix):
    VENDORS["xenium"](tmp_path / "s")
    table = pd.read_parquet(tmp_path / "s" / "transcripts.parquet")
    (tmp_path / "t").mkdir()
    path = tmp_path / "t" / f"{prefix}transcripts{suffix}"
    table.to_parquet(path) if suffix == ".parquet" else table.to_csv(path, index=False)
    check_place(tmp_path / "t")
    slide, whole = sg.read(tmp_path / "t"), sg.read(tmp_path / "s", image=False)
    assert slide.counts.sum() == whole.counts.sum()


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("zipped", [(), (".json", ".csv", ".tsv")])
def test_files_of_space_ranger_without_folders(tmp_path, prefix, zipped):
    VENDORS["spaceranger"](tmp_path / "s")
    whole = sg.read(tmp_path / "s")
    flattened(tmp_path / "s", prefix, zipped)
    check_place(tmp_path / "s")
    slide = sg.read(tmp_path / "s")
    np.testing.assert_array_equal(slide.pos, whole.pos)
    np.testing.assert_array_equal(slide.counts.toarray(), whole.counts.toarray())
    assert slide.image.mpp == whole.image.mpp


def test_an_image_that_is_packed_is_said(tmp_path):
    VENDORS["spaceranger"](tmp_path / "s")
    flattened(tmp_path / "s", "GSM1_", (".png",))
    with pytest.warns(UserWarning, match=r"GSM1_tissue_hires_image.png.gz is packed .* gunzip"):
        assert sg.read(tmp_path / "s").image is None
    assert sg.read(tmp_path / "s", image=False).image is None


def test_genes_of_cell_ranger_2(tmp_path):
    VENDORS["spaceranger"](tmp_path / "s")
    whole = sg.read(tmp_path / "s")
    inside = tmp_path / "s" / "filtered_feature_bc_matrix"
    rows = (inside / "features.tsv").read_text().splitlines()
    (inside / "features.tsv").unlink()
    (inside / "genes.tsv").write_text("\n".join(r.rpartition("\t")[0] for r in rows) + "\n")
    assert sg.read(tmp_path / "s").symbols == whole.symbols


@pytest.mark.parametrize("vendor", ["xenium", "spaceranger"])
def test_files_of_several_samples_are_named(tmp_path, vendor):
    for name in ("GSM1_a", "GSM2_b"):
        VENDORS[vendor](tmp_path / name)
        flattened(tmp_path / name, f"{name}_")
        for path in (tmp_path / name).iterdir():
            (tmp_path / "s").mkdir(exist_ok=True)
            path.rename(tmp_path / "s" / path.name)
    said = re.escape(
        "got the folder s with files of 2: GSM1_a, GSM2_b. Move those of each into a folder of its "
        "own, as by mkdir GSM1_a && mv GSM1_a[!a-zA-Z0-9]* GSM1_a, and pass one of them"
    )
    for door in (check_place, sg.read):
        with pytest.raises(ValueError, match=said):
            door(tmp_path / "s")


def test_a_name_of_its_own_comes_before_one_behind_a_prefix(tmp_path):
    for name in ("transcripts.parquet", "old_transcripts.parquet", "old_cells.parquet"):
        (tmp_path / name).touch()
    assert listed(tmp_path, "transcripts.parquet") == [tmp_path / "transcripts.parquet"]
    assert listed(tmp_path, "cells.parquet") == []
    assert member(tmp_path, "cells.parquet") == tmp_path / "cells.parquet"


@pytest.mark.parametrize(
    ("files", "mend"),
    [
        (["GSM1_matrix.mtx.gz", "GSM1_barcodes.tsv.gz"], "counts and no places of cells: add spat"),
        (["a_filtered_feature_bc_matrix.h5"], "counts and no places of cells: add spatial/"),
        (["GSE1_RAW.tar"], "Unpack GSE1_RAW.tar in it first"),
    ],
)
def test_what_is_missing_is_said(tmp_path, files, mend):
    for name in files:
        (tmp_path / name).touch()
    for door in (check_place, sg.read):
        with pytest.raises(ValueError, match=mend):
            door(tmp_path)


def test_gzipped_json_is_bounded_and_damage_is_said(tmp_path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}'))
    assert read_json(path) == {"a": 1}
    path.write_bytes(gzip.compress(b" " * 1000))
    with pytest.raises(ValueError, match="100"):
        read_json(path, max_bytes=100)
    path.write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(ValueError, match="damaged archive"):
        read_json(path)
