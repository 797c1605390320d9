"""SpatialFormer on a pancreas: neighbours of one half after the other, and ranks.

One half of a region is learned from, the other asked about; cells have 30 molecules and 10 genes or
more. Pairs are balanced: neighbours (30 µm) against uniform others, and against others 80–150 µm
away, which regions do not tell apart. Names of cells are guesses from clusters of the same counts:
good to compare embeddings by, no reference.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import spatiagraph as sg
from spatiagraph.data.loader import PairSource
from spatiagraph.evaluate import (
    TypeAdjacency,
    expression_cosine,
    score_cell_pairs,
)
from spatiagraph.inference import score_neighbors
from spatiagraph.models import SpatialFormer, spatialformer_recipe, spatialformer_vocabulary

DATA = Path(os.environ.get("SPATIAGRAPH_DATA", "data"))
TYPES = "coarse_guess"
STEPS, SEEDS = int(os.environ.get("SPATIAGRAPH_STEPS", "400")), (0, 1, 2)

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not (DATA / "xenium_pancreas").is_dir(), reason="needs the pancreas"),
]


def halves(region):
    """Cells of a region with their molecules, left and right of the middle."""
    folder = DATA / "xenium_pancreas"
    slide = sg.read(folder / "cells_top.h5ad", drop_empty=True)
    table = pd.read_parquet(folder / region / "transcripts.parquet")
    table = table[~table["is_control"] & (table["cell_id"] != "UNASSIGNED")]
    table = table.rename(columns={"x": "x_um", "y": "y_um"})[["x_um", "y_um", "gene", "cell_id"]]
    table = table.astype({"gene": str, "cell_id": str})
    inside = slide.adata.obs_names.isin(table["cell_id"])
    kept = inside & (slide.depth >= 30) & (np.diff(slide.counts.indptr) >= 10)
    slide = slide[kept]
    left = slide.pos[:, 0] < np.median(slide.pos[:, 0])
    return [
        sg.Slide(
            slide[half].adata.copy(),
            transcripts=table[table["cell_id"].isin(slide[half].adata.obs_names)],
            slide_id=f"{region}_{name}",
        )
        for half, name in ((left, "left"), (~left, "right"))
    ]


def drawn(slide, negatives, num=1500):
    """Pairs of a slide, and which are neighbours."""
    edges = torch.stack(list(sg.graph.radius_graph(slide.pos, 30.0)))
    source = PairSource(edges, torch.from_numpy(slide.pos), negatives)
    pairs = source.draw(np.random.default_rng(0).permutation(len(source))[: num // 2])
    return source, np.stack([pairs.first, pairs.second], axis=1), pairs.kind == 0


def beside(train, test):
    """Scores of what needs no model, and the pairs they are of."""
    source = drawn(train, "uniform")[0]
    known = TypeAdjacency.fitted(
        np.stack([source.neighbor, source.query]), train.adata.obs[TYPES].astype(str)
    )
    asked = {}
    for negatives in ("uniform", "ring"):
        _, pairs, near = drawn(test, negatives)
        asked[negatives] = (
            pairs,
            near,
            {
                "expression cosine": expression_cosine(test.counts, pairs),
                "adjacent types": known(test.adata.obs[TYPES].astype(str), pairs),
            },
        )
    return asked


def model_of(train, seed):
    vocabulary = spatialformer_vocabulary(train.symbols).fitted([train])
    torch.manual_seed(seed)
    return SpatialFormer(spatialformer_recipe(vocabulary), dropout=0.0)


def learned(model, train, seed, steps=STEPS, **options):
    if steps:
        options = {"validation": 0.1, "progress": False, "logger": False, **options}
        history = sg.fit(
            model, train, max_steps=steps, seed=seed, accelerator="cpu", **options
        ).history
        part = [c for c in history if c in ("steps", "val_cell_pairs", "val_tokens", "cell_pairs")]
        print(history[part].round(3).to_string(index=False), flush=True)
    return model


def scores(model, test, asked, name="model"):
    """One row for each kind of others."""
    rows = []
    data = model.prepare(test)
    for negatives, (pairs, near, ranked) in asked.items():
        odds = score_neighbors(model, data, pairs, device="cpu")
        table = score_cell_pairs(near, {name: odds}, ranked)
        rows.append(table.assign(others=negatives))
    return pd.concat(rows).reset_index().set_index(["others", "score"])


def summary(parts):
    """Mean and deviation over seeds."""
    both = pd.concat(parts, keys=range(len(parts)))
    grouped = both.groupby(level=[1, 2], sort=False)
    columns = ["F1", "recall", "specificity", "AUROC", "ECE"]
    mean, spread = grouped.mean()[columns], grouped.std()[columns]
    return mean.round(3).astype(str) + " ± " + spread.round(3).astype(str)


@pytest.mark.filterwarnings("default")  # of cells without counts
@pytest.mark.parametrize("region", ["roi_tumour", "roi_islet"])
def test_neighbours_of_one_half_after_the_other(region):
    train, test = halves(region)
    print(f"\n{region}: {train.num_cells} cells to learn from, {test.num_cells} asked about")
    asked = beside(train, test)
    found, start = [], []
    for seed in SEEDS:
        model = model_of(train, seed)
        start.append(scores(model, test, asked, "before training"))
        learned(model, train, seed)
        found.append(scores(model, test, asked, "after training"))
        print(found[-1]["AUROC"].round(3).to_dict(), flush=True)
    print(summary(start).filter(like="before", axis=0).to_string())
    print(summary(found).to_string())


@pytest.mark.filterwarnings("default")
def test_what_medians_do_to_ranks():
    train, _ = halves("roi_tumour")
    symbols = list(train.symbols)
    published = pd.read_csv(
        DATA / "spatialformer_tables" / "gene_median.tsv", sep="\t", index_col=0
    )
    x = train.counts.tocsr()
    scaled = x.multiply(1e4 / train.depth[:, None]).tocsc()
    raw = x.tocsc()
    own = np.array([np.median(scaled[:, g].data) if scaled[:, g].nnz else 1 for g in range(377)])
    pooled = np.array([np.median(raw[:, g].data) if raw[:, g].nnz else 1 for g in range(377)])
    level = published.iloc[:, 0].reindex(symbols).fillna(1.0).to_numpy(float)
    for name, m in (("published", level), ("of raw counts", pooled), ("ours", own)):
        moved, kept = [], []
        for i in range(0, x.shape[0], 10):
            genes = x.indices[x.indptr[i] : x.indptr[i + 1]]
            count = x.data[x.indptr[i] : x.indptr[i + 1]]
            plain = np.lexsort((genes, -count))
            ranked = np.lexsort((genes, -count, -count / m[genes]))
            place = np.empty(len(genes), int)
            place[plain] = np.arange(len(genes))
            moved.append(np.abs(place[ranked] - np.arange(len(genes))).mean())
            kept.append((plain == ranked).mean())
        print(
            f"medians {name}: {np.mean(m == m.min()):.3f} of genes at the least, "
            f"{np.mean(moved):.2f} places moved on average, {np.mean(kept):.3f} of places kept"
        )
