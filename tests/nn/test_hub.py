import json
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData
from torch.testing import assert_close

from spatiagraph._shipped import SHIPPED, shipped_models
from spatiagraph.data import Slide, make_tissue
from spatiagraph.inference import embed_data
from spatiagraph.models import ContextModel
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.hub import PretrainedModel

SLIDE = make_tissue(80, num_genes=30, image=None, seed=0)


class OtherModel(PretrainedModel):
    def __init__(self, size: int):
        super().__init__()
        self.linear = torch.nn.Linear(size, size)


@pytest.fixture
def model() -> ContextModel:
    return ContextModel.for_slides([SLIDE], channels=8)


def test_a_saved_model_gives_the_same_embeddings(model, tmp_path):
    again = ContextModel.from_pretrained(model.eval().save_pretrained(tmp_path))
    data = model.recipe(SLIDE)
    data = data.dense()
    got, expected = again(*again.inputs(data)), model(*model.inputs(data))
    assert_close(got.cell, expected.cell, rtol=0, atol=0)
    assert_close(got.levels[1].h, expected.levels[1].h, rtol=0, atol=0)
    assert again.panel == model.panel
    assert again.recipe == model.recipe
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def _changed_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config["model"]["args"])
    path.write_text(json.dumps(config))


def _changed_weights(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # a bit of one weight, which stays finite
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _changed_config(folder, lambda args: args.pop("likelihood")),
        lambda folder: _changed_config(
            folder, lambda args: args["recipe"]["args"]["graph"]["args"].update(k=9)
        ),
        _changed_weights,
    ],
    ids=["an argument is gone", "a rule is another", "a weight is changed"],
)
def test_loading_refuses_files_that_were_not_written_together(model, tmp_path, change):
    model.save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_text()
    change(tmp_path)
    with pytest.raises(ValueError, match="written together"):
        ContextModel.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("hash") == json.loads(before)["hash"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    ContextModel.from_pretrained(tmp_path)  # as models of before, which have no hash


def test_loading_says_what_is_missing(model, tmp_path):
    with pytest.raises(ValueError, match="found none at"):
        ContextModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"found no config\.json"):
        ContextModel.from_pretrained(tmp_path)


def test_loading_refuses_the_checkpoint_of_another_model(model, tmp_path):
    custom = {f"{OtherModel.__module__}.{OtherModel.__qualname__}": OtherModel}
    OtherModel(3).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Expected a saved ContextModel, found a OtherModel"):
        ContextModel.from_pretrained(tmp_path, custom=custom)


def test_loading_refuses_weights_that_do_not_fit(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["args"]["context_encoder"]["args"]["channels"] = 16
    config["model"]["args"]["context_encoder"]["args"]["conv"] = None
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="are of another model"):
        ContextModel.from_pretrained(tmp_path)


def test_loading_refuses_damaged_files(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="unreadable"):
        ContextModel.from_pretrained(tmp_path)


def test_a_failed_save_leaves_the_old_model(model, tmp_path, monkeypatch):
    model.eval().save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("spatiagraph.nn.hub.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["runs/model", "hf://a/b/c", "a b/c", "../x", "a", "/a/b"])
def test_a_folder_that_is_missing_is_not_asked_for_in_the_network(tmp_path, monkeypatch, name):
    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", asked)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="found none at"):
        ContextModel.from_pretrained(name)
    with pytest.raises(ValueError, match="found none at"):
        ContextModel.from_pretrained(Path("owner/name"))


@pytest.mark.parametrize("name", ["owner/name", "hf://owner/name"])
def test_an_id_of_the_hub_is_downloaded_and_that_is_said(
    model, tmp_path, monkeypatch, caplog, name
):
    model.save_pretrained(tmp_path / "there")
    asked = []

    def download(hub_id: str, **kwargs: object) -> str:
        asked.append(hub_id)
        return str(tmp_path / "there")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    ContextModel.from_pretrained(name)
    assert asked == ["owner/name"]
    assert "asking the Hugging Face Hub" in caplog.text


def test_models_of_the_package_open_without_the_network(tmp_path, monkeypatch):
    """Each says what it learned from, is small, and embeds a slide that lacks most of its genes."""

    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", asked)
    monkeypatch.chdir(tmp_path)
    assert "context-mouse-brain" in shipped_models()
    for name in shipped_models():
        folder = SHIPPED / name
        assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
        card = (folder / "card.md").read_text(encoding="utf-8")
        assert {"## Learned from", "## Terms", "## What it gives"} <= set(card.splitlines())
        model = SlideModel.from_pretrained(name)
        measured = model.panel.symbols[::3]
        rng = np.random.default_rng(0)
        adata = AnnData(rng.poisson(2.0, (60, len(measured))).astype(np.float32))
        adata.var_names = list(measured)
        adata.obsm["spatial"] = rng.uniform(0, 100, (60, 2))
        slide = Slide(adata, slide_id="new", assume_um=True)
        assert np.isfinite(embed_data(model, model.prepare(slide))["niche"]).all()
    with pytest.raises(ValueError, match="with the package come context-mouse-brain"):
        ContextModel.from_pretrained("context-moose-brain")


def test_a_folder_of_ones_own_goes_before_a_model_of_the_package(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained(tmp_path / "context-mouse-brain")
    assert ContextModel.from_pretrained("context-mouse-brain").panel == model.panel
