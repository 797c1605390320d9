"""SToFM: cells in their surroundings, and beside virtual cells of the whole slide.

A frozen encoder turns each cell into a vector: principal components, or with --cells ranks a
transformer on ranked genes, which is trained on the slide first. The SE(2) transformer then learns
to predict hidden cells and lost distances in sub-slices. What it knows of a cell is read by
logistic regression, in blocks of tissue that the regression never saw, beside what needs no
training::

    python examples/train_stofm.py
    python examples/train_stofm.py --data cells.h5ad --labels region --cells ranks --out run

Two minutes on two cores. Expect a macro F1 of niches of about 0.43, beside 0.40 for vectors of
cells alone and 0.53 for averages of PCA, which 300 steps do not reach. docs/stofm.md has
real slides.
"""

import argparse
import logging

import spatiagraph as sg
from spatiagraph.data.splits import Folds, neighbor_distance_um, spatial_blocks
from spatiagraph.evaluate import domain_baselines, neighbor_mean, score_probe
from spatiagraph.models import SToFM, SubSlices
from spatiagraph.tasks import CellAdaptation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="slide to read instead of synthetic tissue")
    parser.add_argument("--labels", default="niche", help="column of obs to predict")
    parser.add_argument("--cells", default="profile", help="encoder of cells: profile or ranks")
    parser.add_argument("--num-cells", type=int, default=2000, help="of the synthetic tissue")
    parser.add_argument("--sub-slice", type=int, default=500, help="most cells of a sub-slice")
    parser.add_argument("--size", default="tiny", help="tiny or base")
    parser.add_argument("--steps", type=int, default=300, help="steps of the SE(2) transformer")
    parser.add_argument("--out", help="folder for the model")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    if args.data:
        slide = sg.read(args.data)
    else:
        slide = sg.make_tissue(args.num_cells, image=None, seed=args.seed)
    model = SToFM.for_slides(
        [slide],
        args.size,
        cells=args.cells,
        slices=SubSlices(partition="overlap", max_cells=args.sub_slice),
        seed=args.seed,
    )
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

    options = {"seed": args.seed, "progress": False}
    if args.cells == "ranks":  # genes first: what a cell is, whatever lies around it
        genes = sg.fit(model, [slide], task=CellAdaptation(model), max_steps=args.steps, **options)
        start, end = genes.history["loss"].iloc[[0, -1]]
        print(f"genes: loss {start:.3f} → {end:.3f}")
    context = sg.fit(model, [slide], max_steps=args.steps, **options)
    for name in ("hidden_cells", "distances"):
        start, end = context.history[name].iloc[[0, -1]]
        print(f"{name}: {start:.3f} → {end:.3f}, {context.cells_per_second:,.0f} cells/s")
    if args.out:
        model.save_pretrained(args.out)

    adata = sg.embed(model, slide, progress=False)
    alone = adata.obsm["X_stofm_cell"]
    embeddings = {
        "stofm": adata.obsm["X_stofm"],
        "cells": alone,
        "cells_nbr15": neighbor_mean(alone, slide.pos, 15),
        **domain_baselines(slide.counts, slide.pos, expression=slide.expression),
    }
    margin_um = neighbor_distance_um(slide.pos)  # as far as averages look
    folds = Folds(spatial_blocks(slide.pos), slide.pos, margin_um)
    scores = score_probe(embeddings, adata.obs[args.labels], folds)
    print(scores[["macro_F1", "macro_F1_std", "accuracy"]].round(3).to_string())
    f1 = scores["macro_F1"]
    print(
        f"macro F1 {f1['stofm']:.3f} (cells {f1['cells']:.3f}, their neighbours' mean "
        f"{f1['cells_nbr15']:.3f}, PCA {f1['pca30']:.3f}, neighbour-averaged PCA "
        f"{f1['pca30_nbr15']:.3f}, majority {f1['majority']:.3f})"
    )


if __name__ == "__main__":
    main()
