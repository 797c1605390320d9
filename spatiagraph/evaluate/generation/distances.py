"""Distances of two clouds of features."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

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
    <https://arxiv.org/abs/1706.08500>`_), computed by torchmetrics. It is biased by the number of
    images, strongly where there are few.

    Args:
        generated: Features of generated images, ``[N, F]``.
        real: Features of real images, ``[M, F]``.
        min_images: Fewest images on each side.

    Raises:
        ValueError: If there are fewer images, or features differ in number.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # slow to import

    x, y = _features(generated, real)
    fewest = min(len(x), len(y))
    if fewest < max(min_images, 2):
        raise ValueError(
            f"Expected {min_images} images or more on each side, got {fewest}: use "
            "kernel_distance, which few images do not bias"
        )
    metric = FrechetInceptionDistance(_Given(x.shape[1]))
    middle = y.mean(axis=0)  # covariances come of sums of squares: small numbers lose no digits
    for side, real_side in ((x, False), (y, True)):
        metric.update(torch.from_numpy(side - middle), real=real_side)
    return max(0.0, float(metric.compute()))


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
    <https://arxiv.org/abs/1801.01401>`_), computed by torchmetrics. It may be slightly negative.
    Where a subset is all there is, there is one value, and its deviation is NaN.

    Args:
        generated: Features of generated images, ``[N, F]``.
        real: Features of real images, ``[M, F]``.
        subset_size: Images of a subset, of each side; at most what there is.
        num_subsets: Random subsets.
        seed: Of the subsets.

    Raises:
        ValueError: If features differ in number, or a side has fewer than two images.
    """
    from torchmetrics.image.kid import poly_mmd  # slow to import

    x, y = _features(generated, real)
    size = min(subset_size, len(x), len(y))
    if size < 2:
        raise ValueError(f"Expected two images or more on each side, got {min(len(x), len(y))}")
    rng = np.random.default_rng(seed)
    everything = size == len(x) == len(y)
    values = []
    for _ in range(1 if everything else num_subsets):
        a = x[rng.choice(len(x), size, replace=False)]
        b = y[rng.choice(len(y), size, replace=False)]
        values.append(float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b))))
    return float(np.mean(values)), np.nan if everything else float(np.std(values))


class _Given(nn.Module):
    """An extractor for features that are there already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _features(
    a: ArrayLike | Tensor, b: ArrayLike | Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (as_embedding(z, "features").astype(np.float64) for z in (a, b))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"Expected the same features, got {x.shape[1]} and {y.shape[1]}")
    return x, y
