"""Tests of effects of gene pairs over pairs of cells."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, ttest_ind_from_stats
from scipy.stats import t as student

_KEYS = ["gene_a", "gene_b"]


def gene_pair_effects(
    effects: pd.DataFrame,
    *,
    others: pd.DataFrame | None = None,
    ordered: bool = True,
    min_support: int = 50,
    value: str = "effect",
) -> pd.DataFrame:
    r"""Test of each pair of genes: does taking both away make neighbours less likely?

    A one-sample t-test, one-tailed, of mean effects below 0 over pairs of cells. A pair of cells
    counts once for a pair of genes: where both ways round occur they are averaged first. The
    correction of Benjamini and Hochberg is over all pairs of genes with enough support, whatever
    their p; correcting only those that look well would control nothing.

    Args:
        effects: One row per pair of cells and genes, as of
            :func:`~spatiagraph.inference.perturb_gene_pairs`: ``pair``, ``gene_a`` (of the first
            cell), ``gene_b`` (of the second) and the effect.
        others: Effects in pairs of cells that are no neighbours, of the same types: what genes do
            whoever the other cell is.
        ordered: Keep a gene in the first cell apart from the same gene in the second.
        min_support: Pairs of genes need more pairs of cells than this.
        value: Column of the effect.

    Returns:
        One row per pair of genes with enough support, the surest first: ``gene_a``, ``gene_b``,
        ``n``, ``mean``, ``sd``, ``t``, ``p``, ``q``. Where all effects are equal and below 0 no
        test is defined: ``p`` and ``q`` are NaN, and the others are corrected without it. With
        ``others`` also ``n_others``, ``mean_others``, and ``p_others`` and ``q_others`` of Welch's
        test, one-tailed, that effects between neighbours are lower; NaN with fewer than two.

    Raises:
        ValueError: If a column is missing, or an effect is not finite.

    Examples:
        >>> d = pd.DataFrame({"pair": range(4), "gene_a": "A", "gene_b": "B"})
        >>> d["effect"] = [-0.02, -0.01, -0.03, 0.0]
        >>> gene_pair_effects(d, min_support=3)[["t", "p"]].round(4).values.tolist()
        [[-2.3238, 0.0514]]
    """
    found, same = _summed(effects, ordered, value)
    kept = (found["n"] > min_support).to_numpy()
    found, same = found[kept].reset_index(drop=True), same[kept]
    n, mean, sd = (found[c].to_numpy(float) for c in ("n", "mean", "sd"))
    error = np.where(same, 1.0, sd / np.sqrt(n))
    t = np.where(same, 0.0, mean / error)
    p = student.cdf(t, np.maximum(n - 1, 1))
    p = np.where(same, np.where(mean >= 0, 1.0, np.nan), p)
    found = found.assign(t=t, p=p, q=_corrected(p))
    if others is not None:
        found = _beside(found, _summed(others, ordered, value)[0])
    return found.sort_values(["p", "mean"], kind="stable").reset_index(drop=True)


def _summed(
    effects: pd.DataFrame, ordered: bool, value: str
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Number, mean and deviation over pairs of cells of each pair of genes; which never differ."""
    missing = [c for c in ("pair", *_KEYS, value) if c not in effects]
    if missing:
        raise ValueError(f"Expected columns pair, gene_a, gene_b and {value}, got no {missing}")
    table = effects[["pair", *_KEYS, value]]
    if not np.isfinite(table[value].to_numpy(float)).all():
        raise ValueError(f"Expected finite effects, got others in {value!r}")
    if not ordered:
        names = np.sort(table[_KEYS].to_numpy(str), axis=1)
        table = table.assign(gene_a=names[:, 0], gene_b=names[:, 1])
    once = table.groupby(["pair", *_KEYS], observed=True, sort=False)[value].mean()
    grouped = once.groupby(level=_KEYS, observed=True)
    found = grouped.agg(n="size", mean="mean", sd="std", least="min", most="max").reset_index()
    # of equal values NumPy's deviation is not always 0
    same = (found.pop("least") == found.pop("most")).to_numpy(bool)
    found["sd"] = np.where(same, 0.0, found["sd"].fillna(0.0))
    return found, same


def _corrected(p: NDArray[np.float64]) -> NDArray[np.float64]:
    tested = np.isfinite(p)
    q = np.full(len(p), np.nan)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def _beside(found: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Effects between neighbours against those between others."""
    table = found.merge(others, "left", on=_KEYS, suffixes=("", "_others"))
    n = table["n_others"] = table["n_others"].fillna(0).astype(int)
    known = ((n > 1) & (table["n"] > 1) & (table["sd"] + table["sd_others"] > 0)).to_numpy(bool)
    p = np.full(len(table), np.nan)
    if known.any():
        part = table[known]
        given = (part[c + end].to_numpy() for end in ("", "_others") for c in ("mean", "sd", "n"))
        p[known] = ttest_ind_from_stats(*given, equal_var=False, alternative="less").pvalue
    return table.drop(columns="sd_others").assign(p_others=p, q_others=_corrected(p))
