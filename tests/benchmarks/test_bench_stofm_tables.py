"""SToFM on real slides beside its baselines: labels, clusters, ablation, spots, hidden genes, cost.

    TABLES=tables pytest -m benchmark -n 16 --dist worksteal \\
        tests/benchmarks/test_bench_stofm_tables.py
    python tests/benchmarks/test_bench_stofm_tables.py tables  # Markdown of the JSON files there

Needs SPATIAGRAPH_DATA. Every set and seed is a test of its own, of a few minutes on one thread.
``TABLES``: folder to write a JSON file of each to. ``ACCELERATOR``: ``cpu`` (default) or ``gpu``.
``STEPS``: optimiser steps at which embeddings are scored, in one run that ends with the last
(``0,50,200,800``; her2st, the DLPFC and MPOA take half of them; trainings of an ablation, of spots
and of hidden genes end with the last but one). ``CELLS``: most cells of a slide, for a trial.

Context is of sub-slices of 300 cells with a halo, size ``tiny``, cells by principal components but
in the ablation; across slides, SToFM and all baselines learn from the training slides alone.
"""

import json
import os
import resource
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from scipy.sparse import vstack
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans

import spatiagraph as sg
from spatiagraph.data import Slide, spots_of_cells
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import (
    GATClassifier,
    domain_baselines,
    neighbor_mean,
    pca,
    random_folds,
    ridge_on,
    score_deconvolution,
    score_domains,
    score_imputation,
    score_probe,
    score_transfer,
    type_profiles,
)
from spatiagraph.inference.embedding import embed_data
from spatiagraph.models import SToFM, SubSlices
from spatiagraph.tasks import CellAdaptation, SToFMPretraining

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore")]

STEPS = [int(s) for s in os.environ.get("STEPS", "0,50,200,800").split(",")]
FEW = STEPS[-2] if len(STEPS) > 1 else STEPS[-1]
SEEDS = range(3)
ACCELERATOR = os.environ.get("ACCELERATOR", "cpu")
DEVICE = "cuda" if ACCELERATOR == "gpu" else "cpu"
RULE = SubSlices(partition="overlap", max_cells=300)


@dataclass(frozen=True)
class Set:
    """Slides that are read alike, and their labels.

    Attributes:
        files: Paths.
        options: Of the reader.
        labels: Name → column.
        ignore: Values that are no label.
        share: Of the steps.
    """

    files: tuple[str, ...]
    options: dict
    labels: dict[str, str]
    ignore: tuple[str, ...] = ("NA", "nan")
    share: float = 1.0


SETS = {
    "merfish_mpoa": Set(
        ("merfish_mpoa/merfish_mpoa.h5ad",),
        {"expression": "normalized"},
        {"types": "celltype"},
        ("Ambiguous",),
        0.5,
    ),
    "dlpfc": Set(("dlpfc_151510/151510.h5ad",), {"pitch_um": 100}, {"layers": "layer"}, share=0.5),
    "her2st": Set(
        tuple(f"her2st/{s}.h5ad" for s in ("A1", "C1", "D1", "E1")),
        {"pitch_um": 200},
        {"regions": "label"},
        ("undetermined", "NA", "nan"),
        0.5,
    ),
    "starmap_mpfc": Set(
        tuple(f"starmap_mpfc/{s}.h5ad" for s in ("BZ5", "BZ9")),
        {"mpp": 0.1},
        {"types": "cell_type", "layers": "domain"},
    ),
    "starmap_by3": Set(
        ("starmap_by3/starmap_by3.h5ad",), {"mpp": 0.1}, {"types": "celltype", "layers": "layer"}
    ),
    "merfish_visp": Set(
        ("merfish_visp/merfish_visp.h5ad",), {}, {"layers": "layer_inferred"}, ("outside",)
    ),
}
ACROSS = [name for name, made in SETS.items() if len(made.files) > 1]


def read(root: Path, name: str) -> list[Slide]:
    """Slides of a set on the genes that all have; a strip of each where ``CELLS`` says so."""
    made = SETS[name]
    slides = []
    for path in made.files:
        own = Path(path).stem
        options = {"image": False, "drop_empty": True, **made.options}
        slide = sg.read(root / path, slide_id=own, donor=own, **options)
        slides.append(strip(slide))
    if len(slides) == 1:
        return slides
    shared = set(slides[0].symbols).intersection(*(slide.symbols for slide in slides[1:]))
    genes = [gene for gene in slides[0].symbols if gene in shared]
    return [on(slide, pd.Index(slide.symbols).get_indexer(genes)) for slide in slides]


def on(slide: Slide, columns) -> Slide:
    """A slide of some of its genes."""
    adata, about = slide.adata[:, columns].copy(), {"donor": slide.donor, "check": False}
    return Slide(adata, slide_id=slide.slide_id, expression=slide.expression, **about)


def strip(slide: Slide, most: int | None = None) -> Slide:
    """The first cells from the left, not more than ``CELLS``."""
    number = min(int(os.environ.get("CELLS", slide.num_cells)), most or slide.num_cells)
    return slide[np.argsort(slide.pos[:, 0], kind="stable")[:number]]


class Curve(Callback):
    """Embeddings after some of the optimiser steps of one run."""

    def __init__(self, model, slides, steps):
        self.model, self.steps = model, set(steps)
        self.data = [model.prepare(slide, device=DEVICE) for slide in slides]
        self.cells = np.concatenate([data.z.numpy() for data in self.data])
        self.found = {}
        self.look(0)

    def look(self, step):
        if step in self.steps and step not in self.found:
            parts = [embed_data(self.model, data, device=DEVICE)["cell"] for data in self.data]
            self.found[step] = np.concatenate(parts)

    def on_train_batch_end(self, trainer, *_):
        self.look(trainer.global_step)


def trained(model, slides, every, steps, seed, tile_size=600):
    """Embeddings of all slides after some steps on others of them, and those of cells alone."""
    curve = Curve(model, every, steps)
    if max(steps):
        options = {"max_steps": max(steps), "lr": 1e-3, "accelerator": ACCELERATOR, "seed": seed}
        sg.fit(
            model, slides, tile_size=tile_size, callbacks=[curve], validation=None, progress=False,
            **options,
        )  # fmt: skip
    return curve


def of_genes(slides, seed, **options):
    number = 1000 if slides[0].num_genes > 2000 else None
    return SToFM.for_slides(slides, num_genes=number, slices=RULE, seed=seed, **options)


def gathered(slides, name):
    """Counts, positions, section of each cell, and its labels by name."""
    made = SETS[name]
    labels = {}
    for label, column in made.labels.items():
        values = pd.concat([s.adata.obs[column].astype(object) for s in slides]).reset_index(
            drop=True
        )
        labels[label] = values.mask(values.astype(str).isin(made.ignore))
    counts = vstack([slide.counts for slide in slides]).tocsr()
    section = np.repeat(np.arange(len(slides)), [slide.num_cells for slide in slides])
    return counts, np.concatenate([slide.pos for slide in slides]), section, labels


def told(start, name, rows, **about):
    """Write and print what a test has found."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {
        "test": name, "device": device(), "seconds": round(time.perf_counter() - start, 1),
        "peak_gb": round(peak, 2), "steps": STEPS, **about, "rows": rows,
    }  # fmt: skip
    if folder := os.environ.get("TABLES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        place = Path(folder) / f"stofm-{name}.json"
        place.write_text(json.dumps(found, indent=1, default=float) + "\n")
    print(f"\n{name}: {found['seconds']} s, {peak:.2f} GB")
    print(pd.DataFrame(rows).to_string(index=False), flush=True)


def device():
    return torch.cuda.get_device_name() if DEVICE == "cuda" else f"CPU, {torch.__version__}"


def scaled(steps, share):
    return [max(int(s * share), min(s, 1)) for s in steps]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ACROSS)
def test_labels_of_slides_held_out(real_data, name, seed):
    start = time.perf_counter()
    slides = read(real_data, name)
    counts, pos, section, labels = gathered(slides, name)
    donor = np.array([slide.donor for slide in slides])[section]
    steps = scaled(STEPS, SETS[name].share)
    curves = {}

    def curve(train):
        seen = [slide for slide, of in zip(slides, np.unique(section), strict=True)
                if train[section == of].all()]  # fmt: skip
        key = tuple(slide.slide_id for slide in seen)
        if key not in curves:
            curves[key] = trained(of_genes(seen, seed), seen, slides, steps, seed)
        return curves[key]

    rows, names = [], {"pca30": "PCA", "pca30_nbr15": "PCA, averaged"}
    for label, truth in labels.items():

        def gat(train, truth=truth):
            own = np.flatnonzero(train & truth.notna().to_numpy())
            model = GATClassifier(curve(train).cells, pos, section, seed=seed)
            return model.fit(own, truth[own].astype(str)).decision_function(np.arange(len(pos)))

        made = {
            "cells": lambda train: curve(train).cells,
            "cells, averaged": lambda t: neighbor_mean(curve(t).cells, pos, 15, section),
            "GAT on cells": gat,
            **{f"SToFM, {s} steps": (lambda t, s=s: curve(t).found[s]) for s in steps},
        }
        table = score_transfer(
            made, counts, pos, truth, donor=donor, slide=section,
            baselines=("pca30", "pca30_nbr15"), num_seeds=1,
        )  # fmt: skip
        for row in table[table.embedding != "chance"].itertuples():
            shown = names.get(row.embedding, row.embedding)
            about = {"labels": label, "split": "across", "row": shown, "held_out": row.donor}
            rows.append({**about, "macro_F1": row.macro_F1})
    told(start, f"across-{name}-{seed}", rows, set=name, seed=seed, cells=len(pos))
    assert all(0 <= row["macro_F1"] <= 1 for row in rows)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", list(SETS))
def test_labels_and_clusters_of_cells_held_out(real_data, name, seed):
    start = time.perf_counter()
    slides = read(real_data, name)
    counts, pos, section, labels = gathered(slides, name)
    steps = scaled(STEPS, SETS[name].share)
    curve = trained(of_genes(slides, seed), slides, slides, steps, seed)
    kind = slides[0].expression
    components = pca(counts, 50, expression=kind)
    tables = {
        "PCA": components,
        "PCA, averaged": neighbor_mean(components, pos, 15, section),
        "cells": curve.cells,
        "cells, averaged": neighbor_mean(curve.cells, pos, 15, section),
        **{f"SToFM, {s} steps": z for s, z in curve.found.items()},
    }
    rows = []
    for label, truth in labels.items():
        folds = {
            "random": random_folds(truth, seed=seed),
            "blocks": spatial_blocks(pos, seed=seed, slide=section),
        }
        for split, fold in folds.items():
            gat = GATClassifier(curve.cells, pos, section, seed=seed)
            numbers = np.arange(len(pos))[:, None]
            table = pd.concat(
                [
                    score_probe(tables, truth, fold),
                    score_probe({"GAT on cells": numbers}, truth, fold, classifier=gat),
                ]
            )
            for row in table[~table.index.duplicated()].itertuples():
                rows.append(
                    {"labels": label, "split": split, "row": row.Index, "macro_F1": row.macro_F1}
                )
        clusters = score_domains(tables, truth, num_seeds=3)
        for row in clusters.itertuples():
            rows.append({"labels": label, "split": "k-means", "row": row.Index, "ARI": row.ARI})
    told(start, f"within-{name}-{seed}", rows, set=name, seed=seed, cells=len(pos))
    last = [r["macro_F1"] for r in rows if r["row"].startswith("SToFM") and "macro_F1" in r]
    floor = [r["macro_F1"] for r in rows if r["row"] == "majority"]
    assert min(last) > min(floor)


VARIANTS = {  # adapted, context, virtual cells, cells of a sub-slice
    "cells as they start": (False, False, True, 300),
    "cells adapted": (True, False, True, 300),
    "adapted, micro": (True, True, False, 300),
    "adapted, macro": (True, True, True, 16),
    "adapted, both": (True, True, True, 300),
    "as they start, both": (False, True, True, 300),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_ablation_across_mice(real_data, variant, seed):
    """Cells by ranks, whose encoder starts at random; the published one starts from Geneformer."""
    start = time.perf_counter()
    adapted, in_context, macro, size = VARIANTS[variant]
    slides = read(real_data, "starmap_mpfc")
    counts, pos, section, labels = gathered(slides, "starmap_mpfc")
    more = {} if macro else {"virtual": None}
    made = {}

    def embed(train):
        own = int(not train[0])
        if own not in made:
            model = SToFM.for_slides(
                [slides[own]], cells="ranks", slices=replace(RULE, max_cells=size), seed=seed,
                **more,
            )  # fmt: skip
            if adapted:
                task = CellAdaptation(model, contrast_weight=1.0, seed=seed)  # as published
                sg.fit(
                    model, slides[own], task=task, max_steps=FEW, lr=1e-3, accelerator=ACCELERATOR,
                    seed=seed, validation=None, progress=False,
                )  # fmt: skip
            steps = [FEW] if in_context else [0]
            curve = trained(model, [slides[own]], slides, steps, seed)
            made[own] = curve.found[FEW] if in_context else curve.cells
        return made[own]

    rows = []
    for label, truth in labels.items():
        table = score_transfer(
            {variant: embed}, counts, pos, truth, donor=section.astype(str), slide=section,
            baselines=(), num_seeds=1,
        )  # fmt: skip
        for row in table[table.embedding == variant].itertuples():
            rows.append(
                {"labels": label, "split": "across", "row": variant, "held_out": row.donor,
                 "macro_F1": row.macro_F1}
            )  # fmt: skip
    name = f"ablation-{variant.replace(', ', '_').replace(' ', '_')}-{seed}"
    told(start, name, rows, set="ablation", seed=seed, cells=len(pos))
    assert all(0 <= row["macro_F1"] <= 1 for row in rows)


ADAPTATIONS = {  # options of the task, steps, learning rate
    "as it starts": ({}, 0, 1e-3),
    "both objectives": ({"contrast_weight": 1.0}, 200, 1e-3),
    "masked genes alone": ({}, 200, 1e-3),
    "two views alone": ({"gene_weight": 0.0, "contrast_weight": 1.0}, 200, 1e-3),
    "both, a lower rate": ({"contrast_weight": 1.0}, 200, 1e-4),
    "masked genes, four times as long": ({}, 800, 1e-3),
    "masked genes, a tenth of two views": ({"contrast_weight": 0.1, "temperature": 0.5}, 200, 1e-3),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", list(ADAPTATIONS))
def test_what_adaptation_does_to_ranks(real_data, how, seed):
    """Labels of a mouse by vectors of cells alone, adapted on the other mouse."""
    start = time.perf_counter()
    options, steps, lr = ADAPTATIONS[how]
    slides = read(real_data, "starmap_mpfc")
    counts, pos, section, labels = gathered(slides, "starmap_mpfc")
    made, rows, losses = {}, [], {}
    for own in (0, 1):
        model = SToFM.for_slides([slides[own]], cells="ranks", slices=RULE, seed=seed)
        if steps:
            task = CellAdaptation(model, seed=seed, **options)
            history = sg.fit(
                model, slides[own], task=task, max_steps=steps, lr=lr, accelerator=ACCELERATOR,
                seed=seed, validation=None, progress=False,
            ).history  # fmt: skip
            losses = {k: history[k].iloc[[0, -1]].tolist()
                      for k in ("masked_tokens", "two_views") if k in history}  # fmt: skip
        parts = [model.prepare(slide, device=DEVICE).z.numpy() for slide in slides]
        made[own] = np.concatenate(parts)
    for label, truth in labels.items():
        table = score_transfer(
            {how: lambda train: made[int(not train[0])]}, counts, pos, truth,
            donor=section.astype(str), slide=section, baselines=(), num_seeds=1,
        )  # fmt: skip
        for row in table[table.embedding == how].itertuples():
            rows.append({"row": how, "labels": label, "split": "across", "macro_F1": row.macro_F1})
    name = f"adaptation-{how.replace(' ', '_')}-{seed}"
    told(start, name, rows, set="adaptation", seed=seed, cells=len(pos), losses=losses)
    print(losses)
    assert all(0 <= row["macro_F1"] <= 1 for row in rows)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("known", ["nearest", "all"])
def test_known_distances_across_mice(real_data, known, seed):
    """Labels as above, and both terms of pre-training on the mouse that was held out."""
    start = time.perf_counter()
    slides = read(real_data, "starmap_mpfc")
    counts, pos, section, labels = gathered(slides, "starmap_mpfc")
    made, rows, where = {}, [], {"split": "across"}
    for own in (0, 1):
        rule = replace(RULE, dense=known == "all")
        model = SToFM.for_slides([slides[own]], slices=rule, seed=seed)
        lap = time.perf_counter()
        made[own] = trained(model, [slides[own]], slides, [FEW], seed).found[FEW]
        rows.append({"row": known, **where, "where": "seconds", "value": time.perf_counter() - lap})
        task = SToFMPretraining(model.cpu().eval())
        for batch in model.batches([model.prepare(slides[1 - own])], 600):
            with torch.no_grad():
                out = task.loss(batch, torch.Generator().manual_seed(0))
            for term, value in out.parts.items():
                rows.append({"row": known, **where, "where": term, "value": float(value)})
    for label, truth in labels.items():
        table = score_transfer(
            {known: lambda train: made[int(not train[0])]}, counts, pos, truth,
            donor=section.astype(str), slide=section, baselines=(), num_seeds=1,
        )  # fmt: skip
        for row in table[table.embedding == known].itertuples():
            rows.append({"row": known, "labels": label, **where, "macro_F1": row.macro_F1})
    told(start, f"known-{known}-{seed}", rows, set="distances", seed=seed, cells=len(pos))
    assert all(row.get("value", 0) < 1e3 for row in rows)


def pancreas(root: Path, most: int | None = None) -> Slide:
    slide = sg.read(root / "xenium_pancreas/cells_top.h5ad", drop_empty=True, slide_id="pancreas")
    return strip(slide, most)


def of_spots(root: Path, name: str):
    """Spots, the share of each type in them, and single cells: the reference."""
    if name == "breast":  # another section of one block: what lies under a spot is its answer
        cells = sg.read(
            root / "xenium_visium_breast/xenium_cells.h5ad", drop_empty=True, slide_id="cells"
        )
        spots = sg.read(root / "xenium_visium_breast/visium_spots.h5ad", slide_id="spots")
        genes = pd.Index(cells.symbols).intersection(spots.symbols)
        cells, spots = (on(s, pd.Index(s.symbols).get_indexer(genes)) for s in (cells, spots))
        components = domain_baselines(cells.counts, cells.pos)["pca30"]
        types = KMeans(9, n_init=5, random_state=0).fit_predict(components).astype(str)
        under = cKDTree(cells.pos).query_ball_point(spots.pos, 50.0)
        kept = np.flatnonzero([len(rows) >= 5 for rows in under])
        shares = [pd.Series(types[under[i]]).value_counts(normalize=True) for i in kept]
        answer = pd.DataFrame(shares).fillna(0.0).sort_index(axis=1).reset_index(drop=True)
        return spots[kept], answer, cells, types
    if name == "pancreas":  # clusters of the maker, by what we call them
        cells, column, diameter_um = pancreas(root), "coarse_guess", 48.0
    else:
        cells, column, diameter_um = read(root, "starmap_mpfc")[0], "cell_type", None
    types = cells.adata.obs[column].astype(str).to_numpy()
    options = {"diameter_um": diameter_um, "min_cells": 2, "shares": (column,)}
    spots = spots_of_cells(cells, 60.0, **options)
    return spots, spots.adata.obsm[f"share_{column}"], cells, types


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["pancreas", "breast", "starmap_mpfc"])
def test_shares_of_types_in_spots(real_data, name, seed):
    start = time.perf_counter()
    spots, shares, cells, types = of_spots(real_data, name)
    folds = spatial_blocks(spots.pos, seed=seed)
    home = folds[cKDTree(spots.pos).query(cells.pos)[1]]

    def profiles(fold):  # cells of the training blocks
        own = home != fold
        return type_profiles(cells.counts[own], types[own])

    curve = trained(of_genes([spots], seed), [spots], [spots], sorted({0, FEW}), seed)
    components = pca(spots.counts, 50)
    embeddings = {
        "PCA": components,
        "PCA, averaged": neighbor_mean(components, spots.pos, 6),
        "cells": curve.cells,
        "cells, averaged": neighbor_mean(curve.cells, spots.pos, 6),
        **{f"SToFM, {s} steps": z for s, z in curve.found.items()},
    }
    table = score_deconvolution(embeddings, shares, folds, counts=spots.counts, profiles=profiles)
    rows = [
        {"row": r.Index, "pearson": r.pearson, "rmse": r.rmse, "js": r.js}
        for r in table.itertuples()
    ]
    told(start, f"spots-{name}-{seed}", rows, set=name, seed=seed, cells=spots.num_cells)
    assert table.loc["PCA", "js"] < 1


@pytest.mark.parametrize("seed", SEEDS)
def test_hidden_genes_of_pancreas(real_data, seed):
    start = time.perf_counter()
    slide = pancreas(real_data, 6000)

    def embed(split, steps):
        part = on(slide, split.visible)
        curve = trained(of_genes([part], seed), [part], [part], [steps], seed)
        return np.hstack([curve.cells, curve.found[steps]])

    def cells(split):
        part = on(slide, split.visible)
        return of_genes([part], seed).prepare(part).z.numpy()

    table = score_imputation(
        {
            "cells": ridge_on(cells),
            "cells and SToFM, 0 steps": ridge_on(lambda s: embed(s, 0)),
            f"cells and SToFM, {FEW} steps": ridge_on(lambda s: embed(s, FEW)),
        },
        slide.counts,
        slide.pos,
        num_splits=3,
        seed=seed,
    )
    rows = [{"row": r.Index, "pearson": r.pearson_mean, "rmse": r.rmse} for r in table.itertuples()]
    told(start, f"genes-pancreas-{seed}", rows, set="pancreas", seed=seed, cells=slide.num_cells)
    assert table["rmse"].notna().all()


def hundred_thousand(slide):
    """The pancreas, and its first cells once more beside it."""
    rows = np.arange(100_000) % slide.num_cells
    adata = slide.adata[rows].copy()
    adata.obs_names = [f"{name}-{i}" for i, name in enumerate(adata.obs_names)]
    again = np.arange(100_000) >= slide.num_cells
    adata.obsm["spatial"][again, 0] += np.ptp(slide.pos[:, 0]) + 100
    return Slide(adata, slide_id="pancreas", check=False)


def test_cost_of_a_hundred_thousand_cells(real_data):
    """Threads are those of OMP_NUM_THREADS and NUMBA_NUM_THREADS."""
    start = time.perf_counter()
    slide = hundred_thousand(pancreas(real_data))
    model = SToFM.for_slides([slide], slices=SubSlices(partition="overlap"), seed=0)
    times, last = {}, time.perf_counter()

    def lap(name):
        nonlocal last
        times[name], last = time.perf_counter() - last, time.perf_counter()

    data = model.prepare(slide, device=DEVICE)
    lap("prepare")
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    embed_data(model, data, device=DEVICE)
    lap("embed")
    times["cells_per_second"] = slide.num_cells / times["embed"]
    times["peak_gb_of_embed"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    sg.fit(
        model, slide, max_steps=max(FEW // 3, 1), lr=1e-3, accelerator=ACCELERATOR,
        validation=None, progress=False,
    )  # fmt: skip
    lap("fit")
    times["seconds_per_step"] = max(times["fit"] - times["prepare"], 0) / max(FEW // 3, 1)
    if DEVICE == "cuda":
        times["gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    rows = [{"row": name, "value": value} for name, value in times.items()]
    told(start, "cost", rows, set="pancreas", seed=0, cells=slide.num_cells)
    assert times["peak_gb_of_embed"] < 6


@pytest.mark.parametrize("seed", SEEDS)
def test_seams_of_sub_slices(real_data, seed):
    """A cell at a border, beside a sub-slice centred on it, in units of the spread of all."""
    start = time.perf_counter()
    slide = read(real_data, "starmap_mpfc")[0]
    model = SToFM.for_slides([slide], slices=RULE, seed=seed)
    trained(model, [slide], [slide], [FEW], seed)
    data = model.prepare(slide)
    near = cKDTree(data.place).query(data.place, 9)[1][:, 1:]
    part = data.part.numpy()
    border = (part[near] != part[:, None]).any(1)
    rng, rows = np.random.default_rng(seed), []
    chosen = {"border": np.flatnonzero(border), "inside": np.flatnonzero(~border)}
    chosen = {k: rng.permutation(v)[:40] for k, v in chosen.items()}
    centred = {row: _centred(model, data, row) for v in chosen.values() for row in v}
    for partition, halo in (("kd", 50), ("overlap", 50), ("overlap", 150)):
        rule = replace(RULE, partition=partition, halo=halo)
        cut = SToFM(model.recipe, model.cell_encoder, model.encoder, slices=rule)
        z = embed_data(cut, data, device="cpu")["cell"]
        spread = np.sqrt(((z - z.mean(0)) ** 2).sum(1).mean())
        for where, cells in chosen.items():
            off = [np.linalg.norm(z[row] - centred[row]) for row in cells]
            name = partition if partition == "kd" else f"halo of {halo}"
            rows.append({"row": name, "where": where, "off": float(np.mean(off) / spread)})
    told(start, f"seams-starmap_mpfc-{seed}", rows, set="seams", seed=seed, cells=slide.num_cells)
    assert all(row["off"] < 2 for row in rows)


def _centred(model, data, row):
    """Embedding of a cell in a sub-slice of the cells nearest to it."""
    own = data.clone()
    near = cKDTree(data.place).query(data.place[row], min(RULE.max_cells, len(data.part)))[1]
    own.part = torch.ones_like(data.part)
    own.part[torch.as_tensor(near)] = 0
    own.core = torch.arange(len(own.part)) == row
    cut = SToFM(
        model.recipe, model.cell_encoder, model.encoder, slices=replace(RULE, partition="kd")
    )
    return embed_data(cut, own, device="cpu")["cell"][row]


def markdown(folder: Path) -> str:
    """Tables of all JSON files of a folder: mean ± deviation over seeds of the mean over slides."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("stofm-*.json"))]
    values: dict = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        group = run["test"].split("-")[0]
        own: dict = defaultdict(list)
        for row in run["rows"]:
            for metric in ("macro_F1", "ARI", "pearson", "rmse", "js", "off", "value"):
                if metric in row and row[metric] == row[metric]:
                    place = [run["set"], row.get("labels"), row.get("split"), row.get("where")]
                    what = ", ".join(filter(None, dict.fromkeys([*place, metric])))
                    own[group, what, row["row"]].append(row[metric])
        for (group, what, row), found in own.items():
            values[group][row].setdefault(what, []).append(float(np.mean(found)))
    lines = [", ".join(sorted({run["device"] for run in runs})), ""]
    for group, table in values.items():
        columns = list(dict.fromkeys(c for row in table.values() for c in row))
        lines += [
            f"**{group}**",
            "",
            f"| | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for name, row in table.items():
            shown = [_cell(row[c]) if c in row else "" for c in columns]
            lines.append(f"| {name} | {' | '.join(shown)} |")
        took = [run["seconds"] for run in runs if run["test"].startswith(group)]
        lines += ["", f"{len(took)} runs, {min(took):.0f}–{max(took):.0f} s each.", ""]
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def test_json_files_become_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("TABLES", str(tmp_path))
    for seed, value in enumerate((0.5, 0.7)):
        rows = [{"labels": "types", "split": "across", "row": "PCA", "held_out": h, "macro_F1": v}
                for h, v in (("a", value), ("b", value + 0.1))]  # fmt: skip
        told(time.perf_counter(), f"across-mpfc-{seed}", rows, set="mpfc", seed=seed)
    assert "| PCA | 0.650 ± 0.141 |" in markdown(tmp_path)


if __name__ == "__main__":
    print(markdown(Path(sys.argv[1])))
