"""Encoder of small images: a ResNet whose first layers keep every pixel, and a frozen backbone."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from spatiagraph.nn.image import TimmEncoder


class SpotImageEncoder(TimmEncoder):
    """ResNet of timm with a stem for small images: 3 × 3 without stride, and no max-pooling.

    A spot has few pixels: the published stem would take two thirds of them for one. The total
    stride is 8 in place of 32, so sides of 8 pixels and more will do. As in `ST-Align
    <https://arxiv.org/abs/2411.16793>`_; timm has no option for such a stem, so its own is
    replaced, and starts at random where the rest has published weights.

    Args:
        name: Name of a ResNet of timm.
        channels: Size of the output, :math:`D`.
        in_channels: Image channels.
        pretrained: Load published weights of all but the stem from the hub.
        checkpoint: Local weights of the timm model, likewise.
        **timm_kwargs: Passed to ``timm.create_model``.

    Shapes:
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``
        - **output**: ``[N, D]``

    Raises:
        ValueError: If timm knows no such model, or it is no ResNet.
    """

    def __init__(
        self,
        name: str = "resnet50",
        channels: int = 512,
        *,
        in_channels: int = 3,
        pretrained: bool = False,
        checkpoint: str | None = None,
        **timm_kwargs: Any,
    ):
        super().__init__(
            name,
            in_channels=in_channels,
            pretrained=pretrained,
            checkpoint=checkpoint,
            **timm_kwargs,
        )
        parts = [getattr(self.backbone, part, None) for part in ("conv1", "bn1", "maxpool")]
        if not isinstance(parts[1], nn.BatchNorm2d) or any(part is None for part in parts):
            raise ValueError(f"Expected the name of a ResNet of timm, got {name!r}")
        stem = nn.Conv2d(in_channels, parts[1].num_features, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.backbone.conv1, self.backbone.maxpool = stem, nn.Identity()
        self.channels = channels
        self.project = nn.Linear(self.backbone.num_features, channels)

    def forward(self, image: Tensor) -> Tensor:
        return self.project(self.backbone(self.normalize(image)))


class FrozenImageEncoder(TimmEncoder):
    """Backbone of timm that is not trained: its weights, norms and dropout stay as they are.

    Without a ``stem`` no gradient passes, so features can be computed once. With one, learned
    layers bring the crops to the backbone, as `ST-Align <https://arxiv.org/abs/2411.16793>`_ was
    published.

    Args:
        name: Name of a timm model, such as ``"vit_large_patch16_224"``.
        in_channels: Image channels.
        size_px: Side that crops are resized to before they are normalised; ``None`` for as they
            are.
        stem: Learn a norm and a convolution of the crops in place of the fixed normalisation.
        pretrained: Load published weights from the hub.
        checkpoint: Local ``.safetensors`` or ``.pth`` weights of the timm model.
        **timm_kwargs: Passed to ``timm.create_model``, such as ``init_values=1e-5``.

    Shapes:
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``
        - **output**: pooled features, ``[N, F]``

    Raises:
        ValueError: If timm knows no such model, or the checkpoint is not one of it.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        size_px: int | None = 224,
        stem: bool = False,
        pretrained: bool = False,
        checkpoint: str | None = None,
        **timm_kwargs: Any,
    ):
        super().__init__(
            name,
            in_channels=in_channels,
            pretrained=pretrained,
            checkpoint=checkpoint,
            **timm_kwargs,
        )
        self.size_px = size_px
        self.channels = int(self.backbone.num_features)
        self.backbone.requires_grad_(False).eval()
        self.norm = self.conv = None
        if stem:
            self.norm = nn.BatchNorm2d(in_channels)
            self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)

    @property
    def is_frozen(self) -> bool:
        """True if no gradient passes, so that features of an image stay the same."""
        return self.conv is None

    def train(self, mode: bool = True) -> Self:
        """Train the stem; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        if self.norm is not None and self.conv is not None:
            return self.backbone(self.conv(self._resized(self.norm(image))))
        with torch.no_grad():
            return self.backbone(self.normalize(self._resized(image)))

    def _resized(self, image: Tensor) -> Tensor:
        side = self.size_px
        if side is None or image.shape[2:] == (side, side):
            return image
        return interpolate(image, (side, side), mode="bilinear", antialias=True)
