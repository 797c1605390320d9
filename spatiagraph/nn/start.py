"""``ProfileStart``: any cell encoder, started from components of genes and statistics of images."""

import torch
from torch import Tensor, nn

from spatiagraph.nn.cell_graph import Cells
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.image_statistics import ImageStatistics
from spatiagraph.nn.protocols import GeneTokenEncoding, ImageTokenEncoding
from spatiagraph.nn.token_cell import CellStreams, HideValues, TokenCellEncoder, in_chunks


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
    def genes(self) -> GeneTokenEncoding | None:
        """Encoder of gene tokens, if genes are read."""
        return self.encoder.genes

    @property
    def image(self) -> ImageTokenEncoding | None:
        """Encoder of image tokens, if images are read."""
        return self.encoder.image

    @property
    def reads_window(self) -> bool:
        """True if the image encoder reads the size of the window of each crop."""
        return self.encoder.reads_window

    def forward(self, cells: Cells, chunk_size: int = 512) -> Tensor:
        num_cells = self.encoder.num_cells(cells)
        return in_chunks(lambda some: self.streams(some).cell, cells, num_cells, chunk_size)

    def streams(
        self,
        cells: Cells,
        generator: torch.Generator | None = None,
        *,
        hide: HideValues | None = None,
    ) -> CellStreams:
        """Streams of the encoder, with the embedding started.

        Args:
            cells: Measurements.
            generator: Of the draw of genes and of patches.
            hide: As for the encoder.
        """
        if cells.depth is None and cells.x is not None:
            cells = cells._replace(depth=cells.x.sum(1))
        streams = self.encoder.streams(cells, generator, hide=hide)
        cell = self.gate * streams.cell
        if self.profile is not None and cells.x is not None:
            profile = self.profile(cells.x, cells.counted, cells.depth)
            cell = cell + _where(cells.gene_present, profile)
        if self.image_profile is not None and cells.image is not None:
            mask = cells.image_mask
            shown = cells.image if mask is None else _blank(cells.image, mask)
            cell = cell + _where(mask, self.image_gate * self.image_profile(shown))
        return streams._replace(cell=cell)

    def decode(self, streams: CellStreams) -> Tensor:
        """Gene stream from the cell tokens, see :meth:`TokenCellEncoder.decode`."""
        return self.encoder.decode(streams)


def _where(present: Tensor | None, h: Tensor) -> Tensor:
    return h if present is None else h * present.unsqueeze(1)


def _blank(image: Tensor, present: Tensor) -> Tensor:
    return image.masked_fill(~present[:, None, None, None], 0)
