"""The straight path along which a state, or noise, becomes another state."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from spatiagraph._savable import savable
from spatiagraph.flow.randomness import Randomness


class PathPoint(NamedTuple):
    """Point of a path and its velocity, at one time.

    Attributes:
        x: State, shaped as its ends.
        velocity: Its derivative in time.
    """

    x: Tensor
    velocity: Tensor


@savable
@dataclass(frozen=True)
class LinearPath:
    r"""Straight line from a start to a target, at constant speed.

    .. math::
        \mathbf{x}_t = (1 - t) \, \mathbf{x}_0 + t \, \mathbf{x}_1, \qquad
        \mathbf{u} = \mathbf{x}_1 - \mathbf{x}_0,

    as in `"Flow Matching for Generative Modeling" <https://arxiv.org/abs/2210.02747>`_.

    Args:
        source: Where paths start: ``"control"`` at what is to be changed (image to image), or
            ``"noise"`` at a standard normal (from nothing).
        noise: Standard deviation of noise added to a control; 0.2 blurs which control it was.
        noise_probability: Share of the controls that get it.

    Examples:
        >>> path = LinearPath()
        >>> path.at(torch.zeros(2, 1), torch.full((2, 1), 4.0), torch.tensor([0.0, 0.25]))
        PathPoint(x=tensor([[0.],
                [1.]]), velocity=tensor([[4.],
                [4.]]))
    """

    source: Literal["control", "noise"] = "control"
    noise: float = 0.0
    noise_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.source not in ("control", "noise"):
            raise ValueError(f'Expected source to be "control" or "noise", got {self.source!r}')
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"Expected 'noise' of at least 0, got {self.noise}")
        if not 0 <= self.noise_probability <= 1:
            raise ValueError(
                f"Expected 'noise_probability' between 0 and 1, got {self.noise_probability}"
            )

    def config_args(self) -> dict[str, Any]:
        """Arguments that rebuild the path, plain values."""
        return asdict(self)

    def start(self, control: Tensor, *, generator: Randomness = None) -> Tensor:
        """Starting point of the path of each control.

        Args:
            control: ``[B, ...]``; gives only its shape where paths start at noise.
            generator: Source of randomness, or one for each control, as diffusers has it; may be on
                another device.

        Raises:
            ValueError: There are more or fewer sources than controls.
        """
        if self.source == "control" and self.noise == 0:
            return control
        if isinstance(generator, Sequence):
            if len(generator) != len(control):
                raise ValueError(
                    f"Expected a generator for each of {len(control)} paths, got {len(generator)}"
                )
            each = zip(control.split(1), generator, strict=True)
            return torch.cat([self.start(one, generator=source) for one, source in each])
        drawn_on = control.device if generator is None else generator.device
        normal = torch.randn(
            control.shape, dtype=control.dtype, device=drawn_on, generator=generator
        ).to(control.device)
        if self.source == "noise":
            return normal
        uniform = torch.rand(len(control), device=drawn_on, generator=generator)
        chosen = uniform.to(control.device) < self.noise_probability
        return control + self.noise * normal * _as_column(chosen, control)

    def at(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathPoint:
        """State and velocity at a time.

        Args:
            x0: Starts, ``[B, ...]``.
            x1: Targets, ``[B, ...]``.
            t: Time of each in [0, 1], ``[B]``.
        """
        if x0.shape != x1.shape or t.shape != x0.shape[:1]:
            raise ValueError(
                "Expected starts and targets of one shape [B, ...] and times [B], got "
                f"{list(x0.shape)}, {list(x1.shape)} and {list(t.shape)}"
            )
        return PathPoint(torch.lerp(x0, x1, _as_column(t, x0).to(x0.dtype)), x1 - x0)

    def endpoint(self, x: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        r"""End point at constant velocity: :math:`\mathbf{x}_t + (1 - t) \mathbf{v}`.

        Args:
            x: States, ``[B, ...]``.
            velocity: Velocities there, ``[B, ...]``.
            t: Time of each, ``[B]``.
        """
        return x + (1 - _as_column(t, x).to(x.dtype)) * velocity


def _as_column(t: Tensor, like: Tensor) -> Tensor:
    """One value per sample, to be broadcast over the rest of its axes."""
    return t.view(-1, *[1] * (like.dim() - 1))
