"""Genes that cells were never asked for, against spots of a serial section that counted them all.

``pytest -m benchmark -s tests/benchmarks/test_bench_spots_under_cells.py`` prints the table. Needs
SPATIAGRAPH_DATA. ``STEPS``: optimiser steps of a ``ContextModel`` whose embeddings are one more
row; none without. ``MAPPING``: steps of the Tangram-like mapping (300).

``xenium_visium_breast``: cells of 313 genes, and spots with the whole transcriptome over them. A
fifth of the spots, a block of tissue, is held out in turn. Methods predict its genes in single
cells, which are added up to spots, or at once from the cells under a spot.
"""

import os

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import spatiagraph as sg
from spatiagraph.data import Slide, spots_of_cells
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import choose_genes, log_normalize, map_expression, pca
from spatiagraph.evaluate.prediction import depth_terms, mean_and_std, prediction_scores
from spatiagraph.models import ContextModel

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore")]

STEPS = int(os.environ.get("STEPS", "0"))
MAPPING = int(os.environ.get("MAPPING", "300"))
DIAMETER_UM = 100.0
DEPTH = 1e4
ALPHAS = np.logspace(0, 6, 13)


def sections(root) -> tuple[Slide, Slide, list[str]]:
    """Cells, the spots over five of them or more, and the genes that both measure."""
    folder = root / "xenium_visium_breast"
    cells = sg.read(folder / "xenium_cells.h5ad", drop_empty=True, slide_id="cells")
    spots = sg.read(folder / "visium_spots.h5ad", slide_id="spots")
    shared = [gene for gene in cells.symbols if gene in set(spots.symbols)]
    under = spots_of_cells(cells, pos=spots.pos, diameter_um=DIAMETER_UM, min_cells=5)
    return cells, spots[under.adata.obs["row"].to_numpy()], shared


def columns(slide: Slide, genes) -> np.ndarray:
    return pd.Index(slide.symbols).get_indexer(genes)


def summed(values: np.ndarray, cells: Slide, spots: Slide) -> np.ndarray:
    """Mean of a non-negative value over the cells under each spot."""
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(len(values))])
    adata = AnnData(values.astype(np.float32), obs=obs, obsm={"spatial": cells.pos})
    slide = Slide(adata, slide_id="values", expression="normalized", check=False)
    found = spots_of_cells(slide, pos=spots.pos, diameter_um=DIAMETER_UM)
    assert found.num_cells == spots.num_cells
    return found.counts.toarray() / found.adata.obs["num_cells"].to_numpy()[:, None]


def ridge(x, y, asked):
    scaler = StandardScaler().fit(x)
    return RidgeCV(ALPHAS).fit(scaler.transform(x), y).predict(scaler.transform(asked))


def embedded(cells: Slide, seed: int, steps: int) -> np.ndarray:
    model = ContextModel.for_slides([cells], image=None, seed=seed)
    if steps:
        sg.fit(model, [cells], max_steps=steps, seed=seed, progress=False)
    return sg.embed(model, cells, progress=False).obsm["X_context"]


def pooled(z: np.ndarray, cells: Slide, spots: Slide) -> np.ndarray:
    """Mean embedding of the cells under each spot."""
    low = z.min(axis=0)
    return summed(z - low, cells, spots) + low


@pytest.mark.parametrize("seed", [0, 1])
def test_genes_of_cells_against_spots(real_data, capsys, seed):
    cells, spots, shared = sections(real_data)
    of_cells, of_spots = columns(cells, shared), columns(spots, shared)
    unseen = np.setdiff1d(np.arange(spots.num_genes), of_spots)
    truth = log_normalize(spots.counts, DEPTH)
    own = log_normalize(spots.counts[:, of_spots]).toarray()
    single = log_normalize(cells.counts[:, of_cells]).toarray()
    under = spots_of_cells(cells, pos=spots.pos, diameter_um=DIAMETER_UM)
    together = log_normalize(under.counts[:, of_cells]).toarray()
    features = {
        "spot: ridge on summed cells": together,
        "spot: ridge on PCA of cells": pooled(pca(cells.counts, seed=seed), cells, spots),
        "ceiling: ridge on the spot's own 307 genes": own,
    }
    if STEPS:
        for steps in (0, STEPS):
            name = f"spot: ridge on ContextModel, {steps} steps"
            features[name] = pooled(embedded(cells, seed, steps), cells, spots)
    depth = depth_terms(spots.counts)
    folds = spatial_blocks(spots.pos, seed=seed)
    distance = np.linalg.norm(cells.pos[:, None] - spots.pos[None], axis=2)
    home, near = folds[distance.argmin(axis=1)], distance.min(axis=1) <= DIAMETER_UM / 2
    runs: dict[str, list[dict[str, float]]] = {}
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        genes = unseen[
            choose_genes(spots.counts[train][:, unseen], "var250", truth[train][:, unseen])
        ]
        y, goal = truth[train][:, genes].toarray(), truth[test][:, genes].toarray()
        inside = (distance[:, test] <= DIAMETER_UM / 2).any(axis=1)
        # platforms differ gene by gene: either side is in units of itself, over training tissue
        reference = StandardScaler().fit(own[train])
        section = StandardScaler().fit(single[near & (home != fold)])
        known, asked = reference.transform(own[train]), section.transform(single[inside])
        index = NearestNeighbors(n_neighbors=15).fit(known)
        in_cells = {
            "cells: ridge": RidgeCV(ALPHAS).fit(known, y).predict(asked),
            "cells: kNN": y[index.kneighbors(asked, return_distance=False)].mean(axis=1),
            "cells: Tangram-like": map_expression(own[train], single[inside], y, num_steps=MAPPING),
        }
        guesses = {
            "mean profile": np.broadcast_to(y.mean(axis=0), goal.shape),
            "nearest training spots": y[
                NearestNeighbors(n_neighbors=5)
                .fit(spots.pos[train])
                .kneighbors(spots.pos[test], return_distance=False)
            ].mean(axis=1),
        }
        chosen = cells[np.flatnonzero(inside)]
        for name, value in in_cells.items():
            guesses[name] = np.log1p(summed(np.expm1(value.clip(0)), chosen, spots[test]))
        for name, z in features.items():
            guesses[name] = ridge(z[train], y, z[test])
        for name, guess in guesses.items():
            runs.setdefault(name, []).append(prediction_scores(goal, guess, depth[test]))
    table = pd.DataFrame({name: mean_and_std(scores) for name, scores in runs.items()}).T
    direct = prediction_scores(own, together)
    shown = ["pearson_mean", "pearson_mean_std", "pearson_median", "rmse", "pearson_given_depth"]
    with capsys.disabled():
        print(
            f"\nseed {seed}, {spots.num_cells} spots, {near.sum()} cells under them, "
            f"{len(shared)} shared genes (Pearson of the two sections: mean "
            f"{direct['pearson_mean']:.3f}, median {direct['pearson_median']:.3f})\n"
            + table[shown].round(3).to_string()
        )
    assert abs(table.loc["mean profile", "pearson_mean"]) < 1e-6
    ceiling = table.loc["ceiling: ridge on the spot's own 307 genes", "pearson_mean"]
    assert table["pearson_mean"].max() == ceiling > 0.1
