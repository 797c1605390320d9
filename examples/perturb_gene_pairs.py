"""Take pairs of genes from two neighbours, and see which ones a model needs to know them as such.

SpatialFormer learns on made tissue which cells are neighbours: ten types in five couples, partners
side by side, each type known by one marker gene. Then every pair of genes is deleted from pairs of
partners that it has not seen, one gene from each cell, and the pair of markers should matter most::

    python examples/perturb_gene_pairs.py
    python examples/perturb_gene_pairs.py --data slide.h5ad --types type --first tumour --second T

TIME_AND_NUMBERS
"""

import argparse

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

import spatiagraph as sg
from spatiagraph.data.loader import PairSource
from spatiagraph.evaluate import expression_cosine, score_cell_pairs
from spatiagraph.graph import radius_graph
from spatiagraph.inference import TypedNeighbors, score_neighbors, study_gene_pairs
from spatiagraph.models import SpatialFormer

TYPES, ABUNDANT = 10, 4


def made_tissue(couples: int, seed: int) -> sg.Slide:
    """Partners 15 µm apart, couples far from each other; a marker of each type, abundant genes."""
    rng = np.random.default_rng(seed)
    couple = rng.integers(0, TYPES // 2, couples)
    kind = np.concatenate([2 * couple, 2 * couple + 1])
    rate = np.full((2 * couples, TYPES + ABUNDANT), 0.02)
    rate[:, TYPES:] = 6.0
    rate[np.arange(len(kind)), kind] = 5.0
    counts = rng.poisson(rate)
    counts[counts.sum(1) == 0, -1] = 1
    side = int(np.ceil(couples**0.5))
    centre = 90.0 * np.stack(np.divmod(np.arange(couples), side), axis=1)
    angle = rng.uniform(0, 2 * np.pi, couples)
    half = 7.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    genes = [f"MARKER{i}" for i in range(TYPES)] + [f"GENE{i}" for i in range(ABUNDANT)]
    adata = AnnData(csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=genes))
    adata.obs["type"] = [f"type{k}" for k in kind]
    adata.obsm["spatial"] = np.concatenate([centre - half, centre + half])
    return sg.Slide(adata, slide_id=f"made{seed}", assume_um=True)


def neighbors_found(model: SpatialFormer, slide: sg.Slide) -> pd.DataFrame:
    """Neighbours against uniform others, by the model and by what needs none."""
    edges = torch.stack(list(radius_graph(slide.pos, 30.0)))
    source = PairSource(edges, torch.from_numpy(slide.pos))
    drawn = source.draw(np.random.default_rng(0).permutation(len(source))[:500])
    pairs = np.stack([drawn.first, drawn.second], 1)
    odds = {"model": score_neighbors(model, slide, pairs, device="cpu")}
    cosine = {"cosine": expression_cosine(slide.counts, pairs)}
    return score_cell_pairs(drawn.kind == 0, odds, cosine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a slide; made tissue when not given")
    parser.add_argument("--types", default="type", help="column of obs with the type of each cell")
    parser.add_argument("--first", default="type0", help="type of the first cell of each pair")
    parser.add_argument("--second", default="type1", help="type of the second")
    parser.add_argument("--couples", type=int, default=600, help="couples of cells to make")
    parser.add_argument("--steps", type=int, default=200, help="steps of the optimiser")
    parser.add_argument("--pairs", type=int, default=30, help="pairs of neighbours to ask about")
    parser.add_argument("--screen", type=int, help="only this many genes of each cell")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    if args.data:
        slide = sg.read(args.data, drop_empty=True)
        left = slide.pos[:, 0] < np.median(slide.pos[:, 0])
        train, test = slide[left], slide[~left]
        couples = [(args.first, args.second)]
    else:
        train = made_tissue(args.couples, args.seed)
        test = made_tissue(max(100, args.couples // 2), args.seed + 1)
        couples = [(f"type{i}", f"type{i + 1}") for i in range(0, TYPES, 2)]
    print(f"{train} to train on, {test} to be asked about")

    model = SpatialFormer.from_options([train], seed=args.seed)
    run = sg.Run(max_steps=args.steps, seed=args.seed, accelerator="cpu", progress=False)
    sg.fit(model, train, run=run)
    print(neighbors_found(model, test)[["F1", "AUROC"]].round(3).to_string())

    places, usual, largest = [], [], []
    depth = test.counts.mean(axis=0).A1
    level = dict(zip(test.symbols, depth, strict=True))
    for first, second in couples:
        asked = TypedNeighbors(args.types, first, second, num_pairs=args.pairs, seed=args.seed)
        support = max(2, args.pairs // 3)
        study = study_gene_pairs(
            model, test, asked, min_support=support, screen=args.screen, device="cpu"
        )
        table = study.table.sort_values("mean", ignore_index=True)
        columns = ["gene_a", "gene_b", "n", "mean", "interaction", "q", "q_others"]
        print(f"\n{first} beside {second}")
        print(table[columns].head(3).round(4).to_string(index=False))
        largest.append(-float(table["mean"].min()))
        if not args.data:
            marked = (table["gene_a"] == f"MARKER{first[4:]}") & (
                table["gene_b"] == f"MARKER{second[4:]}"
            )
            expressed = table["gene_a"].map(level) + table["gene_b"].map(level)
            places.append(float((table["mean"] > table["mean"][marked].min()).mean()))
            usual.append(float((expressed < expressed[marked].max()).mean()))
    if args.data:
        print(f"largest loss of log odds {np.mean(largest):.3f} (no effect 0.000)")
    else:
        print(
            f"share of pairs of genes that matter less than the markers {np.mean(places):.3f} "
            f"(most expressed first {np.mean(usual):.3f}, guessing 0.500)"
        )


if __name__ == "__main__":
    main()
