"""Decoders of SPATIA's embeddings and tokens."""

from collections.abc import Sequence

from torch import nn

from spatiagraph.heads.expression import ExpressionHead
from spatiagraph.heads.token_expression import TokenExpressionHead
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.masked_image import MaskedImageDecoder


class SpatiaHeads(Configurable):
    """Decoders of SPATIA: counts, labels, hidden patches, and both modalities in one space.

    Args:
        channels: Size of the embeddings, :math:`D`.
        num_genes: Panel size, :math:`G`.
        gene_channels: Size of gene tokens; ``None`` for a model that reads no genes.
        image_channels: Size of image tokens; ``None`` for a model that reads no images.
        num_classes: Classes of each label that has a token.
        image_decoder: Decoder of hidden patches, for image encoders that hide some.
        dropout: Dropout of the token decoder.
    """

    def __init__(
        self,
        channels: int,
        num_genes: int,
        *,
        gene_channels: int | None = None,
        image_channels: int | None = None,
        num_classes: Sequence[int] = (),
        image_decoder: MaskedImageDecoder | None = None,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.image_decoder = image_decoder
        self.token_head = (
            None if gene_channels is None else TokenExpressionHead(gene_channels, dropout)
        )
        self.head = ExpressionHead(channels, num_genes)
        self.niche_head = nn.Linear(channels, num_genes)
        self.project_genes = self.project_image = None
        if gene_channels is not None and image_channels is not None:
            self.project_genes = nn.Linear(gene_channels, channels)
            self.project_image = nn.Linear(image_channels, channels)
        sizes = [] if gene_channels is None else list(num_classes)
        classifiers = [nn.Linear(int(gene_channels or 0), size) for size in sizes]
        for classifier in classifiers:
            nn.init.constant_(classifier.bias, -0.13)
        self.classifiers = nn.ModuleList(classifiers)
