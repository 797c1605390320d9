"""``search_slides``: cells of embedded slides that are most like a cell, a region or a niche."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.cohort import Cohort
from spatiagraph.data.cohort.embedded import embedding_notes
from spatiagraph.data.slide import Slide
from spatiagraph.inference.embedded import (
    check_level,
    choose_level,
    level_width_um,
    one_model_name,
)
from spatiagraph.inference.querying import Modality, embed_query
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.weights import weights_hash
from spatiagraph.retrieval.filters import Filter
from spatiagraph.retrieval.hits import find_hits
from spatiagraph.retrieval.index import NicheIndex
from spatiagraph.retrieval.made_of import check_comparable, vectors_made_of
from spatiagraph.retrieval.query import Query, Selection
from spatiagraph.retrieval.slides import concatenate_slides, slide_obs, with_embedding


@dataclass(frozen=True)
class QuerySlide:
    """A slide to search with, that is not searched itself.

    Attributes:
        slide: One that :func:`~spatiagraph.embed` has embedded, or any with a model.
        model: Model that embeds it; its own embeddings are taken when ``None``.
        modality: ``"genes"`` or ``"image"`` to embed it by that alone.
    """

    slide: Slide
    model: SlideModel | None = None
    modality: Modality | None = None

    def __post_init__(self) -> None:
        if self.modality is not None and self.model is None:
            raise ValueError("Expected model= with modality=, to embed the query, got none")


@dataclass(frozen=True)
class SlideSearch:
    """Result of a search.

    Attributes:
        query: Cells that were searched with.
        hits: A row for each hit, nearest first, as :meth:`NicheIndex.search` gives them.
        index: What was searched.
        level: What was compared.
        apart_um: Least distance of hits to the query and to each other.
    """

    query: Query
    hits: pd.DataFrame
    index: NicheIndex
    level: str
    apart_um: float


def search_slides(
    slides: Sequence[Slide] | Cohort,
    selection: Selection,
    k: int = 10,
    *,
    query: QuerySlide | None = None,
    level: str | None = None,
    by: str | None = None,
    where: Filter | None = None,
    apart_um: float | None = None,
    max_distance: float | None = None,
    calibrate: bool = False,
) -> SlideSearch:
    """Find the cells whose niche is most like that of some cells, across slides.

    Hits are different places: a niche's diameter apart from the query and each other, not at the
    rim of the tissue, and none that is less like the query than a quarter of all cells. Where cells
    share a group of the level, one of them is found for all, and those that share that of the query
    are not.

    Args:
        slides: Slides that one model has embedded; or a cohort, of which embeddings and the table
            of cells are read and counts are not.
        selection: Cells to search with, of ``slides`` or of ``query``.
        k: Most hits.
        query: A slide to search with that is not searched.
        level: What is compared: ``"cell"`` or a level of the model; its first level when ``None``.
        by: Vectors of the query where they are others, of one space with those of ``level``: of
            :class:`~spatiagraph.models.STAlign`, ``level="niche_gene", by="niche_img"`` looks for
            genes with a picture. Others than those that it brings together are refused, as are
            vectors of both modalities beside those of one.
        where: Condition that hits meet.
        apart_um: Least distance of hits to the query and to each other; the diameter of a niche
            when ``None``, and 0 where cells share the groups of the level.
        max_distance: Distance of embeddings beyond which cells are no hits; by default that within
            which a quarter of all cells lie that meet the condition.
        calibrate: Take away what all cells of a slide share.

    Raises:
        ValueError: Slides are not embedded with one model, or the query with another, what would be
            compared was made of different modalities, there are no such cells, or nothing is left
            to find.

    Examples:
        >>> import spatiagraph as sg
        >>> slide = sg.make_tissue(300, num_genes=30, image=None, seed=0)
        >>> model = sg.models.ContextModel.for_slides([slide], channels=8)
        >>> adata = sg.embed(model, slide, progress=False)
        >>> found = search_slides([slide], Selection(cells="cell7"), k=3)
        >>> found.query.name, len(found.hits)
        ('cell7 of slide', 3)
    """
    if by is not None and calibrate:
        raise ValueError(
            "Expected 'by' or 'calibrate', got both: only vectors that are searched are calibrated"
        )
    if isinstance(slides, Cohort):
        if by is not None:
            raise ValueError("Expected slides with 'by', a cohort has the vectors of levels alone")
        about = _about_cohort(slides, level)
        searched: Any = slides
    else:
        about = _about(slides, level)
        searched = {slide.slide_id: slide.adata for slide in slides}
    name, level = about.name, about.level
    index = NicheIndex.from_slides(
        searched,
        keys.embedding_key(name, level),
        calibrate="slide" if calibrate else None,
    )
    if query is None:
        rows = selection.rows(index.obs)
        title = selection.title(index.obs, rows)
        asked = Query(title, index.obs, rows, rows)
        if by is not None:
            vectors = _vectors(searched, name, level, by, index)
            asked = Query(f"{title} by {by}", index.obs, rows, rows, vectors)
    else:
        asked = _query_of(query, selection, index, level, by)
    group = keys.group_key(name, level)
    if apart_um is None:
        apart_um = 0.0 if group in index.obs else about.width_um
    hits = find_hits(
        index,
        asked,
        k,
        level=level,
        group=group,
        where=where,
        apart_um=apart_um,
        max_distance=max_distance,
    )
    return SlideSearch(asked, hits, index, level, apart_um)


class _About(NamedTuple):
    """What slides were embedded with, the level to compare and how wide its groups are."""

    name: str
    level: str
    width_um: float


def _about(slides: Sequence[Slide], level: str | None) -> _About:
    name = one_model_name(slides)
    level = check_level(slides[0].adata, level)
    return _About(name, level, max(level_width_um(slide, level) for slide in slides))


def _about_cohort(cohort: Cohort, level: str | None) -> _About:
    """The same of a cohort, of which notes alone are read."""
    notes = embedding_notes(cohort.part())
    level = choose_level(notes.levels, level)
    widths = [min(w.values()) if level == "cell" else w[level] for w in notes.widths_um]
    return _About(notes.name, level, max(widths))


def _vectors(
    slides: dict[str, AnnData], name: str, level: str, by: str, index: NicheIndex
) -> NDArray[np.float32]:
    """Vectors by which searched slides ask, a row for each item of the index."""
    for adata in slides.values():
        check_level(adata, by)
    found, obs, _, made_of = concatenate_slides(slides, keys.embedding_key(name, by))
    same = len(obs) == index.num_items and bool((obs.index == index.obs.index).all())
    if not same or found.shape[1] != index.channels:
        raise ValueError(
            f"Expected 'by' vectors of one space with what is searched, [{index.num_items}, "
            f"{index.channels}], got {list(found.shape)} of {by!r}"
        )
    check_comparable(level, index.made_of, by, made_of)
    return found


def _query_of(
    query: QuerySlide, selection: Selection, index: NicheIndex, level: str, by: str | None
) -> Query:
    """Cells of a slide that is not searched itself."""
    slide = query.slide
    wanted = level if by is None else by
    if query.model is None:
        key = str(index.key)
        if by is not None:
            key = keys.embedding_key(one_model_name([slide]), check_level(slide.adata, by))
        embeddings, obs, made_by, made_of = concatenate_slides({slide.slide_id: slide.adata}, key)
    else:
        made_by = weights_hash(query.model)
        vectors = embed_query(query.model, slide, query.modality)
        made_of = vectors_made_of(list(vectors)).get(wanted)
        if wanted not in vectors:
            raise ValueError(
                f"Expected vectors that the query has, {', '.join(vectors)}, got {wanted!r}: give "
                "'by', such as the image of a slide without genes"
            )
        embeddings, obs = with_embedding(vectors[wanted], slide_obs(slide.slide_id, slide.adata))
    if index.model is not None and made_by is not None and made_by != index.model:
        raise ValueError(
            f"Expected a query embedded with the model of the slides ({index.model}), got one of "
            f"{made_by}: embed them all with one model"
        )
    check_comparable(level, index.made_of, wanted, made_of)
    rows = selection.rows(obs)
    own = (index.obs[keys.SLIDE_ID].astype(str) == slide.slide_id).to_numpy()
    items = np.flatnonzero(own & index.obs.index.isin(obs.index[rows]))
    by = "" if query.modality is None else f" by {query.modality} alone"
    return Query(f"{selection.title(obs, rows)}{by}", obs, rows, items, embeddings, slide)
