"""``spatiagraph perturb``: tables, a picture, and that it goes on where it stopped."""

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def asked(run, tmp_path_factory):
    """Folder with a slide, a run of SpatialFormer, and the line that asks about it."""
    folder = tmp_path_factory.mktemp("perturb")
    slide = run.tissue(folder / "slide.h5ad")
    fit = ["fit", slide, "--model", "spatialformer", "--steps", 2, "--channels", 16]
    done = run(*fit, "--accelerator", "cpu", "--out", folder / "run")
    assert done.exit_code == 0, done.output
    types = ["--types", "cell_type", "--first", "type0", "--second", "type1"]
    few = ["--num-pairs", 4, "--min-support", 2, "--screen", 4, "--device", "cpu"]
    return folder, ["perturb", folder / "run", slide, *types, *few]


def test_answers_are_written_and_an_interrupted_command_goes_on(run, asked, tmp_path):
    folder, line = asked
    genes = [f"Gene{i}" for i in range(40)]
    known = tmp_path / "known.csv"
    pd.DataFrame({"ligand": genes[:20], "receptor": genes[20:]}).to_csv(known, index=False)
    out = tmp_path / "out"
    done = run(*line, "--out", out, "--known", known)
    assert done.exit_code == 0, done.output
    assert "4 pairs of type0 and type1" in done.stdout
    table = pd.read_csv(out / "pairs.csv")
    assert {"gene_a", "gene_b", "n", "mean", "q", "q_others", "interaction"} <= set(table)
    cells = pd.read_csv(out / "cells.csv")
    assert len(cells) == 4
    assert (out / "volcano.png").stat().st_size > 5000
    assert (out / "known.csv").is_file()
    texts = {p.name: p.read_bytes() for p in out.glob("*.csv")}
    (out / "pairs.csv").unlink()
    (out / "others" / "000003.parquet").unlink()
    (out / "others" / "000001.parquet").write_bytes(b"PAR1")
    again = run(*line, "--out", out, "--known", known)
    assert again.exit_code == 0, again.output
    assert "000001.parquet is damaged" in again.output + again.stderr
    assert {p.name: p.read_bytes() for p in out.glob("*.csv")} == texts


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--first", "typ0"], ["'typ0'", "type0"]),
        (["--min-support", 50], ["--min-support 50", "got 4"]),
        (["--radius-um", "0.5"], ["type0", "widen"]),
    ],
)
def test_questions_that_have_no_answer_are_refused(run, asked, tmp_path, more, words):
    folder, line = asked
    run.refused(run(*line, "--out", tmp_path / "out", *more), *words)


def test_tables_of_known_pairs_without_their_columns_are_refused(run, asked, tmp_path):
    folder, line = asked
    known = tmp_path / "known.csv"
    known.write_text("a,b\nL,R\n")
    run.refused(run(*line, "--out", tmp_path / "out", "--known", known), "ligand", "known.csv")
    assert not (tmp_path / "out").exists()
