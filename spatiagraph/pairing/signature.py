"""Mean change of genes and of nuclei by a transition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.morphology import MORPHOLOGY
from spatiagraph.data.normalization import log_normalize
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide, check_unique_ids
from spatiagraph.pairing.transitions import cells_among


@dataclass(frozen=True)
class Signature:
    r"""Mean change that each transition makes, :math:`\Delta g_\tau` or :math:`\Delta m_\tau`.

    Attributes:
        delta: Transitions × genes or features; missing where no pair measured it.
        sigma: Standard deviation of each gene or feature over the training cells, ``[F]``.
        num_pairs: Pairs that each transition was averaged over.
        num_left_out: Pairs of each transition in which a cell could not be measured.
        clip: Largest absolute value of :meth:`features`.
    """

    delta: pd.DataFrame
    sigma: pd.Series
    num_pairs: pd.Series
    num_left_out: pd.Series
    clip: float

    def features(self, *, clip: float | None = None) -> NDArray[np.float32]:
        r"""Features for a network: :math:`\Delta / \sigma`, clipped, ``[T, F]``.

        0 for what was not measured or never changes.

        Args:
            clip: Largest absolute value; that of the signature when ``None``.
        """
        clip = self.clip if clip is None else clip
        sigma = self.sigma.to_numpy()
        scaled = self.delta.to_numpy() / np.where(sigma > 0, sigma, np.inf)
        return np.nan_to_num(scaled, nan=0.0).clip(-clip, clip).astype(np.float32)


def gene_signature(
    slides: Sequence[Slide],
    pairs: pd.DataFrame,
    *,
    panel: GenePanel,
    donors: Sequence[str] | None,
    among: Mapping[str, NDArray[np.bool_]] | None = None,
    normalize: bool = True,
) -> Signature:
    """Average over pairs the difference in expression between target and control.

    Only slides of the given donors are looked at, and on them only the cells of the pairs and those
    of ``among``: test donors and test tissue must not enter.

    Args:
        slides: Cohort that was paired.
        pairs: Result of :func:`pair_states`.
        panel: Genes of the result. A gene counts on the slides that measure it.
        donors: Training donors; ``None`` where all slides, and all pairs, are for training.
        among: Slide id → mask of the training cells, ``[N]``, whose deviation the unit is; all
            cells of slides that are not named.
        normalize: Whether to compare log1p of 10,000 counts per cell, or the values as they are.

    Returns:
        :class:`Signature`, one row per transition that training donors have pairs of; clipped
        at 10.

    Raises:
        ValueError: A donor has no slide, a pair names a slide that is not there, a mask is of other
            cells, or no pair is left.
    """
    training, pairs = _training(slides, pairs, donors)
    mean = _PairMean(pairs["transition"], len(panel))
    for slide in training:
        counts, measured = panel.counts(slide)
        x = csr_matrix(counts, dtype=float)
        if normalize:
            x = log_normalize(counts, depth=slide.depth, expression=slide.expression)
        here = pairs[pairs["slide"] == slide.slide_id]
        mean.add(x, cells_among(slide, among), measured, here)
    return mean.signature(panel.symbols, clip=10.0)


def morphology_signature(
    slides: Sequence[Slide],
    features: Mapping[str, pd.DataFrame],
    pairs: pd.DataFrame,
    *,
    donors: Sequence[str] | None,
) -> Signature:
    """Average over pairs the difference in morphology between target and control.

    Only slides of the given donors are looked at: test donors must not enter.

    Args:
        slides: Cohort that was paired.
        features: Slide id → :func:`~spatiagraph.data.measure_morphology` of all its cells, in
            their order. Pairs with a cell that could not be measured (NaN) are left out.
        pairs: Result of :func:`pair_states`.
        donors: Training donors; ``None`` where all slides, and all pairs, are for training.

    Returns:
        :class:`Signature`, one row per transition that training donors have pairs of; clipped at 3.

    Raises:
        ValueError: A donor has no slide, a pair names a slide that is not there, a slide of the
            donors has no features or those of other cells, or no pair is left.
    """
    training, pairs = _training(slides, pairs, donors)
    mean = _PairMean(pairs["transition"], len(MORPHOLOGY))
    for slide in training:
        values = _features_of(slide, features)
        valid = values.notna().all(axis=1).to_numpy()
        here = pairs[pairs["slide"] == slide.slide_id]
        whole = valid[here["control_row"]] & valid[here["target_row"]]
        x = csr_matrix(np.where(valid[:, None], values, 0.0))
        mean.add(x, valid, np.ones(len(MORPHOLOGY), bool), here[whole], here[~whole])
    if not mean.num_pairs.any():
        raise ValueError(
            "Expected pairs of cells that could be measured, got NaN in every pair of the training "
            f"donors {donors}"
        )
    return mean.signature(MORPHOLOGY, clip=3.0)


class _PairMean:
    """Sums from which mean differences and deviations follow, slide by slide."""

    def __init__(self, transitions: pd.Series, num_features: int):
        self.tags = transitions.unique().tolist()  # in the requested order
        self.total, self.weight = np.zeros((2, len(self.tags), num_features))
        self.moments = np.zeros((3, num_features))
        self.num_pairs, self.num_left_out = np.zeros((2, len(self.tags)), dtype=np.int64)

    def add(
        self,
        x: csr_matrix,
        known: NDArray[np.bool_],
        measured: NDArray[np.bool_],
        pairs: pd.DataFrame,
        left_out: pd.DataFrame | None = None,
    ) -> None:
        """One slide.

        Args:
            x: Values of all cells, ``[N, F]``.
            known: Cells that the deviation is taken over, ``[N]``.
            measured: Columns that the slide has, ``[F]``.
            pairs: Pairs of the slide.
            left_out: Pairs that do not count.
        """
        values = x[known]
        self.moments += measured * np.stack(
            [
                np.full(len(measured), values.shape[0]),
                np.asarray(values.sum(axis=0)).ravel(),
                np.asarray(values.multiply(values).sum(axis=0)).ravel(),
            ]
        )
        code, number = self._count(pairs)
        signs = np.concatenate([np.ones(len(pairs)), -np.ones(len(pairs))])
        rows = np.concatenate([pairs["target_row"], pairs["control_row"]])
        difference = csr_matrix((signs, (np.tile(code, 2), rows)), (len(self.tags), x.shape[0]))
        self.total += measured * (difference @ x).toarray()
        self.weight += measured * number[:, None]
        self.num_pairs += number
        if left_out is not None:
            self.num_left_out += self._count(left_out)[1]

    def _count(self, pairs: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        code = pd.Index(self.tags).get_indexer(pairs["transition"])
        return code, np.bincount(code, minlength=len(self.tags))

    def signature(self, names: Sequence[str], *, clip: float) -> Signature:
        count, first, second = self.moments
        count = np.maximum(count, 1)
        variance = np.maximum(second / count - (first / count) ** 2, 0)
        delta = np.full_like(self.total, np.nan)
        np.divide(self.total, self.weight, out=delta, where=self.weight > 0)
        tags = pd.Index(self.tags, name="transition")
        return Signature(
            pd.DataFrame(delta, tags, list(names)),
            pd.Series(np.sqrt(variance), list(names)),
            pd.Series(self.num_pairs, tags, name="count"),
            pd.Series(self.num_left_out, tags, name="count"),
            clip,
        )


def _training(
    slides: Sequence[Slide], pairs: pd.DataFrame, donors: Sequence[str] | None
) -> tuple[list[Slide], pd.DataFrame]:
    """Slides of the training donors, and the pairs on them."""
    check_unique_ids(slides)
    unknown = sorted(set(pairs["slide"]) - {slide.slide_id for slide in slides})
    if unknown:
        raise ValueError(f"Expected pairs of the given slides, got those of {unknown}")
    training = list(slides)
    if donors is not None:
        stray = sorted({str(name) for name in donors} - {str(slide.donor) for slide in slides})
        if stray or not len(donors):
            raise ValueError(
                f"Expected 'donors' of the slides ({sorted({str(s.donor) for s in slides})}), "
                f"got {stray or 'none'}"
            )
        training = [slide for slide in slides if slide.donor in set(donors)]
        pairs = pairs[pairs["slide"].isin([slide.slide_id for slide in training])]
    if pairs.empty:
        raise ValueError(f"Expected pairs of the training donors {donors}, got none")
    return training, pairs


def _features_of(slide: Slide, features: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The features of a slide."""
    if slide.slide_id not in features:
        raise ValueError(
            f"Expected the features of slide {slide.slide_id!r}, got those of {list(features)}"
        )
    table = features[slide.slide_id]
    missing = [name for name in MORPHOLOGY if name not in table]
    if missing or len(table) != slide.num_cells:
        raise ValueError(
            f"Expected a row of measure_morphology for each of {slide.num_cells} cells of slide "
            f"{slide.slide_id!r}, got {len(table)} rows"
            + (f" without {', '.join(missing)}" if missing else "")
        )
    return table[list(MORPHOLOGY)]
