"""``Sampling``: options of following a flow to its end."""

import math
from dataclasses import dataclass

from spatiagraph.flow.solve import METHODS, Method


@dataclass(frozen=True)
class Sampling:
    r"""Options of following a flow to its end, the same for everything that generates.

    :func:`~spatiagraph.inference.generate`, :func:`~spatiagraph.inference.score_transitions`,
    :meth:`ImageGenerator.generate <spatiagraph.models.ImageGenerator.generate>` and the pipeline of
    diffusers take one as ``sampling=``.

    Attributes:
        num_steps: Equal steps of the integration.
        method: Rule of a step, see :func:`integrate`.
        guidance: :math:`s` of :func:`guided`, how much the condition is exaggerated; 0 saves half
            of the evaluations.
        seed: Seed of the noise, at least 0.

    Raises:
        ValueError: An option is out of range.

    Examples:
        >>> Sampling(num_steps=10).guidance
        0.2
    """

    num_steps: int = 25
    method: Method = "midpoint"
    guidance: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_steps", 1), ("seed", 0)):
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"Expected {name!r} of at least {least}, got {value}")
        if self.method not in METHODS:
            raise ValueError(
                f"Expected method to be one of {', '.join(METHODS)}; got {self.method!r}"
            )
        if not math.isfinite(self.guidance):
            raise ValueError(f"Expected 'guidance' as a number, got {self.guidance}")
