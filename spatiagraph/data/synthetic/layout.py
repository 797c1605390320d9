"""Layout of the synthetic cells: positions, curved layers, niches, cell types, neighbours."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

SPACING_UM = 10.0
"""One cell per ``SPACING_UM ** 2`` on average."""
MARGIN_UM = 20.0
"""Empty border around the cells, inside the image."""
NUM_NEIGHBORS = 7
"""Nearest cells that make up a neighbourhood. Odd, so that a majority always exists."""


@dataclass(frozen=True)
class Layout:
    """Positions in µm ``[N, 2]`` and planted integer labels ``[N]`` of one section.

    ``neighbors`` holds the rows of the nearest cells, ``[N, min(7, N - 1)]``, and ``size_um`` the
    width and height of the section with its margin.
    """

    pos: np.ndarray
    region: np.ndarray
    niche: np.ndarray
    cell_type: np.ndarray
    neighbors: np.ndarray
    size_um: tuple[float, float]

    def neighbor_fraction(self, num_types: int) -> np.ndarray:
        """Share of each cell type among the neighbours of every cell, ``[N, T]``."""
        num_cells, k = self.neighbors.shape
        flat = np.arange(num_cells)[:, None] * num_types + self.cell_type[self.neighbors]
        counts = np.bincount(flat.ravel(), minlength=num_cells * num_types)
        return counts.reshape(num_cells, num_types) / max(k, 1)


def draw_compositions(rng: np.random.Generator, num_niches: int, num_types: int) -> np.ndarray:
    """Cell-type composition of each niche, ``[M, T]``, as unlike each other as 64 draws allow.

    In every niche the first half of the types makes up exactly half of the cells, so whether a cell
    belongs to that half tells nothing about its niche or its neighbours.
    """
    half = num_types // 2
    chosen: list[np.ndarray] = []
    for _ in range(num_niches):
        draws = 0.5 * np.concatenate(
            [rng.dirichlet(np.full(n, 0.35), 64) for n in (half, num_types - half)], axis=1
        )
        share = np.repeat([0.5 / half, 0.5 / (num_types - half)], [half, num_types - half])
        draws = 0.8 * draws + 0.2 * share  # every type occurs in every niche
        if chosen:
            gap = np.abs(draws[:, None] - np.stack(chosen)).sum(-1).min(1)
            chosen.append(draws[gap.argmax()])
        else:
            chosen.append(draws[0])
    return np.stack(chosen)


def draw_layout(
    rng: np.random.Generator,
    num_cells: int,
    num_regions: int,
    compositions: np.ndarray,
    niche_um: float,
) -> Layout:
    """Cells of one section: hard-core positions, bands, patches inside bands, types.

    Args:
        rng: Source of randomness of the slide.
        num_cells: Number of cells, :math:`N`.
        num_regions: Number of curved bands.
        compositions: Cell types of each niche, ``[M, T]``.
        niche_um: Typical diameter of a patch of one niche in µm.
    """
    pos, size_um = _positions(rng, num_cells)
    region = _bands(rng, pos, size_um, num_regions)
    niche = _patches(rng, pos, region, num_regions, len(compositions), niche_um)
    chance = rng.random(num_cells)
    cell_type = (chance[:, None] > compositions.cumsum(1)[niche][:, :-1]).sum(1)
    k = min(NUM_NEIGHBORS, num_cells - 1)
    neighbors = np.empty((num_cells, 0), dtype=np.int64)
    if k:
        neighbors = cKDTree(pos).query(pos, k + 1)[1][:, 1:]
    return Layout(pos, region, niche, cell_type, neighbors, size_um)


def _positions(rng: np.random.Generator, num_cells: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Jittered hexagonal lattice with vacancies: no two cells closer than 0.4 spacings."""
    width = np.sqrt(num_cells * 4 / 3) * SPACING_UM  # a 4:3 section: axes cannot be swapped unseen
    cols = int(np.ceil(width / SPACING_UM)) + 1
    rows = max(2, int(np.ceil(1.12 * num_cells / cols)))
    site = rng.choice(cols * rows, num_cells, replace=False)
    row, col = np.divmod(site, cols)
    angle = rng.uniform(0, 2 * np.pi, num_cells)
    shift = 0.3 * SPACING_UM * np.sqrt(rng.random(num_cells))
    # 12 % of the sites are empty and a hexagonal site takes 0.87 square spacings
    x = (col + 0.5 * (row % 2)) * SPACING_UM + shift * np.cos(angle)
    y = row * SPACING_UM * np.sqrt(0.75) + shift * np.sin(angle)
    pos = np.stack([x, y], axis=1)
    pos += MARGIN_UM - pos.min(0)
    width, height = pos.max(0) + MARGIN_UM
    return pos, (float(width), float(height))


def _bands(
    rng: np.random.Generator, pos: np.ndarray, size_um: tuple[float, float], num_regions: int
) -> np.ndarray:
    """Layers across the section, bent by two waves."""
    x, y = pos[:, 0] / size_um[0], pos[:, 1] / size_um[1]
    phase = rng.random(2)
    depth = y + 0.10 * np.sin(2 * np.pi * (1.2 * x + phase[0]))
    depth += 0.04 * np.sin(2 * np.pi * (2.9 * x + phase[1]))
    rank = np.empty(len(pos))
    rank[np.argsort(depth, kind="stable")] = (np.arange(len(pos)) + 0.5) / len(pos)
    edges = rng.uniform(0.75, 1.25, num_regions).cumsum()
    return np.searchsorted(edges[:-1] / edges[-1], rank)


def _patches(
    rng: np.random.Generator,
    pos: np.ndarray,
    region: np.ndarray,
    num_regions: int,
    num_niches: int,
    niche_um: float,
) -> np.ndarray:
    """Voronoi patches inside each band; a band mixes at least two of the niches."""
    per_region = min(num_niches, max(2, -(-num_niches // num_regions)))
    niche = np.zeros(len(pos), dtype=np.int64)
    for r in range(num_regions):
        rows = np.flatnonzero(region == r)
        if not len(rows):
            continue
        kinds = (r * num_niches // num_regions + np.arange(per_region)) % num_niches
        num_seeds = max(per_region, round(len(rows) * SPACING_UM**2 / niche_um**2))
        seeds = rng.choice(rows, min(num_seeds, len(rows)), replace=False)
        kind = rng.permutation(np.resize(kinds, len(seeds)))
        niche[rows] = kind[cKDTree(pos[seeds]).query(pos[rows])[1]]
    return niche
