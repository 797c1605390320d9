"""Folds of blocks of tissue."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatiagraph.graph.points import as_points, slide_rows


def spatial_blocks(
    pos: ArrayLike,
    *,
    num_folds: int = 5,
    seed: int = 0,
    grid: tuple[int, int] = (5, 4),
    slide: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Folds made of blocks of tissue, so that most neighbours of a cell are on its side.

    Each slide is cut into ``grid[0]`` strips of equal cell number along x, each strip into
    ``grid[1]`` blocks of equal cell number along y, and the blocks are assigned to folds at random,
    the same number to each. Cells at the rim of a block still have neighbours on the other side:
    leave them out with a margin (:class:`Folds`) where that matters.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        num_folds: Number of folds.
        seed: The same seed gives the same folds.
        grid: Blocks along x and along y.
        slide: Section of each cell, ``[N]``; each section is cut on its own.

    Returns:
        Fold of each cell, ``[N]`` in ``[0, num_folds)``.

    Raises:
        ValueError: A slide has fewer cells than blocks, or there are fewer blocks than folds.

    Examples:
        >>> pos = [[0, 0], [0, 1], [9, 0], [9, 1]]
        >>> folds = spatial_blocks(pos, num_folds=2, grid=(2, 1))
        >>> bool(folds[0] == folds[1] != folds[2] == folds[3])
        True
    """
    points = as_points(pos)
    sections = slide_rows(slide, len(points))
    nx, ny = grid
    if min(nx, ny) < 1:
        raise ValueError(f"Expected 'grid' of at least one block each way, got {grid}")
    smallest = min((len(rows) for rows in sections), default=0)
    if smallest < nx * ny:
        raise ValueError(
            f"Expected at least {nx * ny} cells on each slide for a grid of {nx} × {ny} blocks, "
            f"got {smallest}. Use a coarser grid, or leave that slide out"
        )
    num_blocks = len(sections) * nx * ny
    if not 2 <= num_folds <= num_blocks:
        raise ValueError(
            f"Expected 'num_folds' between 2 and the {num_blocks} blocks, got {num_folds}"
        )
    block, number = np.empty(len(points), dtype=np.int64), 0
    for rows in sections:
        for strip in np.array_split(rows[np.argsort(points[rows, 0], kind="stable")], nx):
            along_y = np.argsort(points[strip, 1], kind="stable")
            for cells in np.array_split(strip[along_y], ny):
                block[cells] = number
                number += 1
    fold_of_block = np.random.default_rng(seed).permutation(np.arange(num_blocks) % num_folds)
    return fold_of_block[block]
