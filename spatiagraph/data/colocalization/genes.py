"""``colocalized_genes``: pairs of genes that lie together in the cells of a slide."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spatiagraph._typed import typed
from spatiagraph.data.colocalization.molecules import (
    CellMolecules,
    MoleculesByCell,
    cell_molecules,
    check_cells,
)
from spatiagraph.data.colocalization.nulls import NULLS, Kind, gene_pair_tests
from spatiagraph.data.colocalization.rule import Colocalization, GenePairs
from spatiagraph.data.molecules.outlines import CellOutlines
from spatiagraph.data.slide import Slide

_AWAY_UM = 50.0  # centre of half of the cells from that of their molecules, at most


@dataclass(frozen=True)
class ColocalizedGenes:
    """Pairs of genes that lie together in cells.

    Attributes:
        table: Tested pairs, the surest first, see
            :func:`~spatiagraph.data.colocalization.gene_pair_tests`.
        pairs: Pairs of each cell.
        molecules: The filtered molecules they come from.
    """

    table: pd.DataFrame
    pairs: GenePairs
    molecules: MoleculesByCell

    def significant(self, q: float = 0.05) -> pd.DataFrame:
        """Pairs that beat every null they were tested against.

        Args:
            q: Accepted share of false discoveries.
        """
        columns = [c for c in map(str, self.table) if c.startswith("q_")]
        return self.table[(self.table[columns] < q).all(axis=1)]

    def to_adata(self, slide: Slide | None = None) -> AnnData:
        """Cells × pairs, sparse, with the columns of ``obs`` of the slide.

        Args:
            slide: The slide; without it, ``obs`` is empty.
        """
        adata = self.pairs.to_adata()
        if slide is not None:
            adata.obs = slide.adata.obs.reindex(adata.obs_names)
        return adata


@typed
def colocalized_genes(
    slide: Slide,
    rule: Colocalization | None = None,
    *,
    min_qv: float = 20.0,
    min_counts: int = 30,
    min_genes: int = 10,
    outlines: CellOutlines | None = None,
    nulls: tuple[Kind, ...] = NULLS,
    num_draws: int = 20,
    jitter_um: float = 5.0,
    min_support: int = 10,
) -> ColocalizedGenes:
    """Find pairs of genes whose molecules lie together inside of cells, more than by chance.

    Args:
        slide: A slide with molecules that know their cells.
        rule: What lying together means; that of SpatialFormer when not given: three copies of
            either gene in one community of molecules 5 µm apart.
        min_qv: Least quality of a molecule.
        min_counts: Least number of molecules of a cell.
        min_genes: Least number of different genes of a cell.
        outlines: Outlines of the cells: molecules outside of them or too near are left out.
        nulls: Nulls to test against.
        num_draws: Draws of every cell from each null.
        jitter_um: How far the second null displaces molecules, at most.
        min_support: Cells that could have a pair, below which it is not tested.

    Raises:
        ValueError: If the slide has no molecules in cells of its own, or none that passes the
            filters, or they lie elsewhere than its cells.
    """
    if slide.transcripts is None:
        raise ValueError(
            f"Expected slide {slide.slide_id!r} with molecules, got none: read it with "
            "transcripts=…"
        )
    if "cell_id" not in slide.transcripts:
        raise ValueError(
            f"Expected molecules with a column cell_id in slide {slide.slide_id!r}, got none: "
            "without it no molecule belongs to a cell"
        )
    rule = Colocalization() if rule is None else rule
    check_cells(slide.transcripts["cell_id"], slide)
    molecules = cell_molecules(
        slide.transcripts,
        min_qv=min_qv,
        min_counts=min_counts,
        min_genes=min_genes,
        outlines=outlines,
    )
    _check_place(molecules, slide)
    return find_gene_pairs(
        molecules,
        rule,
        nulls=nulls,
        num_draws=num_draws,
        jitter_um=jitter_um,
        min_support=min_support,
    )


def _check_place(molecules: CellMolecules, slide: Slide) -> None:
    """Refuse molecules that lie elsewhere than their cells, in another unit or another frame."""
    row = slide.adata.obs_names.get_indexer(pd.Index(molecules.cell_ids))
    centre = (
        np.add.reduceat(molecules.pos[:, :2], molecules.ptr[:-1]) / np.diff(molecules.ptr)[:, None]
    )
    away = np.linalg.norm(centre[row >= 0] - slide.pos[row[row >= 0]], axis=1)
    if len(away) and np.median(away) > _AWAY_UM:
        raise ValueError(
            f"Expected molecules of slide {slide.slide_id!r} to lie where their cells are, got "
            f"them {np.median(away):.4g} µm away (median). Are they pixels? Then multiply x_um and "
            "y_um by the µm of one"
        )


def find_gene_pairs(
    molecules: MoleculesByCell, rule: Colocalization, **options: Any
) -> ColocalizedGenes:
    """Find pairs of genes as :func:`colocalized_genes` does, in molecules that are filtered.

    Args:
        molecules: Those of cells, such as
            :func:`~spatiagraph.data.colocalization.cell_molecules` gives, or
            :class:`~spatiagraph.data.colocalization.SortedMolecules`, which need not fit in memory.
        rule: What lying together means.
        **options: Of :func:`~spatiagraph.data.colocalization.gene_pair_tests`.

    Raises:
        ValueError: As :func:`~spatiagraph.data.colocalization.gene_pair_tests`.
    """
    pairs = rule(molecules)
    return ColocalizedGenes(gene_pair_tests(molecules, pairs, rule, **options), pairs, molecules)
