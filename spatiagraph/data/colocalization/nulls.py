"""Tests of pairs of genes against molecules that are shuffled, or displaced, within their cell."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom, false_discovery_control
from tqdm.auto import tqdm

from spatiagraph.data.colocalization.molecules import MoleculesByCell
from spatiagraph.data.colocalization.rule import Colocalization, GenePairs, Null, Tally

Kind = Literal["shuffle", "jitter"]
NULLS: tuple[Kind, ...] = ("shuffle", "jitter")


def gene_pair_tests(
    molecules: MoleculesByCell,
    pairs: GenePairs,
    rule: Colocalization,
    *,
    nulls: tuple[Kind, ...] = NULLS,
    num_draws: int = 20,
    jitter_um: float = 5.0,
    min_support: int = 10,
    progress: bool = False,
) -> pd.DataFrame:
    r"""Test of each pair: do more cells have it than chance would give them?

    Two nulls. ``shuffle`` deals the genes of a cell to its molecules anew: what is left is what
    abundance alone gives. ``jitter`` displaces each molecule within ``jitter_um``: what is left is
    what molecules further apart than that would give as well; it also thins crowded cells, so it is
    the weaker of the two. Cells are independent in both, so the number of cells with a pair is a
    sum of rare events: with :math:`n` cells observed and :math:`n_0` in :math:`B` draws of all
    cells, :math:`p = P(X \ge n)` for :math:`X \sim \mathrm{Binomial}(n + n_0, 1 / (B + 1))`, the
    exact comparison of two Poisson counts, which knows that the null was drawn and not known.

    Args:
        molecules: Molecules by cell, in memory or in a sorted file; of a file, some cells are in
            memory at a time, and the result is the same.
        pairs: Their pairs by ``rule``.
        rule: The rule.
        nulls: Nulls to test against.
        num_draws: Draws of every cell, :math:`B`.
        jitter_um: How far the second null displaces molecules, at most.
        min_support: Cells with enough molecules of both genes, wherever they lie, below which a
            pair is not tested. No null changes this number.
        progress: Show a progress bar over the cells of each null.

    Returns:
        One row per tested pair, the surest first: ``gene_a``, ``gene_b``, ``support``, ``cells``
        (that have the pair), ``share`` of the support, ``weight`` (mean over these cells), and for
        each null ``expected_…`` cells, ``p_…`` and ``q_…`` (Benjamini–Hochberg over all tested
        pairs).

    Raises:
        ValueError: If a number is out of range.
    """
    if num_draws < 1 or min_support < 1 or not jitter_um > 0:
        raise ValueError(
            f"Expected num_draws and min_support of 1 or more and jitter_um above 0, got "
            f"{num_draws}, {min_support} and {jitter_um}"
        )
    num = len(molecules.genes)
    drawn = [Null(null, num_draws, jitter_um) for null in nulls]
    whole = Colocalization(mode="cell", min_copies=rule.min_copies)
    tallies = [Tally.sum(())] * (len(nulls) + 1)
    cells_drawn = molecules.num_cells * len(drawn)
    with tqdm(total=cells_drawn, desc="nulls", unit="cell", disable=not progress) as bar:
        for part in molecules.parts():
            found = [whole.tally(part), *(rule.tally(part, null, bar.update) for null in drawn)]
            tallies = [Tally.sum(both) for both in zip(tallies, found, strict=True)]
    possible, *by_chance = tallies
    code, support = possible.code[possible.cells >= min_support], possible.cells
    support = support[support >= min_support]
    own = pairs.pairs[:, 0].astype(np.int64) * num + pairs.pairs[:, 1]
    cells, weight = _per_code(code, own), _per_code(code, own, pairs.weight)
    table = pd.DataFrame(
        {
            "gene_a": molecules.genes[code // max(num, 1)].astype(str),
            "gene_b": molecules.genes[code % max(num, 1)].astype(str),
            "support": support,
            "cells": cells.astype(np.int64),
            "share": cells / np.maximum(support, 1),
            "weight": weight / np.maximum(cells, 1),
        }
    )
    for null, tally in zip(nulls, by_chance, strict=True):
        chance = tally.at(code)
        p = binom.sf(cells - 1, cells + chance, 1 / (num_draws + 1))
        table[f"expected_{null}"] = chance / num_draws
        table[f"p_{null}"] = p
        table[f"q_{null}"] = false_discovery_control(p) if len(p) else p
    by = [f"q_{null}" for null in nulls]
    table["_worst"] = table[by].max(axis=1) if by else 0.0
    table = table.sort_values(["_worst", "cells"], ascending=[True, False], kind="stable")
    return table.drop(columns="_worst").reset_index(drop=True)


def _per_code(
    code: NDArray[np.int64], found: NDArray[np.int64], weight: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Number, or summed weight, of the pairs of each code."""
    if not len(code):
        return np.zeros(0)
    place = np.minimum(np.searchsorted(code, found), len(code) - 1)
    known = code[place] == found
    weights = None if weight is None else weight[known]
    return np.bincount(place[known], weights, minlength=len(code)).astype(np.float64)
