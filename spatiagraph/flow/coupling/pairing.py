"""Pairs of points of two clouds, of many pairs of clouds, and of clouds that are very large."""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from spatiagraph.flow.coupling.blocks import Sinkhorn, blocks, solve_potentials
from spatiagraph.flow.coupling.cost import cost_scale, pair_cost
from spatiagraph.flow.coupling.match import RULES, Match, Rule, match_one_to_one, match_rows
from spatiagraph.flow.coupling.plan import TOO_FEW, balanced_plans, dense_potentials
from spatiagraph.flow.randomness import Randomness

_BATCH = 1 << 18  # costs solved in one go: more no longer fit the cache


class Coupling(NamedTuple):
    """Partner of each point of the first cloud among those of the second.

    Attributes:
        target: Its row in the second cloud, ``[N]`` int64; -1 for none (one-to-one only).
        confidence: Share of the point's mass that goes to the chosen partner, ``[N]`` float64:
            what this pair is worth. With ``"argmax"`` it is :func:`row_confidence`; a partner that
            was drawn or assigned may be a less likely one, and then has no more than its own share.
        mass: What the point sends, relative to its share of all, ``[N]`` float64; 1 unless
            unbalanced.
        point: Where its mass goes on average, ``[N, D]`` float64; only if ``"barycentric"``.
    """

    target: Tensor
    confidence: Tensor
    mass: Tensor
    point: Tensor | None = None


def couple(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float = 0.05,
    match: Rule = "argmax",
    mass_penalty: float | None = None,
    generator: torch.Generator | None = None,
    max_iter: int = 5000,
    tol: float = 1e-6,
    max_entries: int = 1 << 24,
) -> Coupling:
    r"""Find for each point of one cloud its partner in another, by entropic optimal transport.

    Costs are Euclidean distances in units of their median, so that ``epsilon`` has none; see
    :func:`transport_plan`. Moving, turning or scaling both clouds changes nothing.

    Args:
        x: One cloud, ``[N, D]``.
        y: The other, ``[M, D]``.
        epsilon: Strength of the blur; 0.05 is the published one.
        match: ``"argmax"`` takes the partner most mass goes to (one may serve many), ``"sample"``
            draws it by mass, ``"assignment"`` gives no partner away twice, ``"barycentric"`` takes
            the one nearest to where the mass goes on average.
        mass_penalty: Strength :math:`\rho` with which all mass is made to move; ``None`` moves all.
        generator: Source of randomness for ``"sample"``, on the CPU.
        max_iter: Iterations at most.
        tol: Mass that may be misplaced, in all.
        max_entries: Costs held at a time; 8 bytes each, a few times over. A problem with more is
            solved block by block, in memory that grows with ``N + M`` only.

    Returns:
        :class:`Coupling`, on the device of ``x``.

    Raises:
        ValueError: Clouds are empty, of different width or not finite; or a setting is unknown.

    Warns:
        UserWarning: The iteration did not converge.

    Examples:
        >>> x = torch.tensor([[0.0], [1.0], [5.0]])
        >>> couple(x, x.flip(0) + 0.1).target
        tensor([2, 1, 0])
    """
    return couple_many(
        [x],
        [y],
        epsilon=epsilon,
        match=match,
        mass_penalty=mass_penalty,
        generator=generator,
        max_iter=max_iter,
        tol=tol,
        max_entries=max_entries,
    )[0]


def couple_many(
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    *,
    epsilon: float = 0.05,
    match: Rule = "argmax",
    mass_penalty: float | None = None,
    generator: Randomness = None,
    max_iter: int = 5000,
    tol: float = 1e-6,
    max_entries: int = 1 << 24,
) -> list[Coupling]:
    """Solve many separate problems, small ones of like size together.

    Args:
        xs: First cloud of each problem, ``[N, D]``.
        ys: Second cloud of each, ``[M, D]``.
        epsilon: As in :func:`couple`, as all that follows.
        match: Rule.
        mass_penalty: Unbalanced transport.
        generator: Source of randomness, or one for each problem, on the CPU.
        max_iter: Iterations at most.
        tol: Mass that may be misplaced, in each problem.
        max_entries: Costs held at a time.

    Returns:
        One :class:`Coupling` per problem.

    Raises:
        ValueError: As :func:`couple`.

    Warns:
        UserWarning: Some did not converge; tells how many.
    """
    settings = Sinkhorn(epsilon, mass_penalty, max_iter, tol)
    if match not in RULES:
        raise ValueError(f"Expected 'match' to be one of {', '.join(RULES)}, got {match!r}")
    if len(xs) != len(ys):
        raise ValueError(f"Expected as many 'xs' as 'ys', got {len(xs)} and {len(ys)}")
    problems = [_checked(x, y, i) for i, (x, y) in enumerate(zip(xs, ys, strict=True))]
    sources = generator if isinstance(generator, Sequence) else [generator] * len(problems)
    if len(sources) != len(problems):
        raise ValueError(
            f"Expected a generator for each of {len(problems)} problems, got {len(sources)}"
        )
    # drawn ahead in the given order, so that how problems are put together changes no draw
    draws = [
        torch.rand(len(x), dtype=torch.float64, generator=source).to(x.device)
        if match == "sample"
        else None
        for (x, _), source in zip(problems, sources, strict=True)
    ]
    couplings: list[Coupling | None] = [None] * len(problems)
    failed = 0
    for chunk in _chunks(problems, max_entries, together=mass_penalty is None):
        x, y = problems[chunk[0]]
        if len(x) * len(y) > max_entries:
            coupling, error = _in_blocks(x, y, draws[chunk[0]], match, settings, max_entries)
            couplings[chunk[0]] = coupling
            errors = [error]
        elif mass_penalty is not None:
            cost = pair_cost(x, y)
            solved = dense_potentials(cost, settings)
            found = _matched(solved.log_share(cost).exp(), match, draws[chunk[0]], y)
            couplings[chunk[0]] = _coupling(found, solved.log_mass().exp())
            errors = [solved.error]
        else:
            plans, misplaced = _solved_together([problems[i] for i in chunk], settings)
            for i, plan in zip(chunk, plans, strict=True):
                mass = plan.sum(1)
                found = _matched(plan / mass.unsqueeze(1), match, draws[i], problems[i][1])
                couplings[i] = _coupling(found, mass * len(plan))
            errors = misplaced.tolist()
        failed += sum(error > tol for error in errors)
    if failed:
        warnings.warn(TOO_FEW.format(failed, len(problems), max_iter), stacklevel=2)
    return [coupling for coupling in couplings if coupling is not None]


def _solved_together(
    problems: list[tuple[Tensor, Tensor]], settings: Sinkhorn
) -> tuple[list[Tensor], Tensor]:
    """Plans of problems of like size, and the mass misplaced in each."""
    costs = [pair_cost(x, y) for x, y in problems]
    height, width = (max(cost.size(side) for cost in costs) for side in (0, 1))
    padded = torch.stack(
        [pad(cost, (0, width - cost.size(1), 0, height - cost.size(0))) for cost in costs]
    )
    sizes = [torch.tensor([cost.size(side) for cost in costs]) for side in (0, 1)]
    rows, columns = (size.to(padded.device) for size in sizes)
    plans, misplaced = balanced_plans(padded, (rows, columns), settings)
    cut = [plan[: cost.size(0), : cost.size(1)] for plan, cost in zip(plans, costs, strict=True)]
    return cut, misplaced


def _in_blocks(
    x: Tensor,
    y: Tensor,
    draw: Tensor | None,
    match: Rule,
    settings: Sinkhorn,
    max_entries: int,
) -> tuple[Coupling, float]:
    """One large problem, whose costs are computed again whenever they are needed."""
    if match == "assignment":
        raise ValueError(
            f"Expected at most {max_entries} pairs to assign one to one, got {len(x)} × {len(y)}. "
            'Raise max_entries, or take match="argmax"'
        )
    # around their centre, where the quicker distances by a product of matrices are exact enough
    scale, centre = cost_scale(x, y), torch.cat([x, y]).mean(0)
    x, y = (x - centre) / scale, (y - centre) / scale
    solved = solve_potentials(
        lambda rows, columns: torch.cdist(x[rows], y[columns]),
        (len(x), len(y)),
        settings,
        max_entries=max_entries,
        device=x.device,
    )
    target = torch.empty(len(x), dtype=torch.long, device=x.device)
    confidence = torch.empty_like(solved.f)
    point = torch.empty_like(x) if match == "barycentric" else None
    for rows in blocks(len(x), len(y), max_entries):
        share = solved.log_share(torch.cdist(x[rows], y)).exp()
        part = match_rows(share, match, draw=None if draw is None else draw[rows], y=y)
        target[rows], confidence[rows] = part.target, part.confidence
        if point is not None and part.point is not None:
            point[rows] = part.point * scale + centre
    whole = Match(target, confidence, point)
    return _coupling(whole, solved.log_mass().exp()), solved.error


def _matched(share: Tensor, match: Rule, draw: Tensor | None, y: Tensor) -> Match:
    if match == "assignment":
        return match_one_to_one(share)
    return match_rows(share, match, draw=draw, y=y)


def _coupling(match: Match, mass: Tensor) -> Coupling:
    return Coupling(match.target, match.confidence, mass, match.point)


def _chunks(
    problems: list[tuple[Tensor, Tensor]], max_entries: int, *, together: bool
) -> Iterator[list[int]]:
    """Problems to be solved in one go: of like size, and no more than fit."""
    order = sorted(range(len(problems)), key=lambda i: [len(side) for side in problems[i]])
    chunk: list[int] = []
    height = width = 0
    for i in order:
        rows, columns = (len(side) for side in problems[i])
        entries = (len(chunk) + 1) * max(height, rows) * max(width, columns)
        same = not chunk or problems[chunk[0]][0].device == problems[i][0].device
        if chunk and not (together and same and entries <= min(_BATCH, max_entries)):
            yield chunk
            chunk, height, width = [], 0, 0
        chunk.append(i)
        height, width = max(height, rows), max(width, columns)
    if chunk:
        yield chunk


def _checked(x: Tensor, y: Tensor, problem: int) -> tuple[Tensor, Tensor]:
    """Two clouds of points, in float64."""
    if x.dim() != 2 or y.dim() != 2 or x.size(1) != y.size(1) or not len(x) or not len(y):
        raise ValueError(
            f"Expected two clouds [N, D] and [M, D] with points, got {list(x.shape)} and "
            f"{list(y.shape)} in problem {problem}"
        )
    for name, cloud in (("x", x), ("y", y)):
        bad = ~cloud.isfinite().all(1)
        if bad.any():
            raise ValueError(
                f"Expected finite points, got {int(bad.sum())} of {len(cloud)} in '{name}' of "
                f"problem {problem} that are not (rows {bad.nonzero().flatten()[:5].tolist()})"
            )
    return x.double(), y.double()
