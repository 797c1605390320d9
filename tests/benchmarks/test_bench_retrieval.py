"""Building and searching an index of 10^5 x 64 embeddings, beside scikit-learn."""

import time

import numpy as np
import pytest

from spatiagraph.retrieval import NicheIndex

NUM, CHANNELS, QUERIES, K = 100_000, 64, 1000, 10


@pytest.fixture(scope="module")
def tissue():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(200, CHANNELS))
    embeddings = centers[rng.integers(200, size=NUM + QUERIES)]
    embeddings = (embeddings + 0.7 * rng.normal(size=embeddings.shape)).astype(np.float32)
    return embeddings[:NUM], embeddings[NUM:]


@pytest.fixture(scope="module")
def peer(tissue):
    from sklearn.neighbors import NearestNeighbors

    embeddings, queries = tissue
    start = time.perf_counter()
    tree = NearestNeighbors(n_neighbors=K, metric="euclidean").fit(embeddings)
    built = time.perf_counter()
    row = tree.kneighbors(queries, return_distance=False)
    return {"build": built - start, "search": time.perf_counter() - built, "row": row}


@pytest.mark.benchmark
@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_search_beside_scikit_learn(benchmark, tissue, peer, kind):
    embeddings, queries = tissue
    start = time.perf_counter()
    index = NicheIndex.build(embeddings, kind=kind, metric="l2")
    build = time.perf_counter() - start
    found = benchmark.pedantic(lambda: index.search(queries, k=K), rounds=5, warmup_rounds=1)
    row = found["row"].to_numpy().reshape(QUERIES, K)
    recall = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(row, peer["row"], strict=True)])
    median = benchmark.stats.stats.median
    benchmark.extra_info.update(
        build_s=round(build, 3),
        queries_per_s=round(QUERIES / median),
        recall=round(float(recall), 4),
        recall_at_build=round(index.recall, 4),
        sklearn_build_s=round(peer["build"], 3),
        sklearn_queries_per_s=round(QUERIES / peer["search"]),
        times_sklearn=round(peer["search"] / median, 2),
    )
    assert recall >= 0.9
