"""Fine-tuning of SpatialFormer: what each mode changes, and what it leaves."""

import pytest
import torch
from torch.testing import assert_close

import spatiagraph as sg
from spatiagraph.models import SpatialFormer
from spatiagraph.training import tune_neighbors

HEAD = {"cell_head.weight", *(f"similarity.{name}" for name in ("weight", "bias"))}


@pytest.fixture(scope="module")
def slide():
    return sg.make_tissue(150, num_genes=20, image=None, seed=0)


def tuned(slide, mode, **options):
    """Weights before and after, the model, and the run."""
    model = SpatialFormer.from_options([slide], channels=16)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    given = {"max_steps": 3, "lr": 1e-2, "progress": False, "accelerator": "cpu", "logger": False}
    result = tune_neighbors(model, slide, mode, **given, **options)
    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name, t in before.items() if not torch.equal(t, after[name])}
    assert all(p.requires_grad for p in model.parameters())
    assert set(result.history) >= {"cell_pairs", "loss"}
    return before, after, changed, model


def test_a_probe_changes_the_head_of_cells_alone(slide):
    *_, changed, _ = tuned(slide, "probe")
    assert changed == HEAD


def test_full_tuning_reaches_the_encoder(slide):
    *_, changed, _ = tuned(slide, "full")
    assert {*HEAD, "tokens.weight", "encoder.blocks.0.attention.qkv.weight"} <= changed
    assert not any(name.startswith(("token_head", "gene_head")) for name in changed)


def test_low_rank_tuning_adds_a_change_of_that_rank_and_opens_without_adapters(slide, tmp_path):
    pytest.importorskip("peft")
    before, after, changed, model = tuned(slide, "lora", rank=2, out=tmp_path / "run")
    qkv = {f"encoder.blocks.{i}.attention.qkv.weight" for i in range(2)}
    running = {name for name in changed if "running" in name}
    assert changed - running == {*HEAD, *qkv}
    for name in qkv:
        size = torch.linalg.svdvals(after[name] - before[name])
        assert size[1] > 1e-6
        assert size[2] < 1e-5 * size[0]
    opened = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    pairs = [[0, 1], [2, 9]]
    found = (sg.inference.score_neighbors(m, slide, pairs, device="cpu") for m in (model, opened))
    assert_close(*map(torch.from_numpy, found))


def test_a_model_is_trained_further_on_another_slide(slide):
    model = SpatialFormer.from_options([slide], channels=16)
    options = {"max_steps": 2, "progress": False, "accelerator": "cpu", "logger": False}
    first = sg.fit(model, slide, **options)
    before = model.tokens.weight.detach().clone()
    other = sg.make_tissue(150, num_genes=20, image=None, seed=1)
    again = sg.fit(model, other, **options)
    assert {"tokens", "cell_pairs"} <= set(again.history)
    assert not torch.equal(model.tokens.weight, before)
    assert first.record != again.record


@pytest.mark.parametrize(
    ("options", "match"),
    [({"mode": "adapter"}, "probe, lora or full"), ({"rank": 0}, "positive rank")],
)
def test_modes_that_are_none_are_refused(slide, options, match):
    model = SpatialFormer.from_options([slide], channels=16)
    with pytest.raises(ValueError, match=match):
        tune_neighbors(model, slide, **options)


def test_what_is_missing_for_low_rank_tuning_is_named(slide, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    model = SpatialFormer.from_options([slide], channels=16)
    with pytest.raises(ImportError, match=r"spatiagraph\[lora\]"):
        tune_neighbors(model, slide)
