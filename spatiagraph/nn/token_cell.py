"""Cell encoder on tokens: genes and image patches of a cell see each other before they are pooled.

Shape letters: ``N`` cells, ``G`` genes, ``L`` gene tokens, ``T`` cell tokens, ``S`` image tokens,
``d`` channels of genes, ``I`` of images, ``D`` of the embedding.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.fusion import scatter_present
from spatiagraph.nn.gene_sampling import SampledGenes, sample_genes
from spatiagraph.nn.gene_tokens import GeneTokenEncoder, GeneTokens
from spatiagraph.nn.masked_image import ImageTokens
from spatiagraph.nn.token_fusion import TokenFusion

Tokenizer = Literal["counts", "bins"]


class CellStreams(NamedTuple):
    """All a cell encoder knows of each cell.

    Attributes:
        cell: Cell embedding, ``[N, D]``.
        genes: Gene stream after fusion, cell tokens first, ``[N, T + L, d]``.
        image: Image stream after fusion, class token first, ``[N, S, I]``.
        sampled: Genes behind the gene tokens.
        gene_tokens: Gene stream before fusion.
        image_tokens: Image stream before fusion, with the patches it shows.
        gene_present: Cells that have genes, ``[N]``.
        image_present: Cells that have an image, ``[N]``.
    """

    cell: Tensor
    genes: Tensor | None
    image: Tensor | None
    sampled: SampledGenes | None
    gene_tokens: GeneTokens | None
    image_tokens: ImageTokens | None
    gene_present: Tensor | None
    image_present: Tensor | None


class TokenCellEncoder(Configurable):
    r"""Gene tokens and image tokens, fused by cross-attention: the cell level of SPATIA.

    Fits wherever a :class:`~spatiagraph.nn.CellEncoder` does. What is kept of the streams beside
    the embedding (:meth:`streams`) feeds decoders and losses on tokens.

    Args:
        channels: Size of the embedding, :math:`D`.
        genes: Encoder of gene tokens; ``None`` reads images alone.
        image: Encoder of image tokens: a :class:`~spatiagraph.nn.MaskedImageEncoder`, or any
            :class:`~spatiagraph.nn.ImageEncoder` with ``tokens=True``, CNNs included, whose mean
            stands for the class token; ``None`` reads genes alone.
        fusion: Fusion of both; needed with an image encoder.
        num_tokens: Genes of each cell that become tokens; ``None`` for all measured ones. In
            training a random draw, in ``eval()`` always the same.
        tokenizer: ``"counts"``, zeros included, or ``"bins"``: expressed genes alone, each as the
            quantile bin of its count in the cell (51 of them, as in scGPT), for a gene encoder
            built with ``normalization="none"``.

    Shapes:
        - **x**: counts, ``[N, G]``
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``
        - **gene_mask**: genes that may be seen, ``[G]`` or ``[N, G]``
        - **depth**: total counts over all genes, ``[N]``; the sum of ``x`` when not given
        - **gene_present**, **image_mask**: cells with that modality, ``[N]``
        - **window_um**: side of the window of each crop, ``[N]``, for image encoders that read it
        - **chunk_size**: cells encoded at once without gradients: bounds memory, changes no result
        - **output**: ``[N, D]``

    Raises:
        ValueError: If there is no encoder at all, an image encoder without fusion, or the
            tokenizer is unknown.
    """

    genes: Any
    image: Any
    order: Tensor

    def __init__(
        self,
        channels: int,
        genes: GeneTokenEncoder | None = None,
        image: nn.Module | None = None,
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
            self.num_cells(x, image),
            chunk_size,
            x=x,
            image=image,
            gene_mask=gene_mask,
            depth=depth,
            gene_present=gene_present,
            image_mask=image_mask,
            window_um=window_um,
        )

    @property
    def reads_window(self) -> bool:
        """True if the image encoder reads the size of the window of each crop."""
        return getattr(self.image, "window", None) is not None

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
        """Everything about each cell; arguments as for ``forward``.

        Args:
            x: Counts, ``[N, G]``.
            image: Crops in ``[0, 1]``, ``[N, C, H, W]``.
            gene_mask: Genes that may be seen, ``[G]`` or ``[N, G]``.
            depth: Total counts over all genes, ``[N]``.
            gene_present: Cells with genes, ``[N]``.
            image_mask: Cells with an image, ``[N]``.
            window_um: Side of the window of each crop in µm, ``[N]``.
            generator: Of the draw of genes and of patches.
        """
        self.num_cells(x, image)
        sampled = gene_tokens = image_tokens = None
        if self.genes is not None and x is not None:
            depth = x.sum(1) if depth is None else depth
            sampled = self.sample(x, gene_mask, generator)
            gene_tokens = self.genes(sampled.ids, self._values(x, sampled), depth, pad=sampled.pad)
        if self.image is not None and image is not None:
            image_tokens = self._encode_present(image, image_mask, window_um, generator)
        cell, genes, tokens = self._fuse(gene_tokens, image_tokens, gene_present, image_mask)
        return CellStreams(
            cell, genes, tokens, sampled, gene_tokens, image_tokens, gene_present, image_mask
        )

    def decode(self, streams: CellStreams) -> Tensor:
        """Gene tokens ``[N, L, d]`` from the cell tokens alone: which genes, but not how much.

        The bottleneck of SPATIA: the gene encoder gets the fused cell tokens of a first pass and
        the identities of the genes, and the image is fused in again.
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
            tokens, streams.image_tokens, streams.gene_present, streams.image_present
        )
        assert genes is not None
        return genes[:, first.num_cell_tokens :]

    def sample(
        self, x: Tensor, gene_mask: Tensor | None, generator: torch.Generator | None = None
    ) -> SampledGenes:
        """Genes of each cell that become tokens: drawn in training, fixed otherwise."""
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

    def _values(self, x: Tensor, sampled: SampledGenes) -> Tensor:
        if self.tokenizer == "counts":
            return sampled.values
        from scipy.sparse import csr_matrix

        from spatiagraph.data.tokens import bin_tokens

        bins = bin_tokens(csr_matrix(sampled.values.detach().cpu().numpy()))
        return torch.from_numpy(bins.toarray()).to(x)

    def _fuse(
        self,
        genes: GeneTokens | None,
        image: ImageTokens | None,
        gene_present: Tensor | None,
        image_present: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Cell embedding, gene stream and image stream."""
        if self.fusion is not None:
            fused = self.fusion(
                None if genes is None else genes.tokens,
                None if image is None else image.tokens,
                gene_pad=None if genes is None else genes.pad,
                gene_present=gene_present,
                image_present=image_present if image is not None else None,
            )
            return (
                fused.cell,
                None if genes is None else fused.genes,
                None if image is None else fused.image,
            )
        if genes is None or self.project is None:
            raise ValueError("Expected counts 'x': the model reads genes alone, got None")
        return self.project(genes.cell_tokens.mean(1)), genes.tokens, None

    def _encode_present(
        self,
        image: Tensor,
        present: Tensor | None,
        window_um: Tensor | None,
        generator: torch.Generator | None,
    ) -> ImageTokens | None:
        """Tokens of the crops that exist; zeros, for the fusion to replace, elsewhere."""
        some = present is not None and not bool(present.all())
        if some and not bool(present.any()):  # type: ignore[union-attr]
            return None
        found = self._encode(
            image[present] if some else image,
            window_um[present] if some and window_um is not None else window_um,
            generator,
        )
        if not some or present is None:
            return found
        return ImageTokens(*(scatter_present(t, present) for t in found))

    def _encode(
        self, image: Tensor, window_um: Tensor | None, generator: torch.Generator | None
    ) -> ImageTokens:
        if getattr(self.image, "window", None) is not None:
            return self.image(image, window_um, generator=generator)
        if hasattr(self.image, "mask_ratio"):
            return self.image(image, generator=generator)
        tokens = self.image(image)
        if tokens.dim() != 3:
            raise ValueError(
                "Expected an image encoder that returns tokens [N, S, I], got "
                f"{list(tokens.shape)}: build it with tokens=True"
            )
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        patches = torch.arange(tokens.size(1) - 1, device=tokens.device).expand(len(tokens), -1)
        return ImageTokens(tokens, patches, torch.zeros_like(patches, dtype=torch.bool))

    def num_cells(self, x: Tensor | None, image: Tensor | None) -> int:
        """Number of cells given, :math:`N`; refuses input that the encoder does not read."""
        usable = [
            given
            for given, encoder in ((x, self.genes), (image, self.image))
            if given is not None and encoder is not None
        ]
        if not usable:
            reads = [n for n, m in (("counts 'x'", self.genes), ("an 'image'", self.image)) if m]
            raise ValueError(f"Expected {' or '.join(reads)} for the cells, got neither")
        return len(usable[0])


def in_chunks(
    encode: Callable[..., Tensor], num_cells: int, chunk_size: int, **given: Tensor | None
) -> Tensor:
    """Encode cells, a chunk at a time where no gradient is asked for.

    Args:
        encode: Function of ``given``.
        num_cells: Number of cells, :math:`N`.
        chunk_size: Cells of a chunk.
        **given: Arguments with one row per cell each; ``gene_mask`` may be of all cells.
    """
    if torch.is_grad_enabled() or num_cells <= chunk_size:
        return encode(**given)
    mask = given.get("gene_mask")
    if mask is not None:
        given["gene_mask"] = mask.expand(num_cells, -1)
    parts = []
    for start in range(0, num_cells, chunk_size):
        rows = slice(start, start + chunk_size)
        parts.append(encode(**{name: t if t is None else t[rows] for name, t in given.items()}))
    return torch.cat(parts)
