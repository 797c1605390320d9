"""Embed and score a cohort in several processes that a scheduler drives: Dask, on one machine.

::

    python examples/embed_with_dask.py
    python examples/embed_with_dask.py --data a.h5ad b.h5ad --domains niche --shards 8

A cohort lies on the disk; every task takes a shard of its tiles, or of its slides, and
``merge`` joins them only once all are there. The same tasks run under SLURM, Snakemake or Ray:
they are ``spatiagraph embed run cohort.zarr --shard i/n``. ``pip install 'spatiagraph[dask]'``.

About a minute on two cores. The last line is the adjusted Rand index of k-means on embeddings of
niches, mean over slides, beside that on principal components of single cells.
"""

import argparse
import tempfile
from pathlib import Path

import spatiagraph as sg
from spatiagraph.data.cohort import merge_cohort
from spatiagraph.inference import merge_scores, score_cohort
from spatiagraph.models import ContextModel


def embed_shard(model: str, cohort: str, shard: str) -> str:
    """Embed some of the tiles, in a process of its own."""
    sg.embed(ContextModel.from_pretrained(model), sg.Cohort(cohort), shard=shard, progress=False)
    return shard


def score_shard(cohort: str, domains: str, table: str, shard: str) -> str:
    """Score some of the slides, likewise."""
    score_cohort(
        sg.Cohort(cohort),
        domains=domains,
        protocols=["domains_kmeans"],
        num_seeds=3,
        out=table,
        shard=shard,
    )
    return shard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", help="slides; synthetic ones by default")
    parser.add_argument("--domains", default="niche", help="column of obs with known domains")
    parser.add_argument("--cells", type=int, default=1500, help="of each synthetic slide")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--out", type=Path, help="folder for the cohort and the table")
    args = parser.parse_args()

    from distributed import Client, LocalCluster

    out = args.out or Path(tempfile.mkdtemp())
    out.mkdir(exist_ok=True)
    slides = [sg.read(path) for path in args.data or ()] or [
        sg.make_tissue(args.cells, num_genes=100, image=None, seed=seed, slide_id=f"s{seed}")
        for seed in range(4)
    ]
    model = ContextModel.for_slides(slides, seed=0)
    cohort = sg.Cohort.create(out / "cohort.zarr", slides, model.recipe, tile_size=256)
    sg.fit(model, cohort, max_epochs=args.epochs, accelerator="cpu", progress=False, seed=0)
    model.save_pretrained(out / "model")

    store, table = str(cohort.path), str(out / "scores.csv")
    shards = [f"{i}/{args.shards}" for i in range(args.shards)]
    with (
        LocalCluster(
            n_workers=args.workers, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        embedded = [client.submit(embed_shard, str(out / "model"), store, s) for s in shards]
        for shard in client.gather(embedded):
            print(f"embedded {shard}")
        merge_cohort(store)  # refuses gaps and overlaps
        scored = [client.submit(score_shard, store, args.domains, table, s) for s in shards]
        client.gather(scored)
        scores = merge_scores(table)

    ari = scores[scores["metric"] == "ARI"].groupby("embedding")["value"].mean()
    print(f"niche ARI {ari['X_context_niche']:.3f} (PCA {ari['pca30']:.3f})")


if __name__ == "__main__":
    main()
