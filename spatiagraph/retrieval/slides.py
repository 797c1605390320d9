"""Slides into one table of embeddings: which cell, which slide, where, and of which model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.notes import our_notes
from spatiagraph.retrieval.made_of import check_alike
from spatiagraph.retrieval.selection import X_UM, Y_UM

if TYPE_CHECKING:
    from anndata import AnnData


class SlideItems(NamedTuple):
    """Embeddings of several slides.

    Attributes:
        embeddings: ``[N, D]``, in memory or on the disk.
        obs: All columns of the slides, ``slide_id``, ``x_um`` and ``y_um``.
        model: Hash of the weights that made them, where the slides say.
        made_of: Modalities that they were made of, likewise.
    """

    embeddings: Any
    obs: pd.DataFrame
    model: str | None
    made_of: str | None = None


def concatenate_slides(slides: "Mapping[str, AnnData] | Sequence[AnnData]", key: str) -> SlideItems:
    """The cells of all slides, one after the other; those without an embedding are left out.

    Args:
        slides: AnnData of each slide, by name; or a list, named by their ``obs["slide_id"]``.
        key: Slot of the embedding in ``obsm``.

    Raises:
        ValueError: If there is no slide, two have one name, one lacks the embedding, or the
            embeddings are of different models or made of different modalities.
    """
    named = dict(slides) if isinstance(slides, Mapping) else _by_slide_id(slides)
    if not named:
        raise ValueError("Expected at least one slide, got none")
    for name, adata in named.items():
        if key not in adata.obsm:
            raise ValueError(
                f"Expected obsm[{key!r}] in slide {name!r}, found {sorted(adata.obsm)}"
            )
    sizes = {name: adata.obsm[key].shape for name, adata in named.items()}
    channels = {shape[1] for shape in sizes.values()}
    if len(channels) > 1:
        raise ValueError(f"Expected embeddings of one model, got sizes {sizes}")
    models = {name: _model_of(adata, key) for name, adata in named.items()}
    known = sorted({m for m in models.values() if m is not None})
    if len(known) > 1:
        by_model = "; ".join(
            f"{', '.join(n for n, m in models.items() if m == one)} by {one}" for one in known
        )
        raise ValueError(f"Expected slides embedded with one model, got {by_model}")
    modalities = check_alike(named, key)
    embeddings = np.empty((sum(s[0] for s in sizes.values()), channels.pop()), np.float32)
    start = 0
    for adata in named.values():
        embeddings[start : (start := start + adata.n_obs)] = adata.obsm[key]
    obs = pd.concat([slide_obs(name, adata) for name, adata in named.items()])
    return SlideItems(*with_embedding(embeddings, obs), known[0] if known else None, modalities)


def with_embedding(
    embeddings: NDArray[np.float32], obs: pd.DataFrame
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Cells that have one: ``embed`` writes NaN at the levels above for a cell without a niche.

    Args:
        embeddings: ``[N, D]``.
        obs: ``N`` rows.
    """
    rows = np.flatnonzero(~np.isnan(embeddings).all(1))
    return (embeddings, obs) if len(rows) == len(obs) else (embeddings[rows], obs.iloc[rows])


def slide_obs(name: str, adata: "AnnData") -> pd.DataFrame:
    """Columns of a slide, with its name and the position of each cell in µm."""
    obs = adata.obs.copy()
    obs[keys.SLIDE_ID] = pd.Categorical([name] * adata.n_obs)
    if keys.SPATIAL in adata.obsm:
        pos = np.asarray(adata.obsm[keys.SPATIAL])
        obs[X_UM], obs[Y_UM] = pos[:, 0], pos[:, 1]
    return obs


def _model_of(adata: "AnnData", key: str) -> str | None:
    """Hash of the weights behind an embedding, if it is one that ``embed`` wrote."""
    own = keys.embedding_key(str(our_notes(adata).get("name", "")))
    if key != own and not key.startswith(f"{own}_"):
        return None
    found = our_notes(adata, "embed").get("weights_hash")
    return None if found is None else str(found)


def _by_slide_id(slides: "Sequence[AnnData]") -> "dict[str, AnnData]":
    named: dict[str, AnnData] = {}
    for number, adata in enumerate(slides):
        ids = list(adata.obs[keys.SLIDE_ID].unique()) if keys.SLIDE_ID in adata.obs else []
        if len(ids) != 1:
            raise ValueError(
                f"Expected one name in obs[{keys.SLIDE_ID!r}] of slide {number}, got {len(ids)}: "
                "pass a dictionary name → slide"
            )
        if str(ids[0]) in named:
            raise ValueError(f"Expected slides with different names, got {ids[0]!r} twice")
        named[str(ids[0])] = adata
    return named
