"""Pairs of genes that were found, beside a table of pairs that are known."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import hypergeom


class KnownPairs(NamedTuple):
    """Overlap of pairs of genes that were found with pairs that are known.

    Attributes:
        table: Tested pairs that are known, the surest first, with ``found``.
        num_tested: Tested pairs of different genes, whichever gene comes first.
        num_found: Those that were found.
        num_known: Those that are known.
        num_both: Those that are both.
        p: Chance of as many or more if pairs were found regardless.
    """

    table: pd.DataFrame
    num_tested: int
    num_found: int
    num_known: int
    num_both: int
    p: float


def known_gene_pairs(tested: pd.DataFrame, known: pd.DataFrame, *, q: float = 0.05) -> KnownPairs:
    """Compare tested pairs of genes with a table of ligands and receptors.

    Pairs are compared by symbol, whichever gene comes first; a gene with itself is left out.

    Args:
        tested: Of :func:`~spatiagraph.evaluate.gene_pair_effects`.
        known: Symbols in the columns ``ligand`` and ``receptor``, or in the first two.
        q: Found are pairs below it whose mean effect is below 0.

    Raises:
        ValueError: If a table has too few columns, or no symbol of either is in the other.
    """
    missing = [c for c in ("gene_a", "gene_b", "mean", "q") if c not in tested]
    if missing:
        raise ValueError(f"Expected tested pairs with gene_a, gene_b, mean, q, got no {missing}")
    if known.shape[1] < 2:
        raise ValueError(f"Expected columns ligand and receptor, got {list(known.columns)}")
    named = {"ligand", "receptor"} <= set(known.columns)
    ends = known[["ligand", "receptor"]] if named else known.iloc[:, :2]
    pairs = {frozenset(map(str, row)) for row in ends.dropna().to_numpy(object)}
    genes = {*tested["gene_a"].astype(str), *tested["gene_b"].astype(str)}
    if len(tested) and not any(pair & genes for pair in pairs):
        raise ValueError(
            f"Expected a table of symbols of genes, such as {sorted(genes)[0]!r}, got none of "
            f"the {len(genes)} tested genes in its columns {list(map(str, ends.columns))}"
        )
    names = [frozenset(map(str, row)) for row in tested[["gene_a", "gene_b"]].to_numpy(object)]
    found = ((tested["q"] < q) & (tested["mean"] < 0)).to_numpy(bool)
    different = {name for name in names if len(name) == 2}
    sure = {name for name, yes in zip(names, found, strict=True) if yes} & different
    both = sure & pairs
    size = (len(different), len(different & pairs), len(sure))
    rows = np.array([len(name) == 2 and name in pairs for name in names], dtype=bool)
    return KnownPairs(
        tested.assign(found=found)[rows].reset_index(drop=True),
        size[0],
        size[2],
        size[1],
        len(both),
        float(hypergeom.sf(len(both) - 1, *size)) if size[0] else 1.0,
    )
