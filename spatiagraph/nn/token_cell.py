"""Token cell encoder: joint attention over genes and image patches, then pooling.

Shape letters: ``N`` cells, ``G`` genes, ``L`` gene tokens, ``T`` cell tokens, ``S`` image tokens,
``d`` channels of genes, ``I`` of images, ``D`` of the embedding.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph.nn.binned_genes import BinnedGeneEncoder
from spatiagraph.nn.cell_graph import Cells
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.fusion import scatter_present
from spatiagraph.nn.gene_sampling import SampledGenes, sample_genes
from spatiagraph.nn.gene_tokens import GeneTokens
from spatiagraph.nn.image import ImageTokens
from spatiagraph.nn.protocols import GeneTokenEncoding, ImageTokenEncoding
from spatiagraph.nn.token_fusion import TokenFusion
from spatiagraph.nn.value_bins import quantile_bins

Tokenizer = Literal["counts", "bins"]
HideValues = Callable[[SampledGenes], tuple[Tensor, Tensor]]
"""Of which sampled genes the bin is hidden, and of which but the name is known, ``[N, L]`` each."""


class CellStreams(NamedTuple):
    """Token streams of each cell, and which of its modalities are present.

    Attributes:
        cell: Cell embedding, ``[N, D]``.
        genes: Gene stream after fusion, cell tokens first, ``[N, T + L, d]``.
        image: Image stream after fusion, class token first, ``[N, S, I]``.
        sampled: Genes behind the gene tokens.
        gene_tokens: Gene stream before fusion.
        image_tokens: Image stream before fusion, with the patches it shows.
        gene_present: Cells that have genes, ``[N]``.
        image_mask: Cells that have an image, ``[N]``.
    """

    cell: Tensor
    genes: Tensor | None
    image: Tensor | None
    sampled: SampledGenes | None
    gene_tokens: GeneTokens | None
    image_tokens: ImageTokens | None
    gene_present: Tensor | None
    image_mask: Tensor | None


class TokenCellEncoder(Configurable):
    r"""Gene tokens and image tokens, fused by cross-attention: the cell level of SPATIA.

    Fits wherever a :class:`~spatiagraph.nn.CellEncoder` does. What is kept of the streams beside
    the embedding (:meth:`streams`) feeds decoders and losses on tokens.

    Args:
        channels: Size of the embedding, :math:`D`.
        genes: Encoder of gene tokens (:class:`~spatiagraph.nn.protocols.GeneTokenEncoding`), a
            :class:`~spatiagraph.nn.GeneTokenEncoder` or a
            :class:`~spatiagraph.nn.BinnedGeneEncoder`; ``None`` reads images alone.
        image: Encoder of image tokens (:class:`~spatiagraph.nn.protocols.ImageTokenEncoding`): a
            :class:`~spatiagraph.nn.MaskedImageEncoder`, or any
            :class:`~spatiagraph.nn.ImageEncoder` with ``tokens=True``, CNNs included, whose mean
            stands for the class token; ``None`` reads genes alone.
        fusion: Fusion of both; needed with an image encoder.
        num_tokens: Genes of each cell that become tokens; ``None`` for all measured ones. In
            training a random draw, in ``eval()`` always the same.
        tokenizer: ``"counts"``, zeros included, or ``"bins"``: expressed genes alone, each as the
            quantile bin of its count in the cell (51 of them, as in scGPT), for a
            :class:`~spatiagraph.nn.BinnedGeneEncoder`, or a gene encoder of counts built with
            ``normalization="none"``.

    Shapes:
        - **cells**: :class:`Cells`; their ``depth`` is the sum of ``x`` when not given
        - **chunk_size**: cells encoded at once without gradients: bounds memory, changes no result
        - **output**: ``[N, D]``

    Raises:
        ValueError: If there is no encoder at all, an image encoder without fusion, or the
            tokenizer is unknown or not that of the gene encoder.
    """

    genes: GeneTokenEncoding | None
    image: ImageTokenEncoding | None
    order: Tensor

    def __init__(
        self,
        channels: int,
        genes: GeneTokenEncoding | None = None,
        image: ImageTokenEncoding | None = None,
        fusion: TokenFusion | None = None,
        *,
        num_tokens: int | None = 1000,
        tokenizer: Tokenizer = "counts",
    ):
        super().__init__()
        if genes is None and image is None:
            raise ValueError("Expected a gene encoder, an image encoder or both, got neither")
        if image is not None and fusion is None:
            raise ValueError("Expected a 'fusion' to go with the image encoder, got None")
        if tokenizer not in ("counts", "bins"):
            raise ValueError(f"Expected 'tokenizer' counts or bins, got {tokenizer!r}")
        if isinstance(genes, BinnedGeneEncoder) and tokenizer != "bins":
            raise ValueError("Expected tokenizer='bins' with a BinnedGeneEncoder, got 'counts'")
        self.channels = channels
        self.genes = genes
        self.image = image
        self.fusion = fusion
        self.num_tokens = num_tokens
        self.tokenizer = tokenizer
        self.project = nn.Linear(genes.channels, channels) if genes and fusion is None else None
        if genes is not None:
            generator = torch.Generator().manual_seed(0)
            order = torch.randperm(genes.num_genes, generator=generator).float()
            self.register_buffer("order", order, persistent=False)

    def forward(self, cells: Cells, chunk_size: int = 512) -> Tensor:
        return in_chunks(
            lambda some: self.streams(some).cell, cells, self.num_cells(cells), chunk_size
        )

    @property
    def reads_window(self) -> bool:
        """True if the image encoder reads the size of the window of each crop."""
        return self.image is not None and self.image.reads_window

    def streams(
        self,
        cells: Cells,
        generator: torch.Generator | None = None,
        *,
        hide: HideValues | None = None,
    ) -> CellStreams:
        """Everything about each cell.

        Args:
            cells: Measurements.
            generator: Of the draw of genes and of patches.
            hide: Function of the sampled genes that says of which the bin is hidden, and of which
                but the name is known, ``[N, L]`` each: for objectives of a
                :class:`~spatiagraph.nn.BinnedGeneEncoder`.
        """
        self.num_cells(cells)
        sampled = gene_tokens = image_tokens = None
        x, image, present = cells.x, cells.image, cells.gene_present
        if self.genes is not None and x is not None:
            depth = x.sum(1) if cells.depth is None else cells.depth
            # expressed genes are drawn first: a count that is hidden must not tell by being drawn
            hidden = cells.value_mask
            shown = x if hidden is None else x.masked_fill(hidden, 0)
            sampled = self.sample(shown, cells.gene_mask, generator)
            values = self.values(sampled)
            masked = None if hidden is None else hidden.gather(1, sampled.ids)
            if hide is not None and isinstance(self.genes, BinnedGeneEncoder):
                masked, named = hide(sampled)
                gene_tokens = self.genes(
                    sampled.ids, values, None, sampled.pad, masked, named=named
                )
            else:
                gene_tokens = self.genes(
                    sampled.ids, values, depth, pad=sampled.pad, value_mask=masked
                )
        if self.image is not None and image is not None:
            image_tokens = _tokens_of_present(
                self.image, image, cells.image_mask, cells.window_um, generator
            )
        cell, genes, tokens = self._fuse(gene_tokens, image_tokens, present, cells.image_mask)
        return CellStreams(
            cell, genes, tokens, sampled, gene_tokens, image_tokens, present, cells.image_mask
        )

    def decode(self, streams: CellStreams) -> Tensor:
        """Gene stream ``[N, T + L, d]`` from the cell tokens: which genes, but not how much.

        The bottleneck of SPATIA, a second pass: the gene encoder gets the fused cell tokens of the
        first and the identities of the genes, and the image is fused in again.
        """
        sampled, first = streams.sampled, streams.gene_tokens
        if self.genes is None or sampled is None or first is None or streams.genes is None:
            raise ValueError("Expected streams with genes, got none: the encoder read images alone")
        tokens = self.genes(
            sampled.ids,
            None,
            pad=sampled.pad,
            cell_tokens=streams.genes[:, : first.num_cell_tokens],
        )
        _, genes, _ = self._fuse(
            tokens, streams.image_tokens, streams.gene_present, streams.image_mask
        )
        assert genes is not None
        return genes

    def sample(
        self, x: Tensor, gene_mask: Tensor | None, generator: torch.Generator | None = None
    ) -> SampledGenes:
        """Genes of each cell that become tokens: sampled in training, fixed otherwise."""
        if self.genes is None:
            raise ValueError("Expected an encoder of genes, this one reads images alone")
        if x.size(1) != self.genes.num_genes:
            raise ValueError(
                f"Expected {self.genes.num_genes} genes as in the model's panel, got {x.size(1)}; "
                "align the slide with GenePanel.counts"
            )
        return sample_genes(
            x,
            gene_mask,
            length=self.num_tokens,
            fill_zeros=self.tokenizer == "counts",
            order=None if self.training else self.order,
            generator=generator,
        )

    def values(self, sampled: SampledGenes) -> Tensor:
        """Values of sampled genes as the gene encoder reads them: counts, or bins, ``[N, L]``."""
        if self.tokenizer == "counts":
            return sampled.values
        scale = None
        if isinstance(self.genes, BinnedGeneEncoder):
            scale = self.genes.gene_scale[sampled.ids]
        return quantile_bins(sampled.values, self.num_bins, scale=scale, pad=sampled.pad)

    @property
    def num_bins(self) -> int:
        """Number of bins, that of zeros included."""
        return self.genes.num_bins if isinstance(self.genes, BinnedGeneEncoder) else 51

    def _fuse(
        self,
        genes: GeneTokens | None,
        image: ImageTokens | None,
        gene_present: Tensor | None,
        image_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Cell embedding, gene stream and image stream."""
        if self.fusion is not None:
            fused = self.fusion(
                None if genes is None else genes.tokens,
                None if image is None else image.tokens,
                gene_pad=None if genes is None else genes.pad,
                gene_present=gene_present,
                image_mask=image_mask if image is not None else None,
            )
            return (
                fused.cell,
                None if genes is None else fused.genes,
                None if image is None else fused.image,
            )
        if genes is None or self.project is None:
            raise ValueError("Expected counts 'x': the model reads genes alone, got None")
        return self.project(genes.cell_tokens.mean(1)), genes.tokens, None

    def num_cells(self, cells: Cells) -> int:
        """Number of cells given, :math:`N`; refuses input that the encoder does not read."""
        usable = [
            given
            for given, encoder in ((cells.x, self.genes), (cells.image, self.image))
            if given is not None and encoder is not None
        ]
        if not usable:
            reads = [n for n, m in (("counts 'x'", self.genes), ("an 'image'", self.image)) if m]
            raise ValueError(f"Expected {' or '.join(reads)} for the cells, got neither")
        return len(usable[0])


def in_chunks(
    encode: Callable[[Cells], Tensor], cells: Cells, num_cells: int, chunk_size: int
) -> Tensor:
    """Encode cells, a chunk at a time where no gradient is needed.

    Args:
        encode: Encoder of some cells.
        cells: All of them.
        num_cells: Number of cells, :math:`N`.
        chunk_size: Cells of a chunk.
    """
    if torch.is_grad_enabled() or num_cells <= chunk_size:
        return encode(cells)
    starts = range(0, num_cells, chunk_size)
    return torch.cat([encode(cells.take(slice(start, start + chunk_size))) for start in starts])


def _tokens_of_present(
    encoder: ImageTokenEncoding,
    image: Tensor,
    present: Tensor | None,
    window_um: Tensor | None,
    generator: torch.Generator | None,
) -> ImageTokens | None:
    """Tokens of the crops that exist; zeros, for the fusion to replace, elsewhere."""
    if present is None or bool(present.all()):
        return encoder.image_tokens(image, window_um, generator=generator)
    if not bool(present.any()):
        return None
    window_um = None if window_um is None else window_um[present]
    found = encoder.image_tokens(image[present], window_um, generator=generator)
    return ImageTokens(*(scatter_present(tokens, present) for tokens in found))
