"""Cell encoder: genes and image of each cell → one vector, before any context."""

from typing import Any

from torch import Tensor

from spatiagraph.nn.cell_graph import Cells
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.fusion import scatter_present
from spatiagraph.nn.protocols import Fusion, GeneEncoding, ImageEncoding


class CellEncoder(Configurable):
    """A gene encoder, an image encoder and their fusion; any of the modalities may be absent.

    Args:
        genes: Module ``(x, gene_mask, depth) → [N, D]``, or ``None``.
        image: Module ``(image) → [N, D]`` or ``[N, T, D]``, or ``None``.
        fusion: Module ``(genes, image, gene_present, image_mask) → [N, D]``; needed with an
            image encoder.

    Shapes:
        - **cells**: :class:`Cells`
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

    def forward(self, cells: Cells) -> Tensor:
        genes = None
        if self.genes is not None and cells.x is not None:
            genes = self.genes(cells.x, cells.gene_mask, cells.depth)
        if self.fusion is None:
            if genes is None:
                raise ValueError("Expected counts 'x': the model reads genes alone, got None")
            return genes
        tokens = None
        if self.image is not None and cells.image is not None:
            tokens = self._encode_present(cells.image, cells.image_mask)
        return self.fusion(genes, tokens, cells.gene_present, cells.image_mask)

    def _encode_present(self, image: Tensor, image_mask: Tensor | None) -> Tensor | None:
        """Encode only crops that exist; the rest is filled with the null token by the fusion."""
        if image_mask is None or bool(image_mask.all()):
            return self.image(image)
        if not bool(image_mask.any()):
            return None
        return scatter_present(self.image(image[image_mask]), image_mask)
