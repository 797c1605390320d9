"""Corruption of SToFM's input in training, and the distances that are to be recovered."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from spatiagraph.graph.pairs import NodeKind, known_pairs
from spatiagraph.models.stofm import SubSlices
from spatiagraph.nn.se2_transformer import Nodes


@dataclass(frozen=True)
class SubSliceCorruption:
    """Corruption of sub-slices in training; cells and distances are chosen independently.

    Attributes:
        replaced: Share of the cells whose vector is replaced, or whose position gets noise.
        kept: Share that is to be predicted as well, but left as it is.
        mask: ``"learned"`` vector in place of a cell, or the ``"constant"`` -100 of the published
            code.
        exclude_masked: Whether virtual cells are means without the replaced cells, which they tell
            of otherwise.
        noise: Standard deviation of the noise of positions, in mean spacings of cells.
        pattern: Distances that are known of cells with noise: ``"knn"``, the nearest ones at their
            new positions, as of all others; ``"dense"``, all of them, which gives the cells away,
            as in the published code.

    Raises:
        ValueError: If a share is out of range or a name unknown.
    """

    replaced: float = 0.12
    kept: float = 0.03
    mask: Literal["learned", "constant"] = "learned"
    exclude_masked: bool = False
    noise: float = 5.0
    pattern: Literal["knn", "dense"] = "knn"

    def __post_init__(self) -> None:
        if not (0 <= self.replaced and 0 <= self.kept and self.replaced + self.kept < 1):
            raise ValueError(
                f"Expected shares from 0 to below 1 together, got replaced={self.replaced} and "
                f"kept={self.kept}"
            )
        if not self.noise >= 0:
            raise ValueError(f"Expected 'noise' of 0 or more, got {self.noise}")
        if self.mask not in ("learned", "constant"):
            raise ValueError(f'Expected mask "learned" or "constant", got {self.mask!r}')
        if self.pattern not in ("knn", "dense"):
            raise ValueError(f'Expected pattern "knn" or "dense", got {self.pattern!r}')


PUBLISHED_CORRUPTION = SubSliceCorruption(mask="constant", pattern="dense")
"""Corruption of the published code, for models of
:func:`~spatiagraph.models.stofm.published.as_published`."""


class Chosen(NamedTuple):
    """Cells that a term of the loss is about.

    Attributes:
        replaced: Cells that are changed, ``[N]``.
        scored: Those and the cells that are predicted but left as they are, ``[N]``.
    """

    replaced: Tensor
    scored: Tensor


def is_cell(nodes: Nodes) -> Tensor:
    """Nodes that are cells, ``[N]``."""
    return nodes.kind == NodeKind.CELL


def chosen(
    core: Tensor, batch: Tensor, how: SubSliceCorruption, generator: torch.Generator
) -> Chosen:
    """Cells to replace and to keep: a share of each sub-slice, rounded down.

    Args:
        core: Cells to choose from, ``[N]``.
        batch: Sub-slice of each node, ``[N]``.
        how: The shares.
        generator: Source of the choice.
    """
    chance = torch.rand(len(core), generator=generator, device=core.device)
    chance = chance.masked_fill(~core, 2.0)
    order = chance.argsort(stable=True)
    order = order[batch[order].argsort(stable=True)]  # by sub-slice, then by chance
    total = torch.bincount(batch)
    rank = torch.empty_like(batch)
    rank[order] = (
        torch.arange(len(batch), device=batch.device) - (total.cumsum(0) - total)[batch[order]]
    )
    number = torch.zeros_like(total).index_add_(0, batch, core.long()).double()
    replaced = (number * how.replaced + 1e-9).long()
    kept = (number * how.kept + 1e-9).long()
    return Chosen(rank < replaced[batch], rank < (replaced + kept)[batch])


def target_pairs(nodes: Nodes, scored: Tensor) -> Tensor:
    """Pairs of cells of known distance with at least one of those to be scored, ``[2, M]``.

    Args:
        nodes: Nodes at their true positions.
        scored: Cells to be scored, ``[N]``.
    """
    i, j = nodes.pair_index
    cell = is_cell(nodes)
    return nodes.pair_index[:, cell[i] & cell[j] & (scored[i] | scored[j])]


def mean_distance(nodes: Nodes) -> Tensor:
    """Mean known distance of cells of each sub-slice, ``[B]``; 1 where there is none."""
    i, j = target_pairs(nodes, is_cell(nodes))
    graph, away = nodes.batch[i], (nodes.pos[i] - nodes.pos[j]).norm(dim=1)
    zero = away.new_zeros(int(nodes.batch[-1]) + 1)
    total, size = (zero.index_add(0, graph, v) for v in (away, torch.ones_like(away)))
    mean = total / size.clamp(min=1)
    return torch.where(mean > 0, mean, 1.0)


def noise_scale(nodes: Nodes, spacings: float) -> Tensor:
    r"""Standard deviation of the noise in each sub-slice, :math:`s \sqrt{XY / c}`, ``[B]``.

    Args:
        nodes: Nodes at their true positions.
        spacings: The noise in mean spacings, :math:`s`.
    """
    rows = is_cell(nodes).nonzero().squeeze(1)
    graph, num = nodes.batch[rows], int(nodes.batch[-1]) + 1
    index = graph.unsqueeze(1).expand(-1, 2)
    low, high = (
        nodes.pos.new_zeros(num, 2).scatter_reduce(0, index, nodes.pos[rows], f, include_self=False)
        for f in ("amin", "amax")
    )
    number = torch.bincount(graph, minlength=num).clamp(min=1)
    return spacings * ((high - low).prod(1) / number).sqrt()


def with_noise(
    nodes: Nodes,
    moved: Tensor,
    how: SubSliceCorruption,
    generator: torch.Generator,
    rule: SubSlices,
) -> Nodes:
    """Nodes of which some were moved, with the distances that are known then.

    Args:
        nodes: Nodes at their true positions.
        moved: Cells to move, ``[N]``.
        how: How far, and which distances are known.
        generator: Source of the noise.
        rule: Says how many distances a node knows.
    """
    sigma = noise_scale(nodes, how.noise)[nodes.batch].unsqueeze(1)
    noise = torch.randn(nodes.pos.shape, generator=generator, device=nodes.pos.device)
    pos = torch.where(moved.unsqueeze(1), nodes.pos + sigma * noise, nodes.pos)
    if how.pattern == "dense":
        return nodes._replace(pos=pos, pair_index=_dense_rows(nodes, moved))
    found, start = [], 0
    for size in torch.bincount(nodes.batch).tolist():
        rows = slice(start, start + size)
        found.append(
            known_pairs(pos[rows], nodes.kind[rows], rule.num_neighbors, dense=rule.dense) + start
        )
        start += size
    return nodes._replace(pos=pos, pair_index=torch.cat(found, 1))


def _dense_rows(nodes: Nodes, moved: Tensor) -> Tensor:
    """Known pairs, and all pairs of the moved cells but those with ``CLS``."""
    num = len(nodes.batch)
    source = moved.nonzero().squeeze(1)
    size = torch.bincount(nodes.batch)
    first = (size.cumsum(0) - size)[nodes.batch[source]]
    times = size[nodes.batch[source]]
    i = source.repeat_interleave(times)
    place = torch.arange(len(i), device=i.device) - (times.cumsum(0) - times).repeat_interleave(
        times
    )
    j = first.repeat_interleave(times) + place
    fits = (i != j) & (nodes.kind[j] != NodeKind.CLS)
    i, j = i[fits], j[fits]
    more = torch.stack([torch.minimum(i, j), torch.maximum(i, j)])
    code = torch.cat([nodes.pair_index, more], 1)
    return torch.stack(_split((code[0] * num + code[1]).unique(), num))


def _split(code: Tensor, num: int) -> tuple[Tensor, Tensor]:
    return code // num, code % num


def without_cells(nodes: Nodes, cells: Tensor, own: Tensor, own_size: Tensor) -> Tensor:
    """Vectors of nodes, virtual cells being means without some of their cells, ``[N, C]``.

    Args:
        nodes: The nodes.
        cells: Cells to leave out, ``[N]``.
        own: Virtual cell that each node belongs to, ``[N]``; a virtual cell has its own number.
        own_size: Cells of it in the whole slide, ``[N]``.
    """
    virtual = nodes.kind == NodeKind.VIRTUAL
    width = int(own.max()) + 1
    key = nodes.batch * width + own
    rows = (cells & (own >= 0)).nonzero().squeeze(1)
    num = (int(nodes.batch[-1]) + 1) * max(width, 1)
    total = nodes.x.new_zeros(num, nodes.x.size(1)).index_add(0, key[rows], nodes.x[rows])
    less = torch.bincount(key[rows], minlength=num)
    at = key[virtual]
    size = own_size[virtual]
    rest = (size - less[at]).unsqueeze(1)
    mean = (nodes.x[virtual] * size.unsqueeze(1) - total[at]) / rest.clamp(min=1)
    x = nodes.x.clone()
    x[virtual] = torch.where(rest > 0, mean, 0.0)
    return x
