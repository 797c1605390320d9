"""Few-shot probes: what a handful of labelled cells makes of a frozen embedding."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.evaluate.inputs import as_codes, as_embeddings
from spatiagraph.evaluate.prediction import mean_and_std

CHANCE = "chance"
"""Row of the table for random labels."""


def score_few_shot(
    embeddings: Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | pd.Series | Tensor,
    *,
    num_labelled: Sequence[int] = (1, 5, 10),
    num_draws: int = 10,
    candidates: ArrayLike | None = None,
    ignore: Collection[object] = (),
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Score domains that a linear probe finds from some labelled spots of each.

    Labelled spots are drawn at random, the same ones for every embedding; the probe is logistic
    regression on columns standardised over all spots, and the remaining spots are scored. Spots
    beside a labelled one are easy for embeddings that look at neighbours: put the mean of the
    genes over the niche beside yours, and give ``candidates`` of other sections where there are.

    Args:
        embeddings: Name → embedding of each spot, ``[N, D]``.
        labels: Domain of each spot, ``[N]``; missing values are no label.
        num_labelled: Labelled spots of each domain.
        num_draws: Draws to average over.
        candidates: Spots that may be drawn, ``[N]`` bool; all of them are left out of the score
            where they are given.
        ignore: Labels that mean "not labelled".
        seed: Seed of the draws.
        progress: Show a bar.

    Returns:
        A row per number and embedding, and ``"chance"``, indexed by ``(num_labelled, embedding)``:
        ``macro_F1`` and ``accuracy``, means over draws with ``…_std`` beside them, and
        ``num_cells`` scored.

    Raises:
        ValueError: If shapes do not fit, fewer than two domains are labelled, or one has fewer
            spots than are to be drawn.

    Examples:
        >>> z = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
        >>> table = score_few_shot({"mine": z}, list("aaabbb"), num_labelled=[1])
        >>> float(table.loc[(1, "mine"), "accuracy"])
        1.0
    """
    codes = as_codes(labels, ignore)
    arrays = as_embeddings(embeddings, len(codes))
    if CHANCE in arrays:
        raise ValueError(f"Expected no embedding named {CHANCE!r}: that row is always there")
    if not num_labelled or min(num_labelled) < 1 or num_draws < 1:
        raise ValueError(
            f"Expected 'num_labelled' and 'num_draws' of at least 1, got {list(num_labelled)} and "
            f"{num_draws}"
        )
    allowed = np.ones(len(codes), bool) if candidates is None else np.asarray(candidates)
    if allowed.shape != codes.shape or allowed.dtype != bool:
        raise ValueError(
            f"Expected 'candidates' as bool [{len(codes)}], got {allowed.dtype} "
            f"{list(allowed.shape)}"
        )
    domains = np.unique(codes[codes >= 0])
    pools = [np.flatnonzero((codes == domain) & allowed) for domain in domains]
    least, most = min((len(pool) for pool in pools), default=0), max(num_labelled)
    # without candidates one spot of each domain at least is left to be scored
    if len(domains) < 2 or least < most + (candidates is None):
        raise ValueError(
            f"Expected two domains or more with over {most} labelled spots each, got "
            f"{len(domains)}, the smallest of {least}"
        )
    scaled = {name: StandardScaler().fit_transform(z) for name, z in arrays.items()}
    runs: dict[tuple[int, str], list[dict[str, float]]] = {}
    rng = np.random.default_rng(seed)
    with tqdm(total=len(num_labelled) * num_draws, desc="few-shot", disable=not progress) as bar:
        for number in num_labelled:
            for _ in range(num_draws):
                drawn = np.concatenate([rng.choice(pool, number, replace=False) for pool in pools])
                scored = codes >= 0
                scored[np.flatnonzero(allowed) if candidates is not None else drawn] = False
                truth = codes[scored]
                if not len(truth):
                    raise ValueError(
                        "Expected labelled spots to be scored, that are no candidates, got none"
                    )
                for name, z in scaled.items():
                    probe = LogisticRegression(max_iter=500)
                    guess = probe.fit(z[drawn], codes[drawn]).predict(z[scored])
                    runs.setdefault((number, name), []).append(_scores(truth, guess))
                guess = rng.choice(domains, len(truth))
                runs.setdefault((number, CHANCE), []).append(_scores(truth, guess))
                bar.update()
    table = pd.DataFrame.from_dict(
        {key: {**mean_and_std(found), "num_cells": len(truth)} for key, found in runs.items()},
        orient="index",
    )
    table.index = pd.MultiIndex.from_tuples(table.index, names=["num_labelled", "embedding"])
    return table


def _scores(truth: ArrayLike, guess: ArrayLike) -> dict[str, float]:
    return {
        "macro_F1": float(f1_score(truth, guess, average="macro", zero_division=0)),
        "accuracy": float(accuracy_score(truth, guess)),
    }
