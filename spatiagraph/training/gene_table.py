"""``fit_gene_table``: vectors of genes from the molecules around theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm.auto import tqdm

from spatiagraph.data.colocalization import CellMolecules
from spatiagraph.data.gene_table import GeneTable
from spatiagraph.flow.randomness import named_generator
from spatiagraph.graph import radius_graph
from spatiagraph.graph.ranges import ranges
from spatiagraph.nn.transcript_sage import TranscriptSAGE
from spatiagraph.training.devices import as_device


class MoleculeGraph(NamedTuple):
    """Molecules of some slides with those next to each, whatever their cells.

    Attributes:
        symbols: Names of genes, ``[G]``.
        gene: Gene of each molecule, ``[M]``.
        edge_index: Neighbours, both ways, sorted by target, ``[2, E]``.
    """

    symbols: tuple[str, ...]
    gene: Tensor
    edge_index: Tensor


@dataclass(frozen=True)
class GeneTableFit:
    """Vectors of genes, and how they were learned.

    Attributes:
        table: The vectors.
        history: One row per epoch: ``loss`` and ``accuracy`` on edges that were held out of both
            training and message passing, beside as many pairs drawn at random.
    """

    table: GeneTable
    history: pd.DataFrame


def molecule_graph(
    slides: Sequence[CellMolecules],
    *,
    radius_um: float = 3.0,
    max_cells: int = 20_000,
    seed: int = 0,
) -> MoleculeGraph:
    """Connect the molecules of each slide that are next to each other, also across cells.

    Args:
        slides: Molecules by cell, as of :func:`~spatiagraph.data.colocalization.cell_molecules`.
        radius_um: Longest edge in µm.
        max_cells: Cells drawn from each slide, at most.
        seed: Seed of the draw.

    Raises:
        ValueError: If no two molecules are so near.
    """
    symbols = sorted({str(g) for slide in slides for g in slide.genes})
    place = {name: i for i, name in enumerate(symbols)}
    genes, edges, first = [], [], 0
    for number, slide in enumerate(slides):
        generator = named_generator(seed, "cells", number)
        cells = torch.randperm(slide.num_cells, generator=generator)[:max_cells].sort().values
        ptr = torch.from_numpy(slide.ptr)
        rows = ranges(ptr[cells], ptr[cells + 1] - ptr[cells]).numpy()
        own = np.array([place[str(g)] for g in slide.genes], dtype=np.int64)
        genes.append(torch.from_numpy(own[slide.gene[rows]]))
        found = radius_graph(slide.pos[rows, :2], radius_um)
        edges.append(torch.stack(list(found)) + first)
        first += len(rows)
    graph = MoleculeGraph(tuple(symbols), torch.cat(genes), torch.cat(edges, 1))
    if not graph.edge_index.size(1):
        raise ValueError(f"Expected molecules at most {radius_um:g} µm apart, got none")
    return graph


def fit_gene_table(
    graph: MoleculeGraph,
    channels: int = 64,
    *,
    hidden_channels: int = 64,
    max_epochs: int = 10,
    batch_size: int = 4096,
    accuracy: float = 0.82,
    lr: float = 1e-3,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> GeneTableFit:
    """Learn vectors of genes: molecules next to each other are to be alike.

    The objective of SpatialFormer: edges against as many pairs drawn at random. One edge in ten is
    held out of training and of message passing, and training stops once so many answers on these
    are right; the vector of a gene is the mean over its molecules.

    Args:
        graph: Molecules.
        channels: Size of a vector.
        hidden_channels: Size of the layer between.
        max_epochs: Passes over the edges, at most.
        batch_size: Edges of a step.
        accuracy: Where to stop.
        lr: Learning rate.
        seed: Seed of weights, of the edges held out and of the order.
        device: Where it runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.
    """
    place = as_device(device)
    generator = named_generator(seed, "gene table")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TranscriptSAGE(len(graph.symbols), channels, hidden_channels).to(place)
    source, target = graph.edge_index
    once = (source < target).nonzero().squeeze(1)
    once = once[torch.randperm(len(once), generator=generator)]
    num_test = max(1, len(once) // 10)
    pairs = graph.edge_index[:, once]
    test, train = pairs[:, :num_test], pairs[:, num_test:]
    kept = torch.cat([train, train.flip(0)], 1)
    kept = kept[:, kept[1].argsort(stable=True)]
    num = len(graph.gene)
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(kept[1], minlength=num)])
    ptr = ptr.cumsum(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.1)
    apart = torch.randint(num, test.shape, generator=generator)

    def logits(ends: Tensor) -> Tensor:
        """Products of both ends of some pairs, from their neighbourhoods, ``[n]``."""
        nodes, edges, index = _neighborhood(ends, kept[0], ptr)
        z = model(graph.gene[nodes].to(place), edges.to(place))
        a, b = z[index.to(place)]
        return (a * b).sum(1)

    rows = []
    for epoch in tqdm(range(max_epochs), desc="gene table", disable=not progress):
        losses = []
        for some in torch.randperm(train.size(1), generator=generator).split(batch_size):
            other = torch.randint(num, (2, len(some)), generator=generator)
            score = logits(torch.cat([train[:, some], other], 1))
            label = torch.cat([torch.ones(len(some)), torch.zeros(len(some))]).to(place)
            loss = binary_cross_entropy_with_logits(score, label)
            if not torch.isfinite(loss):
                raise ValueError(f"The loss is {loss.item()}: lower the learning rate, {lr:g}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        with torch.no_grad():
            right = [
                (logits(part) > 0).cpu() == wanted
                for ends, wanted in ((test, True), (apart, False))
                for part in ends.split(batch_size, 1)
            ]
        reached = float(torch.cat(right).float().mean())
        rows.append({"epoch": epoch, "loss": float(np.mean(losses)), "accuracy": reached})
        if reached >= accuracy:
            break
    return GeneTableFit(_table(model, graph, place), pd.DataFrame(rows))


@torch.no_grad()
def _table(model: TranscriptSAGE, graph: MoleculeGraph, place: torch.device) -> GeneTable:
    """Mean output of the molecules of each gene, over the whole graph."""
    z = model(graph.gene.to(place), graph.edge_index.to(place)).float().cpu()
    total = torch.zeros(len(graph.symbols), z.size(1)).index_add_(0, graph.gene, z)
    number = torch.bincount(graph.gene, minlength=len(total)).clamp(min=1)
    return GeneTable(graph.symbols, total / number[:, None])


def _neighborhood(ends: Tensor, source: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two hops around some nodes: nodes, edges among them, and where the ends are."""
    nodes = ends.unique()
    for _ in range(2):
        around = source[ranges(ptr[nodes], ptr[nodes + 1] - ptr[nodes])]
        nodes = torch.cat([nodes, around]).unique()
    degree = ptr[nodes + 1] - ptr[nodes]
    neighbor = source[ranges(ptr[nodes], degree)]
    target = torch.arange(len(nodes)).repeat_interleave(degree)
    place = torch.searchsorted(nodes, neighbor).clamp(max=len(nodes) - 1)
    inside = nodes[place] == neighbor
    edges = torch.stack([place[inside], target[inside]])
    return nodes, edges, torch.searchsorted(nodes, ends.contiguous())
