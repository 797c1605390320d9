"""FAISS indexes with one way to search them: approximately, exactly, and under a filter."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from spatiagraph.retrieval.vectors import Metric

faiss: Any = _faiss  # its type stubs know neither selectors nor search parameters

Kind = Literal["flat", "ivf", "hnsw"]
FLAT_UP_TO = 100_000
"""Most items that ``kind="auto"`` searches exhaustively."""
IVF_UP_TO = 1_000_000
"""Most items for which ``kind="auto"`` takes inverted lists; above it takes an HNSW graph."""

LISTS = "lists.ivfdata"
"""File of inverted lists that stay on the disk."""

_TRAIN_PER_LIST = 64  # FAISS asks for at least 39
_LINKS, _EF_CONSTRUCTION = 32, 80
_BLOCK = 65_536  # rows
_EXACT_BELOW = 0.1  # a filter that leaves less than this is searched exhaustively


def choose_kind(num_items: int) -> Kind:
    """The index for a number of items.

    Examples:
        >>> choose_kind(5_000), choose_kind(500_000), choose_kind(5_000_000)
        ('flat', 'ivf', 'hnsw')
    """
    if num_items <= FLAT_UP_TO:
        return "flat"
    return "ivf" if num_items <= IVF_UP_TO else "hnsw"


def new_index(kind: Kind, channels: int, metric: Metric, num_items: int, seed: int) -> Any:
    """An empty FAISS index for vectors that are normalised already if the metric is cosine."""
    faiss_metric = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    if kind == "flat":
        return faiss.IndexFlat(channels, faiss_metric)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(channels, _LINKS, faiss_metric)
        index.hnsw.efConstruction = _EF_CONSTRUCTION
        index.hnsw.rng = faiss.RandomGenerator(seed)
        return index
    num_lists = max(1, min(int(4 * num_items**0.5), num_items // _TRAIN_PER_LIST))
    coarse = faiss.IndexFlat(channels, faiss_metric)
    index = faiss.IndexIVFFlat(coarse, channels, num_lists, faiss_metric)
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1  # a handful of items is fine
    return index


def train_rows(index: Any, num_items: int, seed: int) -> NDArray[np.int64]:
    """Training items of the index, before any is added; none for most kinds."""
    if index.is_trained:
        return np.empty(0, dtype=np.int64)
    size = min(num_items, _TRAIN_PER_LIST * index.nlist)
    return np.sort(np.random.default_rng(seed).choice(num_items, size, replace=False))


def retrained(index: Any, metric: Metric, seed: int) -> Any:
    """Inverted lists laid out for the items they hold by now."""
    num = index.ntotal
    new = new_index("ivf", index.d, metric, num, seed)
    rows = train_rows(new, num, seed)
    with single_thread(True):
        if len(rows):
            new.train(reconstruct(index, rows))
        for start in range(0, num, _BLOCK):
            new.add(reconstruct(index, np.arange(start, min(start + _BLOCK, num))))
    return new


def check_index(index: Any, kind: Kind, metric: Metric, channels: int) -> None:
    """Refuse an index from a file that searches would fail in, or differ from what it is called.

    Vectors, and the numbers of items in lists and links, which FAISS follows unseen, are looked
    at once each.

    Raises:
        ValueError: It is of another kind, metric or number of channels, has vectors that are not
            finite, or lists or links of items that it has not.
    """
    classes = {"flat": faiss.IndexFlat, "ivf": faiss.IndexIVFFlat, "hnsw": faiss.IndexHNSWFlat}
    faiss_metric = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    if not isinstance(index, classes[kind]) or index.metric_type != faiss_metric:
        raise ValueError(f"{type(index).__name__} is not a {kind} index of the metric {metric}")
    if index.d != channels:
        raise ValueError(f"vectors of {index.d} channels for {channels}")
    num = index.ntotal
    if kind == "ivf":
        _check_lists(index)
    elif kind == "hnsw":
        _check_links(index)
    for start in range(0, num, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, num))
        if not np.isfinite(reconstruct(index, rows)).all():
            raise ValueError("vectors that are not finite")


def _check_lists(index: Any) -> None:
    """Each item stands in one inverted list, and the map by item leads there."""
    coarse, lists = faiss.downcast_index(index.quantizer), index.invlists
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    if not isinstance(coarse, faiss.IndexFlat) or coarse.ntotal != index.nlist:
        raise ValueError("inverted lists without a centre each")
    if coarse.d != index.d or lists.code_size != 4 * index.d or sum(sizes) != index.ntotal:
        raise ValueError("inverted lists of other vectors")
    ids = [
        faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in enumerate(sizes) if size
    ]
    items = np.concatenate(ids)
    if not np.array_equal(np.sort(items), np.arange(index.ntotal)):
        raise ValueError("inverted lists that do not hold each item once")
    place = np.empty(index.ntotal, dtype=np.int64)  # FAISS: list << 32 | number in it
    place[items] = np.concatenate(
        [number << 32 | np.arange(size) for number, size in enumerate(sizes) if size]
    )
    led = faiss.vector_to_array(index.direct_map.array)
    if not (index.direct_map.no() or np.array_equal(led, place)):  # it is made when first asked
        raise ValueError("a map of items that leads to others")


def _check_links(index: Any) -> None:
    """Links lead to items."""
    graph, num = index.hnsw, index.ntotal
    store = faiss.downcast_index(index.storage)
    if not isinstance(store, faiss.IndexFlat) or store.ntotal != num or store.d != index.d:
        raise ValueError("links between other vectors")
    levels = faiss.vector_to_array(graph.levels)
    offsets = faiss.vector_to_array(graph.offsets).astype(np.int64)
    neighbors = faiss.vector_to_array(graph.neighbors)
    per_level = faiss.vector_to_array(graph.cum_nneighbor_per_level)
    fits = len(levels) == num and len(offsets) == num + 1 and (levels >= 1).all()
    if not (fits and (np.diff(per_level) >= 0).all() and levels.max() < len(per_level)):
        raise ValueError("links of other items")
    if offsets[0] != 0 or not np.array_equal(np.diff(offsets), per_level[levels]):
        raise ValueError("links that do not fit the levels of the items")
    if offsets[-1] != len(neighbors) or neighbors.min() < -1 or neighbors.max() >= num:
        raise ValueError("links to items that there are not")
    for level in range(1, levels.max()):  # a link leads to items of its own level
        width = np.arange(per_level[level], per_level[level + 1])
        targets = neighbors[offsets[:-1][levels > level][:, None] + width]
        if (levels[targets[targets >= 0]] <= level).any():
            raise ValueError("links to items that are not on their level")
    if not 0 <= graph.entry_point < num or graph.max_level != levels.max() - 1:
        raise ValueError("links that begin nowhere")


@contextmanager
def single_thread(active: bool) -> Iterator[None]:
    """HNSW links depend on the order of insertion, which several threads leave to chance."""
    before = faiss.omp_get_max_threads()
    if active:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def search(
    index: Any, queries: NDArray[np.float32], k: int, effort: int, mask: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    """The ``k`` nearest items that the mask allows.

    Falls back to exhaustive search where an approximate one cannot be relied on: under filters
    that leave few items, and for queries of which it returned fewer than ``k``.

    Args:
        index: The FAISS index, ``N`` items.
        queries: ``[Q, D]``.
        k: Number of results, at most the number of items the mask allows.
        effort: Lists (IVF) or candidates (HNSW) to look at; flat indexes ignore it.
        mask: Items that may be returned, ``[N]`` bool.

    Returns:
        Inner products or squared distances ``[Q, k]`` and rows ``[Q, k]``, nearest first.
    """
    share = 1.0 if mask is None else float(mask.mean())
    if _kind(index) == "flat" or share < _EXACT_BELOW:
        return search_exact(index, queries, k, mask)
    value, row = _search(index, queries, k, _parameters(index, int(effort / share), k, mask))
    short = np.flatnonzero((row < 0).any(1))
    if len(short):
        value[short], row[short] = search_exact(index, queries[short], k, mask)
    return value, row


def search_exact(
    index: Any, queries: NDArray[np.float32], k: int, mask: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    """As :func:`search`, exhaustively, on the vectors that the index holds already."""
    kind = _kind(index)
    if kind == "ivf":
        return _search(index, queries, k, _parameters(index, index.nlist, k, mask))
    store = faiss.downcast_index(index.storage) if kind == "hnsw" else index
    return _search(store, queries, k, _parameters(store, 0, k, mask))


def file_of_lists(index: Any) -> Path | None:
    """File that holds the inverted lists of an index; ``None`` where they are in memory."""
    if not isinstance(index, faiss.IndexIVFFlat):
        return None
    lists = faiss.downcast_InvertedLists(index.invlists)
    return Path(lists.filename) if isinstance(lists, faiss.OnDiskInvertedLists) else None


def merged_lists(trained: Any, parts: Sequence[Path], file: Path) -> Any:
    """An index whose inverted lists are those of several, one after the other, in a file.

    Args:
        trained: The same index without items; it is changed.
        parts: Files of the indexes, whose items are numbered already.
        file: Where the lists go; it is mapped into memory, not read.
    """
    opened = [faiss.read_index(str(part), faiss.IO_FLAG_MMAP) for part in parts]
    pointers = faiss.InvertedListsPtrVector()
    for part in opened:
        pointers.push_back(part.invlists)
    lists = faiss.OnDiskInvertedLists(trained.nlist, trained.code_size, str(file))
    trained.ntotal = lists.merge_from_multiple(pointers.data(), pointers.size())
    trained.replace_invlists(lists, True)
    lists.this.disown()
    return trained


def reconstruct(index: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of items, ``[R, D]``, as stored."""
    if _kind(index) == "ivf" and index.direct_map.no():
        index.make_direct_map()
    return index.reconstruct_batch(np.ascontiguousarray(rows, dtype=np.int64))


def means(index: Any, groups: NDArray[np.int64]) -> NDArray[np.float32]:
    """Means of the vectors of several items each ``[Q, R]``, as ``[Q, D]``; read in blocks."""
    total = np.zeros((len(groups), index.d))
    for number, rows in enumerate(groups):
        for start in range(0, len(rows), _BLOCK):
            total[number] += reconstruct(index, rows[start : start + _BLOCK]).sum(0, np.float64)
    return (total / groups.shape[1]).astype(np.float32)


def tune(index: Any, seed: int, goal: float) -> tuple[int, float]:
    """The smallest effort that reaches a recall@10 on stored vectors, and the recall.

    Each vector looks for its ten nearest others; a result counts if it is as near as the true
    tenth, so duplicates do no harm.
    """
    if _kind(index) == "flat" or index.ntotal < 2:
        return 0, 1.0
    k = min(11, index.ntotal)
    num = min(100, index.ntotal)
    rows = np.random.default_rng(seed).choice(index.ntotal, num, replace=False)
    queries = reconstruct(index, rows)
    sign = 1.0 if index.metric_type == faiss.METRIC_INNER_PRODUCT else -1.0
    exact, _ = search_exact(index, queries, k)
    worst = sign * exact[:, -1:] - 1e-5 * np.abs(exact[:, -1:])
    most = index.nlist if _kind(index) == "ivf" else 2048
    effort = 1 if _kind(index) == "ivf" else 16
    while True:
        value, row = _search(index, queries, k, _parameters(index, effort, k, None))
        hit = (sign * value >= worst) & (row >= 0)
        recall = float((hit.sum(1) - 1).clip(0).mean() / (k - 1))  # the vector itself is no merit
        if recall >= goal or effort >= most:
            return effort, recall
        effort = min(2 * effort, most)


def _search(index: Any, queries: NDArray, k: int, parameters: Any) -> tuple[NDArray, NDArray]:
    value, row = index.search(queries, k, params=parameters)
    order = np.lexsort((row, _worse(index, value)), axis=1)  # ties by row: same on every machine
    return np.take_along_axis(value, order, 1), np.take_along_axis(row, order, 1)


def _worse(index: Any, value: NDArray) -> NDArray:
    return -value if index.metric_type == faiss.METRIC_INNER_PRODUCT else value


def _parameters(index: Any, effort: int, k: int, mask: NDArray | None) -> Any:
    # FAISS keeps the array and the selector alive through the parameters
    selector = None
    if mask is not None:
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    kind = _kind(index)
    if kind == "ivf":
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(max(1, effort), index.nlist))
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, k))
    return faiss.SearchParameters(sel=selector)


def _kind(index: Any) -> Kind:
    if isinstance(index, faiss.IndexIVFFlat):
        return "ivf"
    return "hnsw" if isinstance(index, faiss.IndexHNSWFlat) else "flat"
