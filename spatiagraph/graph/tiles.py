"""Tiles with all the context a model looks at: tiled inference equals the whole slide.

A tile answers for its *core* cells. :func:`tile_context` adds the cells that core embeddings depend
on, exactly: nothing missing, nothing to spare.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.edges import plain_edges
from spatiagraph.graph.hierarchy.parts import kd_parts
from spatiagraph.graph.ranges import ranges


class TileContext(NamedTuple):
    """Cells and groups needed to answer for the core cells of a tile.

    Attributes:
        nodes: Rows of all cells needed, ascending, ``[C]``.
        core_mask: Which of ``nodes`` are core, ``[C]``.
        groups: Numbers of the groups needed at each level, ascending; those that are handed down,
            and those of the same group above.
    """

    nodes: Tensor
    core_mask: Tensor
    groups: tuple[Tensor, ...]


def k_hop(edge_index: Tensor, nodes: Tensor, num_hops: int) -> Tensor:
    """Cells whose features reach some cells within a number of message-passing steps.

    Args:
        edge_index: Messages source → target, ``[2, E]``. An ``EdgeIndex`` sorted by target is used
            as it is; other edges are sorted first, which costs more than the search.
        nodes: The cells that receive, ``[C]``.
        num_hops: Steps, ``L``.

    Returns:
        ``nodes`` and all cells that reach one of them in at most ``L`` steps, ascending.

    Examples:
        >>> chain = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> k_hop(chain, torch.tensor([3]), num_hops=2).tolist()
        [1, 2, 3]
    """
    first, source = _by_target(edge_index, num_targets=int(nodes.max()) + 1 if len(nodes) else 0)
    reached = frontier = nodes.unique()  # not a mask: a slide has thousands of tiles
    for _ in range(num_hops):
        found = _sources_of(first, source, frontier).unique()
        frontier = found[~torch.isin(found, reached)]
        if not len(frontier):
            break
        reached = torch.cat([reached, frontier]).sort().values
    return reached


def tiles(
    pos: ArrayLike | Tensor, tile_size: int, *, slide: ArrayLike | Tensor | None = None
) -> list[Tensor]:
    """Cut a slide into compact tiles.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        tile_size: Most cells of a tile.
        slide: Section of each cell, ``[N]``; a tile never holds cells of two sections.

    Returns:
        Rows of each tile, ascending; every cell is in exactly one tile.
    """
    return _members(kd_parts(pos, tile_size, slide=slide))


def tissue_tiles(tissue: Tensor, tile_size: int) -> list[Tensor]:
    """Pack whole tissue regions into tiles, so that no region is computed twice.

    Args:
        tissue: Region of each cell, ``[N]`` in ``[0, R)``, with -1 for none. Neighbouring numbers
            should be neighbouring regions, as :func:`~spatiagraph.graph.kd_parts` numbers them.
        tile_size: Most cells of a tile. A larger region is a tile of its own.

    Returns:
        Rows of each tile, ascending; every cell is in exactly one tile.

    Raises:
        ValueError: ``tile_size`` is below 1.
    """
    if tile_size < 1:
        raise ValueError(f"Expected 'tile_size' of at least 1, got {tile_size}")
    own = tissue.clone()
    loose = (tissue < 0).nonzero().flatten()
    own[loose] = torch.arange(len(loose)) + (int(tissue.max()) + 1 if len(tissue) else 0)
    sizes = torch.bincount(own).tolist()
    tile_of, tile, filled = [], 0, 0
    for size in sizes:
        if filled and filled + size > tile_size:
            tile, filled = tile + 1, 0
        filled += size
        tile_of.append(tile)
    return _members(torch.tensor(tile_of, dtype=torch.long)[own]) if sizes else []


class LevelEdges(NamedTuple):
    """Memberships of one level, for the groups that a tile touches.

    Attributes:
        own: Group that each member hears from, ``[n]``; -1 for none.
        members: Members → groups, ``[2, P]``, best an ``EdgeIndex`` sorted by group; ``None`` where
            a group consists of those that hear from it.
    """

    own: Tensor
    members: Tensor | None = None


def tile_context(
    core: Tensor, edge_index: Tensor, num_hops: int, levels: Sequence[LevelEdges] = ()
) -> TileContext:
    """Everything that the embeddings of core cells depend on.

    The model passes messages between cells ``num_hops`` times, pools cells into the groups of the
    first level, these into those of the next, lets groups of one group see each other, and hands
    all of it back to the cells. So the core cells need their groups up to the top, these need all
    their members down to the cells, and all of those the cells ``num_hops`` around.

    Args:
        core: Rows the tile answers for, ``[C]``.
        edge_index: Messages between cells, ``[2, E]``, best an ``EdgeIndex`` sorted by target.
        num_hops: Message-passing steps of the model, ``L``.
        levels: Groups of each level, from cells upwards.

    Examples:
        >>> chain = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
        >>> pairs = LevelEdges(torch.tensor([0, 0, 1, 1, 1]))
        >>> tile_context(torch.tensor([4]), chain, 1, [pairs]).nodes
        tensor([1, 2, 3, 4])
    """
    path = [core]  # groups that hand something down to core cells, level by level
    for level in levels:
        own = level.own[path[-1]].unique()
        path.append(own[own >= 0])
    groups: list[Tensor] = []
    needed = torch.empty(0, dtype=torch.long)
    for level, own in zip(reversed(levels), reversed(path[1:]), strict=True):
        groups.append(torch.cat([own, needed]).unique())
        needed = _members_of(level, groups[-1])
    nodes = k_hop(edge_index, torch.cat([core, needed]).unique(), num_hops)
    return TileContext(nodes, torch.isin(nodes, core), tuple(reversed(groups)))


def _members_of(level: LevelEdges, groups: Tensor) -> Tensor:
    """Members of some groups, with repeats."""
    if level.members is None:
        return torch.isin(level.own, groups).nonzero().flatten()
    last = int(groups[-1]) + 1 if len(groups) else 0
    return _sources_of(*_by_target(level.members, last), groups)


def _by_target(edge_index: Tensor, num_targets: int) -> tuple[Tensor, Tensor]:
    """First edge of each target (CSC), and the sources in that order."""
    if isinstance(edge_index, EdgeIndex) and edge_index.is_sorted_by_col:
        (first, source), _ = edge_index.get_csc()
        return first, source
    source, target = plain_edges(edge_index)
    order = target.argsort(stable=True)
    last = int(source.max()) + 1 if len(source) else 0  # a source may hear nobody itself
    degree = torch.bincount(target, minlength=max(num_targets, last))
    return torch.cat([degree.new_zeros(1), degree.cumsum(0)]), source[order]


def _sources_of(first: Tensor, source: Tensor, targets: Tensor) -> Tensor:
    """Sources of all edges into some targets, with repeats."""
    begin = first[targets]
    return source[ranges(begin, first[targets + 1] - begin)]


def _members(part: Tensor) -> list[Tensor]:
    """Rows of each part, ascending."""
    size = torch.bincount(part)
    return list(part.argsort(stable=True).split(size[size > 0].tolist())) if len(part) else []
