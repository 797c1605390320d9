"""Niches as the squares of a regular grid."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from spatiagraph.graph.points import as_points, slide_rows

_SNAP = 1e-9  # a cell this far (in patches) below a border is on it: rounding decides nothing


class GridPatches(NamedTuple):
    """The occupied patches of a grid and who lies in them.

    Attributes:
        niche: Patch of each cell, ``[N]`` in ``[0, M)``.
        row: Patch row, counted along y, ``[M]``.
        col: Patch column, counted along x, ``[M]``.
        section: Position of the patch's section among the sorted sections, ``[M]``.
        center: Middle of each patch in µm, ``[M, 2]`` float64.
    """

    niche: Tensor
    row: Tensor
    col: Tensor
    section: Tensor
    center: Tensor


def grid_niches(
    pos: ArrayLike | Tensor,
    size_um: float = 54.4,
    *,
    slide: ArrayLike | Tensor | None = None,
    origin_um: tuple[float, float] | None = None,
) -> Tensor:
    """Square patch in which each cell lies.

    The niche of SPATIA (`arXiv:2507.04704 <https://arxiv.org/abs/2507.04704>`_): 256 px at
    0.2125 µm/px, 54.4 µm; 217.6 µm for its tissue regions.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        size_um: Side of a patch.
        slide: Section of each cell, ``[N]``; a patch never holds cells of two sections.
        origin_um: Corner of patch (0, 0) as (x, y). By default the lowest x and y of each section,
            so that moving a section changes nothing; ``(0, 0)`` counts patches from the corner of
            the slide's image.

    Returns:
        ``[N]`` integers in ``[0, M)``; only patches with a cell have a number, in the order of
        section, row, column.

    Raises:
        ValueError: ``size_um`` is not positive.

    Examples:
        >>> grid_niches([[0, 0], [50, 50], [60, 0], [500, 500]]).tolist()
        [0, 0, 1, 2]
    """
    return grid_patches(pos, size_um, slide=slide, origin_um=origin_um).niche


def grid_patches(
    pos: ArrayLike | Tensor,
    size_um: float = 54.4,
    *,
    slide: ArrayLike | Tensor | None = None,
    origin_um: tuple[float, float] | None = None,
) -> GridPatches:
    """Like :func:`grid_niches`, with row, column and centre of each patch.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        size_um: Side of a patch.
        slide: Section of each cell, ``[N]``.
        origin_um: Corner of patch (0, 0) as (x, y); by default the lowest x and y of each section.

    Raises:
        ValueError: ``size_um`` is not positive.
    """
    if not size_um > 0:
        raise ValueError(f"Expected 'size_um' above 0, got {size_um}")
    points = as_points(pos)
    key = np.empty((len(points), 3), dtype=np.int64)  # section, row, column
    corner = np.zeros((len(points), 2))
    for section, rows in enumerate(slide_rows(slide, len(points))):
        corner[rows] = points[rows].min(axis=0) if origin_um is None else origin_um
        key[rows, 0] = section
    key[:, :0:-1] = np.floor((points - corner) / size_um + _SNAP)
    patches, first, niche = np.unique(key, axis=0, return_index=True, return_inverse=True)
    center = corner[first] + (patches[:, :0:-1] + 0.5) * size_um
    return GridPatches(
        niche=torch.from_numpy(niche.reshape(-1)),
        row=torch.from_numpy(patches[:, 1].copy()),
        col=torch.from_numpy(patches[:, 2].copy()),
        section=torch.from_numpy(patches[:, 0].copy()),
        center=torch.from_numpy(center),
    )
