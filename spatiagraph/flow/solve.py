"""Following a field of velocities from a start to where it leads."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from spatiagraph._optional import require
from spatiagraph.flow.times import uniform_grid

Method = Literal["euler", "midpoint", "heun", "dopri5"]
METHODS: tuple[Method, ...] = get_args(Method)
"""Rules of a step."""
Velocity = Callable[..., Tensor]


class Solution(NamedTuple):
    """Solution of the differential equation of a flow.

    Attributes:
        x: Last state, shaped as the first.
        num_evaluations: Evaluations of the velocity.
        times: Times of the path, ``[S + 1]``; for ``"dopri5"`` only those that were given.
        path: States at these times, ``[S + 1, ...]``; ``None`` unless requested.
    """

    x: Tensor
    num_evaluations: int
    times: Tensor
    path: Tensor | None = None


def integrate(
    velocity: Velocity,
    x: Tensor,
    condition: Any = None,
    *,
    method: Method = "midpoint",
    num_steps: int = 25,
    times: Tensor | None = None,
    keep_path: bool = False,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    progress: Callable[[int, int], None] | None = None,
) -> Solution:
    r"""Solve :math:`\dot{\mathbf{x}} = \mathbf{v}(\mathbf{x}, t)` from time 0 to 1.

    ``"euler"`` evaluates the velocity once per step, ``"midpoint"`` and ``"heun"`` twice, with an
    error that falls with the square of the step; ``"dopri5"`` chooses its steps by itself, the same
    for the whole batch (needs torchdiffeq). Gradients flow through; generate under
    ``torch.no_grad()``.

    Args:
        velocity: Called as ``velocity(x, t)`` with ``t`` of shape ``[B]``, or, with a condition, as
            ``velocity(x, t, condition)``.
        x: First states, ``[B, ...]``.
        condition: Whatever the velocity takes as its third argument.
        method: Rule of a step.
        num_steps: Equal steps.
        times: Increasing times instead, ``[S + 1]``.
        keep_path: Whether to return the states on the way.
        rtol: Relative error that ``"dopri5"`` allows.
        atol: Absolute error that it allows.
        progress: Called after each step with the number of steps done and of all.

    Returns:
        :class:`Solution`.

    Raises:
        ValueError: The method is unknown or times do not increase.
        ImportError: ``"dopri5"`` without torchdiffeq; gives the install line.

    Examples:
        >>> end = integrate(lambda x, t: 2 * torch.ones_like(x), torch.zeros(1), num_steps=1)
        >>> end.x, end.num_evaluations
        (tensor([2.]), 2)
    """
    if times is None:
        times = uniform_grid(num_steps)
    if times.dim() != 1 or len(times) < 2 or not (times.diff() > 0).all():
        raise ValueError(f"Expected at least two increasing 'times', got {times.tolist()}")
    count = 0

    def field(x: Tensor, t: float) -> Tensor:
        nonlocal count
        count += 1
        time = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
        return velocity(x, time) if condition is None else velocity(x, time, condition)

    if method == "dopri5":
        states = _adaptive(field, x, times, rtol, atol)
        return Solution(states[-1], count, times, states if keep_path else None)
    if method not in _STEPS:
        raise ValueError(f"Expected method to be one of {', '.join(METHODS)}; got {method!r}")
    path = [x]
    schedule = times.tolist()  # once: reading a time off a device would wait for it
    for done, (t, after) in enumerate(zip(schedule[:-1], schedule[1:], strict=True), start=1):
        x = _STEPS[method](field, x, t, after - t)
        if keep_path:
            path.append(x)
        if progress is not None:
            progress(done, len(schedule) - 1)
    return Solution(x, count, times, torch.stack(path) if keep_path else None)


def guided(velocity: Velocity, scale: float) -> Velocity:
    r"""Exaggerate what the condition changes (classifier-free guidance).

    .. math::
        \mathbf{v} = (1 + s) \, \mathbf{v}(\mathbf{x}, t \,|\, z)
        - s \, \mathbf{v}(\mathbf{x}, t \,|\, \varnothing)

    of `"Classifier-Free Diffusion Guidance" <https://arxiv.org/abs/2207.12598>`_. Two passes per
    evaluation; one where :math:`s` is 0 (condition only) or -1 (no condition).

    Args:
        velocity: Called as ``velocity(x, t, condition)``; a condition of ``None`` is the null one.
        scale: :math:`s`; published 0.2.

    Returns:
        A velocity ``(x, t, condition)`` for :func:`integrate`.

    Examples:
        >>> field = guided(lambda x, t, z: 0 * x if z is None else z * x, scale=0.5)
        >>> field(torch.ones(1), torch.zeros(1), 2.0)
        tensor([3.])
    """

    def field(x: Tensor, t: Tensor, condition: Any) -> Tensor:
        if scale == 0:
            return velocity(x, t, condition)
        free = velocity(x, t, None)
        if scale == -1:
            return free
        return (1 + scale) * velocity(x, t, condition) - scale * free

    return field


_Field = Callable[[Tensor, float], Tensor]


def _euler(field: _Field, x: Tensor, t: float, step: float) -> Tensor:
    return x + step * field(x, t)


def _midpoint(field: _Field, x: Tensor, t: float, step: float) -> Tensor:
    middle = x + step / 2 * field(x, t)
    return x + step * field(middle, t + step / 2)


def _heun(field: _Field, x: Tensor, t: float, step: float) -> Tensor:
    first = field(x, t)
    second = field(x + step * first, t + step)
    return x + step / 2 * (first + second)


_STEPS = {"euler": _euler, "midpoint": _midpoint, "heun": _heun}


def _adaptive(field: _Field, x: Tensor, times: Tensor, rtol: float, atol: float) -> Tensor:
    solver = require("torchdiffeq", extra="ode", purpose='method="dopri5"')
    return solver.odeint(
        lambda t, x: field(x, float(t)),
        x,
        times.to(x.device, x.dtype),
        rtol=rtol,
        atol=atol,
        method="dopri5",
    )
