"""``spatiagraph colocalize``: the tables it writes, and by group."""

import anndata
import numpy as np
import pandas as pd
from typer.testing import CliRunner

from spatiagraph.cli import app


def test_pairs_of_some_cells_are_found_and_ranked_by_group(tmp_path):
    """A and B lie together in the first 30 cells of 60, C and D in the others."""
    rng = np.random.default_rng(0)
    parts = []
    for i in range(60):
        pos, gene = rng.uniform(0, 12, (40, 2)), np.repeat(list("ABCDEFGHIJ"), 4)
        first = 0 if i < 30 else 8
        pos[first : first + 8] = rng.uniform(0, 1, (8, 2))
        frame = pd.DataFrame(pos + 100 * np.array(divmod(i, 8)), columns=["x", "y"])
        parts.append(frame.assign(gene=gene, cell_id=f"c{i}"))
    molecules, cells, out = tmp_path / "molecules.csv", tmp_path / "cells.h5ad", tmp_path / "out"
    pd.concat(parts).to_csv(molecules, index=False)
    obs = pd.DataFrame({"kind": np.repeat(["near", "even"], 30)}, [f"c{i}" for i in range(60)])
    anndata.AnnData(np.ones((60, 1), np.float32), obs).write_h5ad(cells)
    args = ["colocalize", molecules, "--out", out, "--cells", cells, "--groups", "kind",
            "--radius-um", "1.5", "--draws", "5"]  # fmt: skip
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out / "pairs.csv")
    best = table.set_index("gene_a").loc["A"].iloc[0]
    assert set(table["gene_a"][:2] + table["gene_b"][:2]) == {"AB", "CD"}
    assert (best["gene_b"], best["support"]) == ("B", 60)
    assert 28 <= best["cells"] <= 34
    assert max(best["q_shuffle"], best["q_jitter"]) < 1e-6
    groups = pd.read_csv(out / "by_group.csv")
    first = groups[groups["group"] == "near"].iloc[0]
    assert first["pair"] == "A|B"
    assert first["share"] > 0.9
    pairs = anndata.read_h5ad(out / "pairs.h5ad")
    assert pairs[:, "A|B"].X.sum() == best["cells"]
    assert set(pairs.obs["kind"]) <= {"near", "even"}
    assert "pairs beat both nulls" in done.output
