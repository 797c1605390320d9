"""A model from a stranger: nothing in it is run, and nothing beside it is opened."""

import importlib
import json
import pkgutil
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import spatiagraph
from spatiagraph._config import from_config
from spatiagraph._savable import ROOMS, find_class, full_name, is_savable
from spatiagraph.data.recipe import Rule
from spatiagraph.models import ContextModel, ImageGenerator, Spatia
from spatiagraph.models.base import HierarchicalModel, SlideModel
from spatiagraph.nn import PositionEncoding
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.hub import PretrainedModel

SAVED = Path(__file__).parents[1] / "data" / "saved_models"
EVERY_MODULE = [m.name for m in pkgutil.walk_packages(spatiagraph.__path__, "spatiagraph.")]


def below(cls):
    """A class and all that inherit from it."""
    return {cls}.union(*(below(sub) for sub in type.__subclasses__(cls)))


@pytest.fixture(scope="module")
def savable():
    """The closed set: every class that may stand in a file, once all modules are imported."""
    for name in EVERY_MODULE:
        importlib.import_module(name)
    return {cls for cls in below(object) if is_savable(cls)}


def test_no_public_attribute_of_any_module_is_built_but_what_is_meant_to_be_saved(savable):
    meant = {full_name(cls): cls for cls in savable}
    refused = 0
    for name in EVERY_MODULE:
        module = importlib.import_module(name)
        for attribute in {*vars(module), *getattr(module, "__all__", ())}:
            if f"{name}.{attribute}" in meant:
                assert vars(module)[attribute] is meant[f"{name}.{attribute}"]
                continue
            for node in ({"args": {}}, {"dict": {}}):
                with pytest.raises(ValueError, match="Expected a class that is meant to be saved"):
                    from_config({"class": f"{name}.{attribute}", **node})
                refused += 1
    assert refused > 5000


def test_the_closed_set_is_every_concrete_module_and_nothing_that_is_not(savable):
    ours = {cls for cls in below(Configurable) if cls.__module__.startswith("spatiagraph.")}
    abstract = {Configurable, PretrainedModel, SlideModel, HierarchicalModel}
    modules = {cls for cls in savable if issubclass(cls, torch.nn.Module)}
    assert modules == {c for c in ours - abstract if c.__name__ not in ("_Fusion", "TimmEncoder")}
    rules = {cls for cls in savable if issubclass(cls, Rule)}
    assert rules == {c for c in below(Rule) if c.__module__.startswith("spatiagraph.")} - {Rule}
    others = {cls.__name__ for cls in savable - modules - rules}
    assert others == {
        "GenePanel",
        "GeneVocabulary",
        "LabelSet",
        "LinearPath",
        "Readout",
        "Recipe",
    }
    rooms = {cls.__module__.split(".")[1] for cls in savable}
    assert rooms == set(ROOMS)


def stranger(folder, name, change):
    """A copy of a saved model with another configuration."""
    if name == "spatia_today":
        Spatia.from_pretrained(SAVED / "spatia").save_pretrained(folder)
    else:
        shutil.copytree(SAVED / name, folder)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_function_as_a_class_is_not_called_at_any_place(tmp_path):
    out = tmp_path / "overwritten"
    call = {"class": "spatiagraph.nn.hub.save_file", "args": {"tensors": {}, "filename": str(out)}}

    def everywhere(tree, path=()):
        yield path
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            if isinstance(tree[key], dict | list):
                yield from everywhere(tree[key], (*path, key))

    places = list(everywhere(json.loads((SAVED / "spatia" / "config.json").read_text())))
    assert len(places) > 5
    for number, place in enumerate(places[1:]):

        def put(config, place=place):
            for key in place[:-1]:
                config = config[key]
            config[place[-1]] = call

        folder = stranger(tmp_path / str(number), "spatia", put)
        with pytest.raises(ValueError, match=r"^Expected .*config\.json"):
            SlideModel.from_pretrained(folder)
        assert not out.exists()


TIMM = {
    "pretrained_cfg": {"url": "http://127.0.0.1:9/x.pth", "hf_hub_id": "a/b"},
    "pretrained_cfg_overlay": {"file": "/etc/passwd"},
    "checkpoint_path": "/etc/passwd",
    "cache_dir": "/tmp/x",
    "scriptable": True,
    "pretrained": True,
    "checkpoint": "/etc/passwd",
    "img_size": 10**12,
    "patch_size": "8",
    "depth": 10**9,
    "embed_dim": -1,
    "num_heads": 5,
    "act_layer": "no such thing",
}


@pytest.mark.parametrize("option", TIMM)
@pytest.mark.parametrize("name", ["context_image", "spatia", "spatia_today"])
def test_no_option_of_timm_names_a_file_or_an_address(tmp_path, monkeypatch, option, name):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    def put(config):
        args = config["model"]["args"]
        if name == "spatia":
            args = args if option in args else args["image_options"]
        elif name == "spatia_today":
            args = args["cell_encoder"]["args"]["encoder"]["args"]["image"]["args"]
        else:
            args = args["cell_encoder"]["args"]["image"]["args"]
        args[option] = TIMM[option]

    folder = stranger(tmp_path / "model", name, put)
    with pytest.raises(ValueError, match=r"^Expected.*config\.json'") as caught:
        SlideModel.from_pretrained(folder)
    assert "\n" not in str(caught.value)


SIZES = {
    "channels": 10**12,
    "gene_layers": 10**9,
    "niche_layers": 10**12,
    "num_tokens": -5,
    "heads": 0,
    "size_px": 10**6,
    "decoder_channels": 10**7,
    "dropout": 2.0,
    "niche_um": -1.0,
    "labels": {"class": "spatiagraph.data.labels.LabelSet", "dict": {"classes": {"a": [1]}}},
    "panel": {"class": "spatiagraph.nn.top_down.TopDown", "args": {"channels": 8}},
    "profile": "yes",
    "niche": "square",
    "image": "hf-hub:owner/name",
    "unheard_of": 1,
}


@pytest.mark.parametrize("argument", SIZES)
def test_an_argument_of_another_kind_or_size_is_one_line(tmp_path, argument):
    def put(config):
        config["model"]["args"][argument] = SIZES[argument]

    folder = stranger(tmp_path / "model", "spatia", put)
    with pytest.raises(ValueError, match="Expected") as caught:
        Spatia.from_pretrained(folder)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


FLAGS = {
    "context": 5,
    "panel": {"dict": {"symbols": 3}},
    "transitions": [["a"]],
    "size_px": -16,
    "noise": -1.0,
    "source": "elsewhere",
    "dropout": "x",
    "condition_channels": 10**12,
    "channels": -4,
    "stray": 1,
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_of_a_generator_of_before_that_is_none_is_one_line(tmp_path, flag):
    def put(config):
        config["model"]["args"][flag] = FLAGS[flag]

    with pytest.raises(ValueError, match=r"config\.json'") as caught:
        ImageGenerator.from_pretrained(stranger(tmp_path / "model", "generator", put))
    assert "\n" not in str(caught.value)


def test_a_class_that_was_renamed_is_found_by_its_name_of_before():
    assert find_class("spatiagraph.nn.encoding.PlaceEncoding") is PositionEncoding


def weights(folder, change):
    """A saved model with other weights, of which it says that they are its own."""
    ContextModel.from_pretrained(SAVED / "context").save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["hash"]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


GATE = "context_encoder.levels.0.top_down.gate"
WEIGHTS = {
    "expected finite": (lambda t: t[GATE][2:4].fill_(torch.nan), "got 2 NaN or infinite.* of 'con"),
    "infinite": (lambda t: t[GATE].div_(0.0), f"got 8 NaN or infinite.* the 8 of '{GATE}'"),
    "missing": (lambda t: t.pop(GATE), f"the file lacks 1 .first: '{GATE}'"),
    "stray": (lambda t: t.update(more=torch.ones(1)), "has beside them 1 .first: 'more'"),
    "shape": (lambda t: t.update({GATE: torch.ones(9)}), r"as float32 \[8\], got float32 \[9\]"),
    "dtype": (lambda t: t.update({GATE: t[GATE].double()}), r"\[8\], got float64 \[8\]"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_not_of_the_model_are_named(tmp_path, case):
    change, message = WEIGHTS[case]
    with pytest.raises(ValueError, match=rf"model\.safetensors.*{message}") as caught:
        ContextModel.from_pretrained(weights(tmp_path / "model", change))
    assert "\n" not in str(caught.value)


def test_weights_in_half_precision_are_read_as_they_were(tmp_path):
    folder = weights(tmp_path / "model", lambda t: t.update({GATE: t[GATE].bfloat16()}))
    model = ContextModel.from_pretrained(folder)
    assert model.context_encoder.levels[0].top_down.gate.dtype == torch.float
