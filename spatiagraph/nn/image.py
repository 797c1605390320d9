"""Image encoder: cell-centred crops → one vector, or one per patch, by any timm model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


class ImageEncoder(Configurable):
    """Any `timm <https://github.com/huggingface/pytorch-image-models>`_ model, by name.

    Weights are random unless asked for: ``pretrained=True`` downloads them, ``checkpoint`` reads
    a local file of tensors. Crops in ``[0, 1]`` are normalised as the timm model expects.

    Args:
        name: Name of a timm model, such as ``"resnet18"`` or ``"vit_base_patch16_224"``.
        channels: Size of the output, :math:`D`.
        in_channels: Image channels: 1 for DAPI, 3 for H&E.
        tokens: Return every patch instead of their pool.
        pretrained: Load published weights from the hub.
        checkpoint: Local ``.safetensors`` or ``.pth`` weights of the timm model.
        **timm_kwargs: Passed to ``timm.create_model``, such as ``img_size=32``.

    Shapes:
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``
        - **output**: ``[N, D]``, or ``[N, T, D]`` with ``tokens``

    Raises:
        ValueError: If timm knows no such model, with the nearest names.
    """

    mean: Tensor
    std: Tensor
    backbone: Any

    def __init__(
        self,
        name: str,
        channels: int,
        *,
        in_channels: int = 3,
        tokens: bool = False,
        pretrained: bool = False,
        checkpoint: str | None = None,
        **timm_kwargs: Any,
    ):
        super().__init__()
        import timm

        if not timm.is_model(name):
            near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
            raise ValueError(f"Expected the name of a timm model, got {name!r}; near it: {near}")
        self.name = name
        self.channels = channels
        self.in_channels = in_channels
        self.tokens = tokens
        self.backbone = timm.create_model(
            name, pretrained=pretrained, num_classes=0, in_chans=in_channels, **timm_kwargs
        )
        if checkpoint is not None:
            if not Path(checkpoint).is_file():
                raise ValueError(f"Expected a weight file, found none at {checkpoint!r}")
            timm.models.load_checkpoint(self.backbone, checkpoint, strict=False, weights_only=True)
        config = timm.data.resolve_data_config({}, model=self.backbone)
        for key in ("mean", "std"):
            value = torch.tensor(config[key])
            value = value if value.numel() == in_channels else value.mean().expand(in_channels)
            self.register_buffer(key, value.reshape(1, -1, 1, 1).clone())
        self.project = nn.Linear(self.backbone.num_features, channels)

    def forward(self, image: Tensor) -> Tensor:
        if image.dim() != 4 or image.size(1) != self.in_channels:
            raise ValueError(
                f"Expected crops [N, {self.in_channels}, H, W], got {list(image.shape)}; grey and "
                "colour images need encoders built with their 'in_channels'"
            )
        features = self.backbone.forward_features((image - self.mean) / self.std)
        if not self.tokens:
            return self.project(self.backbone.forward_head(features, pre_logits=True))
        if features.dim() == 4:  # [N, C, H, W] of a CNN, or channels-last
            if features.size(1) != self.backbone.num_features:
                features = features.movedim(-1, 1)
            features = features.flatten(2).transpose(1, 2)
        return self.project(features)  # [N, T, D]

    def config_args(self) -> dict[str, Any]:
        """Arguments without the source of the first weights: a saved model has its own."""
        return {**self.init_args, "pretrained": False, "checkpoint": None}

    def extra_repr(self) -> str:
        return f"{self.name!r}, {self.channels}, in_channels={self.in_channels}"
