"""Embeddings of a tile at every level, one row for each of its core cells."""

from collections.abc import Sequence

import torch

from spatiagraph.data.convert import TissueData
from spatiagraph.graph.hierarchy import region_of
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.cell_graph import Cells, Embeddings
from spatiagraph.nn.top_down import rows_or_zero


def embed_tile(
    model: SlideModel, tile: TissueData, device: torch.device, *, read_genes: bool = True
) -> dict[str, torch.Tensor]:
    """Embeddings of the core cells of a tile and of their groups: level → ``[C, D]``.

    Args:
        model: The model.
        tile: A tile with all the context that the model looks at.
        device: Where the model is.
        read_genes: Whether the genes of cells are read; they are missing otherwise.

    Raises:
        ValueError: If any is NaN or infinite.
    """
    batch = tile.to(device)
    given = model.inputs(batch)
    if not read_genes:
        given = tuple(v._replace(x=None) if isinstance(v, Cells) else v for v in given)
    return levels_of(model(*given), batch.core, model.recipe.level_names)


def levels_of(out: Embeddings, core: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Embeddings of the core cells and of their groups: level → ``[C, D]``.

    A cell without a group has NaN at that level and those above.

    Args:
        out: Embeddings of a batch.
        core: Cells that count, ``[N]``.
        names: Names of the levels, from cells upwards.

    Raises:
        ValueError: If any is NaN or infinite: slides are finite, so the weights do not fit.
    """
    found = {"cell": _finite(out.cell[core])}
    own = None
    for name, level in zip(names, out.levels, strict=True):
        own = level.own[core] if own is None else region_of(own, level.own)
        found[name] = _take(level.h, own)
    return {**found, **{name: _finite(value[core]) for name, value in out.named.items()}}


def _take(z: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return _finite(rows_or_zero(z, index)).masked_fill((index < 0).unsqueeze(1), torch.nan)


def _finite(z: torch.Tensor) -> torch.Tensor:
    bad = int((~z.isfinite()).any(1).sum())
    if bad:
        raise ValueError(
            f"Expected finite embeddings, the model gave NaN or infinity for {bad} of {len(z)} "
            "cells of a finite slide: its weights are damaged, or made for another scale of values"
        )
    return z
