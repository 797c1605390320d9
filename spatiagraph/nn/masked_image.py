"""Masked autoencoder of cell crops: a ViT that reads some patches, a decoder that paints the rest.

Shape letters: ``N`` cells, ``P`` patches, ``V`` visible patches, ``D`` channels, ``C H W`` image.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.image import ImageTokens, TimmEncoder
from spatiagraph.nn.token_transformer import TokenTransformer


class MaskedImageEncoder(TimmEncoder):
    """Any timm ViT, reading a random part of the patches in training and all of them otherwise.

    The encoder of `"Masked Autoencoders Are Scalable Vision Learners"
    <https://arxiv.org/abs/2111.06377>`_. Hidden patches cost nothing. In ``eval()`` nothing is
    random: the same crop always gets the same tokens.

    Args:
        name: Name of a timm ViT, such as ``"vit_base_patch16_224"``.
        mask_ratio: Share of patches hidden in training.
        read_window: Add a token that tells how large the window of each crop is. Crops that are
            zoomed to one size in pixels have lost the size of the cell.
        in_channels: Image channels: 1 for DAPI, 3 for H&E.
        pretrained: Load published weights from the hub.
        checkpoint: Local ``.safetensors`` or ``.pth`` weights of the timm model.
        **timm_kwargs: Passed to ``timm.create_model``, such as ``img_size=32``.

    Shapes:
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``
        - **window_um**: side of the window of each crop in µm, ``[N]``; only with ``read_window``
        - **output**: :class:`ImageTokens`; for a base ViT 197 tokens of 768 channels, 50 with three
          quarters hidden

    Raises:
        ValueError: If timm knows no such model, it is no ViT with a class token, or crops have
            another size.
    """

    def __init__(
        self,
        name: str,
        *,
        mask_ratio: float = 0.75,
        read_window: bool = False,
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
        from timm.models.vision_transformer import VisionTransformer

        if not isinstance(self.backbone, VisionTransformer) or self.backbone.cls_token is None:
            raise ValueError(
                f"Expected a ViT with a class token, such as 'vit_base_patch16_224', got {name!r}"
            )
        self.mask_ratio = _checked_ratio(mask_ratio)
        self.channels: int = self.backbone.embed_dim
        self.grid: tuple[int, int] = self.backbone.patch_embed.grid_size
        self.patch_size: int = self.backbone.patch_embed.patch_size[0]
        self.num_prefix_tokens: int = self.backbone.num_prefix_tokens + read_window
        self.window = nn.Linear(1, self.channels) if read_window else None
        self.reads_window = read_window

    def forward(
        self,
        image: Tensor,
        window_um: Tensor | None = None,
        *,
        mask_ratio: float | None = None,
        generator: torch.Generator | None = None,
    ) -> ImageTokens:
        """Tokens of the visible patches.

        Args:
            image: Crops in ``[0, 1]``, ``[N, C, H, W]``.
            window_um: Side of the window of each crop in µm, ``[N]``.
            mask_ratio: Share of patches to hide now; that of the constructor in training and 0
                otherwise when not given.
            generator: Of the choice of patches.
        """
        size = (self.grid[0] * self.patch_size, self.grid[1] * self.patch_size)
        normalized = self.normalize(image)
        if image.shape[2:] != size:
            raise ValueError(
                f"Expected crops of {size[0]} × {size[1]} px, got {list(image.shape)}: cut them at "
                "that size or build the encoder with img_size=…"
            )
        if mask_ratio is None:
            mask_ratio = self.mask_ratio if self.training else 0.0
        num_cells, num_patches = len(image), self.grid[0] * self.grid[1]
        tokens = self.backbone._pos_embed(self.backbone.patch_embed(normalized))
        prefix, patches = tokens.split([tokens.size(1) - num_patches, num_patches], 1)
        if self.window is not None:
            token = self.window(_log_window(window_um, num_cells))
            prefix = torch.cat([prefix, token], 1)
        if _checked_ratio(mask_ratio) > 0:
            visible = _sample_visible(num_cells, num_patches, mask_ratio, image.device, generator)
            patches = patches.gather(1, visible.unsqueeze(-1).expand(-1, -1, self.channels))
        else:
            visible = torch.arange(num_patches, device=image.device).expand(num_cells, -1)
        hidden = torch.ones(num_cells, num_patches, dtype=torch.bool, device=image.device)
        hidden = hidden.scatter(1, visible, False)
        h = self.backbone.norm_pre(torch.cat([prefix, patches], 1))
        return ImageTokens(self.backbone.norm(self.backbone.blocks(h)), visible, hidden)

    def image_tokens(
        self,
        image: Tensor,
        window_um: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> ImageTokens:
        """Tokens of the visible patches, as ``forward`` returns them.

        Args:
            image: Crops in ``[0, 1]``, ``[N, C, H, W]``.
            window_um: Side of the window of each crop in µm, ``[N]``; read if ``reads_window``.
            generator: Of the choice of patches.
        """
        return self(image, window_um if self.reads_window else None, generator=generator)

    def extra_repr(self) -> str:
        return f"{self.name!r}, mask_ratio={self.mask_ratio}, in_channels={self.in_channels}"


class MaskedImageDecoder(Configurable):
    """Light transformer from the tokens of visible patches to the pixels of every patch.

    The tokens may have seen the genes in between. Patches that were hidden enter as one learned
    token plus the fixed code of their position in the image; the default size is that of
    `"Masked Autoencoders Are Scalable Vision Learners" <https://arxiv.org/abs/2111.06377>`_.

    Args:
        in_channels: Size of each token, :math:`D`.
        grid: Rows and columns of patches.
        patch_size: Side of a patch in pixels, :math:`p`.
        image_channels: Channels of the image.
        num_prefix_tokens: Tokens before the patches.
        hidden_channels: Width of the decoder; a multiple of 4.
        num_layers: Layers of the decoder.
        heads: Attention heads; must divide ``hidden_channels``.
        dropout: Dropout in the transformer.

    Shapes:
        - **tokens**: ``[N, 1 + V, D]``
        - **visible**: patch of each token behind the prefix, ``[N, V]``
        - **output**: ``[N, P, p * p * C]``, as :func:`~spatiagraph.nn.patches.patchify` cuts them

    Raises:
        ValueError: If tokens and patches are not of one number, or the width is no multiple of 4.
    """

    position: Tensor

    def __init__(
        self,
        in_channels: int,
        grid: Sequence[int],
        patch_size: int,
        image_channels: int = 3,
        *,
        num_prefix_tokens: int = 1,
        hidden_channels: int = 512,
        num_layers: int = 8,
        heads: int = 16,
        dropout: float = 0.0,
    ):
        super().__init__()
        from timm.layers import build_sincos2d_pos_embed

        if hidden_channels % 4:
            raise ValueError(f"Expected 'hidden_channels' a multiple of 4, got {hidden_channels}")
        self.num_prefix_tokens = num_prefix_tokens
        self.embed = nn.Linear(in_channels, hidden_channels)
        self.mask_token = nn.Parameter(torch.randn(hidden_channels) * 0.02)
        position = build_sincos2d_pos_embed(list(grid), hidden_channels)
        self.register_buffer("position", position, persistent=False)  # [P, hidden_channels]
        self.transformer = TokenTransformer(hidden_channels, num_layers, heads, dropout=dropout)
        self.project = nn.Linear(hidden_channels, patch_size**2 * image_channels)

    @classmethod
    def matching(cls, encoder: MaskedImageEncoder, **options: Any) -> Self:
        """The decoder that fits the tokens and the crops of an encoder.

        Args:
            encoder: The encoder.
            **options: Further arguments of the decoder.
        """
        return cls(
            encoder.channels,
            encoder.grid,
            encoder.patch_size,
            encoder.in_channels,
            num_prefix_tokens=encoder.num_prefix_tokens,
            **options,
        )

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        if tokens.size(1) != self.num_prefix_tokens + visible.size(1):
            raise ValueError(
                f"Expected {self.num_prefix_tokens} + {visible.size(1)} tokens, got "
                f"{tokens.size(1)}"
            )
        h = self.embed(tokens)
        prefix, patches = h[:, : self.num_prefix_tokens], h[:, self.num_prefix_tokens :]
        index = visible.unsqueeze(-1).expand_as(patches)
        every = self.mask_token.to(h.dtype).expand(len(h), *self.position.shape)
        every = every.scatter(1, index, patches) + self.position
        h = self.transformer(torch.cat([prefix, every.to(h.dtype)], 1))
        return self.project(h[:, self.num_prefix_tokens :])


def _checked_ratio(mask_ratio: float) -> float:
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"Expected 'mask_ratio' from 0 to below 1, got {mask_ratio}")
    return mask_ratio


def _log_window(window_um: Tensor | None, num_cells: int) -> Tensor:
    """Logarithm of the size of each window, ``[N, 1, 1]``."""
    if window_um is None or window_um.shape != (num_cells,):
        raise ValueError(
            f"Expected 'window_um' of each of {num_cells} crops, got "
            f"{None if window_um is None else list(window_um.shape)}"
        )
    return window_um.log().view(-1, 1, 1)


def _sample_visible(
    num_cells: int,
    num_patches: int,
    mask_ratio: float,
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """Patches of each cell that stay visible, sorted, ``[N, V]``."""
    num_visible = max(1, round(num_patches * (1 - mask_ratio)))
    source = device if generator is None else generator.device
    noise = torch.rand(num_cells, num_patches, generator=generator, device=source).to(device)
    return noise.argsort(1)[:, :num_visible].sort(1).values
