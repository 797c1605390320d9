"""Two processes that train together on a cohort, as ``torchrun`` starts them, are one process."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

import spatiagraph as sg
from spatiagraph.data.cohort import Cohort
from spatiagraph.data.loader import epoch_order

SCRIPT = """
import json, os, signal, sys, time
import torch
from lightning.pytorch.callbacks import Callback
import spatiagraph as sg

case = json.loads(sys.argv[1])
torch.set_num_threads(1)


class Gradients(Callback):
    def on_before_optimizer_step(self, trainer, module, optimizer):
        found = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        self.steps.append(found)


cohort = sg.Cohort(case["store"])
read = []
from spatiagraph.data.cohort.tiles import TileStore
original = TileStore.read
TileStore.read = lambda store, n: (read.append(f"{store.slide_id}/{n}"), original(store, n))[1]
model = sg.models.ContextModel.from_pretrained(case["model"])
seen = Gradients()
seen.steps = []
quiet = {"accelerator": "cpu", "progress": False, "logger": False}
rank = int(os.environ.get("RANK", 0))


class Dies(Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == case.get("dies_in") and rank == 1:
            with open(f"{case['out']}-died", "w") as file:
                file.write(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)


done = sg.fit(model, cohort, callbacks=[seen, Dies()], **quiet, **case["run"])
torch.save({"steps": seen.steps, "read": read, "weights": model.state_dict(),
            "history": done.history["steps"].tolist()}, f"{case['out']}-{rank}.pt")
"""


def slide(seed):
    made = sg.make_tissue(300, num_genes=20, image=None, seed=seed, slide_id=f"s{seed}")
    made.adata.obs, made.adata.var = made.adata.obs[["cell_type"]], made.adata.var.iloc[:, :0]
    return made


def test_an_epoch_is_divided_among_processes():
    whole = epoch_order(9, seed=4, epoch=2)
    assert sorted(whole) == list(range(9))
    for world_size in (2, 3, 4):
        parts = [epoch_order(9, 4, 2, rank=r, world_size=world_size) for r in range(world_size)]
        assert len({len(part) for part in parts}) == 1
        together = [item for step in zip(*parts, strict=True) for item in step]
        assert together[:9] == whole
    with pytest.raises(ValueError, match="rank from 0 to 1, got 2"):
        epoch_order(9, 4, 2, rank=2, world_size=2)


def ended(processes, script, **case):
    """A script under torchrun, once it has ended, well or not."""
    launch = [sys.executable, "-W", "ignore"]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        launch += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    # the environment of a scheduler, if the tests run under one, is not theirs
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RANK", "WORLD"))}
    command = [*launch, str(script), json.dumps(case)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=500, env=env
    )


def started(processes, script, **case):
    done = ended(processes, script, **case)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(f"{case['out']}-{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    model = sg.models.ContextModel.for_slides([slide(0), slide(1)], channels=8)
    model.save_pretrained(tmp_path / "model")
    store = Cohort.create(tmp_path / "c.zarr", [slide(0), slide(1)], model.recipe, tile_size=64)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    case = {"store": str(store.path), "model": str(tmp_path / "model")}
    run = {"max_epochs": 2}
    (one,) = started(
        1, script, **case, out=str(tmp_path / "one"), run={**run, "accumulate_grad_batches": 2}
    )
    both = started(
        2,
        script,
        **case,
        out=str(tmp_path / "two"),
        run={**run, "devices": 2, "out": str(tmp_path / "run")},
    )
    assert len(one["steps"]) == len(both[0]["steps"]) == 4
    for name, value in one["steps"][0].items():
        for rank in both:
            torch.testing.assert_close(rank["steps"][0][name], value, rtol=0, atol=1e-6)
    for name, value in one["weights"].items():
        torch.testing.assert_close(both[0]["weights"][name], value, rtol=1e-3, atol=1e-4)
    # each reads its own tiles, beside the one that the history looks at
    total = len(store.tiles(64, 1))
    assert len(one["read"]) == 2 * total + 1
    assert {len(rank["read"]) for rank in both} == {2 * -(-total // 2) + 1}
    # told no length, they take the steps that the model asks for, in twice as many epochs
    long = started(2, script, **case, out=str(tmp_path / "long"), run={"devices": 2})
    each = -(-total // 2)
    assert long[0]["history"][-1] == each * -(-model.num_steps // each)
    # a run of two processes is gone on with by one
    again = started(
        1,
        script,
        **case,
        out=str(tmp_path / "three"),
        run={"max_epochs": 2, "out": str(tmp_path / "run")},
    )
    for name, value in both[0]["weights"].items():
        assert torch.equal(again[0]["weights"][name], value), name


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on(tmp_path):
    model = sg.models.ContextModel.for_slides([slide(0), slide(1)], channels=8)
    model.save_pretrained(tmp_path / "model")
    store = Cohort.create(tmp_path / "c.zarr", [slide(0), slide(1)], model.recipe, tile_size=64)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    case = {"store": str(store.path), "model": str(tmp_path / "model")}

    def run(folder, **options):
        return {"max_epochs": 3, "devices": 2, "out": str(tmp_path / folder), **options}

    whole = started(2, script, **case, out=str(tmp_path / "a"), run=run("whole"))
    done = ended(2, script, **case, out=str(tmp_path / "b"), run=run("begun"), dies_in=2)
    waited = time.time() - float((tmp_path / "b-died").read_text())
    assert done.returncode != 0
    assert "rank      : 1 (local_rank: 1)" in done.stderr
    assert "SIGKILL" in done.stderr
    assert waited < 60  # they are stopped, and do not wait for it until a timeout of half an hour
    assert not (tmp_path / "b-0.pt").exists()
    shutil.copytree(tmp_path / "begun", tmp_path / "other")
    again = started(2, script, **case, out=str(tmp_path / "c"), run=run("begun"))
    for name, value in whole[0]["weights"].items():
        assert torch.equal(again[0]["weights"][name], value), name
    total, steps = len(store.tiles(64, 1)), -(-len(store.tiles(64, 1)) // 2)
    assert again[0]["history"] == [steps, 2 * steps, 3 * steps]
    # the last epoch on one process: a step for each tile
    (alone,) = started(1, script, **case, out=str(tmp_path / "d"), run=run("other", devices=1))
    assert alone["history"] == [steps, 2 * steps, 2 * steps + total]
    assert len(alone["steps"]) == total
