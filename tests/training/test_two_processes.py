"""Two processes train one model: tiles are dealt between them, weights stay the same in both."""

import subprocess
import sys

import torch

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path

import torch

import spatiagraph as sg
from spatiagraph.models.spatia import TINY

if __name__ == "__main__":
    slide = sg.make_tissue(400, num_genes=30, image=None, seed=0)
    size = replace(TINY, channels=8, gene_channels=8, gene_layers=1)
    model = sg.models.Spatia.for_slides([slide], size)
    result = sg.fit(
        model,
        [slide],
        max_epochs=2,
        tile_size=60,
        accelerator="cpu",
        devices=2,
        progress=False,
        out=Path(sys.argv[1]) / "run",
    )
    rank = torch.distributed.get_rank()
    saved = {"weights": model.state_dict(), "cells": result.history["cells"].tolist()}
    torch.save(saved, Path(sys.argv[1]) / f"{rank}.pt")
"""


ST_ALIGN = """
import sys
from pathlib import Path

import torch

import spatiagraph as sg
from spatiagraph.data import spots_of_cells
from spatiagraph.models import STAlign

if __name__ == "__main__":
    cells = sg.make_tissue(700, num_genes=40, image="he", seed=0)
    slide = spots_of_cells(cells, 40.0, diameter_um=None)
    model = STAlign.for_slides([slide], "tiny", num_genes=None)
    result = sg.fit(
        model, [slide], max_epochs=2, tile_size=12, accelerator="cpu", devices=2, progress=False
    )
    saved = {"weights": model.state_dict(), "cells": result.history["cells"].tolist()}
    torch.save(saved, Path(sys.argv[1]) / f"{torch.distributed.get_rank()}.pt")
"""


def test_two_processes_align_images_and_genes_with_one_result(tmp_path):
    """Contrasts see the spots of their own process; gradients are those of both."""
    script = tmp_path / "train.py"
    script.write_text(ST_ALIGN)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in first["weights"].items():
        if "running" not in name and "num_batches" not in name:  # each norm has seen its own spots
            assert torch.equal(value, second["weights"][name]), name
    assert first["cells"] == second["cells"]


def test_two_processes_share_the_tiles_and_end_with_the_same_weights(tmp_path):
    """SPATIA fact 45."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name])
    assert first["cells"] == second["cells"]
    # 400 cells in an even number of tiles, or one tile twice
    assert all(400 <= cells <= 460 for cells in first["cells"])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
