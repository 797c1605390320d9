"""Small network that predicts the morphology of a nucleus, for losses on it."""

from typing import Self

import torch
from torch import Tensor, nn

from spatiagraph.nn.hub import PretrainedModel

_MIN_SIDE = 16  # pixels; the features have an eighth of the side


class MorphologyProfile(PretrainedModel):
    r"""Morphology of each crop, as :func:`~spatiagraph.data.measure_morphology` would find it.

    Thresholds and components have no gradient; this network, once trained and frozen, is
    :math:`\phi` of the morphology loss of SPATIA. It speaks of features in units of their deviation
    over the training cells; :meth:`initialize` tells it these. What it has learned holds for crops
    of one window and one number of pixels.

    Args:
        in_channels: Image channels.
        num_features: Features, :math:`F`.
        channels: Channels of the four convolutions; the first three halve the side.
        hidden_channels: Units before the output.

    Shapes:
        - **image**: crops in ``[0, 1]`` with sides of 16 pixels or more, ``[N, C, H, W]``
        - **output**: standardised features, ``[N, F]``

    Raises:
        ValueError: If the crops are too small or have other channels.

    Examples:
        >>> MorphologyProfile(1)(torch.rand(2, 1, 20, 20)).shape
        torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        in_channels: int,
        num_features: int = 10,
        *,
        channels: tuple[int, int, int, int] = (32, 64, 128, 256),
        hidden_channels: int = 256,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.num_features = num_features
        before = (in_channels, *channels[:-1])
        convolutions: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(before, channels, strict=True)):
            convolutions += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
            if i < len(channels) - 1:
                convolutions.append(nn.MaxPool2d(2))
        self.network = nn.Sequential(
            *convolutions,
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * channels[-1], hidden_channels),
            nn.ReLU(),
            nn.Linear(hidden_channels, num_features),
        )
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def forward(self, image: Tensor) -> Tensor:
        if (
            image.dim() != 4
            or image.size(1) != self.in_channels
            or min(image.shape[2:]) < _MIN_SIDE
        ):
            raise ValueError(
                f"Expected crops [N, {self.in_channels}, H, W] with sides of {_MIN_SIDE} pixels or "
                f"more, got {list(image.shape)}"
            )
        return self.network((2 * image - 1).to(self.mean.dtype))

    def measure(self, image: Tensor) -> Tensor:
        """Features in their own units, ``[N, F]``.

        Args:
            image: Crops in ``[0, 1]``, ``[N, C, H, W]``.
        """
        return self(image) * self.std + self.mean

    def standardize(self, features: Tensor) -> Tensor:
        """Measured features in the units of the network, ``[N, F]``; NaN stays NaN.

        Args:
            features: In their own units, ``[N, F]``.
        """
        return ((features - self.mean.to(features)) / self.std.to(features)).to(self.mean)

    @torch.no_grad()
    def initialize(self, features: Tensor) -> None:
        """Take mean and deviation of each feature from the training cells.

        Args:
            features: In their own units, ``[N, F]``; NaN where a cell could not be measured.

        Raises:
            ValueError: With fewer than two cells that could be measured, or other features.
        """
        if features.dim() != 2 or features.size(1) != self.num_features:
            raise ValueError(
                f"Expected features [N, {self.num_features}], got {list(features.shape)}"
            )
        valid = features[features.isfinite().all(1)].double()
        if len(valid) < 2:
            raise ValueError(
                f"Expected at least 2 cells that could be measured, got {len(valid)} of "
                f"{len(features)}"
            )
        std = valid.std(0, correction=0)
        self.mean.copy_(valid.mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def freeze(self) -> Self:
        """Stop learning: no parameter takes a gradient any more, images still pass theirs on."""
        return self.requires_grad_(False).eval()
