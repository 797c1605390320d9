"""Before and after training: masked genes in a block of tissue, domains, steps and seconds.

    pytest -m benchmark -s tests/benchmarks/test_bench_training.py

Needs SPATIAGRAPH_DATA. SEEDS in the environment, 3 by default; with ``TABLES=folder`` every test
leaves its figures there as JSON, and ``python tests/benchmarks/test_bench_training.py folder``
makes tables of them.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import spatiagraph as sg
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import score_probe
from spatiagraph.evaluate.baselines import domain_baselines
from spatiagraph.inference import embed_data
from spatiagraph.inference.domains import Genes, Sections
from spatiagraph.models import ContextModel, Spatia
from spatiagraph.models.base import sample_of_cells
from spatiagraph.nn import AttentionPool
from spatiagraph.tasks import MaskedGenes, SpatiaPretraining, SpatiaWeights
from spatiagraph.tasks.masked_genes import HiddenGenes
from tests.masked_counts import MaskedCounts, block_of

pytestmark = pytest.mark.benchmark

SEEDS = range(int(os.environ.get("SEEDS", "3")))
QUIET = {"accelerator": "cpu", "progress": False}
BEFORE = {**QUIET, "max_epochs": 30, "tile_size": 4096, "lr": 1e-3, "weight_decay": 0.01}
"""Defaults of before: one step per 4,096 cells and pass."""
MODELS = {"ContextModel": ContextModel, "SPATIA": Spatia}

SLIDES = {
    "Xenium crop": ("xenium_breast_crop/cells.h5ad", {}, None, ()),
    "STARmap": ("starmap_by3/starmap_by3.h5ad", {"mpp": 0.1}, "layer", ("NA", "nan")),
    "DLPFC 151510": ("dlpfc_151510/151510.h5ad", {"pitch_um": 100}, "layer", ("NA", "nan")),
    "her2st A1": ("her2st/A1.h5ad", {"pitch_um": 200}, "label", ("undetermined",)),
    "MERFISH MPOA": ("merfish_mpoa/merfish_mpoa.h5ad", {"expression": "normalized"}, None, ()),
}


MISSED = ("her2st A1", "MERFISH MPOA")
"""Where training does not reach 1.15 times the gain of similar cells: see docs/benchmarks.md."""


def read(real_data, name: str) -> sg.Slide:
    """A slide, without its image."""
    file, options, _, _ = SLIDES[name]
    slide = sg.read(real_data / file, image=False, **options)
    if slide.num_cells <= 4000:
        return slide
    x = slide.pos[:, 0]  # a strip of it
    rows = np.flatnonzero(x <= np.sort(x)[3999])
    return sg.Slide(
        slide.adata[rows].copy(), slide_id=name, assume_um=True, expression=slide.expression
    )


def mean_and_deviation(values) -> str:
    values = np.asarray(values, dtype=float)
    digits = 3 if np.abs(values).max() < 2 else 1
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


def agreement(z: np.ndarray, label: np.ndarray, absent: tuple[str, ...]) -> float:
    """Mean ARI of k-means with as many clusters as labels, over three seeds."""
    known = ~np.isin(label, absent)
    k = len(set(label[known]))
    return float(
        np.mean(
            [
                adjusted_rand_score(
                    label[known], KMeans(k, n_init=5, random_state=seed).fit_predict(z[known])
                )
                for seed in range(3)
            ]
        )
    )


def keep(test: str, found: dict[str, object], *of: object) -> None:
    """Print figures, and leave them where tables are made."""
    print(f"\n{test} {' '.join(map(str, of))}\n" + pd.Series(found).to_string(), flush=True)
    if "TABLES" in os.environ:
        name = "-".join(str(x).replace(" ", "_") for x in ("training", test, *of))
        text = json.dumps({"test": test, "of": [str(x) for x in of], **found})
        (Path(os.environ["TABLES"]) / f"{name}.json").write_text(text)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SLIDES)
@pytest.mark.parametrize("kind", MODELS)
def test_masked_genes_of_a_block(real_data, kind, name, seed):
    train, test = block_of(read(real_data, name))
    model = MODELS[kind].for_slides([train], seed=seed)
    score = MaskedCounts(model, train, test)
    whole = MaskedCounts(model, train, test, ratio=0.25, whole=True)
    found = {
        "start": score.of_model(model),
        "ridge": score.of_ridge(),
        "similar cells": score.of_similar_cells(),
        "whole, start": whole.of_model(model),
        "whole, nearest": whole.of_near_cells(),
    }
    if kind == "ContextModel" and not seed:
        before = ContextModel.for_slides([train], seed=seed)
        cpu = time.process_time()
        sg.fit(before, train, seed=seed, validation=None, **BEFORE)
        found["before, CPU seconds"] = time.process_time() - cpu
        found["before"] = score.of_model(before)
    start, cpu = time.perf_counter(), time.process_time()
    history = sg.fit(model, train, seed=seed, **QUIET).history
    found["seconds"] = time.perf_counter() - start
    found["CPU seconds"] = time.process_time() - cpu
    found["now"], found["whole, now"] = score.of_model(model), whole.of_model(model)
    found["steps"] = int(history["steps"].iloc[-1])
    keep("masked genes", found, kind, name, seed)
    if name not in MISSED and kind == "ContextModel":
        assert found["now"] > 1.15 * found["similar cells"]


SPATIA = {  # changes of a run, and of the weights of the objectives
    "as it is": ({}, {}),
    "learning rate 3e-3": ({"lr": 3e-3}, {}),
    "twice the steps": ({"steps": 2}, {}),
    "decay 1": ({"weight_decay": 1.0}, {}),
    "decay 0.01": ({"weight_decay": 0.01}, {}),
    "hidden counts three times": ({}, {"expression": 3.0}),
    "hidden counts alone": (
        {},
        dict.fromkeys(SpatiaWeights.__dataclass_fields__, 0.0) | {"expression": 1.0},
    ),
    "no bottleneck": ({}, {"bottleneck": 0.0}),
    "no thinned counts": ({}, {"bottleneck": 0.0, "denoise": 0.0}),
    "no hidden cells and niches": ({}, {"masked_cells": 0.0, "masked_niches": 0.0}),
}


@pytest.mark.parametrize("change", SPATIA)
@pytest.mark.parametrize("name", ["Xenium crop", "STARmap"])
def test_what_spatia_gains_by(real_data, name, change):
    train, test = block_of(read(real_data, name))
    model = Spatia.for_slides([train])
    score = MaskedCounts(model, train, test)
    found = {"start": score.of_model(model)}
    options, weights = SPATIA[change]
    options = dict(options)
    if "steps" in options:
        options["max_steps"] = options.pop("steps") * 200
    task = SpatiaPretraining(model, SpatiaWeights(**weights))
    history = sg.fit(model, train, task=task, **QUIET, **options).history
    found["now"], found["steps"] = score.of_model(model), int(history["steps"].iloc[-1])
    keep("what SPATIA gains by", found, name, change)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [name for name, row in SLIDES.items() if row[2]])
@pytest.mark.parametrize("kind", MODELS)
def test_domains(real_data, kind, name, seed):
    slide = read(real_data, name)
    label = slide.adata.obs[SLIDES[name][2]].astype(str).to_numpy()
    found = {}
    model = MODELS[kind].for_slides([slide], seed=seed)
    data = model.recipe(slide)
    for when in ("start", "trained"):
        if when == "trained":
            sg.fit(model, slide, seed=seed, **QUIET)
        z = embed_data(model, data)
        for level in ("cell", "niche"):
            found[f"{level}, {when}"] = agreement(z[level], label, SLIDES[name][3])
    averaged = domain_baselines(slide.counts, slide.pos)["pca30_nbr15"]
    found["averaged PCA"] = agreement(averaged, label, SLIDES[name][3])
    keep("domains", found, kind, name, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_domains_with_a_picture(real_data, seed):
    """The same of a section whose picture is read as well: niches are pooled from both."""
    folder = real_data / "her2st"
    slide = sg.read(folder / "A1.h5ad", image=folder / "A1_HE.jpg", pitch_um=200)
    label = slide.adata.obs["label"].astype(str).to_numpy()
    model = ContextModel.for_slides([slide], seed=seed)
    data, found = model.recipe(slide), {}
    for when in ("start", "trained"):
        if when == "trained":
            sg.fit(model, slide, seed=seed, **QUIET)
        z = embed_data(model, data)
        for level in ("cell", "niche"):
            found[f"{level}, {when}"] = agreement(z[level], label, ("undetermined",))
    keep("domains with a picture", found, seed)


def few_cells(real_data, name, cells):
    """A slide, or as many cells of its left side."""
    slide = read(real_data, name)
    if not cells:
        return slide
    rows = np.flatnonzero(slide.pos[:, 0] <= np.sort(slide.pos[:, 0])[cells - 1])
    return sg.Slide(slide.adata[rows].copy(), slide_id=name, assume_um=True)


FEW = pytest.mark.parametrize(
    ("name", "cells"), [("her2st A1", 0), ("Xenium crop", 300), ("STARmap", 350)]
)


@FEW
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_held_out_costs(real_data, name, cells, seed):
    """Choice of the weights by a fifth of the tissue, beside training on that as well."""
    train, test = block_of(few_cells(real_data, name, cells))
    found = {}
    for share in (None, 0.2):
        model = ContextModel.for_slides([train], seed=seed)
        score = MaskedCounts(model, train, test)
        found["start"] = score.of_model(model)
        sg.fit(model, train, seed=seed, validation=share, **QUIET)
        found["all learned from" if share is None else "a fifth held out"] = score.of_model(model)
    keep("held out", found, name, seed)


@FEW
def test_decay(real_data, name, cells):
    """What weight decay is worth where cells are few, and the strength that says so beforehand."""
    train, test = block_of(few_cells(real_data, name, cells))
    found = {}
    for decay in (2.0, 9.0, 20.0):
        model = ContextModel.for_slides([train])
        score = MaskedCounts(model, train, test)
        found["strength"], found["start"] = model.head.strength, score.of_model(model)
        sg.fit(model, train, weight_decay=decay, **QUIET)
        found[f"at {decay:g}"] = score.of_model(model)
    keep("decay", found, name)


ABLATION = {
    "as it is": {},
    "steps: one tile of 4,096": {"tile_size": 4096, "max_epochs": 30},
    "learning rate 1e-3": {"lr": 1e-3},
    "weight decay 0.01": {"weight_decay": 0.01},
    "decoders from the mean profile": {"plain": True},
    "layer scale 0": {"scale": 0.0},
    "no whole cells hidden": {"cell_ratio": 0.0},
    "30 % of genes hidden": {"mask_ratio": 0.3},
    "niche term with weight 1": {"niche_weight": 1.0},
    "niches pooled from what cells heard": {"pool_context": True},
    "niches pooled by a learned query": {"query": True},
    "basis thaws": {"thawed": True},
    "gates start at 0.1": {"gates": 0.1},
    "start divided by its deviation": {"whiten": True},
}


@pytest.mark.parametrize("what", ABLATION)
@pytest.mark.parametrize("name", ["Xenium crop", "STARmap"])
def test_ablation(real_data, name, what):
    train, test = block_of(read(real_data, name))
    model = ContextModel.for_slides([train])
    score = MaskedCounts(model, train, test)
    whole = MaskedCounts(model, train, test, ratio=0.25, whole=True)
    options = dict(ABLATION[what])
    if options.pop("plain", False):
        x, mask, _ = sample_of_cells(model.panel, [train], 20_000, 0)
        for head in (model.head, model.niche_head):
            head.linear.weight.data.zero_()
            head.initialize(x, gene_mask=mask)
    if "scale" in options:
        scale = options.pop("scale")
        for layer in model.context_encoder.conv.layers:
            layer.scale_attention.data.fill_(scale)
            layer.scale_mlp.data.fill_(scale)
    if options.pop("whiten", False):
        sample = sample_of_cells(model.panel, [train], 20_000, 0)
        genes = model.cell_encoder.genes
        with torch.no_grad():
            deviation = genes(*sample).std(0, keepdim=True)
            genes.linear.weight *= (deviation.mean() / deviation).T
        model.start_decoder(model.head, genes, sample, 0)
        model.niche_head.load_state_dict(model.head.state_dict())
    if options.pop("query", False):
        for level in model.context_encoder.levels:
            level.pool = AttentionPool(level.channels)
    if options.pop("thawed", False):
        model.cell_encoder.genes.linear.weight.requires_grad_(True)
    if "gates" in options:
        start, encoder = options.pop("gates"), model.context_encoder
        for module in (encoder, encoder.change, *(level.top_down for level in encoder.levels)):
            module.gate.data.fill_(start)
    if options.pop("pool_context", False):
        model.context_encoder.pool_context = True
    names = ("mask_ratio", "cell_ratio", "niche_weight")
    of_task = {name: options.pop(name) for name in names if name in options}
    task = MaskedGenes(model, **of_task)
    sg.fit(model, train, task=task, **{**QUIET, **options})
    found = {"hidden genes": score.of_model(model), "hidden cells": whole.of_model(model)}
    keep("ablation", found, name, what)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("steps", [50, 100, 200, 400, 800])
@pytest.mark.parametrize("name", MISSED)
def test_learning_curve(real_data, name, steps, seed):
    """Gain by steps where the mark is missed; the learning rate falls to the end of each."""
    train, test = block_of(read(real_data, name))
    model = ContextModel.for_slides([train], seed=seed)
    score = MaskedCounts(model, train, test)
    found = {"start": score.of_model(model), "similar cells": score.of_similar_cells()}
    sg.fit(model, train, seed=seed, max_steps=steps, **QUIET)
    found["now"] = score.of_model(model)
    keep("learning curve", found, name, steps, seed)


class Standardized(HiddenGenes):
    """Squared error of values over the variance of their gene, as a normal likelihood has it."""

    def __init__(self, variance):
        super().__init__()
        self.variance = variance

    def forward(self, view):
        rows = view.batch.core
        model, hidden = view.model, view.hidden[rows]
        target = model.cell_encoder.genes.normalize(view.batch.x[rows])
        error = (model.head.linear(view.out.cell[rows]) - target).square() / self.variance
        return error[hidden].mean()


REASONS = {
    "as it is": {},
    "64 channels": {"channels": 64},
    "25 % of genes hidden": {"mask_ratio": 0.25},
    "75 % of genes hidden": {"mask_ratio": 0.75},
    "no whole cells hidden": {"cell_ratio": 0.0},
    "learning rate 3e-3": {"lr": 3e-3},
    "learning rate 3e-2": {"lr": 3e-2},
    "weight decay 0.01": {"weight_decay": 0.01},
    "basis thaws": {"thawed": True},
    "errors over the variance of the gene": {"standardized": True},
    "the same, 800 steps": {"standardized": True, "max_steps": 800},
    "basis thaws, 400 steps": {"thawed": True, "max_steps": 400},
    "basis thaws, 800 steps": {"thawed": True, "max_steps": 800},
    "basis thaws, 64 channels": {"thawed": True, "channels": 64},
    "basis thaws, no whole cells hidden": {"thawed": True, "cell_ratio": 0.0},
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("what", REASONS)
def test_values_of_merfish(real_data, what, seed):
    """What could keep values from gaining more than similar cells do."""
    train, test = block_of(read(real_data, "MERFISH MPOA"))
    score = MaskedCounts(ContextModel.for_slides([train], seed=seed), train, test)
    options = dict(REASONS[what])
    model = ContextModel.for_slides([train], seed=seed, channels=options.pop("channels", 32))
    found = {"start": score.of_model(model), "similar cells": score.of_similar_cells()}
    of_task = {name: options.pop(name) for name in ("mask_ratio", "cell_ratio") if name in options}
    task = MaskedGenes(model, **of_task)
    if options.pop("thawed", False):
        model.cell_encoder.genes.linear.weight.requires_grad_(True)
    if options.pop("standardized", False):
        variance = score.values.var(0).clamp(min=1e-6)
        task.objectives[0] = Standardized(variance / variance.mean())
    sg.fit(model, train, task=task, seed=seed, **{**QUIET, **options})
    found["now"] = score.of_model(model)
    keep("values", found, what, seed)


class Anchored(MaskedGenes):
    """The task of a model whose basis decays towards its components as well."""

    @property
    def anchored(self):
        return *super().anchored, self.model.cell_encoder.genes.linear.weight


def thawed(slide, seed, steps, task=MaskedGenes):
    """A model whose basis learns as well."""
    model = ContextModel.for_slides([slide], seed=seed)
    model.cell_encoder.genes.linear.weight.requires_grad_(True)
    sg.fit(model, slide, task=task(model), seed=seed, max_steps=steps, **QUIET)
    return model


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("steps", [200, 400])
@pytest.mark.parametrize("name", SLIDES)
@pytest.mark.parametrize("task", [MaskedGenes, Anchored])
def test_basis_thaws(real_data, task, name, steps, seed):
    """What a basis that learns gains, and what it does to domains."""
    slide = read(real_data, name)
    train, test = block_of(slide)
    start = ContextModel.for_slides([train], seed=seed)
    score = MaskedCounts(start, train, test)
    whole = MaskedCounts(start, train, test, ratio=0.25, whole=True)
    cpu = time.process_time()
    model = thawed(train, seed, steps, task)
    found = {"CPU seconds": time.process_time() - cpu}
    found |= {"genes": score.of_model(model), "cells": whole.of_model(model)}
    column, absent = SLIDES[name][2:]
    if column is not None and steps == 200:
        label = slide.adata.obs[column].astype(str).to_numpy()
        model = thawed(slide, seed, steps, task)
        z = embed_data(model, model.recipe(slide))
        found |= {level: agreement(z[level], label, absent) for level in ("cell", "niche")}
    keep("basis thaws", found, task.__name__, name, steps, seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["STARmap", "MERFISH MPOA"])
def test_annotation(real_data, name, seed):
    """Types of cells in blocks held out, by logistic regression, beside that on all genes."""
    slide = read(real_data, name)
    labels, ignore = slide.adata.obs["celltype"], ["NA", "nan", "Ambiguous"]
    model = ContextModel.for_slides([slide], seed=seed)
    data = model.recipe(slide)
    genes = Genes("sqrt", num_genes=slide.num_genes)(Sections([slide])).toarray()
    embeddings = {"all genes": genes, "start": embed_data(model, data)["cell"]}
    sg.fit(model, slide, seed=seed, **QUIET)
    trained = embed_data(model, data)
    embeddings["trained"] = trained["cell"]
    embeddings["trained, cell and niche"] = np.hstack([trained["cell"], trained["niche"]])
    folds = spatial_blocks(slide.pos, seed=seed)
    table = score_probe(embeddings, labels, folds, ignore=ignore)
    keep("annotation", table["macro_F1"].to_dict(), name, seed)
    print(table[["macro_F1", "macro_F1_std", "accuracy"]].round(3).to_string(), flush=True)


def tables(folder: Path) -> str:
    """Markdown of what tests have left: mean and deviation over seeds where there are several."""
    rows = [json.loads(file.read_text()) for file in sorted(folder.glob("training-*.json"))]
    parts = []
    for test in dict.fromkeys(row["test"] for row in rows):
        seeds = test not in ("ablation", "decay", "what SPATIA gains by")
        groups: dict[tuple[str, ...], list[dict[str, float]]] = {}
        for row in rows:
            if row["test"] == test:
                of = tuple(row["of"][:-1] if seeds else row["of"])
                groups.setdefault(of, []).append(
                    {k: row[k] for k in row if k not in ("test", "of")}
                )
        table = {
            " / ".join(of): pd.DataFrame(found).apply(lambda x: mean_and_deviation(x.dropna()))
            for of, found in groups.items()
        }
        wide = pd.DataFrame(table).T
        lines = [f"| {test} | {' | '.join(wide)} |", "|---" * (len(wide.columns) + 1) + "|"]
        lines += [f"| {of} | {' | '.join(map(str, row))} |" for of, *row in wide.itertuples()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(tables(Path(sys.argv[1])))
