"""Images that were generated, on their way to a file and back."""

import numpy as np
import pandas as pd
import pytest

from spatiagraph.inference import GeneratedImages


def images(cells=("cell3", "cell0")) -> GeneratedImages:
    rng = np.random.default_rng(0)
    num = len(cells)
    made, control = (rng.random((num, *s, 1, 8, 8)).astype(np.float32) for s in ((2,), ()))
    table = {"slide": "s", "cell": list(cells), "row": np.arange(num), "transition": "larger"}
    return GeneratedImages(made, control, pd.DataFrame(table), 0.5)


def test_what_was_saved_is_read_again(tmp_path):
    made = images()
    again = GeneratedImages.load(made.save(tmp_path / "cells.zarr"))
    np.testing.assert_array_equal(again.images, made.images)
    np.testing.assert_array_equal(again.control, made.control)
    assert again.cells.astype(str).equals(made.cells.astype(str))
    assert again.mpp == made.mpp


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = images().save(tmp_path / "cells.zarr")

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("anndata.AnnData.write_zarr", full)
    with pytest.raises(OSError, match="disk full"):
        images().save(path)
    assert len(GeneratedImages.load(path).cells) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["cells.zarr"]


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="ends in .zarr"):
        images().save(tmp_path / "cells.png")


def test_cells_are_observations_by_name_and_may_come_again(tmp_path):
    assert images().to_anndata().obs_names.tolist() == ["cell3", "cell0"]
    twice = images(["cell3", "cell3"])
    assert twice.to_anndata().obs_names.is_unique
    again = GeneratedImages.load(twice.save(tmp_path / "cells.zarr"))
    assert again.cells["cell"].tolist() == ["cell3", "cell3"]
