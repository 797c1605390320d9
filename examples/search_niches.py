"""Find niches like one niche in other slides.

One model for several slides, one index over all their niches. Every query is a cell of the first
slide; hits must lie in the others. A hit agrees when it lies in the same planted niche::

    python examples/search_niches.py

Half a minute on two cores. Expect an agreement of 0.91, where random cells agree in 0.21, searching
by PCA of the cell finds 0.52, and by PCA averaged over neighbours 0.91. ``--out`` keeps the index.
"""

import argparse

import numpy as np
from scipy import sparse

import spatiagraph as sg
from spatiagraph.evaluate import neighbor_mean, pca


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=3, help="number of synthetic slides")
    parser.add_argument("--cells", type=int, default=3000, help="cells of each slide")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--k", type=int, default=10, help="hits per query")
    parser.add_argument("--out", help="folder to save the index to")
    parser.add_argument("--picture", help="file to draw one search to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    names = [f"slide{i}" for i in range(args.slides)]
    slides = [
        sg.make_tissue(args.cells, seed=args.seed + i, slide_id=name, donor=f"donor{i}")
        for i, name in enumerate(names)
    ]
    model = sg.models.ContextModel.for_slides(slides, seed=args.seed)
    sg.fit(model, slides, max_epochs=args.epochs, tile_size=1024, seed=args.seed, progress=False)
    embedded = {s.slide_id: sg.embed(model, s, progress=False) for s in slides}

    rng = np.random.default_rng(args.seed)
    query = embedded[names[0]]
    rows = rng.choice(query.n_obs, size=min(args.queries, query.n_obs), replace=False)
    planted = query.obs["niche"].to_numpy()[rows]

    counts = sparse.vstack([s.counts for s in slides])
    section = np.repeat(np.arange(len(slides)), args.cells)
    components = pca(counts, seed=args.seed)
    averaged = neighbor_mean(components, np.concatenate([s.pos for s in slides]), slide=section)
    for i, name in enumerate(names):
        embedded[name].obsm["X_pca"] = components[section == i]
        embedded[name].obsm["X_pca_nbr15"] = averaged[section == i]

    def agreement(key: str) -> float:
        """Share of hits in the same planted niche as their query."""
        index = sg.NicheIndex.from_slides(embedded, key)
        hits = index.search(query.obsm[key][rows], k=args.k, exclude={"slide_id": names[0]})
        return float((hits["niche"].to_numpy() == planted[hits["query"].to_numpy()]).mean())

    index = sg.NicheIndex.from_slides(embedded, "X_context_niche")
    if args.out:
        index.save(args.out)
        print(f"saved {sg.NicheIndex.load(args.out)} to {args.out}")

    example = index.search(
        query.obsm["X_context_niche"][rows[0]], k=3, where={"slide_id": names[1]}
    )
    print(f"niches like {query.obs_names[rows[0]]} of {names[0]} ({planted[0]}):")
    print(example[["id", "slide_id", "niche", "x_um", "y_um", "distance"]].to_string(index=False))

    if args.picture:
        z = embedded[names[1]].obsm["X_context_niche"]
        away = np.linalg.norm(z - query.obsm["X_context_niche"][rows[0]], axis=1)
        title = f"distance to a {planted[0]} of {names[0]}"
        sg.plot.spatial(slides[1], away, title=title, cmap="viridis_r", save=args.picture)
    others = np.concatenate([embedded[name].obs["niche"].to_numpy() for name in names[1:]])
    chance = float(np.mean([(others == niche).mean() for niche in planted]))
    scores = {key: agreement(key) for key in ("X_context_niche", "X_pca", "X_pca_nbr15")}
    print(
        f"agreement {scores['X_context_niche']:.3f} (PCA {scores['X_pca']:.3f}, "
        f"neighbour-averaged PCA {scores['X_pca_nbr15']:.3f}, chance {chance:.3f})"
    )


if __name__ == "__main__":
    main()
# sphinx_gallery_thumbnail_path = "images/gallery/search_niches.png"
