"""``spatiagraph search``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_SHOWN = 6  # columns of metadata in the printed table; the file has all


class Level(StrEnum):
    """What is compared."""

    cell = "cell"
    niche = "niche"
    tissue = "tissue"


def search(
    slides: Annotated[
        list[Path], typer.Argument(help="Files that `spatiagraph embed` wrote, of one model.")
    ],
    cell: Annotated[str, typer.Option(help="Id of the cell whose like is wanted.")],
    slide: Annotated[
        str | None, typer.Option(help="Slide of that cell, if several have such an id.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Number of hits.", min=1)] = 10,
    level: Annotated[Level, typer.Option(help="Compare cells, niches or regions.")] = Level.niche,
    where: Annotated[
        str | None,
        typer.Option(help="Condition that hits meet, such as \"donor == 'B' and area > 50\"."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this .csv file.")] = None,
    save_index: Annotated[
        Path | None, typer.Option(help="Keep the index in this folder, for NicheIndex.load.")
    ] = None,
) -> None:
    """Find the cells whose niche is most like that of one cell, across slides.

    Where cells share a niche or region, one of them is shown for all, and those that share that
    of the cell asked about are not.
    """
    from spatiagraph import keys
    from spatiagraph.cli.console import check_output_file, print_table, say
    from spatiagraph.cli.results import model_name, read_embedded
    from spatiagraph.retrieval import NicheIndex

    if out is not None:
        check_output_file(out, ".csv")
    sections = [read_embedded(path) for path in slides]
    names = [section.slide_id for section in sections]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Expected slides with different ids, got {', '.join(repeated)} twice")
    key = keys.embedding_key(model_name(sections[0].adata), level.value)
    index = NicheIndex.from_slides({s.slide_id: s.adata for s in sections}, key)
    if save_index is not None:
        index.save(save_index)
    row = _row(index.obs, cell, slide)
    shared = _shared(index.obs, keys.group_key(model_name(sections[0].adata), level.value))
    same = np.flatnonzero(shared == shared[row])
    largest = int(np.bincount(shared).max())
    found = k if largest == 1 else min(k * largest, len(shared) - len(same))
    if found == 0:
        raise ValueError(f"Expected a {level.value} beside that of {cell!r}, all cells share it")
    hits = index.search(index.vectors([row]), found, where=where, exclude=same)
    _, place = np.unique(shared[hits["row"]], return_index=True)
    hits = hits.iloc[np.sort(place)[:k]].assign(rank=range(1, min(k, len(place)) + 1))
    table = hits.drop(columns="query").set_index("rank")
    if out is not None:
        table.to_csv(out)
    first = ["id", "distance", keys.SLIDE_ID]
    shown = [*first, *(c for c in table if c not in (*first, "row"))][: len(first) + _SHOWN]
    print_table(table[shown], f"Most like {cell} of {index.obs[keys.SLIDE_ID].iloc[row]}")
    if out is not None:
        say(f"written to {out}")


def _shared(obs: "pd.DataFrame", group: str) -> "NDArray[np.int64]":
    """Number of the niche or region of each cell, ``[N]``; a number of its own without one."""
    from spatiagraph import keys

    if group not in obs:
        return np.arange(len(obs))
    number = obs.groupby([keys.SLIDE_ID, group], observed=True, dropna=False).ngroup().to_numpy()
    alone = (obs[group] == -1).to_numpy()
    return np.where(alone, number.max() + 1 + np.arange(len(obs)), number)


def _row(obs: "pd.DataFrame", cell: str, slide: str | None) -> int:
    from spatiagraph import keys
    from spatiagraph.data.checks import nearest

    found = obs.index == cell
    if slide is not None:
        found &= (obs[keys.SLIDE_ID].astype(str) == slide).to_numpy()
    rows = np.flatnonzero(found)
    if len(rows) == 0:
        place = "the slides" if slide is None else f"slide {slide!r}"
        close = nearest(cell, obs.index.astype(str).tolist())
        raise ValueError(f"Expected the id of a cell of {place}, got {cell!r}. {close}")
    if len(rows) > 1:
        slides = obs[keys.SLIDE_ID].iloc[rows].astype(str).tolist()
        raise ValueError(f"Cells of {', '.join(slides)} are called {cell!r}: choose with --slide")
    return int(rows[0])
