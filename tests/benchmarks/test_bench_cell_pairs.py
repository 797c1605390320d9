"""SpatialFormer on a pancreas: neighbours of one half after the other, its parts, and ranks.

One half of a region is learned from, the other asked about; cells have 30 molecules and 10 genes or
more. Pairs are balanced: neighbours (30 µm) against uniform others, and against others 80–150 µm
away, which regions do not tell apart. Names of cells are guesses from clusters of the same counts:
good to compare embeddings by, no reference.

Every region, variant and seed is a test of its own, so that they can run beside each other::

    TABLES=tables pytest -m benchmark -n 16 tests/benchmarks/test_bench_cell_pairs.py
    python tests/benchmarks/test_bench_cell_pairs.py tables

writes a JSON file each, and prints the tables of all of them. ``SPATIAGRAPH_ACCELERATOR`` says
where models run (``cpu``), ``SPATIAGRAPH_STEPS`` how long they learn.
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
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

import spatiagraph as sg
from spatiagraph.data import GeneTable
from spatiagraph.data.colocalization import cell_molecules
from spatiagraph.data.loader import PairSource
from spatiagraph.data.molecules import CellOutlines
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.data.transcripts import filter_transcripts
from spatiagraph.evaluate import (
    TypeAdjacency,
    expression_cosine,
    known_gene_pairs,
    log_normalize,
    score_cell_pairs,
    score_probe,
)
from spatiagraph.inference import (
    TypedNeighbors,
    perturb_gene_pairs,
    score_neighbors,
    study_gene_pairs,
)
from spatiagraph.models import SpatialFormer
from spatiagraph.tasks.neighbor_tuning import NeighborTuning

DATA = Path(os.environ.get("SPATIAGRAPH_DATA", "data"))
TYPES = "coarse_guess"
STEPS = int(os.environ.get("SPATIAGRAPH_STEPS", "300"))
ACCELERATOR = os.environ.get("SPATIAGRAPH_ACCELERATOR", "cpu")
DEVICE = "cpu" if ACCELERATOR == "cpu" else "auto"
SEEDS = (0, 1, 2)
RADII_UM = (10.0, 20.0, 30.0, 50.0)
MARGIN_UM = 1.0

VARIANTS = {
    "published": "the published head, of [CLS] alone",
    "similarity": "starts from the cosine of ranks",
    "pairs_alone": "the same, learning neighbours and nothing else",
    "no_gene_pairs": "the same without the objective on genes that lie together",
    "own_table": "the same with vectors of genes from molecules of 300 cells of this half",
    "published_table": "the same with the published vectors of genes, 64 components",
    "spillover_mask": "the same without molecules at most 1 µm from an outline",
}
CASES = [("roi_tumour", variant, seed) for seed in SEEDS for variant in VARIANTS]
CASES += [("roi_islet", variant, seed) for seed in SEEDS for variant in list(VARIANTS)[:2]]

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not (DATA / "xenium_pancreas").is_dir(), reason="needs the pancreas"),
    pytest.mark.filterwarnings("default"),  # of cells without counts
]


def read_region(region, masked=False):
    """Cells of a region, and their molecules; masked, those far enough from outlines alone."""
    folder = DATA / "xenium_pancreas"
    slide = sg.read(folder / "cells_top.h5ad", drop_empty=True)
    table = pd.read_parquet(folder / region / "transcripts.parquet")
    table = table[~table["is_control"] & (table["cell_id"] != "UNASSIGNED")]
    table = table.rename(columns={"x": "x_um", "y": "y_um"})[["x_um", "y_um", "gene", "cell_id"]]
    table = table.astype({"gene": str, "cell_id": str})
    inside = slide.adata.obs_names.isin(table["cell_id"])
    kept = inside & (slide.depth >= 30) & (np.diff(slide.counts.indptr) >= 10)
    slide = slide[kept]
    if not masked:
        return slide, table
    outlines = CellOutlines.read(folder / region / "cell_outlines.parquet", MARGIN_UM)
    own = table[table["cell_id"].isin(slide.adata.obs_names)]
    table = filter_transcripts(own, min_counts=10, min_genes=5, outlines=outlines).transcripts
    slide = slide[slide.adata.obs_names.isin(table["cell_id"])]
    cell = pd.Index(slide.adata.obs_names).get_indexer(table["cell_id"])
    gene = pd.Index(slide.symbols).get_indexer(table["gene"])
    ones = np.ones(len(table), dtype=np.float32)
    counts = csr_matrix((ones, (cell, gene)), (slide.num_cells, len(slide.symbols)))
    adata = AnnData(counts, slide.adata.obs.copy(), pd.DataFrame(index=list(slide.symbols)))
    adata.obsm["spatial"] = slide.pos.copy()
    return sg.Slide(adata, slide_id=slide.slide_id), table


def halves(region, masked=False):
    """Cells of a region with their molecules, left and right of the middle."""
    slide, table = read_region(region, masked)
    left = slide.pos[:, 0] < np.median(slide.pos[:, 0])
    return [
        sg.Slide(
            slide[half].adata.copy(),
            transcripts=table[table["cell_id"].isin(slide[half].adata.obs_names)],
            slide_id=f"{region}_{name}",
        )
        for half, name in ((left, "left"), (~left, "right"))
    ]


def drawn(slide, negatives, num=1500, radius_um=30.0):
    """Pairs of a slide, and which are neighbours."""
    edges = torch.stack(list(sg.graph.radius_graph(slide.pos, radius_um)))
    source = PairSource(edges, torch.from_numpy(slide.pos), negatives)
    pairs = source.draw(np.random.default_rng(0).permutation(len(source))[: num // 2])
    return source, np.stack([pairs.first, pairs.second], axis=1), pairs.kind == 0


def model_of(train, variant, seed):
    head = "linear" if variant == "published" else "similarity"
    model = SpatialFormer.from_options([train], neighbor_head=head, seed=seed)
    table = None
    if variant == "own_table":
        molecules = train.transcripts
        cells = np.random.default_rng(seed).permutation(molecules["cell_id"].unique())[:300]
        molecules = cell_molecules(molecules[molecules["cell_id"].isin(cells)])
        graph = sg.training.molecule_graph([molecules], radius_um=3.0)
        fitted = sg.training.fit_gene_table(
            graph, channels=64, max_epochs=5, seed=seed, device=DEVICE
        )
        table = fitted.table
    elif variant == "published_table":
        folder = DATA / "spatialformer_tables"
        ids = json.loads((folder / "tokenv5.json").read_text())
        symbols = [name for name in model.vocabulary.symbols if name in ids]
        values = np.load(folder / "gene_embeddings_v5_f16.npz")["embedding"].astype(np.float32)
        values = values[[ids[name] for name in symbols]]
        parts = PCA(64, random_state=0).fit_transform(values).astype(np.float32)
        table = GeneTable(tuple(symbols), torch.from_numpy(parts))
    if table is not None:
        model.set_gene_table(table.rows(model.vocabulary.symbols))
    return model


def learned(model, train, variant, seed):
    """The model after training, and its learning curve."""
    if variant == "no_gene_pairs":
        train = sg.Slide(train.adata, slide_id=train.slide_id)
    task = NeighborTuning(model) if variant == "pairs_alone" else None
    history = sg.fit(
        model, train, task=task, max_steps=STEPS, seed=seed, accelerator=ACCELERATOR,
        validation=0.1, progress=False, logger=False,
    ).history  # fmt: skip
    names = ("steps", "cell_pairs", "val_cell_pairs", "tokens", "val_tokens", "gene_pairs")
    return history[[name for name in names if name in history]].round(4).to_dict("list")


def scores(model, train, test):
    """Scores of a model and of what needs none, against both kinds of others."""
    rows, data = [], model.prepare(test)
    source = drawn(train, "uniform")[0]
    known = TypeAdjacency.fitted(
        np.stack([source.neighbor, source.query]), train.adata.obs[TYPES].astype(str)
    )
    for negatives in ("uniform", "ring"):
        _, pairs, near = drawn(test, negatives)
        ranked = {
            "expression cosine": expression_cosine(test.counts, pairs),
            "adjacent types": known(test.adata.obs[TYPES].astype(str), pairs),
        }
        odds = {"model": score_neighbors(model, data, pairs, device=DEVICE)}
        rows.append(score_cell_pairs(near, odds, ranked).assign(others=negatives).reset_index())
    return pd.concat(rows).round(4)


def by_radius(model, test):
    """The same for neighbours of other distances, 500 cells against uniform others."""
    rows, data = [], model.prepare(test)
    for radius_um in RADII_UM:
        _, pairs, near = drawn(test, "uniform", 1000, radius_um)
        cosine = {"expression cosine": expression_cosine(test.counts, pairs)}
        odds = {"model": score_neighbors(model, data, pairs, device=DEVICE)}
        table = score_cell_pairs(near, odds, cosine)
        rows.append(table.assign(radius_um=radius_um).reset_index())
    return pd.concat(rows).round(4)


def probed(model, test):
    """Types read from embeddings of the other half, in blocks of tissue."""
    known = (test.adata.obs[TYPES].astype(str) != "unclustered").to_numpy()
    asked = sg.Slide(test[known].adata.copy(), slide_id="asked")
    found = {}
    for kind in ("cls", "gene_mean"):
        model.embedding = kind
        adata = sg.embed(model, asked, device=DEVICE, progress=False)
        found[kind] = adata.obsm["X_spatialformer"].copy()
    model.embedding = "cls"
    found["pca"] = PCA(64, random_state=0).fit_transform(log_normalize(asked.counts).toarray())
    folds = spatial_blocks(asked.pos, num_folds=4, seed=0)
    table = score_probe(found, asked.adata.obs[TYPES].astype(str), folds)
    return table[["macro_F1", "accuracy"]].round(4).reset_index(names="embedding")


def note(name, **found):
    """Keep what a test found, as JSON in the folder of ``TABLES``, and print it."""
    plain = {k: v.to_dict("records") for k, v in found.items() if isinstance(v, pd.DataFrame)}
    text = json.dumps({**found, **plain})
    print(f"\n{name}: {text}")
    if folder := os.environ.get("TABLES"):
        file = Path(folder) / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(("region", "variant", "seed"), CASES)
def test_neighbours_of_one_half_after_the_other(region, variant, seed):
    train, test = halves(region, masked=variant == "spillover_mask")
    model = model_of(train, variant, seed)
    start, start_probe = scores(model, train, test), probed(model, test)
    curve = learned(model, train, variant, seed)
    found = {"start": start, "start_probe": start_probe, "scores": scores(model, train, test)}
    if variant in ("published", "similarity"):
        found["radius"] = by_radius(model, test)
    note(
        f"cell_pairs-{region}-{variant}-{seed}",
        region=region, variant=variant, seed=seed, steps=STEPS, accelerator=ACCELERATOR,
        cells=[train.num_cells, test.num_cells], curve=curve, probe=probed(model, test), **found,
    )  # fmt: skip
    assert found["scores"]["AUROC"].between(0.3, 1).all()


def known_pairs():
    """Ligands and receptors, each subunit of a complex on its own."""
    table = pd.read_csv(DATA / "gene_tables" / "ligrec_cellchat_human.csv", index_col=0)
    rows = [
        (ligand, receptor)
        for ligands, receptors in table.iloc[:, :2].astype(str).to_numpy()
        for ligand in ligands.split("_")
        for receptor in receptors.split("_")
    ]
    return pd.DataFrame(rows, columns=["ligand", "receptor"])


@pytest.mark.parametrize("labels", ["types", "shuffled"])
@pytest.mark.parametrize(("first", "second"), [("macrophage", "T"), ("tumour", "stroma")])
def test_gene_pairs_of_twenty_real_neighbours(first, second, labels):
    train, test = halves("roi_tumour")
    model = model_of(train, "similarity", 0)
    learned(model, train, "similarity", 0)
    if labels == "shuffled":
        types = test.adata.obs[TYPES].astype(str).to_numpy()
        test.adata.obs[TYPES] = np.random.default_rng(0).permutation(types)
    asked = TypedNeighbors(TYPES, first, second, num_pairs=20)
    screen = 15 if DEVICE == "cpu" else None
    study = study_gene_pairs(model, test, asked, min_support=4, screen=screen, device=DEVICE)
    known = known_pairs()
    table = study.table
    if not np.isin(table[["gene_a", "gene_b"]], known).any():
        table = table[:0]  # no tested gene is a ligand or receptor
    overlap = known_gene_pairs(table, known)
    odds = study.cells[["log_odds", "log_odds_other"]].mean().round(3).to_dict()
    note(
        f"gene_pairs-{first}-{second}-{labels}",
        first=first, second=second, labels=labels, steps=STEPS, screen=screen, odds=odds,
        cell_pairs=len(study.cells), tested=len(study.table),
        below=int(((study.table["q"] < 0.05) & (study.table["mean"] < 0)).sum()),
        beyond_others=len(study.significant()), known=overlap.num_known, both=overlap.num_both,
        p=round(float(overlap.p), 4), table=study.table.head(12).round(5),
    )  # fmt: skip


def test_what_a_screen_keeps_of_the_lowest_effects():
    """Ten real neighbours: all pairs of genes, and those of the 15 with the largest effects."""
    train, test = halves("roi_tumour")
    model = model_of(train, "similarity", 0)
    learned(model, train, "similarity", 0)
    _, pairs, near = drawn(test, "uniform")
    long = pairs[near][np.argsort(-test.depth[pairs[near]].min(1), kind="stable")[:10]]
    took, tables = [], []
    for screen in (None, 15):
        start = time.process_time()
        options = {"score": "logit", "screen": screen, "device": DEVICE}
        tables.append(perturb_gene_pairs(model, test, long, **options))
        took.append(time.process_time() - start)
    kept = []
    for number, every in tables[0].groupby("pair"):
        lowest = every.nsmallest(20, "effect")[["gene_a", "gene_b"]]
        own = tables[1][tables[1]["pair"] == number]
        kept.append(len(lowest.merge(own, on=["gene_a", "gene_b"])) / 20)
    note(
        "screen", seconds=[round(t, 2) for t in took], kept=spread(kept),
        pairs=[len(t) for t in tables], steps=STEPS,
    )  # fmt: skip
    assert len(tables[1]) < len(tables[0])


def spread(values, digits=3):
    """Mean and deviation over seeds."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def rows_of(files, key):
    """Rows of one kind of table of all files, with region, variant and seed."""
    parts = [
        pd.DataFrame(found[key]).assign(**{k: found[k] for k in ("region", "variant", "seed")})
        for found in files
        if key in found
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def markdown(folder):
    """Tables of the JSON files of a folder."""
    read = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("*.json"))]
    files = [found for found in read if "variant" in found]
    lines = []

    def add(head, rows):
        lines.extend(["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]])
        lines.append("")

    own, start = rows_of(files, "scores"), rows_of(files, "start")
    order = [name for name in VARIANTS if any(found["variant"] == name for found in files)]
    for region in sorted({found["region"] for found in files}):
        rows = []
        for variant in order:
            for name, table in (
                ("expression cosine", own), ("adjacent types", own), ("start", start),
                ("trained", own),
            ):  # fmt: skip
                row, score = [variant, name], "model" if name in ("start", "trained") else name
                for others in ("uniform", "ring"):
                    part = table[
                        (table["region"] == region) & (table["variant"] == variant)
                        & (table["score"] == score) & (table["others"] == others)
                    ]  # fmt: skip
                    if len(part):
                        row += [spread(part["F1"]), spread(part["AUROC"])]
                        row += [spread(part["ECE"])] if others == "ring" else []
                if len(row) > 2:
                    rows.append([region, *row])
        add(
            ["region", "variant", "score", "F1, uniform", "AUROC", "F1, ring", "AUROC", "ECE"], rows
        )
    probe, before = rows_of(files, "probe"), rows_of(files, "start_probe")
    if len(probe):
        rows = []
        for (region, variant), part in probe.groupby(["region", "variant"], sort=False):
            old = before[(before["region"] == region) & (before["variant"] == variant)]
            for kind in ("pca", "cls", "gene_mean"):
                sides = [table[table["embedding"] == kind]["macro_F1"] for table in (old, part)]
                rows.append([region, variant, kind, *map(spread, sides)])
        add(["region", "variant", "embedding", "macro F1 of types, start", "trained"], rows)
    sweep = rows_of(files, "radius")
    if len(sweep):
        keys = ["region", "variant", "score", "radius_um"]
        add(
            ["region", "variant", "score", "radius, µm", "F1", "AUROC"],
            [
                [*map(str, key), spread(part["F1"]), spread(part["AUROC"])]
                for key, part in sweep.groupby(keys, sort=False)
            ],
        )
    studies = [found for found in read if "labels" in found]
    if studies:
        names = ("cell_pairs", "tested", "below", "beyond_others", "known", "both", "p")
        add(
            ["types", "labels", *names],
            [
                [f"{s['first']}, {s['second']}", s["labels"], *(str(s[name]) for name in names)]
                for s in studies
            ],
        )
    return "\n".join(lines)


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


if __name__ == "__main__":
    sys.stdout.write(markdown(sys.argv[1]))
