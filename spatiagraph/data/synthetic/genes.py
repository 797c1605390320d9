"""Expression of the synthetic cells: gene programmes, counts, positions of the molecules."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from spatiagraph.data.synthetic.image import Nuclei

_BLOCK = 8192  # cells per dense block of rates: 8192 x 500 genes are 33 MB


@dataclass(frozen=True)
class Programs:
    """Gene programmes shared by all slides of one synthetic biology.

    ``profile`` is the share of each gene per cell type, ``[T, G]``; ``marker_of`` and
    ``neighbor_type`` are the cell type a gene marks or senses among the neighbours, ``[G]``, -1 for
    none; ``nuclear`` says whether its molecules lie in the nucleus, ``[G]``.
    """

    profile: np.ndarray
    marker_of: np.ndarray
    neighbor_type: np.ndarray
    nuclear: np.ndarray


def draw_programs(
    rng: np.random.Generator, num_types: int, num_genes: int, marker_strength: float
) -> Programs:
    """Markers (40 % of the genes), neighbour-dependent genes (10 %) and housekeeping genes.

    Args:
        rng: Source of randomness of the biology.
        num_types: Number of cell types, :math:`T`.
        num_genes: Number of genes, :math:`G`, at least one more than the types.
        marker_strength: How many times more a type expresses its markers.
    """
    num_markers = max(1, num_genes * 4 // (10 * num_types)) * num_types
    num_sensing = max(1, num_genes // 10)
    marker_of, neighbor_type = np.full((2, num_genes), -1)
    order = rng.permutation(num_genes)
    markers, sensing = order[:num_markers], order[num_markers : num_markers + num_sensing]
    marker_of[markers] = np.arange(num_markers) % num_types
    neighbor_type[sensing] = np.arange(len(sensing)) % num_types

    level = np.clip(rng.lognormal(0.0, 0.8, num_genes), 0.2, 5.0)
    profile = level * rng.lognormal(0.0, 0.15, (num_types, num_genes))
    marked = np.flatnonzero(marker_of >= 0)
    profile[marker_of[marked], marked] *= marker_strength
    # sensing genes have one share in all types: only the neighbours matter
    sensed = neighbor_type >= 0
    profile[:, sensed] = level[sensed] / level.sum()
    rest = 1 - level[sensed].sum() / level.sum()
    profile[:, ~sensed] *= rest / profile[:, ~sensed].sum(1, keepdims=True)
    return Programs(profile, marker_of, neighbor_type, rng.random(num_genes) < 0.5)


def draw_counts(
    rng: np.random.Generator,
    programs: Programs,
    cell_type: np.ndarray,
    neighbor_fraction: np.ndarray,
    mean_counts: float,
    neighbor_strength: float,
) -> sparse.csr_matrix:
    r"""Negative-binomial counts, ``[N, G]`` float32.

    .. math::
        x_{cg} \sim \mathrm{Poisson}(d_c \, \rho_{t_c g} \,
        (1 + \beta f_{c s_g}) \, \gamma_{cg}), \qquad \gamma \sim \mathrm{Gamma}(4, 1/4),

    with log-normal depth :math:`d_c`, the share :math:`\rho` of the gene in the cell's type and the
    fraction :math:`f` of neighbours of the type :math:`s_g` that the gene senses. A cell that draws
    nothing gets one molecule of its most expressed gene, so that no cell is empty.

    Args:
        rng: Source of randomness of the slide.
        programs: Gene programmes.
        cell_type: Type of each cell, ``[N]``.
        neighbor_fraction: Share of each type among the neighbours, ``[N, T]``.
        mean_counts: Mean depth of a cell.
        neighbor_strength: :math:`\beta`.
    """
    depth = mean_counts * rng.lognormal(-0.08, 0.4, len(cell_type))
    sensed = np.flatnonzero(programs.neighbor_type >= 0)
    blocks = []
    for start in range(0, len(cell_type), _BLOCK):
        rows = slice(start, start + _BLOCK)
        rate = programs.profile[cell_type[rows]] * depth[rows, None]  # [B, G]
        felt = neighbor_fraction[rows][:, programs.neighbor_type[sensed]]
        rate[:, sensed] *= 1 + neighbor_strength * felt
        noisy = rate * (0.25 * rng.standard_gamma(4.0, rate.shape, dtype=np.float32))
        block = rng.poisson(noisy).astype(np.float32)
        empty = np.flatnonzero(~block.any(1))
        block[empty, rate[empty].argmax(1)] = 1
        blocks.append(sparse.csr_matrix(block))
    return sparse.csr_matrix(sparse.vstack(blocks, format="csr", dtype=np.float32))


def draw_molecules(
    rng: np.random.Generator,
    counts: sparse.csr_matrix,
    programs: Programs,
    pos: np.ndarray,
    nuclei: Nuclei,
    cell_ids: pd.Index,
    genes: pd.Index,
) -> pd.DataFrame:
    """One row per counted molecule: nuclear genes inside the nucleus, others in a ring around it.

    Returns:
        Columns ``x_um``, ``y_um``, ``gene``, ``cell_id``, ``qv``; one row per molecule.
    """
    times = counts.data.astype(np.int64)
    cell = np.repeat(np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)), times)
    gene = np.repeat(counts.indices, times)
    chance = rng.random(len(cell), dtype=np.float32)
    # in units of the nuclear radius
    reach = np.where(programs.nuclear[gene], 0.95 * np.sqrt(chance), 1.0 + 0.8 * chance)
    turn = rng.uniform(0, 2 * np.pi, len(cell))
    u = nuclei.major_um[cell] * reach * np.cos(turn)
    v = nuclei.minor_um[cell] * reach * np.sin(turn)
    cos, sin = np.cos(nuclei.angle[cell]), np.sin(nuclei.angle[cell])
    return pd.DataFrame(
        {
            "x_um": (pos[cell, 0] + cos * u - sin * v).astype(np.float32),
            "y_um": (pos[cell, 1] + sin * u + cos * v).astype(np.float32),
            "gene": pd.Categorical.from_codes(gene, categories=genes),
            "cell_id": pd.Categorical.from_codes(cell, categories=cell_ids),
            "qv": rng.uniform(20, 40, len(cell)).astype(np.float32),
        }
    )
