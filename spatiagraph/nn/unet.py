"""Velocity network of images: a U-Net of diffusers'."""

import math
from typing import Literal

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable

Injection = Literal["additive", "film", "cross"]
MULTIPLIERS = (1, 2, 2)
"""Channels of each level of the published network, in units of those at full resolution."""
_TIMES = 1000  # network times are those of diffusion models; t itself would hardly vary


class VelocityUNet(Configurable):
    r"""Velocity of an image at a time, under a condition.

    diffusers' :class:`~diffusers.UNet2DModel` (additive, FiLM) or
    :class:`~diffusers.UNet2DConditionModel` (cross-attention). The last convolution of every
    residual block, of every attention and of the network starts at zero, so an untrained network
    stands still: :math:`\mathbf{v} \equiv 0`.

    Args:
        image_channels: Channels of the image.
        channels: Channels at full resolution, :math:`C`; published 64 and 128.
        multipliers: Channels of each level in units of these; each level halves the resolution.
        num_blocks: Residual blocks of each level.
        attention_from: Down-sampling from which on pixels attend to each other; the published 2
            means 16,384 tokens for 256 pixels.
        head_channels: Channels of an attention head.
        dropout: In residual blocks.
        condition_channels: Size of the condition, :math:`D`; ``None`` for no condition.
        injection: How the condition enters: ``"additive"`` beside the time, ``"film"`` scaling
            and shifting with it, or ``"cross"``, as tokens that pixels attend to.

    Shapes:
        - **x**: images in [-1, 1], ``[B, C, H, W]``, sides divisible by the coarsest level's
          down-sampling
        - **t**: in [0, 1], ``[B]``
        - **condition**: ``[B, D]``, with cross-attention tokens ``[B, S, D]``; ``None`` is the null
          condition
        - **keep**: rows whose condition counts, ``[B]``; the rest gets the null condition
        - **output**: ``[B, C, H, W]``

    Raises:
        ValueError: An option is unknown, or image and network do not fit.

    Examples:
        >>> net = VelocityUNet(1, channels=16, condition_channels=8)
        >>> x = torch.rand(2, 1, 16, 16)
        >>> float(net(x, torch.zeros(2), torch.rand(2, 8)).detach().abs().max())
        0.0
    """

    def __init__(
        self,
        image_channels: int,
        *,
        channels: int = 64,
        multipliers: tuple[int, ...] = MULTIPLIERS,
        num_blocks: int = 2,
        attention_from: int = 4,
        head_channels: int = 32,
        dropout: float = 0.3,
        condition_channels: int | None = None,
        injection: Injection = "additive",
    ):
        super().__init__()
        if injection not in ("additive", "film", "cross"):
            raise ValueError(
                f'Expected injection to be "additive", "film" or "cross", got {injection!r}'
            )
        self.image_channels, self.injection = image_channels, injection
        self.stride = 2 ** (len(multipliers) - 1)
        widths = tuple(channels * m for m in multipliers)
        attends = [2**level >= attention_from for level in range(len(widths))]
        shared = {
            "in_channels": image_channels,
            "out_channels": image_channels,
            "block_out_channels": widths,
            "layers_per_block": num_blocks,
            "norm_num_groups": math.gcd(32, *widths),
            "dropout": dropout,
            "resnet_time_scale_shift": "scale_shift" if injection == "film" else "default",
            "class_embed_type": "identity",
        }
        self.net: UNet2DModel | UNet2DConditionModel
        if injection == "cross" and condition_channels is not None:
            self.net = UNet2DConditionModel(
                down_block_types=_names("Down", attends, "CrossAttn"),
                up_block_types=_names("Up", attends[::-1], "CrossAttn"),
                cross_attention_dim=condition_channels,
                attention_head_dim=max(1, widths[-1] // head_channels),  # heads, despite its name
                **shared,
            )
        else:
            self.net = UNet2DModel(
                down_block_types=_names("Down", attends, "Attn"),
                up_block_types=_names("Up", attends[::-1], "Attn"),
                attention_head_dim=min(head_channels, *widths),
                **shared,
            )
        self.embedding_channels = 4 * widths[0]  # as diffusers has it
        self.condition_channels = condition_channels
        self.condition: nn.Linear | None = None
        self.null: nn.Parameter | None = None
        if condition_channels is not None and injection == "cross":
            self.null = nn.Parameter(torch.zeros(1, 1, condition_channels))
        elif condition_channels is not None:
            self.condition = nn.Linear(condition_channels, self.embedding_channels)
        self._start_at_rest()

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        self._check(x, condition)
        added = x.new_zeros(len(x), self.embedding_channels)
        tokens: dict[str, Tensor] = {}
        if self.null is not None:
            tokens = {"encoder_hidden_states": self._tokens(x, condition, keep)}
        elif self.condition is not None and condition is not None:
            added = self.condition(condition)
            if keep is not None:
                added = added * keep.unsqueeze(1)
        return self.net(x, t * _TIMES, class_labels=added, return_dict=False, **tokens)[0]

    def _tokens(self, x: Tensor, condition: Tensor | None, keep: Tensor | None) -> Tensor:
        """Condition tokens, with the null token wherever there is none."""
        assert self.null is not None
        null = self.null.to(x.dtype)
        if condition is None:
            return null.expand(len(x), -1, -1)
        return condition if keep is None else torch.where(keep.view(-1, 1, 1), condition, null)

    def _check(self, x: Tensor, condition: Tensor | None) -> None:
        if x.dim() != 4 or x.size(1) != self.image_channels:
            raise ValueError(
                f"Expected images [B, {self.image_channels}, H, W], got {list(x.shape)}"
            )
        if any(side % self.stride for side in x.shape[2:]):
            raise ValueError(
                f"Expected image sides divisible by {self.stride}, got {list(x.shape[2:])}"
            )
        if condition is None:
            return
        dims = 2 if self.null is None else 3
        if self.condition_channels is None:
            raise ValueError("Expected no condition: the network was built without")
        if condition.dim() != dims or condition.size(-1) != self.condition_channels:
            shape = "[B, {}]" if dims == 2 else "[B, S, {}]"
            raise ValueError(
                f"Expected a condition {shape.format(self.condition_channels)}, got "
                f"{list(condition.shape)}"
            )

    def _start_at_rest(self) -> None:
        for module in self.modules():
            if isinstance(module, ResnetBlock2D):
                _zero(module.conv2)
            elif isinstance(module, Transformer2DModel):
                _zero(module.proj_out)
            elif isinstance(module, Attention) and module.residual_connection:
                _zero(module.get_submodule("to_out.0"))
        _zero(self.net.conv_out)


def _names(way: str, attends: list[bool], kind: str) -> tuple[str, ...]:
    """Names of diffusers' blocks, with attention where it is wanted."""
    return tuple(f"{kind}{way}Block2D" if here else f"{way}Block2D" for here in attends)


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
