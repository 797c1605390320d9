import os
import subprocess
import sys

import anndata
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spatiagraph.data import make_tissue
from spatiagraph.data.h5ad_file import write_h5ad

LIMITS = (0, 700, 5_000, 30_000)
# a process for each limit, forked where all is imported
FULL = """
import os, resource, sys
from spatiagraph.data import make_tissue
from spatiagraph.data.h5ad_file import write_h5ad
adata = make_tissue(200, num_genes=40, image=None, seed=1).adata
for path, limit in zip(sys.argv[1::2], sys.argv[2::2]):
    process = os.fork()
    if process == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        try:
            write_h5ad(adata, path)
        except OSError as error:
            sys.exit(7)
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def test_what_is_written_is_read_again(tmp_path):
    adata = make_tissue(200, num_genes=40, image=None, seed=0).adata
    adata.layers["counts"] = adata.X.copy()
    adata.obs["note"] = ["a", "b"] * 100
    adata.raw = adata
    path = write_h5ad(adata, tmp_path / "new" / "a.h5ad")
    again = anndata.read_h5ad(path)
    assert_array_equal(again.X.toarray(), adata.X.toarray())
    assert_array_equal(again.obsm["spatial"], adata.obsm["spatial"])
    assert again.obs["note"].tolist() == ["a", "b"] * 100
    assert again.obs["niche"].equals(adata.obs["niche"])
    assert again.raw.shape == adata.shape
    assert again.uns["spatiagraph"]["synthetic"]["seed"] == 0


def test_the_file_is_the_one_anndata_writes(tmp_path):
    adata = make_tissue(200, num_genes=40, image=None, seed=0).adata
    adata.write_h5ad(tmp_path / "theirs.h5ad")
    ours = anndata.read_h5ad(write_h5ad(adata, tmp_path / "ours.h5ad"))
    theirs = anndata.read_h5ad(tmp_path / "theirs.h5ad")
    assert str(ours) == str(theirs)
    assert ours.obs.equals(theirs.obs)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Of each limit: how the process ended that wrote over a file, and the folder; the old file."""
    adata = make_tissue(200, num_genes=40, image=None, seed=0).adata
    folders = {limit: tmp_path_factory.mktemp("full") for limit in LIMITS}
    paths = {limit: write_h5ad(adata, folder / "a.h5ad") for limit, folder in folders.items()}
    before = paths[0].read_bytes()
    for path in paths.values():
        path.write_bytes(before)
    words = [word for limit, path in paths.items() for word in (str(path), str(limit))]
    command = [sys.executable, "-W", "ignore", "-c", FULL, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    codes = dict(zip(LIMITS, map(int, done.stdout.split()), strict=True))
    return codes, folders, before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a limit on file sizes")
@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_disk_is_an_error_and_leaves_the_old_file(full, limit):
    codes, folders, before = full
    assert codes[limit] == 7  # not a crash: HDF5 would end in one
    assert [p.name for p in folders[limit].iterdir()] == ["a.h5ad"]
    assert (folders[limit] / "a.h5ad").read_bytes() == before


def test_a_value_that_cannot_be_stored_leaves_no_file(tmp_path):
    adata = make_tissue(200, num_genes=40, image=None, seed=0).adata
    adata.uns["function"] = np.sum
    with pytest.raises(ValueError, match=r"uns\[.function.\].*no file can hold"):
        write_h5ad(adata, tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())
