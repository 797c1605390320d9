"""``spatiagraph prepare`` on the folders of every vendor: what it says, and what it writes."""

import warnings

import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph import read
from spatiagraph.data import make_tissue, write

FOLDERS = {  # folder → arguments of read, and what prepare says of it
    "visium_spaceranger_1.0.0": (
        {},
        ["spaceranger", "0.7252 µm per unit of the raw file", "pitch of the spots"],
    ),
    "visium_spe_mousebrain/section1": ({}, ["576 × 600 px, 3 channels"]),
    "xenium_V1_FF_Mouse_Brain/sample1": ({}, ["xenium", "µm already", "5 left out"]),
    "xenium_lung_10k_transcripts": ({}, ["10,000, 98% of them in cells"]),
    "merscope_HumanOvarianCancer_tiny": ({}, ["merscope", "33 left out, 0.37% of the counts"]),
    "merscope_vpt_liver": (
        {"drop_empty": True},
        ["512 × 512 px", "0.108 µm/px", "planes on top of each other", "fewer than 10 counts"],
    ),
    "cosmx_Lung9_Rep1_tiny/sample_1": ({"mpp": 0.18}, ["cosmx", "0.18 µm per unit", "from mpp"]),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_vendor_s_folder_is_described_and_opens_again_with_the_same_content(
    run, real_data, tmp_path, name
):
    pytest.importorskip("spatialdata")
    arguments, words = FOLDERS[name]
    folder, out = real_data / "vendor_folders" / name, tmp_path / "clean.zarr"
    options = {"drop_empty": ["--drop-empty"], "mpp": ["--mpp", arguments.get("mpp")]}
    done = run("prepare", folder, "--out", out, *(o for a in arguments for o in options[a]))
    assert done.exit_code == 0, done.output
    for text in words:
        assert text in done.stdout
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dropped|.* channels of the image")
        first = read(folder, **arguments)
    again = read(out)
    assert again.slide_id == first.slide_id
    assert again.symbols == first.symbols
    assert again.adata.obs_names.equals(first.adata.obs_names)
    assert set(first.adata.obs) <= set(again.adata.obs)
    assert_array_equal(again.counts.toarray(), first.counts.toarray())
    assert_allclose(again.pos, first.pos)
    assert (again.image is None) == (first.image is None)
    if first.image is not None:
        assert again.image.mpp == pytest.approx(first.image.mpp)
        assert again.image.origin_um == pytest.approx(first.image.origin_um)
        whole = [slice(0, n) for n in first.image.shape[:2]]
        assert_array_equal(again.image.pixels(*whole), first.image.pixels(*whole))
    assert (again.transcripts is None) == (first.transcripts is None)
    if first.transcripts is not None:
        for column in first.transcripts:
            ours, theirs = again.transcripts[column], first.transcripts[column]
            assert_array_equal(ours.isna(), theirs.isna(), column)
            assert ours.dropna().tolist() == theirs.dropna().tolist(), column


def test_what_is_odd_is_said_once(run, tmp_path):
    adata = make_tissue(300, num_genes=40).adata
    adata.var_names = [*adata.var_names[:-2], "Blank-1", "NegPrb2"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    done = run("prepare", tmp_path / "a.h5ad")
    assert done.exit_code == 0, done.output
    assert "warning     2 genes are called like controls (Blank-1, NegPrb2" in done.stdout
    assert run("prepare", run.tissue(tmp_path / "b.h5ad")).stdout.count("warning") == 0


def test_molecules_are_read_where_they_are_of_use(run, tmp_path):
    pytest.importorskip("spatialdata")
    slide = make_tissue(300, num_genes=40, transcripts=True, seed=0)
    store = write(slide, tmp_path / "slide.zarr")
    assert "molecules   " in run("prepare", store).stdout
    done = run("fit", store, "--out", tmp_path / "run", *run.small)
    assert done.exit_code == 0, done.output
    assert "300 cells" in done.stdout
    assert " molecules" not in done.stdout
