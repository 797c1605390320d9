import subprocess
import sys

import anndata
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spatiagraph.data import make_tissue
from spatiagraph.data.h5ad_file import write_h5ad

FULL = """
import resource, sys
from spatiagraph.data import make_tissue
from spatiagraph.data.h5ad_file import write_h5ad
adata = make_tissue(200, num_genes=40, image=None, seed=1).adata
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_h5ad(adata, sys.argv[1])
except OSError as error:
    sys.exit(7)
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


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize("limit", [0, 700, 5_000, 30_000])
def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path, limit):
    path = write_h5ad(make_tissue(200, num_genes=40, image=None, seed=0).adata, tmp_path / "a.h5ad")
    before = path.read_bytes()
    command = [sys.executable, "-W", "ignore", "-c", FULL, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr  # not a crash: HDF5 would end in one
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]


def test_a_value_that_cannot_be_stored_leaves_no_file(tmp_path):
    adata = make_tissue(200, num_genes=40, image=None, seed=0).adata
    adata.uns["function"] = np.sum
    with pytest.raises(ValueError, match=r"uns\[.function.\].*no file can hold"):
        write_h5ad(adata, tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())
