"""ST-Align: which profile belongs to which picture, on a section that it never saw.

Sections of synthetic cells are counted in spots of a capture array. The model learns to bring image
and genes of a spot together, and of its niche, against spots of other clusters. On the last section
it then looks for the genes of each spot by its images alone, beside a ridge regression from colours
and textures to the genes, and chance. With --gene-sets and slides of one's own::

    python examples/train_st_align.py
    python examples/train_st_align.py --data a.h5ad b.h5ad c.h5ad --images a.tif b.tif c.tif

Some minutes on two cores. docs/st_align.md says what to expect of it.
"""

import argparse
import logging

import numpy as np
from sklearn.preprocessing import normalize

import spatiagraph as sg
from spatiagraph.data import CropSource, spots_of_cells
from spatiagraph.evaluate import pca, ridge_map, score_retrieval
from spatiagraph.evaluate.image_features import color_texture
from spatiagraph.models import STAlign

SCALES = ("spot", "niche")


def sections(args: argparse.Namespace) -> list[sg.Slide]:
    """Slides that were given, or synthetic ones."""
    if args.data:
        images = args.images or [None] * len(args.data)
        return [sg.read(path, image=image) for path, image in zip(args.data, images, strict=True)]
    cells = [
        sg.make_tissue(args.cells, image="he", seed=args.seed + i, slide_id=f"section{i}")
        for i in range(4)
    ]
    return [spots_of_cells(slide, 40.0, diameter_um=None) for slide in cells]


def colors(slide: sg.Slide, window_um: float) -> np.ndarray:
    """Colours and textures of the windows of niches, which nobody had to learn."""
    crops, _ = CropSource(slide, slide.pos, window_um, 32).read()
    return color_texture(crops.numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", help="slides to read, the last one to test on")
    parser.add_argument("--images", nargs="+", help="their images")
    parser.add_argument("--gene-sets", help="GMT file of the genes to read")
    parser.add_argument("--cells", type=int, default=4000, help="cells of each synthetic section")
    parser.add_argument("--size", default="tiny", help="tiny or base")
    parser.add_argument("--steps", type=int, default=300, help="steps of the optimiser")
    parser.add_argument("--out", help="folder for the model")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    *train, test = slides = sections(args)
    model = STAlign.for_slides(train, args.size, gene_sets=args.gene_sets, seed=args.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    result = sg.fit(model, train, max_steps=args.steps, seed=args.seed, progress=False)
    for name in ("spot", "niche", "cross"):
        start, end = result.history[name].iloc[[0, -1]]
        print(f"{name}: {start:.3f} → {end:.3f}, {result.cells_per_second:,.0f} spots/s")
    if args.out:
        model.save_pretrained(args.out)

    adata = sg.embed(model, test, progress=False)
    image, genes = (
        np.hstack([normalize(adata.obsm[f"X_stalign_{scale}_{view}"]) for scale in SCALES])
        for view in ("img", "gene")
    )
    window_um = model.recipe.crops[1].window_um
    section = np.repeat(np.arange(len(slides)), [slide.num_cells for slide in slides])
    looks = np.concatenate([colors(slide, window_um) for slide in slides])
    counts = [model.panel.counts(slide)[0].toarray() for slide in slides]
    profiles = pca(np.concatenate(counts), 20)
    profiles = profiles - profiles[section < len(train)].mean(0)
    ridge = ridge_map(looks, profiles, section)
    held_out = section == len(train)
    pairs = {"stalign": (image, genes), "ridge": (ridge[held_out], profiles[held_out])}
    table = score_retrieval(pairs)
    table = table[table["direction"] == "image_to_gene"]
    print(table[["recall@1", "recall@5", "recall@10", "median_rank", "num_candidates"]].round(3))
    recall = table["recall@10"]
    print(
        f"recall at 10 {recall['stalign']:.3f} (ridge {recall['ridge']:.3f}, "
        f"chance {recall['random']:.3f})"
    )


if __name__ == "__main__":
    main()
