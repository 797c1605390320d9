"""One of the two scales of ST-Align: an image and a profile, as tokens, fused and projected.

Shape letters: ``N`` spots, ``T`` tokens, ``D`` channels, ``P`` size of what is compared.
"""

from typing import Any, NamedTuple

from torch import Tensor

from spatiagraph.nn.abfn import ABFN, AttentionMaps, ProjectionHead
from spatiagraph.nn.config import Configurable


class Views(NamedTuple):
    """Views of some spots; ``None`` where there is none.

    Attributes:
        spot_image: Crops of spots in ``[0, 1]``, ``[N, C, H, W]``.
        spot_genes: Profiles of spots, as a frozen network sees them, ``[N, F]``.
        niche_image: Crops of niches ``[N, C, H, W]``, or frozen features of them ``[N, F]``.
        niche_genes: Mean log-normalised expression of niches, ``[N, G]``.
    """

    spot_image: Tensor | None = None
    spot_genes: Tensor | None = None
    niche_image: Tensor | None = None
    niche_genes: Tensor | None = None


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

    Shapes:
        - **image**: as its branch takes it
        - **genes**: as its branch takes them
        - **output**: image, genes and both, ``[N, P]`` each; ``None`` for what is missing

    Raises:
        ValueError: If there are not three heads.
    """

    def __init__(self, image: Any, genes: Any, fusion: ABFN, heads: list[ProjectionHead]):
        super().__init__()
        if len(heads) != 3:
            raise ValueError(f"Expected heads of image, genes and both, got {len(heads)}")
        self.image = image
        self.genes = genes
        self.fusion = fusion
        self.image_head, self.gene_head, self.head = heads

    def forward(
        self, image: Tensor | None, genes: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        image_tokens = None if image is None else self.image(image)
        gene_tokens = None if genes is None else self.genes(genes)
        both = None
        if image_tokens is not None and gene_tokens is not None:
            both = self.head(self.fusion(image_tokens, gene_tokens))
        return (
            None if image_tokens is None else self.image_head(image_tokens),
            None if gene_tokens is None else self.gene_head(gene_tokens),
            both,
        )

    def maps(self, image: Tensor, genes: Tensor) -> AttentionMaps:
        """Attention of image tokens to gene tokens, and back.

        Args:
            image: As its branch takes it.
            genes: As its branch takes them.
        """
        return self.fusion.maps(self.image(image), self.genes(genes))
