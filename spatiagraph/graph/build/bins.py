"""Neighbour search in square bins, compiled by numba: the fast way for tissue.

Points are sorted by the bin they fall in, row of bins by row, so that the bins near a point are a
few contiguous stretches of memory. Points are visited in the same order, which keeps those
stretches in cache. Rows of points go to a few threads that share nothing; results do not depend on
their number. Plain threads, not numba's: those cannot run beside forked data-loader workers.

A bin search is fast where points are spread about evenly. Where they are not, it says so instead of
slowing down, and the caller turns to :mod:`spatiagraph.graph.build.tree`.
"""

import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from spatiagraph.graph.points import Points

logger = logging.getLogger(__name__)

CROWDED = 64.0  # points sharing a bin with the average point; beyond this a k-d tree is faster
_BLOCK = 8192  # points per task of a thread


class Bins(NamedTuple):
    """Points sorted into a grid of bins.

    Attributes:
        x: Coordinates in the order of the bins, ``[N]``.
        y: The same for y, ``[N]``.
        order: Row of each sorted point, ``[N]``.
        start: First sorted point of each bin, ``[ny·nx + 1]``.
        shape: Rows and columns of bins, ``(ny, nx)``.
        corner: Lowest x and y.
        scale: Bins per µm.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    order: NDArray[np.int64]
    start: NDArray[np.int64]
    shape: tuple[int, int]
    corner: tuple[float, float]
    scale: float

    @property
    def crowding(self) -> float:
        """Points in the bin of the average point."""
        size = np.diff(self.start).astype(np.float64)
        return float((size * size).sum() / max(len(self.x), 1))


def even_bins(points: Points, per_bin: float) -> Bins:
    """Bins that hold about ``per_bin`` points where there are any."""
    extent = np.maximum(np.ptp(points, axis=0), 1e-12)
    longest = float(extent.max())
    area = float(np.maximum(extent, longest * per_bin / len(points)).prod())
    side = np.sqrt(area * per_bin / len(points))
    bins = make_bins(points, side)
    # Tissue rarely fills its bounding box; the spread of a Poisson count adds the 1.
    excess = bins.crowding / (per_bin + 1)
    if excess > 1.3:
        bins = make_bins(points, side / np.sqrt(min(excess, 4.0)))
    return bins


def make_bins(points: Points, side: float) -> Bins:
    """Sort points into bins of this side, or of a larger one if there would be too many bins."""
    corner, extent = points.min(axis=0), np.ptp(points, axis=0)
    most = 4 * len(points) + 16
    while (extent[0] / side + 1) * (extent[1] / side + 1) > most:
        side *= 1.5
    nx, ny = (int(e / side) + 1 for e in extent)
    order, start = _compiled(_sort)(points, corner[0], corner[1], 1 / side, nx, ny)
    x, y = points[order, 0], points[order, 1]
    return Bins(x, y, order, start, (ny, nx), (corner[0], corner[1]), 1 / side)


def bins_knn(bins: Bins, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ``k`` nearest other points of each point.

    Returns:
        Neighbours ``[N, k]``, ascending in each row, and the rows left unanswered because their
        search went too far or through too many points.
    """
    num = len(bins.x)
    out = np.empty((num, k), dtype=np.int64)
    hard = np.zeros(num, dtype=np.bool_)
    budget = 1024 + 64 * k
    kernel = _compiled(_knn)
    _in_threads(num, lambda a, b: kernel(*_unpack(bins), a, b, k, budget, out, hard))
    return out, np.flatnonzero(hard)


def bins_degree(bins: Bins, radius: float) -> NDArray[np.int64]:
    """Number of other points at most ``radius`` away from each point, ``[N]``."""
    degree = np.empty(len(bins.x), dtype=np.int64)
    count = _compiled(_count)
    _in_threads(len(bins.x), lambda a, b: count(*_unpack(bins), a, b, radius, degree))
    return degree


def bins_radius(bins: Bins, radius: float, degree: NDArray[np.int64]) -> NDArray[np.int64]:
    """All ordered pairs of points at most ``radius`` apart, ``[2, E]``, sorted by target.

    Args:
        bins: The points.
        radius: Longest distance.
        degree: What :func:`bins_degree` counted.
    """
    num, fill = len(bins.x), _compiled(_fill)
    first = np.concatenate([[0], np.cumsum(degree)])
    edges = np.empty((2, first[-1]), dtype=np.int64)
    _in_threads(num, lambda a, b: fill(*_unpack(bins), a, b, radius, first, edges))
    return edges


def expected_pairs(points: Points, radius: float) -> float:
    """About how many ordered pairs of points are at most ``radius`` apart."""
    bins = make_bins(points, radius)
    ny, nx = bins.shape
    size = np.zeros((ny + 2, nx + 2))
    size[1:-1, 1:-1] = np.diff(bins.start).reshape(ny, nx)
    column = size[:-2] + size[1:-1] + size[2:]
    block = column[:, :-2] + column[:, 1:-1] + column[:, 2:]
    side = 1 / bins.scale
    share = np.pi * radius**2 / (3 * side) ** 2  # of the block that lies within the radius
    return float((size[1:-1, 1:-1] * block).sum() * share)


def _unpack(bins: Bins) -> tuple:
    ny, nx = bins.shape
    return (bins.x, bins.y, bins.order, bins.start, nx, ny, *bins.corner, bins.scale)


def _in_threads(num: int, task: Callable[[int, int], None]) -> None:
    """Run ``task(first, last)`` over blocks of points on as many threads as torch uses."""
    blocks = [(a, min(a + _BLOCK, num)) for a in range(0, num, _BLOCK)]
    if len(blocks) < 2:
        for a, b in blocks:
            task(a, b)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(lambda block: task(*block), blocks):
            pass


@functools.cache
def _compiled(function: Callable) -> Callable:
    """Compile on first use (seconds, then cached on disk) and say so."""
    name = function.__name__.strip("_")
    logger.info("loading the graph kernel %r: compiled on first use, then kept on disk", name)
    return numba.njit(nogil=True, cache=True)(function)


def _sort(points, x0, y0, scale, nx, ny):
    """Counting sort of points by bin: the order, and the first of each bin."""
    num = len(points)
    bin_of = np.empty(num, np.int64)
    start = np.zeros(nx * ny + 1, np.int64)
    for i in range(num):
        bx = min(int((points[i, 0] - x0) * scale), nx - 1)
        by = min(int((points[i, 1] - y0) * scale), ny - 1)
        bin_of[i] = by * nx + bx
        start[bin_of[i] + 1] += 1
    for b in range(nx * ny):
        start[b + 1] += start[b]
    place = start[:-1].copy()
    order = np.empty(num, np.int64)
    for i in range(num):
        order[place[bin_of[i]]] = i
        place[bin_of[i]] += 1
    return order, start


def _knn(xs, ys, order, start, nx, ny, x0, y0, scale, a, b, k, budget, out, hard):
    """Answer sorted points ``a`` to ``b``.

    First the smallest of a few growing squares of bins that holds enough points, which bounds the
    distance of the k-th neighbour; then the rest of the circle of that radius, which shrinks as
    nearer points turn up.
    """
    best = np.empty(k, np.float64)
    who = np.empty(k, np.int64)
    for i in range(a, b):
        x, y, me = xs[i], ys[i], order[i]
        cx = min(int((x - x0) * scale), nx - 1)
        cy = min(int((y - y0) * scale), ny - 1)
        reach, inside = 1, 0
        while True:
            inside = 0
            left, right = max(cx - reach, 0), min(cx + reach, nx - 1)
            low, high = max(cy - reach, 0), min(cy + reach, ny - 1)
            for by in range(low, high + 1):
                inside += start[by * nx + right + 1] - start[by * nx + left]
            if inside > k or reach > 64:
                break
            reach *= 2
        if inside <= k or inside > budget:
            hard[me] = True
            continue
        for j in range(k):
            best[j] = np.inf
            who[j] = np.iinfo(np.int64).max
        seen = inside
        for part in range(2):
            # part 0: the square; part 1: what the circle adds to it
            first, last = low, high
            if part == 1:
                d = np.sqrt(best[k - 1]) * (1 + 1e-12)
                first = max(int(np.floor((y - d - y0) * scale)), 0)
                last = min(int(np.floor((y + d - y0) * scale)), ny - 1)
                if first > cy or last < cy:
                    first = last = cy
            for by in range(first, last + 1):
                near, far = left, right
                if part == 1:
                    dy = 0.0
                    if by < cy:
                        dy = y - (y0 + (by + 1) / scale)
                    elif by > cy:
                        dy = (y0 + by / scale) - y
                    dy = max(dy - 1e-9 / scale, 0.0)
                    chord = best[k - 1] - dy * dy
                    if chord < 0:
                        continue
                    d = np.sqrt(chord) * (1 + 1e-12) + 1e-9 / scale
                    near = min(max(int(np.floor((x - d - x0) * scale)), 0), nx - 1)
                    far = min(max(int(np.floor((x + d - x0) * scale)), 0), nx - 1)
                for half in range(2):
                    # the square was seen: only what lies left and right of it in its rows
                    u, v = near, far
                    if part == 1 and low <= by <= high:
                        if half == 0:
                            v = min(far, left - 1)
                        else:
                            u = max(near, right + 1)
                    elif half == 1:
                        break
                    if u > v:
                        continue
                    s, e = start[by * nx + u], start[by * nx + v + 1]
                    if part == 1:
                        seen += e - s
                    for j in range(s, e):
                        ddx = xs[j] - x
                        ddy = ys[j] - y
                        d2 = ddx * ddx + ddy * ddy
                        if d2 > best[k - 1]:
                            continue
                        other = order[j]
                        if other == me or (d2 == best[k - 1] and other > who[k - 1]):
                            continue
                        p = k - 1
                        while p > 0 and (
                            best[p - 1] > d2 or (best[p - 1] == d2 and who[p - 1] > other)
                        ):
                            best[p] = best[p - 1]
                            who[p] = who[p - 1]
                            p -= 1
                        best[p] = d2
                        who[p] = other
                if seen > budget:
                    break
        if seen > budget:
            hard[me] = True
            continue
        for j in range(k):  # ascending
            other = who[j]
            p = j
            while p > 0 and out[me, p - 1] > other:
                out[me, p] = out[me, p - 1]
                p -= 1
            out[me, p] = other


def _count(xs, ys, order, start, nx, ny, x0, y0, scale, a, b, radius, degree):
    """Number of other points within the radius of sorted points ``a`` to ``b``."""
    limit = radius * radius
    wide = radius * (1 + 1e-12) + 1e-9 / scale
    for i in range(a, b):
        x, y = xs[i], ys[i]
        first = max(int(np.floor((y - wide - y0) * scale)), 0)
        last = min(int(np.floor((y + wide - y0) * scale)), ny - 1)
        left = max(int(np.floor((x - wide - x0) * scale)), 0)
        right = min(int(np.floor((x + wide - x0) * scale)), nx - 1)
        found = 0
        for by in range(first, last + 1):
            for j in range(start[by * nx + left], start[by * nx + right + 1]):
                ddx = xs[j] - x
                ddy = ys[j] - y
                found += ddx * ddx + ddy * ddy <= limit
        degree[order[i]] = found - 1  # without itself


def _fill(xs, ys, order, start, nx, ny, x0, y0, scale, a, b, radius, begin, edges):
    """Write the edges of sorted points ``a`` to ``b``, sources ascending."""
    limit = radius * radius
    wide = radius * (1 + 1e-12) + 1e-9 / scale
    for i in range(a, b):
        x, y, me = xs[i], ys[i], order[i]
        first = max(int(np.floor((y - wide - y0) * scale)), 0)
        last = min(int(np.floor((y + wide - y0) * scale)), ny - 1)
        left = max(int(np.floor((x - wide - x0) * scale)), 0)
        right = min(int(np.floor((x + wide - x0) * scale)), nx - 1)
        at = begin[me]
        for by in range(first, last + 1):
            for j in range(start[by * nx + left], start[by * nx + right + 1]):
                ddx = xs[j] - x
                ddy = ys[j] - y
                if ddx * ddx + ddy * ddy <= limit and j != i:
                    edges[0, at] = order[j]
                    edges[1, at] = me
                    at += 1
        size = at - begin[me]
        if size > 48:
            edges[0, begin[me] : at].sort()
        else:
            for n in range(begin[me] + 1, at):
                value = edges[0, n]
                p = n
                while p > begin[me] and edges[0, p - 1] > value:
                    edges[0, p] = edges[0, p - 1]
                    p -= 1
                edges[0, p] = value
