"""All protocols that a slide's labels allow, in one tidy table, baselines always beside."""

import resource
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TypeAlias

import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate.baselines import Expression, domain_baselines, log_normalize
from spatiagraph.evaluate.clustering import Method, score_domains
from spatiagraph.evaluate.probe import MAJORITY, score_probe

Score: TypeAlias = Callable[[Mapping[str, ArrayLike | Tensor]], pd.DataFrame]

COLUMNS = ("protocol", "embedding", "metric", "value", "std", "seconds", "peak_gb")
METHODS: tuple[Method, ...] = ("kmeans", "gmm")
METRICS = {
    "domains_kmeans": ("ARI", "NMI"),
    "domains_gmm": ("ARI", "NMI"),
    "annotation_blocks": ("macro_F1", "accuracy"),
}


def run_protocols(
    embeddings: Mapping[str, ArrayLike | Tensor],
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor,
    *,
    domains: ArrayLike | pd.Series | None = None,
    types: ArrayLike | pd.Series | None = None,
    ignore: Collection[object] = (),
    expression: Expression = "counts",
    num_seeds: int = 5,
    progress: bool = False,
) -> pd.DataFrame:
    """Score embeddings of a slide by every protocol its labels allow.

    ======================= ==================================================================
    ``domains_kmeans``      k-means against ``domains``, mean and deviation over seeds
    ``domains_gmm``         tied Gaussian mixture against ``domains``, the same
    ``annotation_blocks``   logistic regression of ``types``, spatial blocks held out in turn
    ======================= ==================================================================

    Beside them stand the baselines: ``pca30``, ``pca30_nbr15``, ``depth_nbr15``, ``xy_only``; for
    annotation also the expression itself (``expression``) and the commonest type (``majority``).

    Args:
        embeddings: Name → embedding of each cell, ``[N, D]``, by any method.
        counts: Counts or normalised expression, ``[N, G]``.
        pos: Cell centres in µm, ``[N, 2]``.
        domains: Known domain of each cell, ``[N]``.
        types: Known type of each cell, ``[N]``.
        ignore: Labels that mean "not labelled".
        expression: Which of the two ``counts`` holds.
        num_seeds: Clusterings of each embedding.
        progress: Show a bar.

    Returns:
        One row per protocol, embedding and metric: ``protocol``, ``embedding``, ``metric``,
        ``value``, ``std`` (over seeds, or over blocks), ``seconds`` the protocol took for the
        embedding and ``peak_gb``, the memory the process had taken at most by then.

    Raises:
        ValueError: There are no labels at all, an embedding has the name of a baseline, or the
            arrays do not fit.
    """
    if domains is None and types is None:
        raise ValueError("Expected known 'domains' or 'types' to compare with, got neither")
    baselines: dict[str, ArrayLike | Tensor] = dict(
        domain_baselines(counts, pos, expression=expression)
    )
    log = log_normalize(counts, expression=expression)
    if taken := sorted({*embeddings} & {*baselines, "expression", MAJORITY}):
        raise ValueError(f"Expected other names than those of baselines, got {', '.join(taken)}")
    everything = {**embeddings, **baselines}
    plan: dict[str, tuple[Score, Mapping[str, ArrayLike | Tensor]]] = {}
    if domains is not None:
        for method in METHODS:
            cluster = partial(
                score_domains, labels=domains, method=method, num_seeds=num_seeds, ignore=ignore
            )
            plan[f"domains_{method}"] = (cluster, everything)
    if types is not None:
        probe = partial(score_probe, labels=types, folds=spatial_blocks(pos), ignore=ignore)
        plan["annotation_blocks"] = (probe, {**everything, "expression": log.toarray()})
    rows = []
    with tqdm(total=sum(len(scored) for _, scored in plan.values()), disable=not progress) as bar:
        for protocol, (score, scored) in plan.items():
            bar.set_description(protocol)
            for number, (name, z) in enumerate(scored.items()):
                start = time.perf_counter()
                table = score({name: z})
                seconds = time.perf_counter() - start
                kept = table if number == 0 else table.loc[[name]]  # majority once
                rows += list(_tidy(protocol, kept, seconds))
                bar.update()
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _tidy(protocol: str, table: pd.DataFrame, seconds: float) -> Iterator[tuple]:
    """A row per embedding and metric of a table of scores."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_gb = peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes there, kB elsewhere
    for name, scores in table.iterrows():
        for metric in METRICS[protocol]:
            value, std = float(scores[metric]), float(scores[f"{metric}_std"])
            yield protocol, name, metric, value, std, seconds, peak_gb
