"""Sizes of a generator of images."""

from collections.abc import Sequence
from dataclasses import dataclass

from spatiagraph.nn.condition import TransitionConditioner
from spatiagraph.nn.unet import Injection, VelocityUNet


@dataclass(frozen=True)
class GeneratorSize:
    """Widths and depths of a generator of images; the larger published ones by default.

    Attributes:
        channels: Channels of the velocity network at full resolution.
        multipliers: Channels of each of its levels in units of these.
        num_blocks: Residual blocks of each level.
        attention_from: Down-sampling from which on pixels attend to each other.
        head_channels: Channels of an attention head.
        condition_channels: Size of the condition.
        injection: How it enters, see :class:`~spatiagraph.nn.VelocityUNet`.
        dropout: In the network; in the conditioner a tenth at most.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    num_blocks: int = 4
    attention_from: int = 4
    head_channels: int = 32
    condition_channels: int = 512
    injection: Injection = "additive"
    dropout: float = 0.3

    def unet(self, image_channels: int, *, conditioned: bool = True) -> VelocityUNet:
        """Velocity network of this size.

        Args:
            image_channels: Channels of the images.
            conditioned: Whether there is anything to condition on.
        """
        return VelocityUNet(
            image_channels,
            channels=self.channels,
            multipliers=self.multipliers,
            num_blocks=self.num_blocks,
            attention_from=self.attention_from,
            head_channels=self.head_channels,
            dropout=self.dropout,
            condition_channels=self.condition_channels if conditioned else None,
            injection=self.injection,
        )

    def conditioner(
        self,
        context_channels: Sequence[int] = (),
        *,
        num_genes: int = 0,
        num_transitions: int = 0,
        num_delta_genes: int = 0,
        num_delta_morphology: int = 0,
    ) -> TransitionConditioner | None:
        """Conditioner of this size, see :class:`~spatiagraph.nn.TransitionConditioner`.

        Args:
            context_channels: Width of each embedding.
            num_genes: Genes of an expression vector; 0 for none.
            num_transitions: Transitions; 0 for none.
            num_delta_genes: Genes of their signatures; 0 for none.
            num_delta_morphology: Features of their morphology signatures; 0 for none.

        Returns:
            ``None`` where there is nothing to condition on.
        """
        numbers = (num_genes, num_transitions, num_delta_genes, num_delta_morphology)
        if not (context_channels or any(numbers)):
            return None
        return TransitionConditioner(
            context_channels=tuple(context_channels),
            num_genes=num_genes,
            num_transitions=num_transitions,
            num_delta_genes=num_delta_genes,
            num_delta_morphology=num_delta_morphology,
            channels=self.condition_channels,
            dropout=min(self.dropout, 0.1),
        )


BASE = GeneratorSize()
"""The larger published size."""

SMALL = GeneratorSize(channels=64, multipliers=(1, 2, 2), num_blocks=2)
"""The smaller published size."""

TINY = GeneratorSize(
    channels=16, multipliers=(1, 2, 2), num_blocks=1, condition_channels=64, dropout=0.0
)
"""For laptops without GPU."""

SIZES = {"tiny": TINY, "small": SMALL, "base": BASE}
"""Sizes by name."""
