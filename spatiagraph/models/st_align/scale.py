"""One of the two scales of ST-Align: an image and a profile, as tokens, fused and projected.

Shape letters: ``N`` spots, ``T`` tokens, ``D`` channels, ``P`` size of what is compared.
"""

from typing import Any, NamedTuple

from torch import Tensor

from spatiagraph.nn.abfn import ABFN, AttentionMaps, ProjectionHead
from spatiagraph.nn.canonical import CanonicalStart
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.vector_tokens import VectorTokenizer


class Views(NamedTuple):
    """Views of some spots; ``None`` where there is none.

    Attributes:
        spot_image: Crops of spots in ``[0, 1]``, ``[N, C, H, W]``.
        spot_genes: Profiles of spots, as a frozen network sees them, ``[N, F]``.
        niche_image: Crops of niches ``[N, C, H, W]``, or frozen features of them ``[N, F]``.
        niche_genes: Mean log-normalised expression of niches, ``[N, G]``.
        spot_statistics: Features of the crops of spots that a start reads, ``[N, S]``.
        niche_statistics: Those of the crops of niches, ``[N, S]``.
    """

    spot_image: Tensor | None = None
    spot_genes: Tensor | None = None
    niche_image: Tensor | None = None
    niche_genes: Tensor | None = None
    spot_statistics: Tensor | None = None
    niche_statistics: Tensor | None = None


class Alignment(NamedTuple):
    """Vectors in which spots are compared, ``[N, P]`` each; ``None`` where a view is missing.

    Attributes:
        spot_img: Image of the spot.
        spot_gene: Genes of the spot.
        niche_img: Image of the niche.
        niche_gene: Genes of the niche.
        spot: Both of the spot, fused.
        niche: Both of the niche, fused.
    """

    spot_img: Tensor | None = None
    spot_gene: Tensor | None = None
    niche_img: Tensor | None = None
    niche_gene: Tensor | None = None
    spot: Tensor | None = None
    niche: Tensor | None = None

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """Spots and niches: fused, or of the only modality there is.

        Raises:
            ValueError: If there is none.
        """
        for spot, niche in (
            (self.spot, self.niche),
            (self.spot_img, self.niche_img),
            (self.spot_gene, self.niche_gene),
        ):
            if spot is not None and niche is not None:
                return spot, niche
        raise ValueError("Expected a slide with an image, with counts, or with both, got neither")


class Branch(Configurable):
    """An encoder of a view and a tokenizer of what it returns.

    Args:
        encoder: Images → ``[N, F]``; ``None`` for views that are vectors.
        tokenizer: ``[N, F]`` → ``[N, T, D]``.

    Shapes:
        - **view**: ``[N, C, H, W]``, or ``[N, F]``, which passes the encoder by
        - **output**: ``[N, T, D]``
    """

    def __init__(self, encoder: Any, tokenizer: Any):
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer

    def forward(self, view: Tensor) -> Tensor:
        features = view if view.dim() == 2 else self.encoder(view)
        # frozen features come on any scale, tokens do not
        return self.tokenizer(features / features.square().mean(1, keepdim=True).sqrt().clamp(1e-6))


class Scale(Configurable):
    """Spots, or niches: branches of image and genes, their fusion and three projection heads.

    Args:
        image: Images → tokens, such as a :class:`Branch`.
        genes: Profiles → tokens.
        fusion: Fusion of both.
        heads: Heads of the image, of the genes, and of both.
        start: Linear maps that image, genes and both start from, beside their heads; ``None`` for
            heads alone.

    Shapes:
        - **image**: as its branch takes it
        - **genes**: as its branch takes them
        - **statistics**: features of the images that ``start`` reads, ``[N, S]``
        - **output**: image, genes and both, ``[N, P]`` each; ``None`` for what is missing

    Raises:
        ValueError: If there are not three heads.
    """

    def __init__(
        self,
        image: Any,
        genes: Any,
        fusion: ABFN,
        heads: list[ProjectionHead],
        start: CanonicalStart | None = None,
    ):
        super().__init__()
        if len(heads) != 3:
            raise ValueError(f"Expected heads of image, genes and both, got {len(heads)}")
        self.image = image
        self.genes = genes
        self.fusion = fusion
        self.image_head, self.gene_head, self.head = heads
        self.start = start

    def forward(
        self, image: Tensor | None, genes: Tensor | None, statistics: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        image_tokens = None if image is None else self.image(image)
        gene_tokens = None if genes is None else self.genes(genes)
        both = None
        if image_tokens is not None and gene_tokens is not None and genes is not None:
            both = self.fuse(image_tokens, gene_tokens, genes, statistics)
        return (
            None if image_tokens is None else self.project_image(image_tokens, statistics),
            None
            if gene_tokens is None or genes is None
            else self.project_genes(gene_tokens, genes),
            both,
        )

    def project_image(self, tokens: Tensor, statistics: Tensor | None = None) -> Tensor:
        """Vector of the image, ``[N, P]``.

        Args:
            tokens: Tokens of the image, ``[N, T, D]``.
            statistics: Features of the image that the start reads.

        Raises:
            ValueError: If there are none, and there is a start.
        """
        learned = self.image_head(tokens)
        if self.start is None:
            return learned
        return self.start(_known(statistics), learned, "image")

    def project_genes(self, tokens: Tensor, genes: Tensor) -> Tensor:
        """Vector of the genes, ``[N, P]``.

        Args:
            tokens: Tokens of the genes, ``[N, T, D]``.
            genes: What they were made of.
        """
        learned = self.gene_head(tokens)
        return learned if self.start is None else self.start(genes, learned, "genes")

    def fuse(
        self,
        image_tokens: Tensor,
        gene_tokens: Tensor,
        genes: Tensor,
        statistics: Tensor | None = None,
    ) -> Tensor:
        """Vector of both, ``[N, P]``.

        Args:
            image_tokens: Tokens of the image, ``[N, T, D]``.
            gene_tokens: Tokens of the genes, ``[N, T, D]``.
            genes: What they were made of.
            statistics: Features of the image that the start reads.

        Raises:
            ValueError: If there are none, and there is a start.
        """
        learned = self.head(self.fusion(image_tokens, gene_tokens))
        if self.start is None:
            return learned
        return self.start.fuse(_known(statistics), genes, learned)

    @property
    def profile_channels(self) -> int | None:
        """Size of the profiles it reads, where a part of this package says."""
        if self.start is not None:
            return self.start.genes.in_features
        tokenizer = self.genes.tokenizer if isinstance(self.genes, Branch) else None
        return tokenizer.in_channels if isinstance(tokenizer, VectorTokenizer) else None

    def maps(self, image: Tensor, genes: Tensor) -> AttentionMaps:
        """Attention of image tokens to gene tokens, and back.

        Args:
            image: As its branch takes it.
            genes: As its branch takes them.
        """
        return self.fusion.maps(self.image(image), self.genes(genes))


def _known(statistics: Tensor | None) -> Tensor:
    """Statistics of the images that a start reads."""
    if statistics is None:
        raise ValueError(
            "Expected statistics of the images, which the model starts from, got none: prepare "
            "slides with model.prepare"
        )
    return statistics
