"""SpatialFormer's costs beside loops: co-localisation labels, deletions of gene pairs, padding;
and pairs of genes beyond abundance in every real set of molecules.

``OMP_NUM_THREADS=1 pytest -m benchmark -s tests/benchmarks/test_bench_spatialformer.py`` prints a
line each; CPU time, two sides in turns in one process. With ``SPATIAGRAPH_ACCELERATOR=gpu`` the
encoder runs on CUDA and its sides are timed by the clock; ``TABLES`` is a folder for a JSON file of
the deletions.
"""

import json
import os
import time
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from spatiagraph.data.colocalization import (
    Colocalization,
    SortedMolecules,
    cell_molecules,
    find_gene_pairs,
    sort_molecules,
)
from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.data.read.molecules import read_molecules
from spatiagraph.data.tokens import Marks, cell_sequences
from spatiagraph.inference.gene_pair_deletion import gene_pair_grid, without_genes
from spatiagraph.nn import Squeezeformer

DEVICE = torch.device("cuda" if os.environ.get("SPATIAGRAPH_ACCELERATOR") == "gpu" else "cpu")

pytestmark = pytest.mark.benchmark


def cpu(step):
    """Seconds of CPU, and what came out."""
    start = time.process_time()
    result = step()
    return time.process_time() - start, result


def timed(step):
    """Seconds of CPU, or by the clock on another device, and what came out."""
    if DEVICE.type == "cpu":
        return cpu(step)
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = step()
    torch.cuda.synchronize()
    return time.perf_counter() - start, result


def say(capsys, text):
    with capsys.disabled():
        print(f"\n{text}")


def label_with_networkx(gene, pos, seed):
    """Pairs of one cell by the rule of SpatialFormer, as a script would find them."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(pos)))
    graph.add_edges_from(cKDTree(pos).query_pairs(5.0))
    found = set()
    for group in nx.community.louvain_communities(graph, seed=seed):
        names, number = np.unique(gene[list(group)], return_counts=True)
        kept = names[number >= 3].tolist()
        found |= {(a, b) for a in kept for b in kept if a < b}
    return found


def test_labels_of_real_cells_beside_networkx(real_data, capsys):
    table = read_molecules(real_data / "xenium_breast_crop" / "transcripts.parquet")
    molecules = cell_molecules(table, min_counts=1, min_genes=1)
    rule = Colocalization()
    rule(molecules)  # compiles
    start = time.perf_counter()
    took, pairs = cpu(lambda: rule(molecules))
    elapsed = time.perf_counter() - start
    chosen = np.random.default_rng(0).choice(molecules.num_cells, 100, replace=False)

    def loop():
        return [
            label_with_networkx(molecules.gene[a:b], molecules.pos[a:b, :2], 0)
            for a, b in (molecules.ptr[i : i + 2] for i in chosen)
        ]

    theirs, found = cpu(loop)
    rates = molecules.num_cells / took, len(chosen) / theirs
    own = [{*map(tuple, pairs.pairs[a:b].tolist())} for a, b in pairwise(pairs.ptr)]
    same = np.mean([len(own[i] & f) / max(len(own[i] | f), 1) or not f for i, f in
                    zip(chosen, found, strict=True)])  # fmt: skip
    say(
        capsys,
        f"labels: {molecules.num_cells:,} cells in {elapsed:.2f} s, {rates[0]:,.0f} cells/s of CPU "
        f"beside {rates[1]:,.0f} with networkx: {rates[0] / rates[1]:.0f}x (Jaccard {same:.2f})",
    )
    assert elapsed < 10


REAL = {  # folder of the molecules → µm per unit
    "xenium_pancreas/roi_islet": 1.0,
    "xenium_pancreas/roi_tumour": 1.0,
    "xenium_breast_crop": 1.0,
    "iss_ca1": 0.1625,
    "merfish_u2os": 0.1,
}
KNOWN = {  # expected of the tissue: hormones in islets, enzymes in acini, T cells, interneurons
    "hormones": {"INS", "GCG", "SST"},
    "acini": {"AMY2A", "GATM"},
    "T cells": {"CD3E", "TRAC", "PTPRC", "CXCR4", "IL7R"},
    "interneurons": {"Sst", "Npy", "Gad1", "Cck"},
}


@pytest.mark.parametrize("name", list(REAL))
def test_gene_pairs_beyond_both_nulls(real_data, capsys, tmp_path, name):
    """Pairs that lie together, and what the nulls leave of them and of pairs one would expect."""
    path, draws = real_data / name / "transcripts.parquet", 3 if "u2os" in name else 20
    sort_molecules(path, tmp_path / "sorted.parquet", mpp=REAL[name])
    molecules = SortedMolecules(tmp_path / "sorted.parquet")
    found = find_gene_pairs(molecules, Colocalization(), num_draws=draws)
    table, sure = found.table, found.significant()
    shuffled = int((table["q_shuffle"] < 0.05).sum())
    jittered = int((table["q_jitter"] < 0.05).sum())
    say(
        capsys,
        f"{name}: {molecules.num_cells:,} cells, {molecules.num_molecules:,} molecules, "
        f"{len(table):,} pairs tested; q < 0.05 against shuffled {shuffled}, displaced {jittered}, "
        f"both {len(sure)}: {', '.join(sure['gene_a'] + '|' + sure['gene_b'])}",
    )
    columns = ["gene_a", "gene_b", "support", "cells", "expected_shuffle", "expected_jitter"]
    for what, genes in KNOWN.items():
        known = table[table["gene_a"].isin(genes) & table["gene_b"].isin(genes)]
        if len(known):
            say(capsys, f"{what}:\n{known[[*columns, 'q_shuffle', 'q_jitter']].round(3)}")
    assert (table["cells"] <= table["support"]).all()


def scorer(channels=64):
    """A small encoder that scores sequences by their first token."""
    torch.manual_seed(0)
    table = torch.nn.Embedding(400, channels).to(DEVICE)
    encoder = Squeezeformer(channels, num_layers=2, heads=8).eval().to(DEVICE)
    head = torch.nn.Linear(channels, 1).to(DEVICE)

    def score(sequences):
        return head(encoder(table(sequences.tokens), sequences.mask)[:, 0]).squeeze(-1)

    return score


@torch.no_grad()
def test_deletions_of_one_pair_of_cells_beside_a_loop(capsys):
    n = 69
    ids = ragged_tensor(np.arange(100, 100 + 2 * n), np.array([0, n, 2 * n]))
    meta = torch.tensor([[11, 12, 13, 14], [21, 22, 23, 24]])
    sequences = cell_sequences(ids, meta, Marks(0, 1, 99), torch.tensor([0]), torch.tensor([1]))
    sequences = type(sequences)(*(part.to(DEVICE) for part in sequences))
    score = scorer()

    def loop(places):
        start = score(sequences)
        return torch.cat(
            [score(without_genes(sequences, i[None], j[None])) - start for i, j in places]
        )

    step = torch.arange(0, n, 10, device=DEVICE)
    places = torch.cartesian_prod(step, step)
    gene_pair_grid(score, sequences)
    loop(places[:4])
    ours, grid = timed(lambda: gene_pair_grid(score, sequences))
    theirs, values = timed(lambda: loop(places))
    torch.testing.assert_close(
        values, torch.stack([grid.both[i, j] for i, j in places]), atol=1e-4, rtol=1e-3
    )
    theirs *= n * n / len(places)
    screen = 15
    screened, best = timed(lambda: gene_pair_grid(score, sequences, screen=screen))
    lowest = set(grid.both.flatten().topk(20, largest=False).indices.tolist())
    kept = {int(i) * n + int(j) for i in best.ranks[0] for j in best.ranks[1]}
    say(
        capsys,
        f"the same of the {screen} genes of each cell with the largest effects of their own: "
        f"{screened:.2f} s, {theirs / screened:.0f}x, with {len(lowest & kept)} of the 20 pairs of "
        "lowest effect",
    )
    say(
        capsys,
        f"deletions of {n} x {n} genes: {ours:.2f} s on {DEVICE} beside {theirs:.2f} s one by one "
        f"(scaled from {len(places)}): {theirs / ours:.1f}x",
    )
    if folder := os.environ.get("TABLES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        found = {"device": str(DEVICE), "seconds": ours, "loop_seconds": theirs}
        (Path(folder) / f"deletions-{DEVICE}.json").write_text(json.dumps(found))


@torch.no_grad()
def test_tokens_of_the_encoder_beside_sequences_padded_to_500(capsys):
    """Two cells of 30 to 110 expressed genes each, in batches by length."""
    torch.manual_seed(0)
    encoder = Squeezeformer(64, num_layers=2, heads=8).eval().to(DEVICE)
    lengths = np.sort(np.random.default_rng(0).integers(60, 220, 256) + 11)
    batches = np.split(lengths, 16)

    def run(width=None):
        for batch in batches:
            wide = int(batch.max()) if width is None else width
            mask = torch.arange(wide) < torch.as_tensor(batch)[:, None]
            encoder(torch.zeros(len(batch), wide, 64, device=DEVICE), mask.to(DEVICE))

    run()
    ours, _ = timed(run)
    theirs, _ = timed(lambda: run(500))
    say(
        capsys,
        f"encoder: {lengths.sum() / ours:,.0f} tokens/s on {DEVICE} beside "
        f"{lengths.sum() / theirs:,.0f} padded to 500: {theirs / ours:.1f}x",
    )
