"""``find_domains``: groups of an embedded slide clustered at every level, scored and indexed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spatiagraph import keys
from spatiagraph.data.checks import nearest
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate import cluster_domains, domain_baselines, score_domains
from spatiagraph.inference.embedded import check_level, level_names, model_name
from spatiagraph.retrieval.index import NicheIndex

OURS = "spatiagraph"
"""Row of the scores of the slide's own embeddings."""
_NUM_STATES = 4  # clusters of cells where no states are known


@dataclass(frozen=True)
class Domains:
    """Domains of an embedded slide, their agreement with labels, and an index of its first level.

    Attributes:
        domains: Level → domain of each cell, ``[N]``.
        scores: One row per method, if the slide has labels.
        index: Embeddings of the first level, that of niches in most models.
    """

    domains: dict[str, pd.Series]
    scores: pd.DataFrame | None
    index: NicheIndex


def domain_column(name: str, level: str) -> str:
    """Column of ``obs`` for the domains of a model's embeddings at a level."""
    return f"{keys.group_key(name, 'domain')}_{level}"


def known_labels(slide: Slide, labels: str | None, unlabelled: Sequence[str]) -> pd.Series | None:
    """The known domain of each cell, ``[N]``.

    Args:
        slide: The slide.
        labels: Column of ``obs``; ``None`` for none.
        unlabelled: Labels that mean there is none.

    Raises:
        ValueError: If there is no such column, or cells do not differ in it.
    """
    if labels is None:
        return None
    obs = slide.adata.obs
    if labels not in obs:
        close = nearest(labels, [str(c) for c in obs])
        raise ValueError(f"Expected a column of obs with known labels, got {labels!r}. {close}")
    truth = obs[labels].astype(object)
    truth = truth.mask(truth.astype(str).isin(list(unlabelled)))  # labels may be numbers
    if truth.nunique() < 2:
        raise ValueError(
            f"Expected two labels or more in obs[{labels!r}], got {truth.nunique()} in "
            f"{truth.notna().sum():,} labelled cells of {len(truth):,}"
        )
    return truth


def find_domains(
    slide: Slide,
    truth: pd.Series | None,
    *,
    num_domains: int | None = None,
    seed: int = 0,
) -> Domains:
    """Cluster the levels of a slide, score the first if there are labels, and index it.

    The first level is that of niches in most models. A model without levels is clustered by its
    cells.

    Args:
        slide: A slide with embeddings. Domains are written to its ``obs``.
        truth: Known domain of each cell, as :func:`known_labels` gives it.
        num_domains: Number of domains; that of the labels, or else 7, when not given.
        seed: Of the clustering.
    """
    adata = slide.adata
    name = model_name(adata)
    first = check_level(adata, None)
    key = keys.embedding_key(name, first)
    if num_domains is None:
        num_domains = 7 if truth is None else truth.nunique()
    domains, has = {}, {}
    for level in level_names(adata) or (first,):
        z = np.asarray(adata.obsm[keys.embedding_key(name, level)])
        own = has[level] = np.isfinite(z).all(1)  # a cell without a niche has none
        codes = np.full(len(z), -1)
        codes[own] = cluster_domains(z[own], min(num_domains, own.sum()), seed=seed)
        numbers = pd.RangeIndex(1, int(codes.max()) + 2)
        found = pd.Categorical.from_codes(codes, numbers).remove_unused_categories()
        adata.obs[domain_column(name, level)] = found
        domains[f"domains at {level} level"] = pd.Series(found)
    scores = None
    if truth is not None:
        baselines = domain_baselines(
            slide.counts, slide.pos, expression=slide.expression, seed=seed
        )
        own = has[first]
        methods = {OURS: adata.obsm[key], **baselines}
        scores = score_domains({name: z[own] for name, z in methods.items()}, truth[own])
    index = NicheIndex.from_slides({slide.slide_id: adata}, key)
    return Domains(domains, scores, index)


def cluster_states(section: Slide, name: str, seed: int) -> tuple[str, list[tuple[str, str, str]]]:
    """Clusters of cells by their embeddings as states, for a slide of which none are known.

    Args:
        section: A slide with embeddings; the clusters are written to its ``obs``.
        name: Short name of the model that embedded it.
        seed: Of the clustering.

    Returns:
        The column of ``obs``, and the transition from the largest cluster to the next.
    """
    z = section.adata.obsm[keys.embedding_key(name, "cell")]
    found = pd.Series(cluster_domains(z, min(_NUM_STATES, len(z)), seed=seed))
    by_size = {old: f"state{new}" for new, old in enumerate(found.value_counts().index, start=1)}
    key = keys.group_key(name, "state")
    section.adata.obs[key] = pd.Categorical(found.map(by_size))
    return key, [("state1", "state2", "state1 to state2")]
