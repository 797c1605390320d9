"""Notes of spatiagraph in ``uns["spatiagraph"]`` of an AnnData."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spatiagraph import keys
from spatiagraph._json import shortened

if TYPE_CHECKING:
    from anndata import AnnData


def our_notes(adata: "AnnData", *path: str) -> Mapping[str, Any]:
    """Notes of spatiagraph, or those of a group inside of them; empty where there are none.

    Args:
        adata: An AnnData of whatever origin.
        *path: Names of groups, from the outer to the inner one.

    Raises:
        ValueError: If there is something else in their place.

    Examples:
        >>> from anndata import AnnData
        >>> our_notes(AnnData(uns={"spatiagraph": {"read": {"slide_id": "a"}}}), "read")
        {'slide_id': 'a'}
    """
    found: Any = adata.uns
    where = "uns"
    for name in (keys.UNS, *path):
        found = found.get(name, {})
        where += f"[{name!r}]"
        if not isinstance(found, Mapping):
            raise ValueError(
                f"Expected {where} to be a group of notes, got {shortened(found)}. Rename or "
                "delete it"
            )
    return found
