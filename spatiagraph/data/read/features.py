"""Features that are no genes: intensities of proteins, and types of cells."""

from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from spatiagraph import keys
from spatiagraph.data.checks import nearest
from spatiagraph.data.counts import shallow_copy
from spatiagraph.data.slide import expression_matrix

Kind = Literal["genes", "protein", "types"]
Transform = Literal["arcsinh", "clr", "none"]

_MOST_TYPES = 0.5  # of the cells that have one
INTENSITIES = "intensities"
"""``layers``: intensities of proteins as they were in the file, ``[N, G]``."""
COFACTOR = 5.0
"""Intensity up to which arcsinh is linear, as for mass cytometry."""


def protein_features(
    adata: AnnData, transform: Transform | None = None, cofactor: float = COFACTOR
) -> tuple[AnnData, str | None]:
    r"""Cells with the transformed intensities of their proteins (CODEX, IMC, MIBI) in ``X``.

    ``"arcsinh"`` is :math:`\mathrm{arcsinh}(x / c)`; ``"clr"`` the centred log ratio of each cell,
    :math:`\ln(1 + x / e^{\overline{\ln(1 + x)}})`, of `"Simultaneous epitope and transcriptome
    measurement in single cells" <https://doi.org/10.1038/nmeth.4380>`_. A Gaussian fits the
    results. Negative values were scaled before: each protein is then moved so that its smallest
    value is 0, which no Gaussian sees, and not transformed again.

    Args:
        adata: Cells, in memory.
        transform: Which of them, or ``"none"``; ``None`` is arcsinh unless values are negative.
        cofactor: :math:`c`, in units of the intensities; 150 is usual for fluorescence.

    Returns:
        The cells, their intensities kept in ``layers["intensities"]``, and a warning if any.

    Raises:
        ValueError: The transform is unknown, its cofactor not positive, or values are negative.
    """
    if transform not in (None, "arcsinh", "clr", "none"):
        raise ValueError(f'Expected transform "arcsinh", "clr" or "none", got {transform!r}')
    if not (np.isfinite(cofactor) and cofactor > 0):
        raise ValueError(f"Expected 'cofactor' to be positive, got {cofactor}")
    raw = expression_matrix(adata).toarray()
    low, warning = np.nanmin(raw, axis=0), None
    if (low < 0).any():
        if transform in ("arcsinh", "clr"):
            raise ValueError(
                f"Expected intensities that are not negative for {transform}, got "
                f"{float(low.min()):.4g}: they were scaled before. Pass transform='none'"
            )
        transform, values = "none", raw - np.minimum(low, 0)
        warning = (
            f"Intensities of {int((low < 0).sum())} proteins are negative, so they were scaled "
            "before: each is moved so that its smallest value is 0, and not transformed again"
        )
    elif transform == "clr":
        values = np.log1p(raw / np.exp(np.log1p(raw).mean(axis=1, keepdims=True)))
    else:
        values = raw if transform == "none" else np.arcsinh(raw / cofactor)
    chosen = shallow_copy(adata)
    chosen.layers.pop(keys.COUNTS, None)
    chosen.layers[INTENSITIES] = csr_matrix(raw)
    chosen.X = csr_matrix(values, dtype=np.float32)
    chosen.uns["protein_transform"] = transform or "arcsinh"
    return chosen, warning


def type_features(adata: AnnData, type_key: str | None) -> AnnData:
    """Cells whose features are their types, one column for each, 1 where a cell is of it.

    Args:
        adata: Cells; what was measured of them is left out.
        type_key: Column of ``obs`` with the types; a cell without one is a row of zeros.

    Raises:
        ValueError: There is no such column, or it has one type alone.
    """
    columns = [str(c) for c in adata.obs.columns]
    if type_key is None:
        raise ValueError(
            f"Expected type_key=… with kind='types', the column of obs with the types of cells; "
            f"{nearest('cell_type', columns)}"
        )
    if type_key not in columns:
        raise ValueError(
            f"Expected types of cells in obs[{type_key!r}], got none. {nearest(type_key, columns)}"
        )
    types = adata.obs[type_key].astype("category").cat.remove_unused_categories()
    if len(types.cat.categories) < 2:
        raise ValueError(
            f"Expected several types of cells in obs[{type_key!r}], got "
            f"{types.cat.categories.tolist()}"
        )
    if len(types.cat.categories) > _MOST_TYPES * types.notna().sum():
        raise ValueError(
            f"Expected types of cells in obs[{type_key!r}], got {len(types.cat.categories)} "
            f"different values in {types.notna().sum()} cells. Are these ids or measurements?"
        )
    row = np.flatnonzero(types.cat.codes >= 0)
    one_hot = csr_matrix(
        (np.ones(len(row), np.float32), (row, types.cat.codes.to_numpy()[row])),
        shape=(adata.n_obs, len(types.cat.categories)),
    )
    var = pd.DataFrame(index=pd.Index(types.cat.categories.astype(str), dtype=object))
    return AnnData(
        one_hot,
        obs=adata.obs.copy(),
        var=var,
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        obsp=dict(adata.obsp),
    )
