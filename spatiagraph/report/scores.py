"""Scores of a report: who found the known domains best, in one sentence and in full."""

import math

import pandas as pd

from spatiagraph.inference.before_training import BEFORE_TRAINING
from spatiagraph.keys import start_name
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
    far better than its average over neighbours are said to look like types of cells. What training
    did is said where it is known, see :func:`training_verdict`.

    Args:
        scores: One row per method, its name in the index, with ``ARI`` and, where known,
            ``ARI_std``.
        ours: The method that the page is about.

    Returns:
        Sentences; empty where there is nothing to compare.

    Examples:
        >>> verdict(pd.DataFrame({"ARI": [0.5, 0.53]}, index=["ours", "pca30"]), "ours")
        'PCA is better here by 0.03: its ARI is 0.53, that of ours 0.50.'
    """
    if ours not in scores.index or "ARI" not in scores or len(scores) < 2:
        return ""
    told = (_best(scores, ours), training_verdict(scores))
    return " ".join(part for part in told if part)


def training_verdict(scores: pd.DataFrame) -> str:
    """Say whether training raised or lowered the agreement of embeddings with the labels.

    A difference within one standard deviation of the clusterings of both, and of noise where
    ``ARI_noise`` is there, is none.

    Args:
        scores: As of :func:`verdict`, with rows of before training beside those of after it.

    Returns:
        A sentence; empty where there is no such row.

    Examples:
        >>> rows = ["context, niche", "context, niche, before training"]
        >>> training_verdict(pd.DataFrame({"ARI": [0.4, 0.5]}, index=rows))[:62]
        'Training lowered the agreement of niche embeddings by 0.10, fr'
    """
    pairs = [(str(name), f"{name}{BEFORE_TRAINING}") for name in scores.index]
    return " ".join(
        _of_training(scores, *pair) for pair in pairs if "ARI" in scores and pair[1] in scores.index
    )


def _of_training(scores: pd.DataFrame, trained: str, start: str) -> str:
    after, before = scores.loc[[trained, start], "ARI"].to_numpy(float)
    of = f"the agreement of {trained.partition(', ')[2] or trained} embeddings"
    if _alike(scores, trained, start):
        return (
            f"Training changed nothing in {of}: an ARI of {before:.2f} before and {after:.2f} "
            "after it is within the spread of the clustering."
        )
    verb = "lowered" if after < before else "raised"
    said = f"Training {verb} {of} by {abs(after - before):.2f}, from {before:.2f} to {after:.2f}"
    if after < before:
        return f"{said}: for domains like these, embed with --before-training."
    return f"{said}."


def _alike(scores: pd.DataFrame, one: str, other: str) -> bool:
    """Whether two methods differ by no more than the spread of the clustering, and of noise."""
    first, second = scores.loc[[one, other], "ARI"].to_numpy(float)
    columns = [column for column in ("ARI_std", "ARI_noise") if column in scores]
    spread = math.hypot(*scores.loc[[one, other], columns].fillna(0.0).to_numpy(float).ravel())
    return abs(first - second) <= max(spread, _SMALLEST)


def _best(scores: pd.DataFrame, ours: str) -> str:
    """The best method and by how much."""
    best = str(scores.drop(index=ours)["ARI"].idxmax())
    own, other = scores.loc[[ours, best], "ARI"].to_numpy(float)
    rival = _title(best)
    if _alike(scores, ours, best):
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
    _, _, level = method.removesuffix(BEFORE_TRAINING).partition(", ")
    if not level:
        return _BASELINES.get(method, method)
    start = method.endswith(BEFORE_TRAINING) or method.startswith(start_name(""))
    when = " before training" if start else ""
    return f"k-means of {level} embeddings{when}"


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
    spread["ARI_noise"] = "± by noise (ARI)"
    page.add_table(named.rename_axis("method").rename(columns=spread), highlight=ours)
