"""Reconstruction loss of the masked patches of a crop."""

import math

import torch
from torch import Tensor

from spatiagraph.losses.mean import masked_mean
from spatiagraph.nn.patches import patchify


def masked_image_loss(
    prediction: Tensor, image: Tensor, mask: Tensor, *, normalize: bool = False
) -> Tensor:
    r"""Mean squared error of the hidden patches, as in `"Masked Autoencoders Are Scalable Vision
    Learners" <https://arxiv.org/abs/2111.06377>`_.

    Visible patches cost nothing: to copy them is no achievement. Computed in float32 or better.

    Args:
        prediction: Pixels of each patch, ``[N, P, p²·C]``, in the order of
            :func:`~spatiagraph.nn.patches.patchify`.
        image: Crops, ``[N, C, H, W]``.
        mask: Hidden patches, boolean ``[N, P]``. Leave out cells without image
            (``mask & image_mask[:, None]``): their pixels, too, may be anything then.
        normalize: Predict each patch with its own mean taken off and divided by its own standard
            deviation: contrast within the patch instead of stain and brightness.

    Returns:
        A scalar, the mean over the pixels of hidden patches; 0 if none is hidden.

    Raises:
        ValueError: If prediction, image and mask disagree in shape.

    Examples:
        >>> image = torch.zeros(2, 3, 8, 8)
        >>> patches = patchify(image, 4)
        >>> masked_image_loss(patches + 1, image, torch.ones(2, 4, dtype=torch.bool))
        tensor(1.)
    """  # noqa: D205
    num_channels = image.size(1)
    patch_size = math.isqrt(prediction.size(-1) // num_channels)
    target = patchify(image, max(patch_size, 1))
    if prediction.shape != target.shape:
        raise ValueError(
            "Expected 'prediction' [N, P, p²·C] for crops of "
            f"{list(image.shape)}, got {list(prediction.shape)}"
        )
    if mask.shape != target.shape[:2]:
        raise ValueError(
            f"Expected 'mask' {list(target.shape[:2])}, one entry per patch, got {list(mask.shape)}"
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    prediction, target = prediction.to(dtype), target.to(dtype)
    target = torch.where(mask.unsqueeze(-1), target, 0)
    if normalize:
        variance, mean = torch.var_mean(target, -1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    return masked_mean((prediction - target).square().mean(-1), mask)
