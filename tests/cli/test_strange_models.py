"""Every command that opens a model: one from a stranger runs nothing, and is refused in a line."""

import json
import shutil
from pathlib import Path

import pytest

import spatiagraph as sg
from spatiagraph.data.h5ad_file import write_h5ad
from spatiagraph.models import ContextModel

SAVED = Path(__file__).parents[1] / "data" / "saved_models" / "context"
TISSUE = {"num_genes": 24, "num_types": 4, "num_niches": 3, "seed": 7}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A slide, its embeddings, and a model whose class is a function that writes a file."""
    folder = tmp_path_factory.mktemp("stranger")
    slide = sg.make_tissue(120, image=None, **TISSUE)
    slide.adata.write_h5ad(folder / "slide.h5ad")
    embedded = sg.embed(ContextModel.from_pretrained(SAVED), slide, device="cpu", progress=False)
    write_h5ad(embedded, folder / "embedded.h5ad")
    shutil.copytree(SAVED, folder / "model")
    call = {"tensors": {}, "filename": str(folder / "owned")}
    model = {"class": "spatiagraph.nn.hub.save_file", "args": call}
    (folder / "model" / "config.json").write_text(
        json.dumps({"spatiagraph": "0.1.0", "model": model})
    )
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text("{}")
    shutil.copytree(folder / "model", folder / "run" / "model")
    return folder


COMMANDS = {
    "embed": ["embed", "model", "slide.h5ad", "--out", "out.h5ad"],
    "report": ["report", "embedded.h5ad", "--run", "run", "--out", "out.html"],
    "search": [
        *("search", "embedded.h5ad", "--query", "slide.h5ad", "--model", "model"),
        *("--cell", "cell7"),
    ],
    "generate": [
        *("generate", "embedded.h5ad", "--generator", "model", "--transition", "type0:type1"),
        *("--out", "out"),
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_of_a_stranger_runs_nothing(run, place, monkeypatch, command):
    monkeypatch.chdir(place)
    done = run(*COMMANDS[command])
    run.refused(done, "Expected a class that is meant to be saved", "config.json", "save_file")
    assert not (place / "owned").exists()
    assert not list(place.glob("out*.*"))
