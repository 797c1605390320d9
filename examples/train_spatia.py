"""SPATIA in two stages: cells from tokens of genes and image, then context over whole regions.

Stage one trains everything end to end on small tiles. Stage two encodes every cell once and trains
what comes after: niches, tissue and the gates that let them into the cells; it costs a tenth. The
types of cells are then read off the embedding by logistic regression, in blocks of tissue that the
regression never saw, beside PCA of the genes::

    python examples/train_spatia.py
    python examples/train_spatia.py --data cells.h5ad --image dapi.tif --mpp 0.2125 --labels type

A minute on two cores. Expect a macro F1 of 1.00, beside 1.00 for PCA and 0.38 for PCA averaged over
neighbours: types of synthetic cells are easy. docs/benchmarks.md has real ones.
"""

import argparse
import logging
from pathlib import Path

import spatiagraph as sg
from spatiagraph.data.splits import Folds, neighbor_distance_um, spatial_blocks
from spatiagraph.evaluate import domain_baselines, score_probe
from spatiagraph.tasks import Corruption, SpatiaPretraining, SpatiaWeights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="slide to read instead of synthetic tissue")
    parser.add_argument("--image", help="its image")
    parser.add_argument("--mpp", type=float, help="µm per pixel of the image")
    parser.add_argument("--labels", default="cell_type", help="column of obs to predict")
    parser.add_argument("--cells", type=int, default=2000, help="cells of the synthetic tissue")
    parser.add_argument("--preset", default="tiny", help="tiny, small or base")
    parser.add_argument("--epochs", type=int, default=8, help="of the first stage")
    parser.add_argument("--context-epochs", type=int, default=20, help="of the second stage")
    parser.add_argument("--out", help="folder for the model and a picture")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    if args.data:
        slide = sg.read(args.data, image=args.image, image_mpp=args.mpp)
    else:
        slide = sg.make_tissue(args.cells, image="dapi", seed=args.seed)
    model = sg.models.Spatia.for_slides([slide], args.preset, seed=args.seed)
    print(f"{model.num_parameters:,} parameters")

    # the tokens of a cell: a part of its genes and of its image hidden
    cells = SpatiaPretraining(model, SpatiaWeights(masked_image=0.5))
    first = sg.fit(model, [slide], task=cells, max_epochs=args.epochs, seed=args.seed)
    # its context: cells hidden whole, and told by what is around them
    context = SpatiaPretraining(model, corruption=Corruption(hidden_ratio=0.3))
    second = sg.fit(
        model,
        [slide],
        task=context,
        max_epochs=args.context_epochs,
        cache_cells=True,
        tile_size=4096,
        seed=args.seed,
    )
    for name, result in {"cells": first, "context": second}.items():
        start, end = result.history["loss"].iloc[[0, -1]]
        rate = result.cells_per_second
        print(f"{name}: loss {start:.3f} → {end:.3f}, {rate:,.0f} cells/s")
    if args.out:
        model.save_pretrained(args.out)
        sg.plot.training_curve(first.history, title="first stage", save=Path(args.out) / "loss.png")

    adata = sg.embed(model, slide, progress=False)
    embeddings = {
        "spatia": adata.obsm["X_spatia"],
        **domain_baselines(slide.counts, slide.pos, expression=slide.expression),
    }
    margin_um = neighbor_distance_um(slide.pos)  # as far as averages look
    folds = Folds(spatial_blocks(slide.pos), slide.pos, margin_um)
    scores = score_probe(embeddings, adata.obs[args.labels], folds)
    print(scores[["macro_F1", "macro_F1_std", "accuracy"]].round(3).to_string())
    f1 = scores["macro_F1"]
    print(
        f"macro F1 {f1['spatia']:.3f} (PCA {f1['pca30']:.3f}, "
        f"neighbour-averaged PCA {f1['pca30_nbr15']:.3f}, majority {f1['majority']:.3f})"
    )


if __name__ == "__main__":
    main()
# sphinx_gallery_thumbnail_path = "images/gallery/train_spatia.png"
