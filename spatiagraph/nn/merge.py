"""Fewer tokens in the attention of an image network: alike ones are merged, and parted again."""

from typing import Any, NamedTuple

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from spatiagraph.kernels.segment import segment_mean

_MOST = 0.75  # one token in four is a destination and stays


class TokenMerge(NamedTuple):
    """Assignment of tokens to merged tokens.

    Attributes:
        owner: Merged token that each token is part of, ``[B, N]``, in ``[0, M)``.
        size: Tokens in each merged token, ``[B, M]``.
    """

    owner: Tensor
    size: Tensor

    def merge(self, x: Tensor) -> Tensor:
        """Mean of the tokens that become one.

        Args:
            x: Tokens, ``[B, N, C]``.

        Returns:
            ``[B, M, C]``.
        """
        row = self._row.flatten()
        order = row.argsort(stable=True)
        ptr = torch.cat([row.new_zeros(1), self.size.flatten().cumsum(0)])
        return segment_mean(x.flatten(0, 1)[order], ptr).view(*self.size.shape, -1)

    def unmerge(self, y: Tensor) -> Tensor:
        """Copy each merged token to the tokens that it was merged from.

        Args:
            y: Merged tokens, ``[B, M, C]``.

        Returns:
            ``[B, N, C]``.
        """
        return y.flatten(0, 1)[self._row]

    @property
    def _row(self) -> Tensor:
        """Merged token of each token, counted through the batch."""
        batch, merged = self.size.shape
        return self.owner + merged * torch.arange(batch, device=self.owner.device).unsqueeze(1)


@torch.no_grad()
def match_tokens(
    keys: Tensor,
    num_merged: int,
    grid: tuple[int, int],
    *,
    generator: torch.Generator | None = None,
) -> TokenMerge:
    """Find tokens that are alike, by bipartite soft matching.

    Of every 2 × 2 cell of the grid one token is a destination. The other tokens look for the
    destination of the most similar key (by cosine), and those which find the most similar ones are
    merged into them: `"Token Merging" <https://arxiv.org/abs/2210.09461>`_, on a grid as in `"Token
    Merging for Fast Stable Diffusion" <https://arxiv.org/abs/2303.17604>`_.

    Args:
        keys: Keys of the tokens, row after row of the grid, ``[B, N, C]``.
        num_merged: How many tokens are merged into others.
        grid: Rows and columns.
        generator: Draws the destinations, on the CPU; the upper left ones when ``None``.

    Returns:
        :class:`TokenMerge` with ``M = N - num_merged``; tokens that stay keep their order.

    Raises:
        ValueError: If the tokens do not fill the grid, or not so many can be merged.

    Examples:
        >>> keys = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]]])
        >>> match_tokens(keys, 1, (2, 2)).owner
        tensor([[0, 0, 1, 2]])
    """
    height, width = grid
    num_tokens = keys.size(1)
    if height * width != num_tokens:
        raise ValueError(f"Expected {height} × {width} tokens, got {num_tokens}")
    rows, columns = -(-height // 2), -(-width // 2)
    if not 0 <= num_merged <= num_tokens - rows * columns:
        raise ValueError(
            f"Expected to merge at most {num_tokens - rows * columns} of {height} × {width} "
            f"tokens, got {num_merged}"
        )
    row, column = torch.meshgrid(2 * torch.arange(rows), 2 * torch.arange(columns), indexing="ij")
    if generator is not None:
        shift = torch.randint(2, (2, rows, columns), generator=generator)
        row = (row + shift[0]).clamp(max=height - 1)
        column = (column + shift[1]).clamp(max=width - 1)
    destination = (row * width + column).flatten()
    is_source = torch.ones(num_tokens, dtype=torch.bool)
    is_source[destination] = False
    source = is_source.nonzero().squeeze(1).to(keys.device)  # [S]
    destination = destination.to(keys.device)  # [D]

    direction = normalize(keys, dim=-1)
    alike, best = (direction[:, source] @ direction[:, destination].mT).max(2)  # [B, S]
    chosen = alike.topk(num_merged, dim=1).indices
    gone, into = source[chosen], destination[best.gather(1, chosen)]  # [B, num_merged]
    stays = torch.ones(keys.shape[:2], dtype=torch.long, device=keys.device).scatter(1, gone, 0)
    number = stays.cumsum(1) - 1
    owner = number.scatter(1, gone, number.gather(1, into))
    size = owner.new_zeros(len(keys), num_tokens - num_merged)
    return TokenMerge(owner, size.scatter_add(1, owner, torch.ones_like(owner)))


class TokenMergingProcessor:
    r"""Attention among fewer tokens, as an attention processor of diffusers.

    Before self-attention a share of the tokens is merged into others with similar keys (see
    :func:`match_tokens`); afterwards each gets a copy of what its merged token got. A merged token
    of :math:`s` tokens is attended to like :math:`s` equal ones: :math:`\ln s` is added to its
    logits, so merging tokens that are equal changes nothing. Cross-attention, and attention with a
    mask, stay as they are.

    Args:
        ratio: Share of the tokens that is merged into others, in [0, 0.75]; 0 is exactly
            diffusers' ``AttnProcessor2_0``.
        grid: Rows and columns of the tokens, or any that are as wide for their height, for networks
            whose attention has no shape given; square when ``None``.
        generator: Draws the destinations of every call, on the CPU; fixed ones when ``None``.

    Raises:
        ValueError: If the share is not in [0, 0.75], or tokens do not fill the grid.
    """

    def __init__(
        self,
        ratio: float,
        *,
        grid: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ):
        if not 0 <= ratio <= _MOST:
            raise ValueError(
                f"Expected 'ratio' from 0 to {_MOST}: one token in four stays; got {ratio}"
            )
        self.ratio, self.grid, self.generator = ratio, grid, generator
        self.plain = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """The attention layer ``attn`` on ``[B, C, H, W]`` or ``[B, N, C]``; same shape."""
        shape = hidden_states.shape
        num_tokens = shape[1] if hidden_states.dim() == 3 else shape[2] * shape[3]
        num_merged = int(self.ratio * num_tokens)
        if not num_merged or encoder_hidden_states is not None or attention_mask is not None:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        x = hidden_states if attn.spatial_norm is None else attn.spatial_norm(hidden_states, temb)
        grid = (shape[2], shape[3]) if x.dim() == 4 else self._grid(num_tokens)
        if x.dim() == 4:
            x = x.flatten(2).transpose(1, 2)  # [B, N, C]
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        most = num_tokens - -(-grid[0] // 2) * -(-grid[1] // 2)
        tokens = match_tokens(attn.to_k(x), min(num_merged, most), grid, generator=self.generator)
        y = attn.to_out[0](tokens.unmerge(_attend(attn, tokens.merge(x), tokens.size)))
        y = attn.to_out[1](y)
        if len(shape) == 4:
            y = y.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            y = y + hidden_states
        return y / attn.rescale_output_factor

    def _grid(self, num_tokens: int) -> tuple[int, int]:
        """Rows and columns of so many tokens."""
        height, width = (1, 1) if self.grid is None else self.grid
        scale = (num_tokens / (height * width)) ** 0.5
        rows, columns = round(height * scale), round(width * scale)
        if rows * columns != num_tokens:
            raise ValueError(
                f"Expected tokens of a {'square' if self.grid is None else self.grid} grid, got "
                f"{num_tokens}: give its rows and columns as 'grid'"
            )
        return rows, columns


def _attend(attn: Attention, x: Tensor, size: Tensor) -> Tensor:
    """Attention of merged tokens that count by their size, ``[B, M, C]``."""
    query, key, value = (
        layer(x).unflatten(2, (attn.heads, -1)).transpose(1, 2)  # [B, H, M, C / H]
        for layer in (attn.to_q, attn.to_k, attn.to_v)
    )
    query = query if attn.norm_q is None else attn.norm_q(query)
    key = key if attn.norm_k is None else attn.norm_k(key)
    bias = size.to(query.dtype).log()[:, None, None]  # [B, 1, 1, M]
    return scaled_dot_product_attention(query, key, value, bias).transpose(1, 2).flatten(2)


def set_token_merging(
    network: nn.Module,
    ratio: float,
    *,
    grid: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Let every self-attention of a diffusers network merge tokens; 0 puts it back.

    Args:
        network: Such as :class:`~spatiagraph.nn.VelocityUNet`; changed in place.
        ratio: Share of the tokens, see :class:`TokenMergingProcessor`.
        grid: Rows and columns of tokens, where the network does not tell its attention.
        generator: Draws the destinations.

    Raises:
        ValueError: If the network has no self-attention, or the share is not in [0, 0.75].
    """
    layers = [m for m in network.modules() if isinstance(m, Attention) and not m.is_cross_attention]
    if not layers:
        raise ValueError(
            f"Expected a network with self-attention, got {type(network).__name__} without any"
        )
    processor: Any = AttnProcessor2_0()
    if ratio:
        processor = TokenMergingProcessor(ratio, grid=grid, generator=generator)
    for layer in layers:
        layer.set_processor(processor)
