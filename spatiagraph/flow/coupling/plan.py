"""Plans of problems small enough to be held, one or many of one shape at a time."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spatiagraph.flow.coupling.blocks import Potentials, Sinkhorn, solve_potentials

_SAFE = 200.0  # range of the exponent within which exp() and its sums stay far from overflow
TOO_FEW = (
    "{} of {} transport problems did not converge in {} iterations: allow more (max_iter), or blur "
    "more (epsilon)"
)


def transport_plan(
    cost: Tensor,
    *,
    epsilon: float = 0.05,
    mass_penalty: float | None = None,
    max_iter: int = 5000,
    tol: float = 1e-6,
) -> Tensor:
    r"""Entropic optimal transport between uniform distributions.

    .. math::
        \mathbf{P} = \mathrm{argmin}_{\mathbf{P} \ge 0} \; \langle \mathbf{P}, \mathbf{C} \rangle
        + \varepsilon \, \mathrm{KL}(\mathbf{P} \,|\, \mathbf{a} \mathbf{b}^\top), \qquad
        \mathbf{P} \mathbf{1} = \mathbf{a}, \; \mathbf{P}^\top \mathbf{1} = \mathbf{b},

    with :math:`a_i = 1 / N`, :math:`b_j = 1 / M`, of `"Sinkhorn Distances"
    <https://arxiv.org/abs/1306.0895>`_, solved by POT in float64. With a ``mass_penalty``
    :math:`\rho` the two conditions become penalties
    :math:`\rho \, \mathrm{KL}(\mathbf{P} \mathbf{1} | \mathbf{a})
    + \rho \, \mathrm{KL}(\mathbf{P}^\top \mathbf{1} | \mathbf{b})`, as in `"Scaling algorithms for
    unbalanced transport" <https://arxiv.org/abs/1607.05816>`_: a point that is far from all others
    then sends little.

    Args:
        cost: Cost of every pair, ``[N, M]``, see :func:`pair_cost`.
        epsilon: Strength of the blur, in units of the cost.
        mass_penalty: :math:`\rho`, in units of the cost; ``None`` moves all mass.
        max_iter: Iterations at most.
        tol: Mass that may be misplaced, in all.

    Returns:
        :math:`\mathbf{P}`, ``[N, M]`` float64.

    Raises:
        ValueError: The cost is no finite matrix, or a strength is not positive.

    Warns:
        UserWarning: More than ``tol`` is misplaced after ``max_iter`` iterations.

    Examples:
        >>> transport_plan(torch.tensor([[0.0, 1.0, 4.0], [2.0, 0.5, 1.0]]), epsilon=0.5)
        tensor([[0.3311, 0.1667, 0.0022],
                [0.0022, 0.1667, 0.3311]], dtype=torch.float64)
    """
    settings = Sinkhorn(epsilon, mass_penalty, max_iter, tol)
    if cost.dim() != 2 or not cost.numel():
        raise ValueError(f"Expected 'cost' as [N, M] with N, M > 0, got {list(cost.shape)}")
    if not cost.isfinite().all():
        raise ValueError(
            f"Expected a finite 'cost', got {int((~cost.isfinite()).sum())} that is not"
        )
    cost = cost.double()
    if mass_penalty is None:
        plan, error = balanced_plans(cost.unsqueeze(0), None, settings)
        plan, misplaced = plan[0], float(error)
    else:
        potentials = dense_potentials(cost, settings)
        plan = (potentials.log_share(cost) + potentials.log_mass().unsqueeze(1)).exp()
        plan, misplaced = plan / len(cost), potentials.error
    if misplaced > tol:
        warnings.warn(TOO_FEW.format(1, 1, max_iter), stacklevel=2)
    return plan


def _solve_batch() -> Callable[..., Any]:
    """Solver of POT, imported without the frameworks beside PyTorch.

    Its import starts every one that is installed, and JAX takes three quarters of a GPU at once.
    """
    for name in ("JAX", "TENSORFLOW", "CUPY"):
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{name}", "1")
    from ot.batch import solve_batch

    return solve_batch


def balanced_plans(
    cost: Tensor,
    sizes: tuple[Tensor, Tensor] | None,
    settings: Sinkhorn,
) -> tuple[Tensor, Tensor]:
    """Plans of many problems at once, by POT.

    Args:
        cost: ``[B, N, M]`` float64, padded with anything finite.
        sizes: Points of either side of each problem, two ``[B]``; all when ``None``.
        settings: Strength, and when to stop.

    Returns:
        Plans, ``[B, N, M]``, 0 in the padding, and the mass misplaced in each, ``[B]``.
    """
    num_rows, num_columns = cost.shape[1:]
    if sizes is None:
        sizes = cost.new_full((1,), num_rows).long(), cost.new_full((1,), num_columns).long()
    a, b = (
        (torch.arange(width, device=cost.device) < size.unsqueeze(1)) / size.unsqueeze(1).double()
        for size, width in zip(sizes, (num_rows, num_columns), strict=True)
    )
    # Sums of products are ten times quicker than sums of exponentials, where neither overflows.
    # They start on the CPU in POT; the fixed point is the same.
    quick = cost.device.type == "cpu" and (cost.amax() - cost.amin()) / settings.epsilon < _SAFE
    plan = _solve_batch()(
        cost - cost.amin((1, 2), keepdim=True),
        settings.epsilon,
        a,
        b,
        max_iter=settings.max_iter,
        tol=settings.tol / num_rows**0.5,  # POT's is a Euclidean norm, ours a sum over rows
        method="sinkhorn" if quick else "log_sinkhorn",
        grad="detach",
    ).plan
    return plan, (plan.sum(2) - a).abs().sum(1)


def dense_potentials(cost: Tensor, settings: Sinkhorn) -> Potentials:
    """Potentials of one problem whose cost is held."""
    return solve_potentials(
        lambda rows, columns: cost[rows, columns],
        cost.shape,
        settings,
        max_entries=cost.numel(),
        device=cost.device,
    )
