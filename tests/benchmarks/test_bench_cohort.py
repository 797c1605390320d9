"""A cohort on the disk: time and peak memory of every step, and its loader beside that of memory.

    COHORT_CELLS=1000000 pytest -m benchmark -s tests/benchmarks/test_bench_cohort.py

``COHORT_CELLS`` cells × 300 genes (100,000 when not set) in slides of up to 250,000, made one at a
time; every step is a process of its own, so that peak memory is its own. ``COHORT_FOLDER`` says
where the store is to lie: 700 bytes a cell. ``COHORT_STEPS=create,epoch`` runs some of the steps,
the others later in the same folder.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark

CELLS = int(os.environ.get("COHORT_CELLS", "100000"))
STEPS = os.environ.get("COHORT_STEPS", "create,epoch,embed,index,report").split(",")
STEP = """
import json, resource, sys, time
from pathlib import Path
import spatiagraph as sg

case = json.loads(sys.argv[1])
store, run = Path(case["folder"]) / "cohort.zarr", Path(case["folder"]) / "run"
cells = case["cells"]


def slides():
    each = min(500_000, cells // 2)
    for seed in range(-(-cells // each)):
        yield sg.make_tissue(each, num_genes=300, image=None, seed=seed, slide_id=f"s{seed}")


def create():
    recipe = sg.models.ContextModel.for_slides([next(slides())], seed=0).recipe
    return sg.Cohort.create(store, slides(), recipe)


def epoch():
    cohort = sg.Cohort(store)
    model = sg.models.ContextModel.for_slides(cohort, cohort.recipe, seed=0)
    sg.fit(model, cohort, max_epochs=1, out=run, progress=False, logger=False)


def model():
    return sg.models.ContextModel.from_pretrained(run / "model")


def embed():
    sg.embed(model(), sg.Cohort(store), progress=False)


def index():
    sg.retrieval.index_cohort(sg.Cohort(store), "X_context_niche", Path(case["folder"]) / "index")


def report():
    sg.report.report_cohort(sg.Cohort(store), Path(case["folder"]) / "report.html")


def crops():
    slide = sg.make_tissue(cells, num_genes=30, image="he", seed=0)
    recipe = sg.data.Recipe(
        sg.GenePanel.from_slides([slide]), crops=(sg.data.recipe.Crop(32.0, 64),)
    )
    return sg.Cohort.create(store, [slide], recipe, tile_size=1024)


def train_crops():
    cohort = sg.Cohort(store)
    slide = sg.make_tissue(2000, num_genes=30, image="he", seed=0)
    model = sg.models.ContextModel.for_slides([slide], cohort.recipe, seed=0)
    sg.fit(model, cohort, max_steps=20, progress=False, logger=False)


def real():
    names = ("xenium_pancreas/cells_top.h5ad", "xenium_breast_crop/cells.h5ad")
    files = [Path(case["data"]) / name for name in names]
    slides = [
        sg.read(file, image=False, drop_empty=True, slide_id=file.parent.name) for file in files
    ]
    model = sg.models.ContextModel.for_slides(slides, num_genes=300, seed=0)
    cohort = sg.Cohort.create(store, slides, model.recipe)
    print(cohort)
    sg.fit(model, cohort, max_epochs=1, progress=False, logger=False)
    sg.embed(model, cohort, progress=False)


start, cpu = time.perf_counter(), time.process_time()
locals()[case["step"]]()
seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": seconds,
    "cpu_s": time.process_time() - cpu,
    "peak_gb": used.ru_maxrss / 1024**2,
}))
"""
LOADERS = """
import json, sys, time
import spatiagraph as sg
from spatiagraph.data import TileLoader

case = json.loads(sys.argv[1])
slide = sg.make_tissue(case["cells"], num_genes=300, image=None, seed=0)
recipe = sg.models.ContextModel.for_slides([slide], seed=0).recipe
cohort = sg.Cohort.create(case["folder"] + "/loaders.zarr", [slide], recipe)
memory = TileLoader([recipe(slide)], cohort.tile_size, 1)
stored = TileLoader(cohort, cohort.tile_size, 1)
ahead = TileLoader(cohort, cohort.tile_size, 1, num_workers=1)
seconds = {"memory": [], "cohort": [], "cohort, one worker": []}
for _ in range(case["rounds"]):
    for name, loader in zip(seconds, (memory, stored, ahead), strict=True):
        start = time.perf_counter()
        cells = sum(int(tile.core.sum()) for tile in loader)
        seconds[name].append(time.perf_counter() - start)
best = {name: min(each) for name, each in seconds.items()}
print(json.dumps({name: best["memory"] / value for name, value in best.items()} | {
    "cells_per_s": cells / best["memory"]
}))
"""


RANKS = """
import json, os, resource, sys
import spatiagraph as sg
from spatiagraph.data.cohort.tiles import TileStore

case, rank = json.loads(sys.argv[1]), os.environ.get("RANK", "0")
read, original = [], TileStore.read
TileStore.read = lambda store, number: (read.append(number), original(store, number))[1]
cohort = sg.Cohort(case["folder"] + "/cohort.zarr")
model = sg.models.ContextModel.for_slides([cohort[0]], cohort.recipe, seed=0)
quiet = {"accelerator": "cpu", "progress": False, "logger": False}
sg.fit(model, cohort, max_epochs=1, devices=case["ranks"], **quiet)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
with open(f"{case['folder']}/rank-{rank}.json", "w") as file:
    json.dump({"peak_gb": peak, "tiles": len(read)}, file)
"""


def measured(script: str, **case: object) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-c", script, json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.fixture
def folder(tmp_path):
    return Path(os.environ.get("COHORT_FOLDER", tmp_path))


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_a_cohort_from_counts_to_embeddings(folder, capsys):
    for step in STEPS:
        found = measured(STEP, step=step, cells=CELLS, folder=str(folder))
        time = f"{found['seconds']:.0f} s, {found['cpu_s']:.0f} s of CPU"
        with capsys.disabled():
            print(f"\n{CELLS:,} cells, {step}: {time}, {found['peak_gb']:.2f} GB")
        assert found["peak_gb"] <= 8
    with capsys.disabled():
        print(f"store: {size_of(folder / 'cohort.zarr') / CELLS:.0f} bytes a cell")


def test_memory_of_each_process(folder, capsys):
    if not (folder / "cohort.zarr").exists():
        measured(STEP, step="create", cells=CELLS, folder=str(folder))
    script = folder / "ranks.py"
    script.write_text(RANKS)
    for ranks in (1, 2):
        launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]
        launch += [f"--nproc-per-node={ranks}", "--standalone", str(script)]
        case = json.dumps({"folder": str(folder), "ranks": ranks})
        done = subprocess.run([*launch, case], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found = [json.loads((folder / f"rank-{r}.json").read_text()) for r in range(ranks)]
        with capsys.disabled():
            print(f"\n{ranks} processes: {found}")


def test_crops_of_a_cohort(folder, capsys):
    for step in ("crops", "train_crops"):
        found = measured(STEP, step=step, cells=CELLS, folder=str(folder))
        with capsys.disabled():
            print(f"\n{CELLS:,} cells with crops of 64 × 64 × 3, {step}: {found}")
        assert found["peak_gb"] <= 4


def test_real_slides_of_two_organs(folder, real_data, capsys):
    found = measured(STEP, step="real", cells=0, data=str(real_data), folder=str(folder))
    with capsys.disabled():
        print(f"\npancreas and breast, created, an epoch, embedded: {found}")
    assert found["peak_gb"] <= 4


def test_the_loader_of_a_cohort_beside_that_of_memory(folder, capsys):
    found = measured(LOADERS, cells=50_000, rounds=5, folder=str(folder))
    with capsys.disabled():
        print(f"\ntiles a second, memory = 1: {found}")
    assert found["cohort"] > 0.8
