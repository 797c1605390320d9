"""Calibration: embeddings of each slide are centred and scaled."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph import keys
from spatiagraph.data.checks import name_rows, nearest


class SlideCalibration:
    r"""Embeddings of each slide around a mean of zero, with a mean square length of one.

    .. math::
        \tilde{\mathbf{z}}_i = (\mathbf{z}_i - \boldsymbol\mu_s) / \sigma_s, \qquad
        \sigma_s^2 = \tfrac{1}{N_s} \sum_{i \in s} \|\mathbf{z}_i - \boldsymbol\mu_s\|^2

    Staining, capture and panel shift all cells of a slide alike, and the nearest neighbours of a
    cell then come from its own slide. Centring each batch is the plain correction of image-based
    screens (`Celik et al. 2024 <https://doi.org/10.1371/journal.pcbi.1012463>`_). It also takes
    away what is true of a whole slide: two slides that differ in what they are made of are made
    alike. No channel is scaled by itself, as that blows up channels in which nothing happens.

    Attributes:
        slides: Their names, ``S`` of them.
        mean: ``[S, D]``.
        scale: ``[S]``.
    """

    def __init__(
        self, slides: Sequence[str], mean: NDArray[np.floating], scale: NDArray[np.floating]
    ):
        num = len(slides)
        if mean.ndim != 2 or len(mean) != num or scale.shape != (num,) or len(set(slides)) != num:
            raise ValueError(
                f"Expected a calibration with different slides [S], mean [S, D] and scale [S], got "
                f"{num} slides ({len(set(slides))} different), {list(mean.shape)} and "
                f"{list(scale.shape)}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError(
                "Expected a calibration with finite means and finite scales above zero, got others"
            )
        self.slides = tuple(slides)
        self.mean = mean
        self.scale = scale

    @classmethod
    def fit(cls, embeddings: Any, slide: NDArray, *, chunk_size: int = 65_536) -> Self:
        """Mean and spread of each slide.

        Args:
            embeddings: ``[N, D]``, read block by block.
            slide: Name of the slide of each, ``[N]``.
            chunk_size: Rows read at a time: bounds memory, changes no result.

        Raises:
            ValueError: If a slide has fewer than two embeddings, or all are alike.
        """
        names, number = np.unique(np.asarray(slide, dtype=str), return_inverse=True)
        count = np.bincount(number)
        total = np.zeros((len(names), embeddings.shape[1]))
        for start in range(0, len(number), chunk_size):
            rows = slice(start, start + chunk_size)
            block = np.asarray(embeddings[rows], dtype=np.float64)
            member = csr_matrix((np.ones(len(block)), (number[rows], np.arange(len(block)))))
            total[: member.shape[0]] += member @ block
        mean = total / count[:, None]
        square = np.zeros(len(names))
        for start in range(0, len(number), chunk_size):
            rows = slice(start, start + chunk_size)
            away = np.asarray(embeddings[rows], dtype=np.float64) - mean[number[rows]]
            square += np.bincount(number[rows], (away**2).sum(1), minlength=len(names))
        scale = np.sqrt(square / count)
        flat = scale <= 1e-6 * np.linalg.norm(mean, axis=1)
        if flat.any():
            raise ValueError(
                "Expected slides with embeddings that differ, to calibrate, those of "
                f"{', '.join(names[flat][:5])} are all alike"
            )
        return cls(names.tolist(), mean.astype(np.float32), scale.astype(np.float32))

    def apply(self, embeddings: NDArray[np.floating], slide: NDArray) -> NDArray[np.float32]:
        """Calibrated embeddings ``[N, D]``.

        Raises:
            ValueError: If a slide is not known.
        """
        number = pd.Index(self.slides).get_indexer(pd.Index(np.asarray(slide).astype(str)))
        if (number < 0).any():
            name = str(np.asarray(slide)[number < 0][0])
            raise ValueError(
                f"Expected a slide that the index is calibrated for, got {name!r}. "
                f"{nearest(name, self.slides)}. For queries of another slide, pass slide= the "
                "embeddings of that whole slide, or append it"
            )
        away = np.asarray(embeddings, dtype=np.float32) - self.mean[number]
        return away / self.scale[number, None]

    def merged(self, other: "SlideCalibration") -> "SlideCalibration":
        """Of both sets of slides.

        Raises:
            ValueError: If they share a slide.
        """
        if shared := sorted(set(self.slides) & set(other.slides)):
            raise ValueError(
                f"Expected slides that are not in the calibrated index yet, got more cells of "
                f"{', '.join(shared[:5])}"
            )
        return SlideCalibration(
            self.slides + other.slides,
            np.concatenate([self.mean, other.mean]),
            np.concatenate([self.scale, other.scale]),
        )


class CalibratedBlocks:
    """Embeddings ``[N, D]`` that are calibrated as they are read, some rows at a time."""

    def __init__(self, embeddings: Any, slide: NDArray, calibration: SlideCalibration):
        self._embeddings, self._slide, self._calibration = embeddings, slide, calibration
        self.shape = tuple(embeddings.shape)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        return self._calibration.apply(np.asarray(self._embeddings[rows]), self._slide[rows])


def slide_of(obs: pd.DataFrame) -> NDArray:
    """Slide of each item, ``[N]``.

    Raises:
        ValueError: If the items, or some of them, do not say.
    """
    if keys.SLIDE_ID not in obs:
        raise ValueError(
            f"Expected a column {keys.SLIDE_ID!r} of obs to calibrate by slide, got "
            f"{', '.join(map(str, obs)) or 'no columns'}"
        )
    unknown = np.flatnonzero(obs[keys.SLIDE_ID].isna())
    if len(unknown):
        raise ValueError(
            f"Expected a {keys.SLIDE_ID!r} of each item, got none for "
            f"{name_rows(obs.index, unknown)}"
        )
    return obs[keys.SLIDE_ID].astype(str).to_numpy()
