"""Control features (blank codewords, negative probes) are counted, and kept apart from genes."""

import numpy as np
from anndata import AnnData

from spatiagraph.data.slide import expression_matrix
from spatiagraph.data.transcripts import is_control

CONTROL_COUNTS = "control_counts"
"""Column of ``obs``: molecules of control features in each cell."""


def split_controls(adata: AnnData) -> tuple[AnnData, int]:
    """Genes without controls, whose counts are in ``obs["control_counts"]``.

    Args:
        adata: Cells × features, ``[N, F]``.

    Returns:
        Cells × genes, and the number of control features; the AnnData itself if there are none.
    """
    control = is_control(adata.var_names)
    if not control.any():
        return adata, 0
    genes = adata[:, ~control].copy()
    genes.obs[CONTROL_COUNTS] = np.asarray(expression_matrix(adata)[:, control].sum(1)).ravel()
    return genes, int(control.sum())
