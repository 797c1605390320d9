"""Graph building beside squidpy and scipy: seconds, ratio and differing edges in one run.

``pytest -m benchmark tests/benchmarks/test_bench_graph.py -s`` prints a line per case. Threads as
numba is told (``NUMBA_NUM_THREADS``), and as many for scipy; squidpy uses one.
"""

import time

import numpy as np
import pytest
from scipy.spatial import cKDTree

from spatiagraph.graph import kd_parts, knn_graph, radius_graph

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore")]
K = 12


def cells(num, kind="even"):
    """Cells at 100 µm² each; ``uneven``: density rises a hundredfold from edge to edge."""
    pos = np.random.default_rng(0).random((num, 2))
    if kind == "uneven":
        pos[:, 0] = (100 ** pos[:, 0] - 1) / 99
    return 10 * np.sqrt(num) * pos


def coded(source, target, num):
    """Edges as sorted numbers, to compare."""
    return np.sort(np.asarray(target, dtype=np.int64) * num + source)


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


def scipy_knn(pos, workers):
    return cKDTree(pos).query(pos, k=K + 1, workers=workers)[1]


def scipy_radius(pos, radius):
    return cKDTree(pos).query_pairs(radius, output_type="ndarray")


def squidpy_graph(pos, **rule):
    squidpy = pytest.importorskip("squidpy")
    builder = getattr(squidpy.gr.neighbors, rule.pop("builder"))(**rule)
    return builder.build(pos)[0]


def differing(ours, theirs):
    return np.setxor1d(ours, theirs, assume_unique=True).size


def report(capsys, **figures):
    with capsys.disabled():
        print("\n" + "  ".join(f"{name}={value}" for name, value in figures.items()))


@pytest.mark.parametrize("kind", ["even", "uneven"])
@pytest.mark.parametrize("num", [100_000, 1_000_000])
def test_knn(benchmark, capsys, num, kind):
    numba = pytest.importorskip("numba")
    pos = cells(num, kind)
    edges = benchmark.pedantic(knn_graph, (pos, K), rounds=3, warmup_rounds=1)
    ours = coded(*edges.as_tensor().numpy(), num)
    seconds = benchmark.stats.stats.median
    found, scipy_seconds = timed(scipy_knn, pos, numba.get_num_threads())
    target = np.repeat(np.arange(num), K + 1)
    other = found.ravel() != target
    from_scipy = coded(found.ravel()[other], target[other], num)
    graph, squidpy_seconds = timed(
        lambda: squidpy_graph(pos, builder="KNNBuilder", n_neighs=K).tocoo()
    )
    report(
        capsys,
        rule=f"knn{K}",
        cells=num,
        kind=kind,
        ours_s=round(seconds, 3),
        scipy_s=round(scipy_seconds, 3),
        squidpy_s=round(squidpy_seconds, 3),
        faster_than_squidpy=round(squidpy_seconds / seconds, 1),
        faster_than_scipy=round(scipy_seconds / seconds, 1),
        differ_scipy=differing(ours, from_scipy),
        differ_squidpy=differing(ours, coded(graph.col, graph.row, num)),
    )
    assert differing(ours, from_scipy) == 0


@pytest.mark.parametrize("num", [100_000, 1_000_000])
def test_radius(benchmark, capsys, num):
    pos, radius = cells(num), 20.0
    edges = benchmark.pedantic(radius_graph, (pos, radius), rounds=3, warmup_rounds=1)
    ours = coded(*edges.as_tensor().numpy(), num)
    seconds = benchmark.stats.stats.median
    half, scipy_seconds = timed(scipy_radius, pos, radius)
    from_scipy = coded(np.append(half[:, 0], half[:, 1]), np.append(half[:, 1], half[:, 0]), num)
    graph, squidpy_seconds = timed(
        lambda: squidpy_graph(pos, builder="RadiusBuilder", radius=radius).tocoo()
    )
    report(
        capsys,
        rule=f"radius{radius:g}",
        cells=num,
        edges=edges.size(1),
        ours_s=round(seconds, 3),
        scipy_pairs_s=round(scipy_seconds, 3),
        squidpy_s=round(squidpy_seconds, 3),
        faster_than_squidpy=round(squidpy_seconds / seconds, 1),
        differ_scipy=differing(ours, from_scipy),
        differ_squidpy=differing(ours, coded(graph.col, graph.row, num)),
    )
    assert differing(ours, from_scipy) == 0


def test_kd_parts(benchmark, capsys):
    benchmark.pedantic(kd_parts, (cells(1_000_000), 1000), rounds=2)
    report(capsys, rule="kd_parts", cells=1_000_000, ours_s=round(benchmark.stats.stats.median, 3))
