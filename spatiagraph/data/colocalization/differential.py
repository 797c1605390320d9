"""Pairs of genes that lie together more often in one kind of cells than in another."""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.stats import false_discovery_control, hypergeom


def differential_gene_pairs(
    pairs: AnnData, groupby: str, *, max_pairs: int = 2000, min_cells: int = 5
) -> pd.DataFrame:
    """Rank pairs of genes by group of cells.

    The pairs of most variance over cells are compared, cells with and without a pair in one group
    against all others (one-sided exact test of Fisher; Benjamini–Hochberg over all groups and
    pairs).

    Args:
        pairs: Cells × pairs, as from ``GenePairs.to_adata``; cells without any pair are left out.
        groupby: Column of ``obs`` with the group of each cell; cells without one are left out.
        max_pairs: Most variable pairs that are compared.
        min_cells: Cells of any group that must have a pair.

    Returns:
        One row per group and pair, surest first within a group: ``group``, ``pair``, ``gene_a``,
        ``gene_b``, ``share`` of its cells, ``share_rest``, ``log2_fold_change`` (of both shares,
        half a cell added), ``p``, ``q``.

    Raises:
        ValueError: If there is no such column, or fewer than two groups have cells with pairs.
    """
    if groupby not in pairs.obs:
        raise ValueError(
            f"Expected a column {groupby!r} in obs, got {', '.join(map(str, pairs.obs.columns))}"
        )
    groups = pairs.obs[groupby]
    x = csr_matrix(pairs.X, dtype=np.float64)
    used = groups.notna().to_numpy() & (np.diff(x.indptr) > 0)
    code, names = pd.factorize(groups[used], sort=True)
    if len(names) < 2:
        raise ValueError(
            f"Expected two groups of cells with pairs in {groupby!r}, got {len(names)}"
        )
    x = x[used]
    with_pair = np.asarray(x.sum(axis=0)).ravel()
    variance = with_pair / len(code) * (1 - with_pair / len(code))
    chosen = np.argsort(-variance, kind="stable")
    chosen = np.sort(chosen[with_pair[chosen] >= min_cells][:max_pairs])
    member = csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))), (len(names), len(code)))
    inside = (member @ x[:, chosen]).toarray()  # [K, P]
    size, every = np.bincount(code)[:, None], with_pair[chosen]
    p = hypergeom.sf(inside - 1, len(code), every, size)
    share = inside / size
    rest = (every - inside) / (len(code) - size)
    fold = np.log2((inside + 0.5) / (size + 0.5)) - np.log2(
        (every - inside + 0.5) / (len(code) - size + 0.5)
    )
    q = false_discovery_control(p.ravel()).reshape(p.shape) if p.size else p
    var = pairs.var.iloc[chosen]
    tables = []
    for number, name in enumerate(names):
        table = pd.DataFrame(
            {
                "group": name,
                "pair": var.index,
                "gene_a": var["gene_a"].to_numpy(),
                "gene_b": var["gene_b"].to_numpy(),
                "share": share[number],
                "share_rest": rest[number],
                "log2_fold_change": fold[number],
                "p": p[number],
                "q": q[number],
            }
        )
        tables.append(table.sort_values(["p", "log2_fold_change"], ascending=[True, False]))
    return pd.concat(tables, ignore_index=True)
