"""Notes that ``embed`` leaves on a slide: which model embedded it, and how."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from spatiagraph import keys
from spatiagraph.data.convert.embeddings import WIDTHS
from spatiagraph.data.notes import our_notes
from spatiagraph.data.read.tables import finite_number
from spatiagraph.data.slide import Slide
from spatiagraph.data.units import neighbor_distance
from spatiagraph.training.folder import check_record

_FIRST_LEVELS = ("niche", "tissue")  # of slides embedded before the names were noted
_CELLS_ACROSS = 8.0


def model_name(adata: AnnData) -> str:
    """Short name of the model whose embeddings a slide has.

    Raises:
        ValueError: If it has none.
    """
    if not is_embedded(adata):
        raise ValueError(
            f"Expected a slide that `spatiagraph embed` has embedded, found no embeddings in obsm "
            f"({', '.join(adata.obsm) or 'empty'})"
        )
    return str(adata.uns[keys.UNS]["name"])


def is_embedded(adata: AnnData) -> bool:
    """Check that a slide has the embeddings of a model."""
    name = our_notes(adata).get("name")
    return isinstance(name, str) and all(
        keys.embedding_key(name, level) in adata.obsm for level in level_names(adata) or ("cell",)
    )


def level_names(adata: AnnData) -> tuple[str, ...]:
    """Names of the levels above cells that a slide was embedded at, from cells upwards.

    Args:
        adata: An embedded slide.

    Raises:
        ValueError: If the note of them is damaged.
    """
    notes = our_notes(adata)
    name = str(notes.get("name"))
    if "levels" not in notes:
        return tuple(x for x in _FIRST_LEVELS if keys.embedding_key(name, x) in adata.obsm)
    levels = _plain(notes["levels"])
    if not isinstance(levels, list) or not all(isinstance(level, str) for level in levels):
        raise ValueError(
            f"Expected names of levels in uns[{keys.UNS!r}]['levels'], got {levels!r}: embed it "
            "again"
        )
    return tuple(levels)


def check_level(adata: AnnData, level: str | None) -> str:
    """Level to compare cells at: the first above cells when none is given.

    Args:
        adata: An embedded slide.
        level: ``"cell"``, the name of a level or of another vector of the model, such as
            ``"niche_gene"`` of ST-Align, or ``None``.

    Raises:
        ValueError: The slide was not embedded at that level.
    """
    names = level_names(adata)
    return choose_level(names if level is None else (*names, *other_vectors(adata)), level)


def other_vectors(adata: AnnData) -> tuple[str, ...]:
    """Names of the vectors of cells that a slide has beside those of its levels.

    Args:
        adata: An embedded slide.
    """
    start = f"{keys.embedding_key(model_name(adata), 'cell')}_"
    found = (key.removeprefix(start) for key in adata.obsm if key.startswith(start))
    return tuple(name for name in found if name not in level_names(adata))


def choose_level(names: Sequence[str], level: str | None) -> str:
    """Level to compare cells at: the first above cells when none is given.

    Args:
        names: Levels above cells that slides were embedded at, from cells upwards.
        level: ``"cell"``, the name of a level, or ``None``.

    Raises:
        ValueError: There is no such level.
    """
    known = ("cell", *names)
    if level is None:
        return known[min(1, len(known) - 1)]
    if level not in known:
        raise ValueError(f"Expected a level that the slide has, {', '.join(known)}, got {level!r}")
    return level


def level_width_um(slide: Slide, level: str) -> float:
    """Diameter of a niche, or of a group of another level, in µm.

    Args:
        slide: A slide that :func:`~spatiagraph.embed` has embedded; of one that an older version
            embedded, it is the width of eight cells.
        level: Name of the level; ``"cell"`` is that of the finest level.
    """
    widths = our_notes(slide.adata, WIDTHS)
    where = f"uns[{keys.UNS!r}][{WIDTHS!r}] of {slide.slide_id!r}"
    known = {str(name): finite_number(widths, name, where) for name in widths}
    if level == "cell" and known:
        return min(known.values())
    return known.get(level, _CELLS_ACROSS * neighbor_distance(slide.pos))


def embedding_record(adata: AnnData) -> dict[str, Any]:
    """Record of the embedding of a slide, as ``embed`` notes it; empty if not noted.

    Raises:
        ValueError: If the note is damaged.
    """
    note = _plain(our_notes(adata, "embed"))
    return check_record(note, f"uns[{keys.UNS!r}]['embed'] of the slide")


def _plain(value: Any) -> Any:
    """A value from ``uns`` as Python has it: a file gives NumPy's numbers and arrays back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def one_model_name(slides: Sequence[Slide]) -> str:
    """Short name of the model whose embeddings all slides have.

    Raises:
        ValueError: If one has none, two are of different models, or two have one id.
    """
    names = {slide.slide_id: model_name(slide.adata) for slide in slides}
    ids = [slide.slide_id for slide in slides]
    if repeated := sorted({i for i in ids if ids.count(i) > 1}):
        raise ValueError(f"Expected slides with different ids, got {', '.join(repeated)} twice")
    if len(set(names.values())) > 1:
        by_slide = ", ".join(f"{name} for {slide}" for slide, name in names.items())
        raise ValueError(f"Expected slides embedded with one model, got {by_slide}")
    return names[ids[0]]
