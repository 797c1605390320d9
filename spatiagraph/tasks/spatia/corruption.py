"""Corruption of SPATIA's input in training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Corruption:
    """Shares of the input that are hidden in training.

    Published are ``thin_rate=0.6`` and ``mask_ratio=0``. Embeddings of thinned counts are noisier
    than those that a model is asked for, and it learned less of hidden genes from them; genes that
    are hidden teach what thinned ones were to.

    Attributes:
        thin_rate: Share of each count taken from the input.
        mask_ratio: Share of measured genes hidden from the input.
        value_ratio: Share of the other genes of which the name is shown and the count is not:
            ``masked ZINB`` of SPATIA.
        drop_image: Share of cells that lose their image.
        drop_genes: Share of cells that lose their genes; never both.
        hidden_ratio: Share of cells hidden from their niche, and of niches from their region.
        cells: Whether cells are hidden from their niche.
        groups: Whether niches are hidden from their region.

    Raises:
        ValueError: If a share is not inside [0, 1).
    """

    thin_rate: float = 0.0
    mask_ratio: float = 0.4
    value_ratio: float = 0.15
    drop_image: float = 0.1
    drop_genes: float = 0.1
    hidden_ratio: float = 0.15
    cells: bool = True
    groups: bool = True

    def __post_init__(self) -> None:
        shares = {
            "thin_rate": self.thin_rate,
            "mask_ratio": self.mask_ratio,
            "value_ratio": self.value_ratio,
            "drop_image + drop_genes": self.drop_image + self.drop_genes,
            "hidden_ratio": self.hidden_ratio,
        }
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"Expected {name!r} from 0 to below 1, got {share}")
