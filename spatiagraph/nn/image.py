"""Image encoder: cell-centred crops → one vector, or one per patch, by any timm model."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph._json import shortened
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.timm_options import TimmOptions, create_timm


class ImageTokens(NamedTuple):
    """Tokens of the patches that were read, and which those are.

    Attributes:
        tokens: Class token (and others that are no patch), then patches, ``[N, 1 + V, D]``.
        visible: Patch of each token behind them, sorted, ``[N, V]``.
        hidden: True for patches that were not read, ``[N, P]``.
    """

    tokens: Tensor
    visible: Tensor
    hidden: Tensor


class TimmEncoder(Configurable, abstract=True):
    """A timm model, where its first weights come from, and how its input is normalised.

    Args:
        name: Name of a timm model.
        in_channels: Image channels. Weights published for colour are summed over the channels for
            a grey encoder, as if it repeated a grey image three times.
        pretrained: Load published weights from the hub.
        checkpoint: Local ``.safetensors`` or ``.pth`` weights of the timm model.
        **timm_kwargs: Passed to ``timm.create_model``: those of :class:`TimmOptions`.

    Raises:
        ValueError: If timm knows no such model, or the checkpoint is not one of it.
    """

    mean: Tensor
    std: Tensor
    backbone: Any
    unsaved = {"pretrained": False, "checkpoint": None}
    keywords = TimmOptions
    reads_window: bool = False
    """True if the size of the window of each crop is read."""

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        pretrained: bool = False,
        checkpoint: str | None = None,
        **timm_kwargs: Any,
    ):
        super().__init__()
        import timm

        if not timm.is_model(name):
            near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
            raise ValueError(
                f"Expected the name of a timm model, got {shortened(name)}; near it: {near}"
            )
        self.name = name
        self.in_channels = in_channels
        self.backbone = create_timm(
            name, timm_kwargs, pretrained=pretrained, num_classes=0, in_chans=in_channels
        )
        if checkpoint is not None:
            _load_weights(self.backbone, checkpoint, in_channels)
        config = timm.data.resolve_data_config({}, model=self.backbone)
        for key in ("mean", "std"):
            value = torch.tensor(config[key])
            value = value if value.numel() == in_channels else value.mean().expand(in_channels)
            self.register_buffer(key, value.reshape(1, -1, 1, 1).clone())

    def normalize(self, image: Tensor) -> Tensor:
        """Crops as the timm model expects them, from crops in ``[0, 1]``, ``[N, C, H, W]``.

        Raises:
            ValueError: If the crops have other channels.
        """
        if image.dim() != 4 or image.size(1) != self.in_channels:
            raise ValueError(
                f"Expected crops [N, {self.in_channels}, H, W], got {list(image.shape)}; grey and "
                "colour images need encoders built with their 'in_channels'"
            )
        return (image - self.mean) / self.std


class ImageEncoder(TimmEncoder):
    """Any `timm <https://github.com/huggingface/pytorch-image-models>`_ model, by name.

    Weights are random by default: ``pretrained=True`` downloads them, ``checkpoint`` reads
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
        ValueError: If timm knows no such model, with the nearest names, or the checkpoint is not
            one of it.
    """

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
        super().__init__(
            name,
            in_channels=in_channels,
            pretrained=pretrained,
            checkpoint=checkpoint,
            **timm_kwargs,
        )
        self.channels = channels
        self.tokens = tokens
        self.project = nn.Linear(self.backbone.num_features, channels)

    def forward(self, image: Tensor) -> Tensor:
        features = self.backbone.forward_features(self.normalize(image))
        if not self.tokens:
            return self.project(self.backbone.forward_head(features, pre_logits=True))
        if features.dim() == 4:  # [N, C, H, W] of a CNN, or channels-last
            if features.size(1) != self.backbone.num_features:
                features = features.movedim(-1, 1)
            features = features.flatten(2).transpose(1, 2)
        return self.project(features)  # [N, T, D]

    def image_tokens(
        self,
        image: Tensor,
        window_um: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> ImageTokens:
        """Every patch behind their mean, which stands for a class token.

        Args:
            image: Crops in ``[0, 1]``, ``[N, C, H, W]``.
            window_um: Not read.
            generator: Not drawn from: no patch is hidden.

        Raises:
            ValueError: If the encoder pools its patches.
        """
        patches = self(image)
        if patches.dim() != 3:
            raise ValueError(
                "Expected an image encoder that returns tokens [N, S, I], got "
                f"{list(patches.shape)}: build it with tokens=True"
            )
        tokens = torch.cat([patches.mean(1, keepdim=True), patches], 1)
        visible = torch.arange(patches.size(1), device=patches.device).expand(len(patches), -1)
        return ImageTokens(tokens, visible, torch.zeros_like(visible, dtype=torch.bool))

    def extra_repr(self) -> str:
        return f"{self.name!r}, {self.channels}, in_channels={self.in_channels}"


def _load_weights(backbone: Any, checkpoint: str, in_channels: int) -> None:
    """Every tensor of ``backbone`` from a file; what else the file holds, a head say, is left."""
    import timm

    if not Path(checkpoint).is_file():
        raise ValueError(f"Expected a weight file, found none at {checkpoint!r}")
    state = timm.models.load_state_dict(checkpoint, weights_only=True)
    own = backbone.state_dict()
    name = f"{backbone.pretrained_cfg.get('first_conv')}.weight"
    if name in state and name in own and state[name].shape != own[name].shape:
        state[name] = timm.models.adapt_input_conv(in_channels, state[name])
    wrong = [k for k in own if k not in state or state[k].shape != own[k].shape]
    if wrong:
        raise ValueError(
            f"Expected {checkpoint!r} to hold every weight of the timm model, got {len(wrong)} of "
            f"{len(own)} missing or in another shape (first: {wrong[:3]})"
        )
    backbone.load_state_dict({k: state[k] for k in own})
