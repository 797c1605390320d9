"""``study_gene_pairs``: pairs of genes that make a model sure that two types are neighbours."""

import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from spatiagraph.data.slide import Slide
from spatiagraph.evaluate.gene_pair_effects import gene_pair_effects
from spatiagraph.inference.gene_pair_deletion import Kind, Score, perturb_gene_pairs
from spatiagraph.inference.neighbor_scores import score_neighbors
from spatiagraph.inference.typed_neighbors import TypedNeighbors
from spatiagraph.models.spatialformer import SpatialFormer

log = logging.getLogger(__name__)


class GenePairStudy(NamedTuple):
    """Answers of a model, with genes and without, for neighbours of two types.

    Attributes:
        cells: One row per pair of cells: ``cell_a``, ``cell_b``, ``log_odds`` that they are
            neighbours, and ``other_b`` and ``log_odds_other`` of the cell that was put in place of
            the second.
        table: Tested pairs of genes, see :func:`~spatiagraph.evaluate.gene_pair_effects`, with
            ``interaction``, the mean effect beyond those of both genes alone.
    """

    cells: pd.DataFrame
    table: pd.DataFrame

    def significant(self, q: float = 0.05) -> pd.DataFrame:
        """Pairs of genes whose loss lowers the score, and by more than beside other cells.

        Args:
            q: Both corrected p-values are below it.
        """
        sure = (self.table["q"] < q) & (self.table["q_others"] < q) & (self.table["mean"] < 0)
        return self.table[sure]


def study_gene_pairs(
    model: SpatialFormer,
    slide: Slide,
    neighbors: TypedNeighbors,
    *,
    kind: Kind = "delete",
    score: Score = "logit",
    screen: int | None = None,
    min_support: int = 50,
    out: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> GenePairStudy:
    """Delete pairs of genes from neighbours of two types, and test the effects; others likewise.

    Each pair of neighbours is asked by :func:`~spatiagraph.inference.perturb_gene_pairs`, and so is
    its first cell beside another cell of the second type that is no neighbour. What lowers the
    score there as much says what the model makes of genes and types, not of who is beside whom.

    Args:
        model: A trained model.
        slide: The slide.
        neighbors: Which pairs of cells.
        kind: ``"delete"`` or ``"mask"`` genes.
        score: ``"logit"`` or ``"probability"`` of being neighbours.
        screen: Only pairs of this many genes of each cell; of all when ``None``.
        min_support: Pairs of genes need more pairs of cells than this.
        out: Folder in which answers are kept: an interrupted call goes on where it stopped.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show progress bars.

    Raises:
        ValueError: If there are no such neighbours, too few of them for ``min_support``, or the
            folder holds another call.
    """
    pairs = neighbors(slide)
    if len(pairs) <= min_support:
        raise ValueError(
            f"Expected more pairs of cells than min_support={min_support}, got {len(pairs)} of "
            f"{neighbors.first!r} and {neighbors.second!r}: lower it, or ask for more pairs"
        )
    others = neighbors.others(slide, pairs)
    data = model.prepare(slide)
    genes = data.x.crow_indices().diff().numpy()
    room = model.max_len - 11
    if longer := int((genes[pairs].sum(axis=1) > room).sum()):
        log.warning(
            "%d of %d pairs have more than %d genes: the lowest-ranked ones are left out",
            longer, len(pairs), room,
        )  # fmt: skip

    def asked(ends: NDArray[np.int64], name: str) -> pd.DataFrame:
        folder = None if out is None else Path(out) / name
        return perturb_gene_pairs(
            model, slide, ends, kind=kind, score=score, screen=screen, out=folder, device=device,
            progress=progress,
        )  # fmt: skip

    effects, beside = asked(pairs, "effects"), asked(others, "others")
    ordered = neighbors.first != neighbors.second
    table = gene_pair_effects(effects, others=beside, ordered=ordered, min_support=min_support)
    more = gene_pair_effects(effects, ordered=ordered, min_support=min_support, value="interaction")
    more = more[["gene_a", "gene_b", "mean"]].rename(columns={"mean": "interaction"})
    names = slide.adata.obs_names.to_numpy()
    first, second, other = names[pairs[:, 0]], names[pairs[:, 1]], names[others[:, 1]]
    odds = {
        name: score_neighbors(model, data, ends, both_orders=False, device=device)
        for name, ends in (("log_odds", pairs), ("log_odds_other", others))
    }
    cells = pd.DataFrame({"cell_a": first, "cell_b": second, "other_b": other, **odds})
    return GenePairStudy(cells, table.merge(more, "left", on=["gene_a", "gene_b"]))
