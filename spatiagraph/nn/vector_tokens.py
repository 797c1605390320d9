"""One vector of each cell as several tokens, for attention to look at.

Shape letters: ``N`` cells, ``F`` features, ``T`` tokens, ``D`` channels.
"""

from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


class VectorTokenizer(Configurable):
    r"""Tokens as linear maps of a vector: :math:`\mathbf{t}_i = \mathbf{W}_i \mathbf{v} + \mathbf{b}_i`.

    Args:
        in_channels: Size of the vector, :math:`F`.
        channels: Size of each token, :math:`D`.
        num_tokens: Tokens, :math:`T`.
        rank: Width of a first linear map to save weights; none when ``None``.

    Shapes:
        - **vector**: ``[N, F]``
        - **output**: ``[N, T, D]``
    """  # noqa: E501

    def __init__(
        self, in_channels: int, channels: int, num_tokens: int = 8, *, rank: int | None = None
    ):
        super().__init__()
        self.in_channels = in_channels
        self.num_tokens = num_tokens
        self.first = nn.Identity() if rank is None else nn.Linear(in_channels, rank)
        width = in_channels if rank is None else rank
        self.linear = nn.Linear(width, num_tokens * channels)

    def forward(self, vector: Tensor) -> Tensor:
        return self.linear(self.first(vector)).unflatten(1, (self.num_tokens, -1))


class ConvTokenizer(Configurable):
    r"""Tokens as channels of a strided convolution over the vector, as `ST-Align
    <https://arxiv.org/abs/2411.16793>`_ was published.

    With a stride of 1 every token is an affine copy of the same vector,
    :math:`\mathbf{t}_i = a_i \mathbf{v} + b_i`, which a norm takes for one direction and a sign:
    :class:`VectorTokenizer` has as many tokens as it says.

    Args:
        num_tokens: Tokens, :math:`T`.
        stride: Neighbouring features that make one of a token; must divide :math:`F`.

    Shapes:
        - **vector**: ``[N, F]``
        - **output**: ``[N, T, F / stride]``

    Raises:
        ValueError: If the stride does not divide the features.
    """  # noqa: D205

    def __init__(self, num_tokens: int = 8, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(1, num_tokens, stride, stride)

    def forward(self, vector: Tensor) -> Tensor:
        if vector.size(1) % self.stride:
            raise ValueError(
                f"Expected features that a stride of {self.stride} divides, got {vector.size(1)}"
            )
        return self.conv(vector.unsqueeze(1))
