r"""Encoding of the genomic position of a gene, added to its token.

The index along the genome, shared by close neighbours, is
:func:`spatiagraph.data.tokens.location_index`.
"""

import math

import torch
from torch import Tensor

from spatiagraph.nn.config import Configurable


def sinusoidal_encoding(index: Tensor, channels: int, *, base: float = 10_000.0) -> Tensor:
    r"""Fixed sinusoidal code of an integer index.

    .. math::
        [\sin(i\,b^{-2k/D}), \cos(i\,b^{-2k/D})], \qquad k = 0, \ldots, D/2 - 1,

    as in `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_.

    Args:
        index: Indices, ``[...]``.
        channels: Width :math:`D`, even.
        base: :math:`b`.

    Returns:
        ``[..., D]`` float32: all sines, then all cosines.

    Raises:
        ValueError: If ``channels`` is not a positive even number.

    Examples:
        >>> sinusoidal_encoding(torch.tensor([0, 3]), 4)
        tensor([[ 0.0000,  0.0000,  1.0000,  1.0000],
                [ 0.1411,  0.0300, -0.9900,  0.9996]])
    """
    if channels < 2 or channels % 2:
        raise ValueError(f"Expected an even number of 'channels', got {channels}")
    step = torch.arange(0, channels, 2, device=index.device, dtype=torch.float32)
    phase = index.unsqueeze(-1) * torch.exp(step * (-math.log(base) / channels))
    return torch.cat([phase.sin(), phase.cos()], -1)


class GenomicPosition(Configurable):
    """Code of where each gene lies on the genome; genes that lie close together share one.

    A gene whose position is not known has the code zero. At the start that is every gene:
    :meth:`locate` sets the positions, and they are saved with the weights.

    Args:
        num_genes: Panel size, :math:`G`.
        channels: Size of the code, :math:`D`; even.

    Shapes:
        - **gene_ids**: rows of the panel, ``[...]``
        - **output**: ``[..., D]`` float32
    """

    location: Tensor

    def __init__(self, num_genes: int, channels: int):
        super().__init__()
        self.channels = channels
        self.register_buffer("location", torch.full((num_genes,), -1))

    def locate(self, location: Tensor) -> None:
        """Set the index of each gene along the genome.

        Args:
            location: Index ``[G]``, as :func:`~spatiagraph.data.tokens.location_index` counts;
                -1 where it is not known.

        Raises:
            ValueError: If there is not one index per gene.
        """
        if location.shape != self.location.shape:
            raise ValueError(
                f"Expected a 'location' for each of {len(self.location)} genes, got shape "
                f"{list(location.shape)}"
            )
        self.location.copy_(location)

    def forward(self, gene_ids: Tensor) -> Tensor:
        location = self.location[gene_ids]
        code = sinusoidal_encoding(location, self.channels)
        return code * (location >= 0).unsqueeze(-1)
