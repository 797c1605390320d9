"""Tokens of metadata of each cell, and the pairs of genes that lie together in it."""

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from spatiagraph.data.colocalization import Colocalization, cell_molecules
from spatiagraph.data.colocalization.molecules import check_cells
from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.data.slide import Slide
from spatiagraph.data.transcripts import filter_transcripts
from spatiagraph.data.vocabulary import GeneVocabulary
from spatiagraph.models.spatialformer.vocabulary import FIELDS

log = logging.getLogger(__name__)


def metadata_ids(
    slide: Slide,
    vocabulary: GeneVocabulary,
    metadata: Mapping[str, str],
    columns: Mapping[str, str],
) -> Tensor:
    """Tokens of the metadata of each cell, ``[N, 4]``.

    Args:
        slide: The slide.
        vocabulary: The tokens.
        metadata: Field → token of all cells.
        columns: Field → column of ``obs`` that has the token of each, in place of ``metadata``.

    Raises:
        ValueError: If there is no such column, or it has values that are no tokens.
    """
    ids = np.empty((slide.num_cells, len(FIELDS)), dtype=np.int64)
    for i, field in enumerate(FIELDS):
        if field not in columns:
            ids[:, i] = vocabulary.token(metadata[field])
            continue
        if columns[field] not in slide.adata.obs:
            raise ValueError(
                f"Expected a column {columns[field]!r} in obs of slide {slide.slide_id!r} for the "
                f"{field} of cells, got none"
            )
        code, names = pd.factorize(slide.adata.obs[columns[field]])
        if (code < 0).any():
            raise ValueError(f"Expected a {field} of every cell, got none of {(code < 0).sum()}")
        ids[:, i] = np.array([vocabulary.token(str(name)) for name in names])[code]
    return torch.from_numpy(ids)


def colocalized_codes(
    slide: Slide, vocabulary: GeneVocabulary, rule: Colocalization | None = None
) -> Tensor:
    """Pairs of genes of each cell, as ragged rows ``[N, P]`` of codes ``a · V + b`` of token ids.

    Cells without molecules have none, nor have slides without any that is of a cell and of a
    quality that counts.

    Args:
        slide: The slide.
        vocabulary: Genes as tokens, :math:`V` of them with all others.
        rule: What lying together means; that of SpatialFormer when not given.

    Raises:
        ValueError: If no molecule is in a cell of the slide, but in cells of other names.
    """
    ptr = np.zeros(slide.num_cells + 1, dtype=np.int64)
    table = slide.transcripts
    if table is None or "cell_id" not in table or not table["cell_id"].notna().any():
        return ragged_tensor(np.empty(0, dtype=np.int64), ptr)
    check_cells(table["cell_id"], slide)
    if filter_transcripts(table, min_counts=1, min_genes=1).transcripts.empty:
        log.warning("No molecule of slide %r counts: no pairs of genes", slide.slide_id)
        return ragged_tensor(np.empty(0, dtype=np.int64), ptr)
    molecules = cell_molecules(table, min_counts=1, min_genes=1)
    pairs = (Colocalization() if rule is None else rule)(molecules)
    place = {name: i for i, name in enumerate(vocabulary.symbols)}
    first = vocabulary.ranges["gene"].start
    token = np.array([first + place[g] if g in place else -1 for g in pairs.genes], dtype=np.int64)
    ends = np.sort(token[pairs.pairs], axis=1)
    row = pd.Index(slide.adata.obs_names).get_indexer(pd.Index(pairs.cell_ids))
    cell = np.repeat(row, np.diff(pairs.ptr))
    kept = (ends[:, 0] >= 0) & (cell >= 0)
    order = np.argsort(cell[kept], kind="stable")
    code = (ends[kept, 0] * vocabulary.num_tokens + ends[kept, 1])[order]
    ptr[1:] = np.cumsum(np.bincount(cell[kept], minlength=slide.num_cells))
    return ragged_tensor(code, ptr)
