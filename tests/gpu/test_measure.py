"""The script of a GPU, at the size of a toy on a CPU that lacks what a bare machine lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"anndata", "faiss", "spatialdata", "zarr", "ot"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""
"""Imports that a machine without these packages would fail."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Environment of a Python without the packages that a GPU machine lacks."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BLOCK)
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


ALL = """
import importlib.util, json, pkgutil, runpy, sys
script, out = sys.argv[1:]
spec = importlib.util.spec_from_file_location("measure", script)
measure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measure)
found = {"machine": measure.machine("cpu"), "toy": True}
found |= {name: part(measure.Bench("cpu", True)) for name, part in measure.PARTS.items()}
with open(out, "w") as file:
    json.dump(found, file)
print("parts are over")
sys.argv = [script, "table", out]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert not end.code
print("the table is over")
for room in ("kernels", "graph", "flow", "nn", "heads", "losses", "models", "tasks"):
    package = importlib.import_module(f"spatiagraph.{room}")
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(found.name)
try:
    import anndata
except ModuleNotFoundError:
    print("bare")
"""
"""In one process, since each takes seconds to import torch: parts, their table, other imports."""


@pytest.fixture(scope="module")
def said(bare, tmp_path_factory):
    """What parts, table and imports said, each, and the figures of the parts."""
    out = tmp_path_factory.mktemp("toy") / "gpu.json"
    command = [sys.executable, "-W", "ignore", "-c", ALL, "tests/gpu/measure.py", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=bare, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    _, rest = done.stdout.split("parts are over\n")
    table, imports = rest.split("the table is over\n")
    return json.loads(out.read_text()), table, imports


def test_everything_that_computes_imports_on_a_bare_machine(said):
    assert said[2].strip() == "bare"


def test_all_parts_run_as_a_toy_and_become_a_table(said):
    found, table, _ = said
    for part in ("parity", "same_bits", "spatia", "unet", "stofm"):
        assert found[part]["passed"], found[part]
    assert len(found["parity"]["error_over_allowed"]) == 15  # five kernels in three precisions
    for row in found["attention"]["rows"]:
        for side in ("pyg", "sdpa"):  # the same function, or the times would say nothing
            assert row[side]["difference"] < (1e-5 if row["dtype"] == "float32" else 0.05)
        assert row["ours"]["seconds"] > 0
    for error in found["stofm"]["error"].values():
        assert error["plain"] > 0  # another way to the same numbers
    assert found["transformer"]["rows"][0]["cells_per_second"] > 0
    assert "| 500 | 4 | float32 |" in table
    assert "| parity | passed |" in table
    assert "| 40 | bfloat16 | rows |" in table
    assert "cells/s" in table


@pytest.mark.slow
def test_the_script_writes_one_json_and_says_what_failed(bare, tmp_path):
    out = tmp_path / "gpu.json"
    command = ["bash", "tests/gpu/run.sh", "--device", "cpu", "--toy", "--out", str(out)]
    own = bare | {"PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=own, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert not [part for part, figures in found.items() if "failed" in str(figures)]
    # a part that cannot run costs its own figures and the exit code, and no more
    command[command.index("cpu")] = "meta"
    done = subprocess.run(command, capture_output=True, text=True, env=own, cwd=ROOT)
    assert done.returncode == 1
    assert json.loads(out.read_text())["attention"]["failed"]
