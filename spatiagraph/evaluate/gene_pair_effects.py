"""Tests of effects of gene pairs over pairs of cells."""

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from scipy.stats import t as student


def gene_pair_effects(
    effects: pd.DataFrame, *, ordered: bool = True, min_support: int = 50, value: str = "effect"
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
        ordered: Keep a gene in the first cell apart from the same gene in the second.
        min_support: Pairs of genes need more pairs of cells than this.
        value: Column of the effect.

    Returns:
        One row per pair of genes with enough support, the surest first: ``gene_a``, ``gene_b``,
        ``n``, ``mean``, ``sd``, ``t``, ``p``, ``q``. Where all effects are equal and below 0 no
        test is defined: ``p`` and ``q`` are NaN, and the others are corrected without it.

    Raises:
        ValueError: If a column is missing, or an effect is not finite.

    Examples:
        >>> d = pd.DataFrame({"pair": range(4), "gene_a": "A", "gene_b": "B"})
        >>> d["effect"] = [-0.02, -0.01, -0.03, 0.0]
        >>> gene_pair_effects(d, min_support=3)[["t", "p"]].round(4).values.tolist()
        [[-2.3238, 0.0514]]
    """
    missing = [c for c in ("pair", "gene_a", "gene_b", value) if c not in effects]
    if missing:
        raise ValueError(f"Expected columns pair, gene_a, gene_b and {value}, got no {missing}")
    table = effects[["pair", "gene_a", "gene_b", value]]
    if not np.isfinite(table[value].to_numpy(float)).all():
        raise ValueError(f"Expected finite effects, got others in {value!r}")
    if not ordered:
        names = np.sort(table[["gene_a", "gene_b"]].to_numpy(str), axis=1)
        table = table.assign(gene_a=names[:, 0], gene_b=names[:, 1])
    keys = ["gene_a", "gene_b"]
    once = table.groupby(["pair", *keys], observed=True, sort=False)[value].mean()
    grouped = once.groupby(level=keys, observed=True)
    found = grouped.agg(n="size", mean="mean", sd="std").reset_index()
    # of equal values NumPy's deviation is not always 0
    same = grouped.agg(lambda v: v.max() == v.min()).to_numpy(bool)
    found["sd"] = np.where(same, 0.0, found["sd"].fillna(0.0))
    kept = (found["n"] > min_support).to_numpy()
    found, same = found[kept].reset_index(drop=True), same[kept]
    n, mean, sd = (found[c].to_numpy(float) for c in ("n", "mean", "sd"))
    error = np.where(same, 1.0, sd / np.sqrt(n))
    t = np.where(same, 0.0, mean / error)
    p = student.cdf(t, np.maximum(n - 1, 1))
    p = np.where(same, np.where(mean >= 0, 1.0, np.nan), p)
    tested = np.isfinite(p)
    q = np.full(len(p), np.nan)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    found = found.assign(t=t, p=p, q=q)
    return found.sort_values(["p", "mean"], kind="stable").reset_index(drop=True)
