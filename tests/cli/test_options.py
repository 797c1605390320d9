"""Options that say what to take of a slide, as they are typed."""

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from spatiagraph.cli import app


@pytest.fixture
def both(tmp_path):
    """Two sections over each other, their counts in a layer and their places in obs."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"sample": np.repeat(["old", "young"], 150)}, [f"c{i}" for i in range(300)])
    obs["cx"], obs["cy"] = rng.uniform(0, 150, (2, 300))
    obs["cell_type"] = np.array(["B", "T"])[np.arange(300) % 2]
    counts = rng.poisson(3, (300, 9)).astype(np.float32) + 1
    adata = anndata.AnnData(np.log1p(counts), obs=obs, layers={"raw_counts": counts})
    adata.write_h5ad(tmp_path / "both.h5ad")
    return tmp_path / "both.h5ad"


def prepare(path, *options):
    done = CliRunner().invoke(
        app, ["prepare", str(path), "--x-key", "cx", "--y-key", "cy", *options]
    )
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, " ".join(done.output.split())


def test_a_section_is_chosen_and_named(both):
    chosen = ["--counts-layer", "raw_counts", "--sample-key", "sample"]
    code, said = prepare(both, *chosen, "--sample", "young", "--slide-id", "mouse")
    assert code == 0
    assert "mouse-young" in said
    assert "150 cells" in said
    assert prepare(both, *chosen)[1].endswith("pass one as --sample (old, young)")
    assert "Expected a section called 'x'" in prepare(both, *chosen, "--sample", "x")[1]
    assert "Expected --sample-key with --sample" in prepare(both, "--sample", "old")[1]


def test_what_is_missing_is_named_by_its_option(both):
    assert "--counts-layer raw_counts" in prepare(both)[1]
    assert "--sample-key sample" in prepare(both, "--counts-layer", "raw_counts")[1]


def test_types_alone_are_a_slide(both):
    code, said = prepare(
        both, "--kind", "types", "--type-key", "cell_type", "--sample-key", "sample",
        "--sample", "old",
    )  # fmt: skip
    assert code == 0
    assert "genes 2, 0 of them never seen" in said
