"""Embeddings back to AnnData."""

from collections.abc import Mapping
from typing import Any

import anndata
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spatiagraph import keys
from spatiagraph.data.convert.tissue_data import TissueData
from spatiagraph.data.notes import our_notes
from spatiagraph.graph.edges import plain_edges

WIDTHS = "width_um"
"""``uns["spatiagraph"]``: level → median diameter of its groups in µm."""


def write_embeddings(
    adata: anndata.AnnData,
    name: str,
    embeddings: Mapping[str, NDArray[np.floating]],
    *,
    data: TissueData,
    uns: Mapping[str, Any],
) -> anndata.AnnData:
    """Put embeddings and the graph they were made on where the ecosystem looks for them.

    Args:
        adata: Written to in place: ``obsm``, ``obsp``, ``obs`` and ``uns``.
        name: Short name of the model: ``obsm["X_{name}"]``, ``obsm["X_{name}_niche"]``, …
        embeddings: Level → ``[N, D]``, one row per cell.
        data: The graph of the whole slide.
        uns: What made the embeddings; stored under ``uns["spatiagraph"]`` beside the names of the
            levels.

    Returns:
        The same object.
    """
    for level, value in embeddings.items():
        adata.obsm[keys.embedding_key(name, level)] = np.ascontiguousarray(value)
    source, target = plain_edges(data.edge_index)
    distance = (data.pos[source] - data.pos[target]).norm(dim=1).numpy()
    shape = (adata.n_obs, adata.n_obs)
    # rows are targets: row i lists the neighbours of cell i, as squidpy does
    place = (target.numpy(), source.numpy())
    adata.obsp[keys.DISTANCES] = sparse.csr_matrix((distance.astype(np.float32), place), shape)
    ones = np.ones(len(distance), dtype=np.float32)
    adata.obsp[keys.CONNECTIVITIES] = sparse.csr_matrix((ones, place), shape)
    for level in data.level_names:
        if data.num_items(level) < data.num_nodes:  # else every cell has a group of its own
            adata.obs[keys.group_key(name, level)] = data.group_of_cell(level).numpy()
    notes = {**uns, "levels": list(data.level_names), WIDTHS: level_widths_um(data)}
    adata.uns[keys.UNS] = {**our_notes(adata), **notes}
    return adata


def level_widths_um(data: TissueData) -> dict[str, float]:
    """Median diameter of the groups of each level in µm.

    Args:
        data: A whole slide.
    """
    return {level: _width_um(data, level) for level in data.level_names}


def _width_um(data: TissueData, level: str) -> float:
    """Twice the distance of the farthest member to the centre, the median of all groups."""
    names = ("", *data.level_names)
    below = names[names.index(level) - 1]
    members, groups = plain_edges(data[f"{level}_index"])
    pos = data[f"{below}_pos"] if below else data.pos
    away = (pos[members] - data[f"{level}_pos"][groups]).norm(dim=1)
    radius = away.new_zeros(data.num_items(level)).scatter_reduce(0, groups, away, "amax")
    return 2 * float(np.median(radius.numpy()))
