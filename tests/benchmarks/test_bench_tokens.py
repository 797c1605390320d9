"""Tokens of 100,000 cells × 500 genes, beside a loop over cells."""

import time

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import bin_tokens, rank_tokens

NUM_CELLS, NUM_GENES = 100_000, 500


@pytest.fixture(scope="module")
def counts() -> csr_matrix:
    """About 110 expressed genes per cell, as an imaging panel has."""
    rng = np.random.default_rng(0)
    rate = rng.lognormal(-2.0, 1.3, NUM_GENES)
    blocks = [
        csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.5, (10_000, 1))).astype(np.float32))
        for _ in range(NUM_CELLS // 10_000)
    ]
    whole = np.concatenate([[0], *(np.diff(b.indptr) for b in blocks)]).cumsum()
    data = np.concatenate([b.data for b in blocks])
    indices = np.concatenate([b.indices for b in blocks])
    return csr_matrix((data, indices, whole), shape=(NUM_CELLS, NUM_GENES))


def timed_on_a_part(loop, counts) -> tuple[np.ndarray, float]:
    """Result of the loop on a twentieth of the cells, and its CPU time scaled to all of them."""
    part = counts[: NUM_CELLS // 20]
    start = time.process_time()
    result = loop(part)
    return result, (time.process_time() - start) * 20


@pytest.mark.benchmark
def test_bench_rank_tokens_against_a_loop_over_cells(benchmark, counts, capsys):
    token = np.arange(NUM_GENES) + 2
    median = np.random.default_rng(1).uniform(0.5, 5, NUM_GENES)

    def loop(part):
        ids = np.zeros((part.shape[0], 2048), np.int32)
        for i in range(part.shape[0]):
            gene, count = part[i].indices, part[i].data
            order = np.argsort(-(count / median[gene]), kind="stable")
            ids[i, 0] = 1
            ids[i, 1 : 1 + len(order)] = token[gene[order]]
        return ids

    expected, seconds = timed_on_a_part(loop, counts)
    got = benchmark.pedantic(
        rank_tokens, (counts, token, median), {"cls": 1}, rounds=5, warmup_rounds=1, iterations=1
    )
    width = got.ids.shape[1]
    np.testing.assert_array_equal(got.ids[: len(expected)], expected[:, :width])
    report(capsys, "rank tokens", lambda: rank_tokens(counts, token, median, cls=1), seconds)


@pytest.mark.benchmark
def test_bench_bins_against_a_loop_over_cells(benchmark, counts, capsys):
    def loop(part):
        bins = np.zeros(part.shape, np.int16)
        for i in range(part.shape[0]):
            value = part[i].data
            edges = np.quantile(value, np.linspace(0, 1, 50))
            low, high = np.digitize(value, edges, right=True), np.digitize(value, edges)
            bins[i, part[i].indices] = np.minimum(low + 1, high)
        return bins

    expected, seconds = timed_on_a_part(loop, counts)
    got = benchmark.pedantic(bin_tokens, (counts,), rounds=5, warmup_rounds=1, iterations=1)
    # np.quantile may miss a value by a rounding error where an edge falls on it
    assert (got[: len(expected)].toarray() != expected).mean() < 1e-3
    report(capsys, "bins", lambda: bin_tokens(counts), seconds)


def report(capsys, what, tokens, loop_seconds: float) -> None:
    """CPU time of five rounds, all threads together, beside that of the loop."""
    rounds = []
    for _ in range(5):
        start = time.process_time()
        tokens()
        rounds.append(time.process_time() - start)
    ours = float(np.median(rounds))
    with capsys.disabled():
        print(f"\n{what}: {NUM_CELLS / ours:,.0f} cells/s of CPU, {loop_seconds / ours:.0f}x")
    assert loop_seconds > 20 * ours
