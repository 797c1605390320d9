"""Hybrid encoder of padded sequences: depthwise convolution, then attention, in every block.

Shape letters: ``B`` sequences, ``L`` tokens, ``D`` channels. A mask ``[B, L]`` is True where a
token is real; what padding holds changes no real token, in training neither.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from spatiagraph.nn.config import Configurable

AttentionScale = Literal["head_dim", "model_dim"]
_NEVER = -3e4  # logit of padding: exp of it is 0, and it is a number of half precision
_REACH = 2.0  # gain of what attention carries from token to token, at the start
_LANES = 8  # fused kernels want channels of a head in multiples of it


def alibi_slopes(heads: int) -> Tensor:
    """Slopes of attention with linear biases, ``[heads]``.

    :math:`2^{-8h/H}` for a power of two; else those of the largest smaller one, then every second
    of the next, of `"Train Short, Test Long" <https://arxiv.org/abs/2108.12409>`_.

    Args:
        heads: Attention heads.

    Examples:
        >>> alibi_slopes(6).tolist()
        [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    """
    power = 2 ** int(math.log2(heads))

    def series(n: int) -> Tensor:
        return 2.0 ** (-8.0 * torch.arange(1, n + 1, dtype=torch.float64) / n)

    return torch.cat([series(power), series(2 * power)[::2][: heads - power]]).float()


def alibi_bias(slopes: Tensor, position: Tensor) -> Tensor:
    """Symmetric bias, minus slope times distance, ``[..., heads, L, L]``.

    Args:
        slopes: ``[heads]``.
        position: Position of each token, ``[..., L]``.
    """
    distance = (position.unsqueeze(-1) - position.unsqueeze(-2)).abs()
    return -slopes[:, None, None] * distance.unsqueeze(-3)


class MaskedBatchNorm(Configurable):
    """Batch norm over real tokens; statistics in float32.

    Args:
        channels: Size of each token, :math:`D`.
        momentum: Share of a batch in the running statistics.
        eps: Added to the variance.

    Shapes:
        - **x**: ``[B, L, D]``
        - **mask**: real tokens, ``[B, L]``; all of them if ``None``
        - **output**: ``[B, L, D]``
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.05, eps: float = 1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            real = torch.ones_like(x[..., :1]) if mask is None else mask.unsqueeze(-1)
            real = real.float()
            num = real.sum()
            mean = (x.float() * real).sum((0, 1)) / num
            var = ((x.float() - mean).square() * real).sum((0, 1)) / num
            with torch.no_grad():
                unbiased = var * num / (num - 1).clamp(min=1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        return (x.float() * scale + (self.bias - mean * scale)).to(x.dtype)


class DropPath(Configurable):
    """Stochastic depth: the whole branch of a sequence is left out at random.

    Args:
        rate: How often.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        keep = 1 - self.rate
        drawn = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) < keep
        return x * drawn / keep

    def extra_repr(self) -> str:
        return f"{self.rate}"


class ScaleBias(Configurable):
    """Scale and shift of each channel, before a branch is added.

    Args:
        channels: :math:`D`.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class SwishGatedMLP(Configurable):
    """Feed-forward layer of two halves, one of which gates the other by swish.

    Args:
        channels: :math:`D`; each half is twice as wide.
        dropout: Dropout on the gated half.
    """

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__()
        self.into = nn.Linear(channels, 4 * channels)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * channels, channels)
        for layer in (self.into, self.out):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.into(x).chunk(2, dim=-1)
        return self.out(self.dropout(value * silu(gate)))


class MaskedConvolution(Configurable):
    """Gated depthwise convolution along a sequence, blind to padding.

    Args:
        channels: :math:`D`.
        kernel_size: Tokens that a token hears, itself in the middle; odd.
        dropout: Dropout before the last layer.

    Raises:
        ValueError: If the kernel has no middle.
    """

    def __init__(self, channels: int, kernel_size: int = 17, dropout: float = 0.0):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"Expected an odd 'kernel_size', got {kernel_size}")
        self.gate = nn.Linear(channels, 2 * channels)
        self.depthwise = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False
        )
        self.norm = MaskedBatchNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        value, gate = self.gate(x).chunk(2, dim=-1)
        y = value * silu(gate)
        if mask is not None:
            y = y.masked_fill(~mask.unsqueeze(-1), 0.0)
        y = self.depthwise(y.transpose(1, 2)).transpose(1, 2)
        return self.out(self.dropout(silu(self.norm(y, mask))))


class BiasedAttention(Configurable):
    """Self-attention with a bias that all sequences share, in one fused kernel.

    A mean over many tokens is short. With the usual starting weights a token would hear a twentieth
    of the others, and what it takes two of them to tell a hundredth of that: such a relation is
    learned late or never. Values and outputs start larger for it.

    Padding is no part of the bias, which would make it one of every sequence: it is a channel of
    its own, which is 1 in every query and hugely negative in the keys of padding.

    Args:
        channels: :math:`D`.
        heads: Attention heads; must divide ``channels``.
        dropout: Dropout on attention weights.
        scale: Logits are divided by the root of the size of a head, or of ``channels``.

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dropout: float = 0.0,
        scale: AttentionScale = "head_dim",
    ):
        super().__init__()
        if min(channels, heads) < 1 or channels % heads:
            raise ValueError(f"Expected 'heads' to divide {channels} channels, got {heads}")
        self.heads, self.dropout = heads, dropout
        self.scale = (channels if scale == "model_dim" else channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start with weights under which a token attends to the rest about as much as to itself."""
        q, k, v = self.qkv.weight.chunk(3)
        for weight, gain in ((q, 1.0), (k, 1.0), (v, _REACH), (self.out.weight, _REACH)):
            nn.init.xavier_uniform_(weight, gain)

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, L, D / heads]
        size = v.size(-1)
        if mask is not None:
            more = q.new_zeros(len(x), 1, x.size(1), _LANES)
            ones, never = more.clone(), more.clone()
            ones[..., 0] = 1 / self.scale
            never[..., 0] = _NEVER * (~mask[:, None]).to(x.dtype)
            wide = (-1, self.heads, -1, -1)
            q = torch.cat([q, ones.to(q.dtype).expand(wide)], -1)
            k = torch.cat([k, never.to(k.dtype).expand(wide)], -1)
            v = torch.cat([v, more.to(v.dtype).expand(wide)], -1)
        message = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=(bias if bias.dim() == 4 else bias.unsqueeze(0)).to(q.dtype),
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        return self.out(message[..., :size].transpose(1, 2).flatten(2))


class SqueezeformerBlock(Configurable):
    """Convolution and MLP, then attention and MLP, each a scaled branch before a layer norm.

    Args:
        channels: :math:`D`.
        heads: Attention heads; must divide ``channels``.
        kernel_size: Tokens that the convolution spans; odd.
        dropout: Dropout in all branches.
        drop_path: How often a branch of a sequence is left out.
        scale: See :class:`BiasedAttention`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        kernel_size: int = 17,
        *,
        dropout: float = 0.1,
        drop_path: float = 0.1,
        scale: AttentionScale = "head_dim",
    ):
        super().__init__()
        self.convolution = MaskedConvolution(channels, kernel_size, dropout)
        self.attention = BiasedAttention(channels, heads, dropout, scale)
        self.mlps = nn.ModuleList(SwishGatedMLP(channels, dropout) for _ in range(2))
        self.scales = nn.ModuleList(ScaleBias(channels) for _ in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor) -> Tensor:
        x = self._add(0, x, self.convolution(x, mask))
        x = self._add(1, x, self.mlps[0](x))
        x = self._add(2, x, self.attention(x, mask, bias))
        return self._add(3, x, self.mlps[1](x))

    def _add(self, i: int, x: Tensor, branch: Tensor) -> Tensor:
        return self.norms[i](x + self.drop_path(self.scales[i](branch)))


class Squeezeformer(Configurable):
    """Stack of :class:`SqueezeformerBlock` that keeps the length of its sequences.

    The encoder of `"SpatialFormer" <https://www.biorxiv.org/content/10.1101/2025.01.18.633701>`_,
    after `"Squeezeformer" <https://arxiv.org/abs/2206.00888>`_. Positions enter through a symmetric
    bias of attention alone, which is made once for all blocks and sequences.

    Args:
        channels: Size of each token, :math:`D`.
        num_layers: Blocks.
        heads: Attention heads; must divide ``channels``.
        kernel_size: Tokens that the convolution spans; odd.
        dropout: Dropout in all branches.
        drop_path: How often a branch of a sequence is left out.
        scale: See :class:`BiasedAttention`.

    Shapes:
        - **x**: ``[B, L, D]``
        - **mask**: real tokens, ``[B, L]``; all of them if ``None``
        - **position**: position of each token, ``[B, L]``; its place when ``None``
        - **output**: ``[B, L, D]``; of padding, of no use
    """

    slopes: Tensor

    def __init__(
        self,
        channels: int,
        num_layers: int,
        heads: int,
        *,
        kernel_size: int = 17,
        dropout: float = 0.1,
        drop_path: float = 0.1,
        scale: AttentionScale = "head_dim",
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            SqueezeformerBlock(
                channels, heads, kernel_size, dropout=dropout, drop_path=drop_path, scale=scale
            )
            for _ in range(num_layers)
        )
        self.register_buffer("slopes", alibi_slopes(heads), persistent=False)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, position: Tensor | None = None
    ) -> Tensor:
        if position is None:
            position = torch.arange(x.size(1), device=x.device)
        bias = alibi_bias(self.slopes, position.to(self.slopes.dtype))
        for block in self.blocks:
            x = block(x, mask, bias)
        return x
