"""Counts of niches, summed over their cells."""

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.graph.edges import plain_edges


def niche_totals(batch: Data, niches: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over the cells of some niches.

    Args:
        batch: Cells with their niches.
        niches: Rows of the niches, without repeats, ``[M']``.
        x: What to sum, ``[N, G]``.

    Returns:
        Sums ``[M', G]``, cells of each niche ``[M']``, and one cell of each niche ``[M']``, -1 for
        a niche without cells.
    """
    member, niche = plain_edges(batch.niche_index)
    position = niche.new_full((batch.niche_pos.size(0),), -1)
    position[niches] = torch.arange(niches.numel(), device=niche.device)
    inside = position[niche] >= 0
    edges = torch.stack([position[niche[inside]], member[inside]])
    share = torch.sparse_coo_tensor(
        edges, x.new_ones(edges.size(1)), (niches.numel(), x.size(0)), check_invariants=False
    )
    size = torch.bincount(edges[0], minlength=niches.numel())
    one = niche.new_full((niches.numel(),), -1).scatter(0, edges[0], edges[1])
    return torch.sparse.mm(share, x), size, one


def scored_niches(batch: Data, ratio: float, generator: torch.Generator | None) -> Tensor:
    """A random share of the niches that core cells belong to, rising, ``[M']``."""
    own = batch.niche[batch.core]
    niches = own[own >= 0].unique()
    keep = max(1, int(ratio * niches.numel()))
    device = niches.device if generator is None else generator.device
    chosen = torch.randperm(niches.numel(), generator=generator, device=device)[:keep]
    return niches[chosen.sort().values.to(niches.device)]
