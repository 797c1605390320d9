"""Scores of a report: who found the known domains best, in one sentence and in full."""

import math

import pandas as pd

from spatiagraph.plot.curves import score_bars
from spatiagraph.report.page import Report

_BASELINES = {
    "pca30": "PCA",
    "pca30_nbr15": "averaged PCA",
    "depth_nbr15": "local depth",
    "xy_only": "position alone",
}
_SMALLEST = 0.005  # a difference that two digits do not show is none
_OF_CELLS = 0.1  # gain of PCA over its average that labels of domains do not give


def verdict(scores: pd.DataFrame, ours: str) -> str:
    """Say which method agrees best with the labels, and by how much.

    A difference within one standard deviation of the clustering is none. Labels that PCA finds
    far better than its average over neighbours are said to look like types of cells.

    Args:
        scores: One row per method, its name in the index, with ``ARI`` and, where known,
            ``ARI_std``.
        ours: The method that the page is about.

    Returns:
        A sentence; empty where there is nothing to compare.

    Examples:
        >>> verdict(pd.DataFrame({"ARI": [0.5, 0.53]}, index=["ours", "pca30"]), "ours")
        'PCA is better here by 0.03: its ARI is 0.53, that of ours 0.50.'
    """
    if ours not in scores.index or "ARI" not in scores or len(scores) < 2:
        return ""
    others = scores.drop(index=ours)
    best = others["ARI"].idxmax()
    own, other = scores.loc[[ours, best], "ARI"].to_numpy(float)
    spread = 0.0
    if "ARI_std" in scores:
        spread = math.hypot(*scores.loc[[ours, best], "ARI_std"].fillna(0.0))
    rival = _title(str(best))
    if abs(own - other) <= max(spread, _SMALLEST):
        return (
            f"{ours} and {rival} are alike here: their ARI is {own:.2f} and {other:.2f}, "
            "which is within the spread of the clustering."
        )
    winner, loser = (ours, rival) if own > other else (rival, ours)
    winner = winner[0].upper() + winner[1:]
    high, low = max(own, other), min(own, other)
    said = (
        f"{winner} is better here by {high - low:.2f}: its ARI is {high:.2f}, that of {loser} "
        f"{low:.2f}."
    )
    if best != "pca30" or own > other or "pca30_nbr15" not in scores.index:
        return said
    (averaged,) = scores.loc[["pca30_nbr15"], "ARI"].to_numpy(float)
    if not other - averaged > _OF_CELLS:  # nor where it has no score
        return said
    return (
        f"{said} PCA averaged over neighbours has {averaged:.2f}: labels that surroundings blur "
        "look like types of cells, which are no measure of domains."
    )


def _title(method: str) -> str:
    """Name of a method for people: a baseline's, or the level whose embeddings are clustered."""
    _, _, level = method.partition(", ")
    return f"k-means of {level} embeddings" if level else _BASELINES.get(method, method)


def add_scores(page: Report, scores: pd.DataFrame, ours: str | None, labels: str | None) -> None:
    """Add the section on scores: the best method in a sentence, bars, and the table.

    Args:
        page: The report.
        scores: One row per method, its name in the index.
        ours: The method that is set off.
        labels: Column of ``obs`` that domains were compared with.
    """
    against = f" with “{labels}”" if labels else ""
    page.section("Scores")
    named = scores.rename(index=lambda name: _title(str(name)))
    if "ARI" in scores:
        page.add_text(
            f"{verdict(scores, str(ours))} The adjusted Rand index (ARI) measures how well the "
            f"domains found agree{against}: 1 is the same domains, 0 is chance. The baselines "
            "beside it need no training; averaged PCA is the mean over 15 neighbours."
        )
        ax = score_bars(
            named,
            "ARI",
            error="ARI_std" if "ARI_std" in named else None,
            highlight=ours,
            title="Adjusted Rand index",
        )
        said = ", ".join(f"{name} {value:.2f}" for name, value in named["ARI"].items())
        page.add_figure(ax, alt=f"Bars of the adjusted Rand index: {said}")
    spread = {
        name: f"± ({name.removesuffix('_std')})"
        for name in map(str, named)
        if name.endswith("_std")
    }
    page.add_table(named.rename_axis("method").rename(columns=spread), highlight=ours)
