"""Counts of an AnnData: the layer that holds them, and others that might."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse

from spatiagraph import keys
from spatiagraph.data.checks import nearest

if TYPE_CHECKING:
    from anndata import AnnData

_LOOKED_AT = 1_000_000  # values that tell counts from others
_RAW = "raw"


def shallow_copy(adata: "AnnData") -> "AnnData":
    """An AnnData that shares arrays with the given one, and whose containers are its own."""
    from anndata import AnnData

    with warnings.catch_warnings():  # refused at the door of a slide, with the names
        warnings.filterwarnings("ignore", message=".* names are not unique")
        return AnnData(
            X=adata.X,
            raw=adata.raw,
            obs=adata.obs.copy(),
            var=adata.var.copy(),
            uns=dict(adata.uns),
            obsm=dict(adata.obsm),
            varm=dict(adata.varm),
            layers=named_layers(adata),
            obsp=dict(adata.obsp),
            varp=dict(adata.varp),
        )


def named_layers(adata: "AnnData") -> dict[str, Any]:
    """Layers by name, without X: anndata 0.13 has it among them under ``None``."""
    return {name: values for name, values in adata.layers.items() if name is not None}


def choose_counts(adata: "AnnData", layer: str) -> "AnnData":
    """The same cells with the values of a layer as their counts.

    Args:
        adata: Cells, in memory.
        layer: Name of a layer; ``"X"``; or ``"raw"`` for ``adata.raw``, with the genes it has.

    Raises:
        ValueError: There is no such layer.
    """
    from anndata import AnnData

    if layer in adata.layers:
        chosen = shallow_copy(adata)
        chosen.layers[keys.COUNTS] = adata.layers[layer]
        return chosen
    if layer == "X" and adata.X is not None:
        chosen = shallow_copy(adata)
        chosen.layers.pop(keys.COUNTS, None)
        return chosen
    if layer in (_RAW, ".raw") and adata.raw is not None:
        return AnnData(
            adata.raw.X,
            obs=adata.obs.copy(),
            var=adata.raw.var.copy(),
            uns=dict(adata.uns),
            obsm=dict(adata.obsm),
            obsp=dict(adata.obsp),
        )
    there = [*named_layers(adata), *(["X"] if adata.X is not None else [])]
    there += [_RAW] if adata.raw is not None else []
    raise ValueError(f"Expected counts in layers[{layer!r}], got none. {nearest(layer, there)}")


def other_counts(adata: "AnnData") -> list[str]:
    """Values for ``counts_layer=`` that name counts, beside those that are read without it."""
    read = keys.COUNTS if keys.COUNTS in adata.layers else "X"
    places = named_layers(adata)
    if adata.raw is not None:
        places.setdefault(_RAW, adata.raw.X)
    if adata.X is not None:
        places["X"] = adata.X
    return [name for name, values in places.items() if name != read and is_counts(values)]


def is_counts(matrix: Any) -> bool:
    """Check that values are whole, not negative and not all zero, by the first million of them."""
    if issparse(matrix):
        values = np.asarray(matrix.data[:_LOOKED_AT])
    elif isinstance(matrix, np.ndarray):
        values = matrix[: max(1, _LOOKED_AT // max(1, matrix.shape[1]))]
    else:
        return False
    if values.dtype.kind not in "biuf" or not values.size:
        return False
    return bool((values >= 0).all() and (values == np.rint(values)).all() and values.any())
