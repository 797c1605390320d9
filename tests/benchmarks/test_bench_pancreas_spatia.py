"""SPATIA trained on one region of a pancreas and read on another: genes, images, islets.

    pytest -m benchmark -s tests/benchmarks/test_bench_pancreas_spatia.py

Needs SPATIAGRAPH_DATA. In the environment: SEEDS of training (2), STEPS of a fit (200); with
``TABLES=folder`` every fit leaves its tables there. Insulin, glucagon and somatostatin are taken
out of what models and baselines read: they only say where islets are.
"""

import functools
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import vstack
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize

import spatiagraph as sg
from spatiagraph.data import CropSource
from spatiagraph.data.recipe import Crop
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import color_texture, neighbor_mean, score_image_to_genes
from spatiagraph.inference import embed_data, project_modalities
from spatiagraph.models import ContextModel, Spatia
from spatiagraph.models.spatia import TINY
from spatiagraph.tasks import Corruption, SpatiaPretraining, SpatiaWeights
from tests.masked_counts import MaskedCounts
from tests.pancreas import REGIONS, read_region

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore:Dropped")]

SEEDS = range(int(os.environ.get("SEEDS", "2")))
STEPS = int(os.environ.get("STEPS", "200"))
HORMONES = ("INS", "GCG", "SST")
STRIP = 4000  # cells of the other region whose genes are hidden
APART_UM = 150.0  # hits nearer than this share neighbours with the query
K = 10


def region(folder: Path, name: str) -> sg.Slide:
    """Cells of one region with three stains; hormones kept aside, in ``obs``."""
    slide = read_region(folder, name, (0, 1, 2))
    adata = slide.adata
    is_hormone = np.isin(np.array(slide.symbols), HORMONES)
    adata.obs["hormones"] = np.asarray(slide.counts[:, is_hormone].sum(axis=1)).ravel()
    rest = adata[np.asarray(slide.counts[:, ~is_hormone].sum(axis=1)).ravel() > 0, ~is_hormone]
    return sg.Slide(rest.copy(), slide.image, slide_id=name, assume_um=True)


@functools.cache
def regions(folder: Path) -> tuple[sg.Slide, sg.Slide]:
    """The region to train on, and the other."""
    train, test = (region(folder, name) for name in REGIONS)
    return train, test


def strip_of(slide: sg.Slide) -> sg.Slide:
    """Cells at the left of a slide."""
    rows = np.flatnonzero(slide.pos[:, 0] <= np.sort(slide.pos[:, 0])[STRIP - 1])
    return sg.Slide(slide.adata[rows].copy(), slide.image, slide_id="strip", assume_um=True)


def islets(slide: sg.Slide) -> np.ndarray:
    """Number of the islet of each cell, -1 outside: ten cells with hormones or more, near by."""
    endocrine = np.flatnonzero(slide.adata.obs["hormones"] >= 5)
    tree = cKDTree(slide.pos[endocrine])
    number = connected_components(tree.sparse_distance_matrix(tree, 25.0))[1]
    number[np.bincount(number)[number] < 10] = -1
    distance, near = tree.query(slide.pos)
    return np.where(distance <= 15.0, number[near], -1)


def islet_search(features: dict[str, np.ndarray], slide: sg.Slide) -> pd.DataFrame:
    """Precision of the first hits: of cells in another islet, at 150 µm or more from the query.

    Queries are cells of islets that hold hormones, or that hold none (endothelium, stroma).
    """
    islet, hormones = islets(slide), slide.adata.obs["hormones"].to_numpy()
    asked = {"with hormones": hormones >= 5, "without": hormones < 2}
    found: dict[str, dict[str, float]] = {name: {} for name in asked}
    for name, which in asked.items():
        queries = np.flatnonzero((islet >= 0) & which)
        allowed = cdist(slide.pos[queries], slide.pos) > APART_UM
        allowed &= islet[queries][:, None] != islet[None]
        right = islet >= 0
        found[name]["queries"] = len(queries)
        found[name]["chance"] = float(np.mean([right[row].mean() for row in allowed]))
        for method, z in features.items():
            unit = normalize(z - z.mean(axis=0))
            similarity = np.where(allowed, unit[queries] @ unit.T, -np.inf)
            hits = np.argpartition(-similarity, K, axis=1)[:, :K]
            found[name][method] = float(right[hits].mean())
    return pd.DataFrame(found)


@functools.cache
def shared(folder: Path):
    """Baselines of both regions: components of the one they are learned on, and colours."""
    train, test = regions(folder)
    logs = [sg.evaluate.log_normalize(slide.counts).toarray() for slide in (train, test)]
    components = PCA(30, random_state=0).fit(logs[0])
    own = [components.transform(x).astype(np.float32) for x in logs]
    averaged = [neighbor_mean(x, s.pos, 15) for x, s in zip(own, (train, test), strict=True)]
    colors = []
    for slide in (train, test):
        crops, _ = CropSource(slide, slide.pos, 27.2, 64).read()
        colors.append(color_texture(crops.numpy()))
    return own, averaged, colors


@pytest.mark.parametrize("seed", SEEDS)
def test_what_one_region_teaches_of_another(real_data, seed, capsys):
    train, test = regions(real_data / "xenium_pancreas")
    own, averaged, colors = shared(real_data / "xenium_pancreas")
    strip = strip_of(test)
    both = (train, test)
    recipe = Spatia.default_recipe([train], num_genes=None, crops=(Crop(27.2, 32),))
    model = Spatia.for_slides([train], recipe=recipe, seed=seed)
    counted = MaskedCounts(model, train, strip)
    masked = {
        "ridge on the start": counted.of_ridge(),
        "15 similar cells in the start": counted.of_similar_cells(),
    }
    z, images = {}, {}
    start = time.process_time()
    for when in ("start", "trained"):
        if when == "trained":
            start = time.process_time()
            history = sg.fit(
                model, train, max_steps=STEPS, seed=seed, accelerator="cpu", progress=False
            ).history
            seconds = time.process_time() - start
        masked[when] = counted.of_model(model)
        for slide in both:
            adata = sg.embed(model, slide, progress=False)
            for level in ("", "_niche"):
                found = np.array(adata.obsm[f"X_spatia{level}"])
                z[f"SPATIA{level.replace('_', ', ')}, {when}", slide.slide_id] = found
            images[f"SPATIA, {when}", slide.slide_id] = project_modalities(model, slide)[0]
    number = np.repeat([0, 1], [slide.num_cells for slide in both])
    blocks = np.concatenate([spatial_blocks(train.pos, seed=0), np.full(test.num_cells, 9)])
    features = {
        "colours and texture": np.concatenate(colors),
        "… and of 15 neighbours": np.concatenate(
            [
                np.hstack([c, neighbor_mean(c, slide.pos, 15)])
                for c, slide in zip(colors, both, strict=True)
            ]
        ),
    }
    for name in ("SPATIA, start", "SPATIA, trained"):
        features[name] = np.concatenate([images[name, slide.slide_id] for slide in both])
    seen = np.isfinite(np.hstack(list(features.values()))).all(axis=1)
    genes = score_image_to_genes(
        {name: np.nan_to_num(x) for name, x in features.items()},
        vstack([slide.counts for slide in both]).tocsr(),
        np.where(seen, number, -1),
        groups=blocks,
        held_out=[1],
        target=None,
    )
    scaler = StandardScaler().fit(averaged[0])
    searched = {
        "PCA": own[1],
        "averaged PCA": averaged[1],
        "averaged PCA, whitened": scaler.transform(averaged[1]),
        **{name: found for (name, slide), found in z.items() if slide == test.slide_id},
    }
    hits = islet_search(searched, test)
    with capsys.disabled():
        print(f"\nseed {seed}: {history['steps'].iloc[-1]} steps, {seconds:.0f} s of CPU")
        print(history[["steps", "loss"]].iloc[:: max(1, len(history) // 5)].round(3).to_string())
        print(pd.Series(masked, name="masked genes").round(1).to_string())
        columns = ["pearson_mean", "pearson_given_depth", "num_genes"]
        print(genes[columns].round(3).to_string())
        print(hits.round(3).to_string(), flush=True)
    if "TABLES" in os.environ:
        out = Path(os.environ["TABLES"])
        pd.Series(masked).to_csv(out / f"pancreas_spatia_genes_{seed}.csv")
        genes.to_csv(out / f"pancreas_spatia_images_{seed}.csv")
        hits.to_csv(out / f"pancreas_spatia_islets_{seed}.csv")
    assert (hits.loc["SPATIA, niche, trained"] > 2 * hits.loc["chance"]).all()


CHANGES = {  # models of genes alone: what takes them beyond their start
    "ContextModel": {},
    "SPATIA": {},
    "SPATIA, three times the steps": {"max_steps": 3 * STEPS},
    "SPATIA, rate 3e-3": {"lr": 3e-3},
    "SPATIA, 32 channels": {"channels": 32},
    "SPATIA, counts thinned": {"corruption": Corruption(thin_rate=0.6)},
    "SPATIA, cells and niches guessed": {
        "weights": SpatiaWeights(masked_cells=0.5, masked_niches=0.5)
    },
    "SPATIA, hidden counts alone": {
        "weights": SpatiaWeights(
            **dict.fromkeys(SpatiaWeights.__dataclass_fields__, 0.0) | {"expression": 1.0}
        )
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_hidden_genes_take_steps(real_data, change, capsys):
    train, test = regions(real_data / "xenium_pancreas")
    train, strip, test = (
        sg.Slide(s.adata.copy(), slide_id=s.slide_id, assume_um=True)
        for s in (train, strip_of(test), test)
    )
    options = {"max_steps": STEPS, **CHANGES[change]}
    task = None
    if change == "ContextModel":
        model = ContextModel.for_slides([train], num_genes=None, seed=0)
    else:
        size = replace(TINY, channels=options.pop("channels", TINY.channels))
        model = Spatia.for_slides([train], size, num_genes=None, seed=0)
        weights, corruption = (options.pop(name, None) for name in ("weights", "corruption"))
        task = SpatiaPretraining(model, weights, corruption=corruption)
    counted = MaskedCounts(model, train, strip)
    found = {"start": counted.of_model(model), "similar cells": counted.of_similar_cells()}
    start = time.process_time()
    history = sg.fit(
        model, train, task=task, seed=0, accelerator="cpu", progress=False, **options
    ).history
    found |= {"trained": counted.of_model(model), "steps": history["steps"].iloc[-1]}
    found |= {"rates sum to": history["lr_sum"].iloc[-1], "moved": history["moved"].iloc[-1]}
    found["seconds of CPU"] = time.process_time() - start
    z = embed_data(model, model.recipe(test))
    hits = islet_search({level: z[level] for level in ("cell", "niche")}, test)
    found |= {
        f"islets, {level}, {queries}": hits.loc[level, queries]
        for level in ("cell", "niche")
        for queries in hits
    }
    with capsys.disabled():
        print(f"\n{change}\n{pd.Series(found).round(3).to_string()}", flush=True)
    if "TABLES" in os.environ:
        pd.Series(found).to_csv(
            Path(os.environ["TABLES"]) / f"pancreas_spatia_steps_{change.replace(' ', '_')}.csv"
        )
