"""Cell encoder: genes and image of each cell → one vector, before any context."""

from typing import Any

from torch import Tensor

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.fusion import scatter_present
from spatiagraph.nn.protocols import Fusion, GeneEncoding, ImageEncoding


class CellEncoder(Configurable):
    """A gene encoder, an image encoder and their fusion; any of the modalities may be absent.

    Args:
        genes: Module ``(x, gene_mask, depth) → [N, D]``, or ``None``.
        image: Module ``(image) → [N, D]`` or ``[N, T, D]``, or ``None``.
        fusion: Module ``(genes, image, gene_present, image_present) → [N, D]``; needed with an
            image encoder.

    Shapes:
        - **x**: counts, ``[N, G]``
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``
        - **gene_mask**: genes that may be seen, ``[G]`` or ``[N, G]``
        - **depth**: total counts, ``[N]``
        - **gene_present**, **image_mask**: cells with that modality, ``[N]``
        - **output**: ``[N, D]``

    Raises:
        ValueError: If there is no encoder at all, or an image encoder without fusion.
    """

    genes: Any
    image: Any
    fusion: Any
    reads_window = False
    """True if the size of the window of each crop is read."""

    def __init__(
        self,
        genes: GeneEncoding | None = None,
        image: ImageEncoding | None = None,
        fusion: Fusion | None = None,
    ):
        super().__init__()
        if genes is None and image is None:
            raise ValueError("Expected a gene encoder, an image encoder or both, got neither")
        if image is not None and fusion is None:
            raise ValueError("Expected a 'fusion' to go with the image encoder, got None")
        self.genes = genes
        self.image = image
        self.fusion = fusion

    def forward(
        self,
        x: Tensor | None = None,
        image: Tensor | None = None,
        *,
        gene_mask: Tensor | None = None,
        depth: Tensor | None = None,
        gene_present: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        genes = None
        if self.genes is not None and x is not None:
            genes = self.genes(x, gene_mask, depth)
        if self.fusion is None:
            if genes is None:
                raise ValueError("Expected counts 'x': the model reads genes alone, got None")
            return genes
        tokens = None
        if self.image is not None and image is not None:
            tokens = self._encode_present(image, image_mask)
        return self.fusion(genes, tokens, gene_present, image_mask)

    def _encode_present(self, image: Tensor, image_mask: Tensor | None) -> Tensor | None:
        """Encode only crops that exist; the rest is filled with the null token by the fusion."""
        if image_mask is None or bool(image_mask.all()):
            return self.image(image)
        if not bool(image_mask.any()):
            return None
        return scatter_present(self.image(image[image_mask]), image_mask)
