"""What a transition does to genes, on average."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide, check_unique_ids
from spatiagraph.heads.pair.expression import log_normalize


@dataclass(frozen=True)
class GeneSignature:
    r"""Mean change of expression of each transition, :math:`\Delta g_\tau`.

    Attributes:
        delta: Transitions × genes; missing where no pair measured the gene.
        sigma: Standard deviation of each gene over the training cells, ``[G]``.
        num_pairs: Pairs that each transition was averaged over.
    """

    delta: pd.DataFrame
    sigma: pd.Series
    num_pairs: pd.Series

    def features(self, *, clip: float = 10.0) -> NDArray[np.float32]:
        r"""What a network is told: :math:`\Delta g / \sigma`, clipped, ``[T, G]``.

        0 for genes that were not measured or never change.

        Args:
            clip: Largest absolute value.
        """
        sigma = self.sigma.to_numpy()
        scaled = self.delta.to_numpy() / np.where(sigma > 0, sigma, np.inf)
        return np.nan_to_num(scaled, nan=0.0).clip(-clip, clip).astype(np.float32)


def gene_signature(
    slides: Sequence[Slide],
    pairs: pd.DataFrame,
    *,
    panel: GenePanel,
    donors: Sequence[str],
    normalize: bool = True,
) -> GeneSignature:
    """Average over pairs the difference in expression between target and control.

    Only slides of the given donors are looked at: test donors must not enter.

    Args:
        slides: Cohort that was paired.
        pairs: Result of :func:`pair_states`.
        panel: Genes of the result. A gene counts on the slides that measure it.
        donors: Training donors.
        normalize: Whether to compare log1p of 10,000 counts per cell, or the values as they are.

    Returns:
        :class:`GeneSignature`, one row per transition that training donors have pairs of.

    Raises:
        ValueError: A donor has no slide, a pair names a slide that is not there, or no pair is
            left.
    """
    check_unique_ids(slides)
    stray = sorted({str(name) for name in donors} - {str(slide.donor) for slide in slides})
    if stray or not len(donors):
        raise ValueError(
            f"Expected 'donors' of the slides ({sorted({str(s.donor) for s in slides})}), "
            f"got {stray or 'none'}"
        )
    unknown = sorted(set(pairs["slide"]) - {slide.slide_id for slide in slides})
    if unknown:
        raise ValueError(f"Expected pairs of the given slides, got those of {unknown}")
    training = [slide for slide in slides if slide.donor in set(donors)]
    pairs = pairs[pairs["slide"].isin([slide.slide_id for slide in training])]
    if pairs.empty:
        raise ValueError(f"Expected pairs of the training donors {list(donors)}, got none")
    tags = pairs["transition"].unique().tolist()  # in the order asked for
    total, weight = np.zeros((2, len(tags), len(panel)))
    moments = np.zeros((3, len(panel)))
    for slide in training:
        counts, measured = panel.counts(slide)
        x = log_normalize(counts, slide.depth) if normalize else csr_matrix(counts, dtype=float)
        moments += measured * np.stack(
            [
                np.full(len(panel), slide.num_cells),
                np.asarray(x.sum(axis=0)).ravel(),
                np.asarray(x.multiply(x).sum(axis=0)).ravel(),
            ]
        )
        here = pairs[pairs["slide"] == slide.slide_id]
        code = pd.Index(tags).get_indexer(here["transition"])
        signs = np.concatenate([np.ones(len(here)), -np.ones(len(here))])
        rows = np.concatenate([here["target_row"], here["control_row"]])
        difference = csr_matrix((signs, (np.tile(code, 2), rows)), (len(tags), slide.num_cells))
        total += measured * (difference @ x).toarray()
        weight += measured * np.bincount(code, minlength=len(tags))[:, None]
    count, first, second = moments
    count = np.maximum(count, 1)
    variance = np.maximum(second / count - (first / count) ** 2, 0)
    delta = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    return GeneSignature(
        pd.DataFrame(delta, pd.Index(tags, name="transition"), panel.symbols),
        pd.Series(np.sqrt(variance), panel.symbols),
        pairs["transition"].value_counts().reindex(tags),
    )
