"""Encoder of the mean expression of a niche: genes → tokens that attend to each other.

Shape letters: ``N`` niches, ``G`` genes, ``T`` tokens, ``W`` their width inside, ``D``
channels.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import pad

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.token_transformer import TokenTransformerLayer


class NicheGeneEncoder(Configurable):
    """MLP of genes, a transformer on its tokens, and an MLP of each token.

    The trainable gene encoder of `ST-Align <https://arxiv.org/abs/2411.16793>`_: genes pass a
    bottleneck, come back as ``T`` tokens of :math:`W = G / T` features and see each other. The
    number of genes is that of the data; it is padded with zeros to a multiple of ``T``.

    Args:
        num_genes: Genes, :math:`G`.
        channels: Size of the output tokens, :math:`D`.
        num_tokens: Tokens, :math:`T`.
        hidden_channels: Widths of the bottleneck.
        token_channels: :math:`W`; as many as genes come to each token when ``None``.
        num_layers: Layers of the transformer.
        heads: Attention heads.
        head_channels: Size of each head.
        mlp_channels: Width of the MLPs of the transformer.
        dropout: Dropout of the transformer.

    Shapes:
        - **x**: log-normalised expression, ``[N, G]``
        - **output**: ``[N, T, D]``

    Raises:
        ValueError: If the genes are not as many.
    """

    def __init__(
        self,
        num_genes: int,
        channels: int = 512,
        *,
        num_tokens: int = 8,
        hidden_channels: Sequence[int] = (1024, 512),
        token_channels: int | None = None,
        num_layers: int = 6,
        heads: int = 8,
        head_channels: int = 64,
        mlp_channels: int = 1024,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.num_genes = num_genes
        self.num_tokens = num_tokens
        self.padding = -num_genes % num_tokens
        padded = num_genes + self.padding
        width = padded // num_tokens if token_channels is None else token_channels
        sizes = [padded, *hidden_channels, num_tokens * width]
        layers: list[nn.Module] = []
        for first, second in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(first, second), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.layers = nn.ModuleList(
            TokenTransformerLayer(
                width,
                heads,
                dropout=dropout,
                head_channels=head_channels,
                hidden_channels=mlp_channels,
                qkv_bias=False,
            )
            for _ in range(num_layers)
        )
        half = max(1, channels // 2)
        self.out = nn.Sequential(nn.Linear(width, half), nn.ReLU(), nn.Linear(half, channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.size(1) != self.num_genes:
            raise ValueError(f"Expected expression [N, {self.num_genes}], got {list(x.shape)}")
        h = self.mlp(pad(x, (0, self.padding))).unflatten(1, (self.num_tokens, -1))
        for layer in self.layers:
            h = layer(h)
        return self.out(h)
