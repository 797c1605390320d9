"""Chunks of a hierarchical mini-batch: niches, the large ones divided."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spatiagraph.data.convert.tissue_data import TissueData
from spatiagraph.graph.ranges import ranges, repeat_each


class NicheChunks(NamedTuple):
    """All niches of some slides, each in one or more chunks of about equally many cells.

    Attributes:
        slide: Slide of each chunk, ``[T]``.
        niche: Niche of each chunk on its slide, ``[T]``.
        part: Which of the chunks of its niche it is, ``[T]``.
        size: Cells of each chunk, ``[T]``.
        niche_id: Niche among the niches of all slides, ``[T]``.
        region_id: Region among the regions of all slides, ``[T]``.
        weight: Mean weight of the cells of its niche, ``[T]``.
    """

    slide: Tensor
    niche: Tensor
    part: Tensor
    size: Tensor
    niche_id: Tensor
    region_id: Tensor
    weight: Tensor


def niche_chunks(
    slides: Sequence[TissueData], max_cells: int, weights: Sequence[Tensor] | None = None
) -> NicheChunks:
    """Divide the niches of some slides into chunks of at most ``max_cells`` cells.

    The cells of a niche are those whose own niche it is. Niches that have no cell or no region are
    left out.

    Args:
        slides: Whole slides.
        max_cells: Most cells of a chunk.
        weights: Weight of each cell of each slide, ``[N]``; 1 when ``None``.
    """
    tables, first_niche, first_region = [], 0, 0
    for i, data in enumerate(slides):
        first, second = data.level_names
        niche_of, region_of = data[first], data[second]
        num_niches, num_regions = data.num_items(first), data.num_items(second)
        cells = (niche_of >= 0).nonzero().squeeze(1)
        size = torch.bincount(niche_of[cells], minlength=num_niches)
        weight = torch.ones(data.num_nodes) if weights is None else weights[i]
        total = torch.zeros(num_niches, dtype=torch.float64)
        total.index_add_(0, niche_of[cells], weight[cells].double())
        used = ((size > 0) & (region_of >= 0)).nonzero().squeeze(1)
        num_parts = -(-size[used] // max_cells)
        niche = repeat_each(used, num_parts)
        part = ranges(torch.zeros_like(num_parts), num_parts)
        parts = repeat_each(num_parts, num_parts)
        tables.append(
            NicheChunks(
                slide=torch.full_like(niche, i),
                niche=niche,
                part=part,
                size=chunk_start(size[niche], parts, part + 1)
                - chunk_start(size[niche], parts, part),
                niche_id=niche + first_niche,
                region_id=region_of[niche] + first_region,
                weight=total[niche] / size[niche],
            )
        )
        first_niche += num_niches
        first_region += num_regions
    return NicheChunks(*(torch.cat(columns) for columns in zip(*tables, strict=True)))


def chunk_start(size: Tensor, num_parts: Tensor, part: Tensor) -> Tensor:
    """First cell of a chunk when ``size`` cells are divided as evenly as can be.

    Examples:
        >>> chunk_start(torch.tensor(7), torch.tensor(3), torch.arange(4)).tolist()
        [0, 2, 4, 7]
    """
    return size * part // num_parts


def class_weights(labels: Sequence[Tensor]) -> list[Tensor]:
    """Weights of cells that make all classes weigh the same: 1 / number of cells of the class.

    Args:
        labels: Class of each cell of each slide, ``[N]``; -1 for unknown.

    Returns:
        A weight per cell, ``[N]`` for each slide, with mean 1; cells of unknown class weigh 1.

    Examples:
        >>> class_weights([torch.tensor([0, 0, 0, 1, -1])])
        [tensor([0.6667, 0.6667, 0.6667, 2.0000, 1.0000])]
    """
    known = torch.cat([label[label >= 0] for label in labels])
    if not known.numel():
        return [torch.ones(label.numel()) for label in labels]
    size = torch.bincount(known)
    weight = known.numel() / (int((size > 0).sum()) * size.clamp(min=1))
    return [torch.where(label >= 0, weight[label.clamp(min=0)], 1.0) for label in labels]
