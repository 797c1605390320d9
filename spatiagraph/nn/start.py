"""``ProfileStart``: any cell encoder, started from components of genes and statistics of images."""

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.image_statistics import ImageStatistics
from spatiagraph.nn.token_cell import CellStreams, TokenCellEncoder, in_chunks


class ProfileStart(Configurable):
    r"""Cell encoder whose embedding starts from linear maps of the whole profile and of the crop.

    .. math::
        \mathbf{z} = \mathrm{profile}(\mathbf{x}) + \boldsymbol\gamma \odot
        \mathrm{encoder}(\mathbf{x}, \mathrm{image}), \qquad
        \boldsymbol\gamma = 0 \text{ at the start},

    so that training starts from principal components and not from noise; with an
    ``image_profile``, a linear map of image statistics joins them in the same way, through a gate
    that starts at zero beside a gene profile and at one without.

    Args:
        encoder: The encoder, such as :class:`~spatiagraph.nn.TokenCellEncoder`.
        profile: Encoder of the whole profile, ``(x, gene_mask, depth) → [N, D]``, or ``None``.
        image_profile: Encoder of statistics of the crop, ``(image) → [N, D]``, or ``None``.

    Shapes:
        As those of ``encoder``.

    Raises:
        ValueError: If there is nothing to start from.
    """

    def __init__(
        self,
        encoder: TokenCellEncoder,
        profile: GeneEncoder | None = None,
        image_profile: ImageStatistics | None = None,
    ):
        super().__init__()
        if profile is None and image_profile is None:
            raise ValueError("Expected 'profile' or 'image_profile' to start from, got neither")
        self.encoder = encoder
        self.profile = profile
        self.image_profile = image_profile
        self.gate = nn.Parameter(torch.zeros(encoder.channels))
        open_gate = torch.full((encoder.channels,), float(profile is None))
        self.image_gate = None if image_profile is None else nn.Parameter(open_gate)

    @property
    def channels(self) -> int:
        """Size of the embedding, :math:`D`."""
        return self.encoder.channels

    @property
    def genes(self) -> nn.Module | None:
        """Encoder of gene tokens, if genes are read."""
        return self.encoder.genes

    @property
    def image(self) -> nn.Module | None:
        """Encoder of image tokens, if images are read."""
        return self.encoder.image

    @property
    def reads_window(self) -> bool:
        """True if the image encoder reads the size of the window of each crop."""
        return self.encoder.reads_window

    def forward(
        self,
        x: Tensor | None = None,
        image: Tensor | None = None,
        *,
        gene_mask: Tensor | None = None,
        depth: Tensor | None = None,
        gene_present: Tensor | None = None,
        image_mask: Tensor | None = None,
        window_um: Tensor | None = None,
        chunk_size: int = 512,
    ) -> Tensor:
        return in_chunks(
            lambda **given: self.streams(**given).cell,
            self.encoder.num_cells(x, image),
            chunk_size,
            x=x,
            image=image,
            gene_mask=gene_mask,
            depth=depth,
            gene_present=gene_present,
            image_mask=image_mask,
            window_um=window_um,
        )

    def streams(
        self,
        x: Tensor | None = None,
        image: Tensor | None = None,
        *,
        gene_mask: Tensor | None = None,
        depth: Tensor | None = None,
        gene_present: Tensor | None = None,
        image_mask: Tensor | None = None,
        window_um: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> CellStreams:
        """Streams of the encoder, with the embedding started; arguments as of the encoder."""
        depth = x.sum(1) if depth is None and x is not None else depth
        streams = self.encoder.streams(
            x,
            image,
            gene_mask=gene_mask,
            depth=depth,
            gene_present=gene_present,
            image_mask=image_mask,
            window_um=window_um,
            generator=generator,
        )
        cell = self.gate * streams.cell
        if self.profile is not None and x is not None:
            cell = cell + _where(gene_present, self.profile(x, gene_mask, depth))
        if self.image_profile is not None and image is not None:
            shown = image if image_mask is None else _blank(image, image_mask)
            cell = cell + _where(image_mask, self.image_gate * self.image_profile(shown))
        return streams._replace(cell=cell)

    def decode(self, streams: CellStreams) -> Tensor:
        """Gene tokens from the cell tokens alone, see :meth:`TokenCellEncoder.decode`."""
        return self.encoder.decode(streams)


def _where(present: Tensor | None, h: Tensor) -> Tensor:
    return h if present is None else h * present.unsqueeze(1)


def _blank(image: Tensor, present: Tensor) -> Tensor:
    return image.masked_fill(~present[:, None, None, None], 0)
