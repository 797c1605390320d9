"""Modalities that vectors were made of, and vectors that can be compared by them.

A model that aligns modalities gives each a vector by its own name, such as ``niche_img`` and
``niche_gene`` of :class:`~spatiagraph.models.STAlign`: these were brought to one space. Vectors of
both, and vectors of one of them that go by the same name where the other is missing, were not.
Models without such names fill what is missing: all that they give lies in one space.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spatiagraph import keys
from spatiagraph.data.notes import our_notes

if TYPE_CHECKING:
    from anndata import AnnData

MADE_OF = "made_of"
"""``uns["spatiagraph"]["embed"]``: name of a vector → modalities that it was made of."""
_SCALES = ("cell", "spot", "niche")
_SUFFIXES = {"_img": "image", "_gene": "genes"}


def vectors_made_of(names: Sequence[str]) -> dict[str, str]:
    """Modalities that the vectors of a slide were made of; empty for a model that aligns none.

    Args:
        names: Names of all vectors that a model gave of the slide.

    Examples:
        >>> vectors_made_of(["niche", "niche_img"])
        {'niche': 'image', 'niche_img': 'image'}
        >>> vectors_made_of(["niche", "niche_img", "niche_gene"])["niche"]
        'genes and image'
        >>> vectors_made_of(["cell", "niche"])
        {}
    """
    own = {name: _by_name(name) for name in names}
    found = sorted({modality for modality in own.values() if modality is not None})
    if not found:
        return {}
    return {name: modality or " and ".join(found) for name, modality in own.items()}


def made_of(adata: "AnnData", key: str) -> str | None:
    """Modalities that a slot of ``obsm`` was made of; ``None`` where nothing says.

    Args:
        adata: An embedded slide.
        key: The slot.

    Raises:
        ValueError: If the last embedding of the slide gave no such vector, so that it is left from
            an earlier one.
    """
    own = keys.embedding_key(str(our_notes(adata).get("name", "")))
    if key != own and not key.startswith(f"{own}_"):
        return None
    name, noted = _name(key, own), _noted(adata, own)
    if noted and name not in noted and (name in _SCALES or _by_name(name)):
        raise ValueError(
            f"Expected a vector of the last embedding of the slide, {', '.join(sorted(noted))}, "
            f"got {name!r} of an earlier one. Embed the slide with all that the vector is made of"
        )
    return noted.get(name)  # none of a slot that somebody else added


def check_alike(slides: "Mapping[str, AnnData]", key: str) -> str | None:
    """Refuse slides of which a slot of ``obsm`` was made of different modalities.

    Args:
        slides: AnnData of each slide, by name.
        key: The slot.

    Returns:
        The modalities; ``None`` where no slide says.

    Raises:
        ValueError: If they differ; names the slides and vectors that can be compared.
    """
    found = {name: made_of(adata, key) for name, adata in slides.items()}
    kinds = sorted({kind for kind in found.values() if kind is not None})
    if len(kinds) < 2:
        return kinds[0] if kinds else None
    by_kind = "; ".join(
        f"{kind} of {', '.join(name for name, its in found.items() if its == kind)}"
        for kind in kinds
    )
    shared = _shared([adata for name, adata in slides.items() if found[name] is not None])
    way = "Search those of each kind apart"
    if shared:
        way = f"All of them have {shared[-1]!r}: pass level={shared[-1]!r}, or {way.lower()}"
    raise ValueError(
        f"Expected slides whose {key!r} was made of the same modalities, got {by_kind}. {way}"
    )


def check_comparable(level: str, searched: str | None, by: str, asked: str | None) -> None:
    """Refuse vectors that were never brought to one space.

    Args:
        level: Name of the vectors that are searched.
        searched: Modalities that these were made of; ``None`` where nothing says.
        by: Name of the vectors of the query.
        asked: Modalities that those were made of.

    Raises:
        ValueError: If one was made of both modalities and the other of one; or each of one, at
            different scales. Names vectors that can be compared.
    """
    if searched is None or asked is None:
        return
    scales = [name.split("_")[0] for name in (level, by)]
    single = [modality in _SUFFIXES.values() for modality in (searched, asked)]
    if single[0] == single[1] and (not single[0] or scales[0] == scales[1]):
        return
    raise ValueError(
        "Expected vectors of the query that were brought to one space with what is searched, "
        f"{level!r} of {searched}, got {by!r} of {asked}. {_way(scales[0], asked)}"
    )


def _way(scale: str, asked: str) -> str:
    """Options that compare vectors of one space."""
    scale = scale if scale in ("spot", "niche") else "niche"
    ways = {
        "image": f"Pass level='{scale}_gene', by='{scale}_img' to find genes by the image",
        "genes": f"Pass level='{scale}_img', by='{scale}_gene' to find images by the genes",
    }
    return ways.get(asked, f"Pass level='{scale}_gene', by='{scale}_img', or the other way around")


def _by_name(name: str) -> str | None:
    """Modality in the name of a vector, if one is."""
    return next((its for end, its in _SUFFIXES.items() if name.endswith(end)), None)


def _name(key: str, own: str) -> str:
    """Name of a vector by its slot, of a model whose cells are in the slot ``own``."""
    return "cell" if key == own else key.removeprefix(f"{own}_")


def _noted(adata: "AnnData", own: str) -> dict[str, str]:
    """Modalities by the names of vectors; by the slots of a file that was written without notes."""
    notes = our_notes(adata, "embed", MADE_OF)
    if notes:
        return {str(name): str(modalities) for name, modalities in notes.items()}
    slots = [key for key in adata.obsm if key == own or key.startswith(f"{own}_")]
    return vectors_made_of([_name(key, own) for key in slots])


def _shared(slides: "Sequence[AnnData]") -> list[str]:
    """Vectors of one modality that all of some slides have, those of niches last."""
    owns = [keys.embedding_key(str(our_notes(adata)["name"])) for adata in slides]
    noted = [_noted(adata, own) for adata, own in zip(slides, owns, strict=True)]
    names = set.intersection(*({name for name in each if _by_name(name)} for each in noted))
    return sorted(names, key=lambda name: (name.startswith("niche"), name))
