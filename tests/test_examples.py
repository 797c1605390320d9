"""Every example runs at toy size and ends with its metric beside a baseline.

This is the only place where examples are run, so that one place says at which size and what a
toy run must still show. Each runs as a script would, but in this process: what they import takes
longer than what they do.
"""

import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
TOY = {
    "colocalized_genes.py": "--num-cells 60 --draws 5 --out {tmp}",
    "compose_model.py": "--cells 300 --epochs 2 --fusion gate --out {tmp} --picture {tmp}.png",
    "custom_spatial_gnn.py": "--cells 1000 --epochs 50 --picture {tmp}.png",
    "embed_with_dask.py": "--cells 200 --epochs 1 --workers 1 --shards 2 --out {tmp}",
    "finetune_annotation.py": "--cells 400 --pretrain-epochs 1 --epochs 1 --picture {tmp}.png",
    "generate_transition.py": "--cells 500 --epochs 1 --picture {tmp}.png",
    "impute_genes.py": "--cells 600 --epochs 2 --splits 2 --picture {tmp}.png",
    "perturb_gene_pairs.py": "--couples 60 --steps 3 --pairs 4 --screen 4",
    "search_niches.py": "--slides 2 --cells 400 --epochs 2 --out {tmp} --picture {tmp}.png",
    "train_context.py": "--cells 600 --epochs 2 --picture {tmp}.png",
    "train_spatia.py": "--cells 300 --epochs 1 --context-epochs 1 --out {tmp}",
    "train_st_align.py": "--cells 400 --steps 6 --out {tmp}",
    "train_spatialformer.py": "--cells 80 --steps 3 --out {tmp}",
    "train_stofm.py": "--num-cells 400 --sub-slice 200 --steps 6 --out {tmp}",
    "transplant_niche.py": "--cells 100 --epochs 3 --picture {tmp}.png",
}
# name of the metric, the metric, and the baselines in brackets
LAST_LINE = re.compile(r"^(?P<name>[\w ]+) (?P<value>-?\d+\.\d+) \((?P<baselines>.+)\)$")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run an example: the metric and the baselines that it prints last."""

    def ran(name: str, arguments: str) -> tuple[float, dict[str, float]]:
        monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        printed = capsys.readouterr().out
        match = LAST_LINE.match(printed.strip().splitlines()[-1])
        assert match, printed
        parts = [text.rsplit(" ", 1) for text in match["baselines"].split(", ")]
        return float(match["value"]), {label: float(value) for label, value in parts}

    return ran


def check_what_was_written(name: str, folder: Path) -> None:
    if "--out {tmp}" in TOY[name]:
        assert any((folder / "out").iterdir())
    if "--picture {tmp}.png" in TOY[name]:
        assert (folder / "out.png").stat().st_size > 1000


@pytest.mark.filterwarnings("default")  # of a tissue too small for it: said, as to a user
@pytest.mark.parametrize("name", [name for name in TOY if name != "custom_spatial_gnn.py"])
def test_example_runs_and_prints_its_metric_beside_baselines(run, name, tmp_path):
    value, baselines = run(name, TOY[name].format(tmp=tmp_path / "out"))
    assert baselines
    if name == "compose_model.py":  # a loss
        assert value < baselines["mean profile"]
    else:
        assert value > min(baselines.values())
    check_what_was_written(name, tmp_path)


@pytest.mark.filterwarnings("default")
def test_own_layer_on_the_kernel_learns_what_only_neighbours_know(run, tmp_path):
    name = "custom_spatial_gnn.py"
    accuracy, baselines = run(name, TOY[name].format(tmp=tmp_path / "out"))
    assert accuracy > max(baselines.values()) + 0.2
    check_what_was_written(name, tmp_path)


def test_every_example_is_run():
    assert {path.name for path in FOLDER.glob("*.py")} == set(TOY)


@pytest.mark.parametrize("name", TOY)
def test_example_is_short_and_imports_only_what_users_have(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) < (100 if name == "custom_spatial_gnn.py" else 150)
    assert text.count(".add_argument(") <= 10
    assert f"python examples/{name}" in text
    assert not re.search(r"^\s*(from|import) (examples|tests|spatiagraph[\w.]*\._)", text, re.M)
