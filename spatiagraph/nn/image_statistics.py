"""Colours and textures of crops: what an image encoder may start from."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from spatiagraph.nn.config import Configurable

NUM_STATISTICS = 39
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Haematoxylin, eosin and DAB in optical density of red, green and blue."""
_SCALES = (1, 4, 16)  # pixels that are averaged before gradients are taken
_LEAST_STD = 1e-4  # what varies less has no unit: rounding, or all crops of the sample alike


def color_texture(image: Tensor) -> Tensor:
    """Colour and texture statistics of each crop, with nothing to learn.

    Mean, standard deviation and the 10, 50 and 90 % quantiles of each colour; mean, deviation and
    the 10 and 90 % quantiles of each stain (haematoxylin, eosin, DAB) by the colour deconvolution
    of Ruifrok and Johnston (2001); and the gradients of the grey image at 1, 4 and 16 pixels
    (mean, deviation, 90 % quantile, and the deviation of the grey itself).

    Args:
        image: ``[N, C, H, W]`` in [0, 1], with a side of 32 pixels or more; fewer than three
            channels are taken as grey, and of more the first three are looked at.

    Returns:
        ``[N, 39]``, in float32 or better, also under autocast.

    Raises:
        ValueError: Not ``[N, C, H, W]``, or a side is too small.

    Examples:
        >>> color_texture(torch.full((2, 3, 32, 32), 0.5)).shape
        torch.Size([2, 39])
    """
    if image.dim() != 4 or not image.size(1):
        raise ValueError(f"Expected 'crops' of shape [N, C, H, W], got {list(image.shape)}")
    if min(image.shape[2:]) < 2 * max(_SCALES):
        raise ValueError(
            f"Expected crops with sides of {2 * max(_SCALES)} pixels or more, got "
            f"{list(image.shape[2:])}"
        )
    image = image[:, :3] if image.size(1) >= 3 else image[:, :1].expand(-1, 3, -1, -1)
    with torch.autocast(image.device.type, enabled=False):  # quantiles know no half precision
        return _color_texture(image if image.dtype == torch.float64 else image.float())


def _color_texture(image: Tensor) -> Tensor:
    flat = image.flatten(2)  # [N, 3, P]
    unmix = torch.linalg.inv(torch.tensor(_STAINS, dtype=image.dtype, device=image.device))
    stain = torch.einsum("ncp,cs->nsp", -flat.clamp(min=1 / 255).log(), unmix)
    parts = [flat.mean(2), flat.std(2, correction=0), *_quantiles(flat, (0.1, 0.5, 0.9))]
    parts += [stain.mean(2), stain.std(2, correction=0), *_quantiles(stain, (0.1, 0.9))]
    grey = image.mean(1, keepdim=True)
    for scale in _SCALES:
        g = avg_pool2d(grey, scale)[:, 0]
        steep = torch.hypot(g.diff(dim=2)[:, :-1], g.diff(dim=1)[:, :, :-1]).flatten(1)
        (high,) = _quantiles(steep, (0.9,))
        deviations = steep.std(1, correction=0), high, g.flatten(1).std(1, correction=0)
        parts.append(torch.stack([steep.mean(1), *deviations], 1))
    return torch.cat(parts, 1)


def _quantiles(values: Tensor, at: tuple[float, ...]) -> list[Tensor]:
    """Quantiles of the last axis, interpolated as ``torch.quantile`` does it."""
    if values.device.type == "cpu" and not values.requires_grad:  # numpy sorts five times as fast
        ordered = torch.from_numpy(np.sort(values.numpy(), axis=-1))
    else:
        ordered = values.sort(-1).values
    found, last = [], values.size(-1) - 1
    for share in at:
        low = int(share * last)
        above = ordered[..., min(low + 1, last)]
        found.append(ordered[..., low].lerp(above, share * last - low))
    return found


class ImageStatistics(Configurable):
    """Linear map of the colour and texture statistics of each crop.

    The counterpart of what :class:`~spatiagraph.nn.GeneEncoder` is for genes: :meth:`initialize`
    puts principal components of the standardised statistics in it, and training goes on from
    there. Networks on pixels need many more crops than one slide has to find these by themselves.

    Args:
        channels: Size of the output, :math:`D`.

    Shapes:
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``
        - **output**: ``[N, D]``
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(NUM_STATISTICS, channels, bias=False)
        self.register_buffer("mean", torch.zeros(NUM_STATISTICS))
        self.register_buffer("std", torch.ones(NUM_STATISTICS))

    def forward(self, image: Tensor) -> Tensor:
        return self.linear((color_texture(image).to(self.mean.dtype) - self.mean) / self.std)

    @torch.no_grad()
    def initialize(self, image: Tensor) -> None:
        """Start from the principal components of a sample of crops.

        Args:
            image: Crops, ``[N, C, H, W]``.

        Raises:
            ValueError: With fewer than two crops.
        """
        if len(image) < 2:
            raise ValueError(f"Expected at least 2 crops to start from, got {len(image)}")
        value = color_texture(image)
        self.mean.copy_(value.mean(0))
        std = value.std(0)
        self.std.copy_(torch.where(std > _LEAST_STD, std, 1))
        standard = (value - self.mean) / self.std
        _, _, components = torch.linalg.svd(standard, full_matrices=False)
        nn.init.zeros_(self.linear.weight)
        rank = min(self.channels, len(components))
        self.linear.weight[:rank] = components[:rank]
