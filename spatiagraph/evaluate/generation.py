r"""Generated images against real ones, through features of both.

All functions take features, of any network or of nuclei, and say on how many images they stand.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import sqrtm
from scipy.stats import ks_2samp, pearsonr, wasserstein_distance
from torch import Tensor

from spatiagraph.evaluate.inputs import as_embedding

MIN_FRECHET = 2000
"""Images on each side below which a Fréchet distance says more about their number than of them."""


def frechet_distance(
    generated: ArrayLike | Tensor, real: ArrayLike | Tensor, *, min_images: int = MIN_FRECHET
) -> float:
    r"""Fréchet distance of two clouds of features, taken for Gaussians.

    .. math::
        \lVert \mu_1 - \mu_2 \rVert^2 + \mathrm{tr}\left(\Sigma_1 + \Sigma_2
        - 2 (\Sigma_1 \Sigma_2)^{1/2}\right),

    the FID where features are those of Inception (`arXiv:1706.08500
    <https://arxiv.org/abs/1706.08500>`_). It is biased by the number of images, strongly where
    there are few.

    Args:
        generated: Features of generated images, ``[N, F]``.
        real: Features of real images, ``[M, F]``.
        min_images: Fewest images on each side.

    Raises:
        ValueError: If there are fewer images, or features differ in number.
    """
    x, y = _features(generated, real)
    fewest = min(len(x), len(y))
    if fewest < max(min_images, 2):
        raise ValueError(
            f"Expected {min_images} images or more on each side, got {fewest}: use "
            "kernel_distance, which few images do not bias"
        )
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    cross = np.trace(np.real(sqrtm(first @ second)))
    shift = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    return max(0.0, float(shift + np.trace(first) + np.trace(second) - 2 * cross))


def kernel_distance(
    generated: ArrayLike | Tensor,
    real: ArrayLike | Tensor,
    *,
    subset_size: int = 100,
    num_subsets: int = 100,
    seed: int = 0,
) -> tuple[float, float]:
    r"""Squared kernel distance (KID) of two clouds of features: mean and deviation over subsets.

    The unbiased estimate of the maximum mean discrepancy with the kernel
    :math:`(\mathbf{x}^\top \mathbf{y} / F + 1)^3` (`arXiv:1801.01401
    <https://arxiv.org/abs/1801.01401>`_). It may be slightly negative.

    Args:
        generated: Features of generated images, ``[N, F]``.
        real: Features of real images, ``[M, F]``.
        subset_size: Images of a subset, of each side; at most what there is.
        num_subsets: Random subsets.
        seed: Of the subsets.

    Raises:
        ValueError: If features differ in number, or a side has fewer than two images.
    """
    x, y = _features(generated, real)
    size = min(subset_size, len(x), len(y))
    if size < 2:
        raise ValueError(f"Expected two images or more on each side, got {min(len(x), len(y))}")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(num_subsets):
        a = x[rng.choice(len(x), size, replace=False)]
        b = y[rng.choice(len(y), size, replace=False)]
        aa, bb, ab = ((p @ q.T / x.shape[1] + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
        off = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (size * (size - 1))
        values.append(off - 2 * ab.mean())
    return float(np.mean(values)), float(np.std(values))


def score_morphology(
    control: Mapping[str, ArrayLike | Tensor],
    generated: Mapping[str, ArrayLike | Tensor],
    target: Mapping[str, ArrayLike | Tensor],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    r"""How the morphology that a generator makes of control cells compares with the real one.

    Per transition and feature, standardised over control and target cells:
    ``wasserstein_correlation`` is the Pearson correlation over (transition, feature) pairs of
    :math:`W_1(\mathrm{control}, \mathrm{generated})` with
    :math:`W_1(\mathrm{control}, \mathrm{target})`; ``ks`` is one minus the mean Kolmogorov–Smirnov
    statistic of generated against target. Both are 1 for a perfect generator. Invalid features
    (NaN) are left out, cell by cell.

    Two bounds stand beside it: ``identity`` returns the control cells, ``random_target`` a random
    half of the target cells, scored against the other half.

    Args:
        control: Transition → features of control cells, ``[N, F]``.
        generated: Transition → features of the cells made of them, ``[N', F]``.
        target: Transition → features of real target cells, ``[M, F]``.
        seed: Of the random halves.

    Returns:
        One row per transition and ``"all"`` for each of ``generated``, ``identity`` and
        ``random_target``: ``wasserstein_correlation``, ``ks``, ``num_images``.

    Raises:
        ValueError: If transitions or features do not fit, or there is none.
    """
    names = list(control)
    if not names or set(generated) != set(names) or set(target) != set(names):
        raise ValueError(
            f"Expected the same transitions everywhere, got {sorted(control)}, "
            f"{sorted(generated)} and {sorted(target)}"
        )
    rng = np.random.default_rng(seed)
    rows: dict[tuple[str, str], dict[str, float]] = {}
    moved: dict[str, list[tuple[NDArray, NDArray]]] = {}
    for name in names:
        start, made, real = _standardized(control[name], generated[name], target[name])
        order = rng.permutation(len(real))
        half, rest = real[order[: len(real) // 2]], real[order[len(real) // 2 :]]
        for who, cells, truth in (
            ("generated", made, real),
            ("identity", start, real),
            ("random_target", half, rest),
        ):
            away, wanted = _distances(start, cells), _distances(start, truth)
            moved.setdefault(who, []).append((away, wanted))
            rows[who, name] = {
                "wasserstein_correlation": _correlation(away, wanted),
                "ks": _similarity(cells, truth),
                "num_images": len(cells),
            }
    for who, pairs in moved.items():
        away, wanted = (np.concatenate(part) for part in zip(*pairs, strict=True))
        of_all = [rows[who, name] for name in names]
        rows[who, "all"] = {
            "wasserstein_correlation": _correlation(away, wanted),
            "ks": float(np.mean([row["ks"] for row in of_all])),
            "num_images": sum(row["num_images"] for row in of_all),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["generator", "transition"])
    return table.sort_index()


def _features(
    a: ArrayLike | Tensor, b: ArrayLike | Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (as_embedding(z, "features").astype(np.float64) for z in (a, b))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"Expected the same features, got {x.shape[1]} and {y.shape[1]}")
    return x, y


def _standardized(*groups: ArrayLike | Tensor) -> list[NDArray[np.float64]]:
    """Features on the scale of control (first) and target (last) cells together."""
    arrays = [np.asarray(g.cpu() if isinstance(g, Tensor) else g, np.float64) for g in groups]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 2 or not all(map(len, arrays)):
        raise ValueError(
            "Expected features [N, F] of one or more cells, got shapes "
            f"{[list(array.shape) for array in arrays]}"
        )
    both = np.concatenate([arrays[0], arrays[-1]])
    mean, std = np.nanmean(both, axis=0), np.nanstd(both, axis=0)
    return [(array - mean) / np.where(std > 0, std, 1) for array in arrays]


def _columns(x: NDArray, y: NDArray) -> list[tuple[NDArray, NDArray]]:
    """Valid values of each feature on both sides."""
    pairs = zip(x.T, y.T, strict=True)
    valid = [(a[np.isfinite(a)], b[np.isfinite(b)]) for a, b in pairs]
    return [(a, b) for a, b in valid if len(a) and len(b)]


def _distances(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    return np.array([wasserstein_distance(a, b) for a, b in _columns(x, y)])


def _similarity(x: NDArray, y: NDArray) -> float:
    return 1.0 - float(np.mean([ks_2samp(a, b).statistic for a, b in _columns(x, y)]))


def _correlation(x: NDArray, y: NDArray) -> float:
    """Pearson correlation; NaN where one side does not vary, as that of the identity."""
    if len(x) < 2 or len(x) != len(y) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(pearsonr(x, y).statistic)
