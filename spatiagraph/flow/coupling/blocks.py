"""Transport by its two vectors of potentials, with costs computed block by block.

Nothing of size N × M is held: a block of costs lives only while it is summed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CostOf = Callable[[slice, slice], Tensor]


@dataclass(frozen=True)
class Sinkhorn:
    """Options of an entropic transport problem.

    Attributes:
        epsilon: Strength of the blur.
        mass_penalty: Strength with which the marginals are kept; ``None`` keeps them exactly.
        max_iter: Iterations at most.
        tol: Mass that may be misplaced.
    """

    epsilon: float
    mass_penalty: float | None
    max_iter: int
    tol: float

    def __post_init__(self) -> None:
        for name in ("epsilon", "mass_penalty", "tol"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"Expected '{name}' to be positive and finite, got {value}")
        if self.max_iter < 1:
            raise ValueError(f"Expected 'max_iter' of at least 1, got {self.max_iter}")

    @property
    def damping(self) -> float:
        """Share of a step that is taken; below 1 if mass may be lost."""
        if self.mass_penalty is None:
            return 1.0
        return self.mass_penalty / (self.mass_penalty + self.epsilon)


@dataclass(frozen=True)
class Potentials:
    r"""Solution :math:`P_{ij} = a_i b_j \exp(f_i + g_j - C_{ij} / \varepsilon)`.

    Attributes:
        f: Potentials of the rows, ``[N]``.
        g: Potentials of the columns, ``[M]``.
        last: What the next step would make of ``f``, ``[N]``; equal to it at the solution.
        error: Mass that is misplaced.
        settings: How it was solved.
    """

    f: Tensor
    g: Tensor
    last: Tensor
    error: float
    settings: Sinkhorn

    def log_share(self, cost: Tensor) -> Tensor:
        """Logarithm of the plan's rows, each scaled to a sum of 1, from their costs."""
        return torch.log_softmax(self.g - cost / self.settings.epsilon, dim=1)

    def log_mass(self) -> Tensor:
        """Logarithm of how much each row sends, relative to its share of the mass, ``[N]``."""
        return self.f - self.last / self.settings.damping


def solve_potentials(
    cost: CostOf,
    shape: tuple[int, int] | torch.Size,
    settings: Sinkhorn,
    *,
    max_entries: int,
    device: torch.device,
) -> Potentials:
    """Sinkhorn's iteration on logarithms, over blocks of rows and of columns in turn.

    Args:
        cost: Gives the costs of some rows and columns, float64.
        shape: Number of rows and columns.
        settings: Strengths, and when to stop.
        max_entries: Costs held at a time.
        device: Where to compute.
    """
    num_rows, num_columns = shape
    epsilon, damping = settings.epsilon, settings.damping
    log_a, log_b = (
        -torch.tensor(float(n), dtype=torch.float64, device=device).log() for n in shape
    )
    f, g = (torch.zeros(n, dtype=torch.float64, device=device) for n in shape)
    everything = slice(None)
    last, error = f, float("inf")
    for step in range(settings.max_iter + 1):
        # Sums go straight to where they stay: kept piece by piece they would lie in the gaps that
        # blocks leave, no further block would fit there, and memory would grow with each.
        sums = torch.empty_like(f)
        for part in blocks(num_rows, num_columns, max_entries):
            sums[part] = (g - cost(part, everything) / epsilon).logsumexp(1)
        last = -damping * (sums + log_b)
        # what the rows hold before the step that would set them right; columns are right
        error = float(((f - last).exp() - 1).abs().mean())
        if step and (error <= settings.tol or step == settings.max_iter):
            break
        f = last
        sums = torch.empty_like(g)
        for part in blocks(num_columns, num_rows, max_entries):
            sums[part] = (f.unsqueeze(1) - cost(everything, part) / epsilon).logsumexp(0)
        g = -damping * (sums + log_a)
    return Potentials(f, g, last, error, settings)


def blocks(num: int, width: int, max_entries: int) -> Iterator[slice]:
    """Slices of ``num`` rows of some width, each of about as many entries as allowed."""
    step = max(1, max_entries // max(1, width))
    return (slice(start, start + step) for start in range(0, num, step))
