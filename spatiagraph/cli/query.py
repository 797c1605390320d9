"""Queries of ``search``: cells of the slides, or a slide of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatiagraph import keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatiagraph.data.slide import Slide
    from spatiagraph.inference.querying import Modality
    from spatiagraph.retrieval.index import NicheIndex


@dataclass(frozen=True)
class Query:
    """Cells of one or more slides whose like is looked for.

    Attributes:
        name: What they are called.
        obs: All cells they were chosen from, with ``slide_id``, ``x_um`` and ``y_um``.
        chosen: Rows of ``obs``, ``[R]``.
        items: The same cells in the index, as far as they are in it.
        embeddings: Of all cells of ``obs``, ``[N, D]``, where the query is a slide of its own.
        section: That slide.
    """

    name: str
    obs: pd.DataFrame
    chosen: "NDArray[np.int64]"
    items: "NDArray[np.int64]"
    embeddings: "NDArray[np.float32] | None" = None
    section: "Slide | None" = None


def choose_cells(
    obs: pd.DataFrame,
    *,
    cells: list[str] | None,
    region: str | None,
    niche: str | None,
    slide: str | None,
) -> "tuple[NDArray[np.int64], str]":
    """Rows of the cells that the options of a query mean, and what to call them.

    Args:
        obs: One row per cell.
        cells: Ids.
        region: ``x0,y0,x1,y1`` in µm, or a file.
        niche: ``column=label``.
        slide: Name of their slide.

    Raises:
        ValueError: If an option is malformed, or there are no such cells.
    """
    from spatiagraph.retrieval import select_rows

    drawn = None if region is None else _region(region)
    where = None if niche is None else _label(obs, niche)
    rows = select_rows(obs, cells=cells, slide=slide, region=drawn, where=where)
    named = [f"{c}" for c in cells or []] + [f"region {region}"] * (region is not None)
    named += [f"{niche}"] * (niche is not None)
    slides = obs[keys.SLIDE_ID].iloc[rows].astype(str).unique()
    what = ", ".join(named) or "all cells"
    size = "" if len(rows) == 1 else f" ({len(rows):,} cells)"
    return rows, f"{what} of {', '.join(slides)}{size}"


def read_query(
    path: Path,
    image: Path | None,
    index: "NicheIndex",
    *,
    model: str | None,
    modality: "Modality | None",
    level: str,
    asking: dict[str, Any],
) -> Query:
    """A slide that is not searched itself, as a query.

    Args:
        path: The slide: one that ``embed`` wrote, or any with ``model``.
        image: Its image.
        index: What is searched.
        model: What embeds it; the embeddings in the file are taken when not given.
        modality: ``"genes"`` or ``"image"`` to embed it by that alone.
        level: What is compared.
        asking: Arguments of :func:`choose_cells`; all cells ask when none is given.

    Raises:
        ValueError: If it has no embeddings, or those of another model than the index.
    """
    from spatiagraph.cli.embed import load_model
    from spatiagraph.data.read import read
    from spatiagraph.inference import embed_query
    from spatiagraph.retrieval.slides import concatenate_slides, slide_obs, with_embedding
    from spatiagraph.training.record import weights_hash

    section = read(path, image=image)
    if model is None:
        if modality is not None:
            raise ValueError("Expected --model with --modality, to embed the query, got none")
        embeddings, obs, made_by = concatenate_slides(
            {section.slide_id: section.adata}, str(index.key)
        )
    else:
        loaded = load_model(model)
        made_by = weights_hash(loaded)
        found = embed_query(loaded, section, modality)[level]
        embeddings, obs = with_embedding(found, slide_obs(section.slide_id, section.adata))
    if index.model is not None and made_by is not None and made_by != index.model:
        raise ValueError(
            f"Expected a query embedded with the model of the slides ({index.model}), got one of "
            f"{made_by}: embed them all with one model"
        )
    rows, name = choose_cells(obs, **asking)
    own = (index.obs[keys.SLIDE_ID].astype(str) == section.slide_id).to_numpy()
    items = np.flatnonzero(own & index.obs.index.isin(obs.index[rows]))
    by = "" if modality is None else f" by {modality} alone"
    return Query(f"{name}{by}", obs, rows, items, embeddings, section)


def _region(text: str) -> Any:
    """Corners in µm of ``x0,y0,x1,y1``, or what a file holds."""
    from spatiagraph.retrieval import read_region

    parts = text.split(",")
    try:
        x0, y0, x1, y1 = (float(part) for part in parts)
    except ValueError as err:
        if Path(text).is_file():
            return read_region(text)
        raise ValueError(
            f"Expected a region as x0,y0,x1,y1 in µm or a .geojson or .csv file, got {text!r}"
        ) from err
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _label(obs: pd.DataFrame, text: str) -> dict[str, Any]:
    """The column and the value, in its own type, of ``column=label``."""
    column, equals, label = text.partition("=")
    if not equals:
        raise ValueError(f"Expected a niche as column=label, got {text!r}")
    if column not in obs:
        return {column: label}  # refused where columns are known
    values = {str(value): value for value in obs[column].dropna().unique()}
    return {column: values.get(label, label)}
