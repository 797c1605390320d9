"""Two processes train one model: tiles are dealt between them, weights stay the same in both."""

import subprocess
import sys

import pytest
import torch

# both models in one pair of processes: to start a process takes longer than to train in it
SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path

import torch

import spatiagraph as sg
from spatiagraph.data import spots_of_cells
from spatiagraph.models import STAlign
from spatiagraph.models.spatia import TINY

OUT = Path(sys.argv[1])
RUN = {"max_epochs": 2, "accelerator": "cpu", "devices": 2, "progress": False}


def train(name, model, slide, **options):
    result = sg.fit(model, [slide], **options, **RUN)
    saved = {"weights": model.state_dict(), "cells": result.history["cells"].tolist()}
    torch.save(saved, OUT / f"{name}-{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    slide = sg.make_tissue(400, num_genes=30, image=None, seed=0)
    size = replace(TINY, channels=8, gene_channels=8, gene_layers=1)
    model = sg.models.Spatia.for_slides([slide], size)
    train("spatia", model, slide, tile_size=60, out=OUT / "run")

    cells = sg.make_tissue(500, num_genes=40, image="he", seed=0)
    spots = spots_of_cells(cells, 40.0, diameter_um=None)
    assert "diffusers" not in sys.modules  # it takes seconds, and only images are made with it
    train("aligned", STAlign.for_slides([spots], "tiny", num_genes=None), spots, tile_size=12)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of what both processes ended with."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_align_images_and_genes_with_one_result(folder):
    """Contrasts see the spots of their own process; gradients are those of both."""
    first, second = (torch.load(folder / f"aligned-{rank}.pt") for rank in range(2))
    for name, value in first["weights"].items():
        if "running" not in name and "num_batches" not in name:  # each norm has seen its own spots
            assert torch.equal(value, second["weights"][name]), name
    assert first["cells"] == second["cells"]


def test_two_processes_share_the_tiles_and_end_with_the_same_weights(folder):
    """SPATIA fact 45."""
    first, second = (torch.load(folder / f"spatia-{rank}.pt") for rank in range(2))
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name])
    assert first["cells"] == second["cells"]
    # 400 cells in an even number of tiles, or one tile twice
    assert all(400 <= cells <= 460 for cells in first["cells"])
    assert (folder / "run" / "model" / "model.safetensors").is_file()
