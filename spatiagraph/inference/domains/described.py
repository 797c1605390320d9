"""``find_domains``: domains of an embedded slide, their scores and an index of its first level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from spatiagraph import keys
from spatiagraph.data.checks import nearest
from spatiagraph.data.labels import is_unlabelled
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate import cluster_domains, domain_baselines, score_domains
from spatiagraph.evaluate.inputs import UnscorableError
from spatiagraph.inference.domains.write import domains
from spatiagraph.inference.embedded import check_level, model_name
from spatiagraph.retrieval.index import NicheIndex

OURS = "spatiagraph"
"""Row of the scores of the domains that were found."""
_NUM_DOMAINS = 7  # where nobody chose
_NOT_CHOSEN = (
    f"Nobody chose the number of domains, so there are {_NUM_DOMAINS}. `spatiagraph domains` shows "
    "how well each number holds together."
)
_NUM_STATES = 4  # clusters of cells where no states are known


@dataclass(frozen=True)
class Domains:
    """Domains of an embedded slide, their agreement with labels, and an index of its first level.

    Attributes:
        domains: Name → domain of each cell, ``[N]``.
        scores: One row per method, if the slide has labels.
        index: Embeddings of the first level, that of niches in most models.
        note: Word of warning, where nobody chose the number of domains.
    """

    domains: dict[str, pd.Series]
    scores: pd.DataFrame | None
    index: NicheIndex
    note: str | None


def known_labels(
    slide: Slide, labels: str | None, unlabelled: Sequence[str] | None
) -> pd.Series | None:
    """The known domain of each cell, ``[N]``.

    Args:
        slide: The slide.
        labels: Column of ``obs``; ``None`` for none.
        unlabelled: Labels that mean there is none, in any case;
            unknown, NA, nan, undetermined and Ambiguous when ``None``.

    Raises:
        ValueError: If there is no such column, or cells do not differ in it.
    """
    return None if labels is None else labels_of(slide.adata.obs, labels, unlabelled)


def labels_of(obs: pd.DataFrame, labels: str, unlabelled: Sequence[str] | None) -> pd.Series:
    """The known label of each cell, ``[N]``, missing where there is none.

    Args:
        obs: Columns of the cells.
        labels: Name of one.
        unlabelled: Labels that mean there is none, in any case;
            unknown, NA, nan, undetermined and Ambiguous when ``None``.

    Raises:
        UnscorableError: If there is no such column, or cells do not differ in it.
    """
    if labels not in obs:
        close = nearest(labels, [str(c) for c in obs])
        raise UnscorableError(
            f"Expected a column of obs with known labels, got {labels!r}. {close}"
        )
    truth = obs[labels].astype(object)
    truth = truth.mask(is_unlabelled(truth, unlabelled))
    if truth.nunique() < 2:
        raise UnscorableError(
            f"Expected two labels or more in obs[{labels!r}], got {truth.nunique()} in "
            f"{truth.notna().sum():,} labelled cells of {len(truth):,}"
        )
    return truth


def find_domains(
    slide: Slide,
    truth: pd.Series | None,
    *,
    num_domains: int | None = None,
    beside: Mapping[str, NDArray[np.floating]] | None = None,
    seed: int = 0,
) -> Domains:
    """Find the domains of an embedded slide, score them if there are labels, index its first level.

    The first level is that of niches in most models; of a model without levels it is that of cells.

    Args:
        slide: A slide with embeddings. Domains are written to its ``obs``.
        truth: Known domain of each cell, as :func:`known_labels` gives it.
        num_domains: Number of domains; that of the labels, or else 7 with a word about it, when
            not given.
        beside: Name → embedding of each cell, ``[N, D]``, to score beside that of the first level
            where there are labels; both with what noise of 1 % does to their scores.
        seed: Of the clustering.
    """
    adata = slide.adata
    name = model_name(adata)
    level = check_level(adata, None)
    key = keys.embedding_key(name, level)
    note = None
    if num_domains is None:
        num_domains = _NUM_DOMAINS if truth is None else truth.nunique()
        note = _NOT_CHOSEN if truth is None else None
    column = keys.group_key(name, "domain")
    found = domains(slide, min(num_domains, slide.num_cells), key=column, seed=seed)
    scores = None
    if truth is not None:
        own = np.isfinite(adata.obsm[key]).all(1) & (found.labels >= 0)
        baselines = domain_baselines(
            slide.counts, slide.pos, expression=slide.expression, seed=seed
        )
        ours = {f"{name}, {level}": adata.obsm[key], **(beside or {})}
        # what lies side by side is alike unless it differs by more than noise would make it
        tables = [
            score_domains({n: z[own] for n, z in methods.items()}, truth[own], noise=noise)
            for methods, noise in ((ours, bool(beside)), (baselines, False))
        ]
        known = own & truth.notna().to_numpy()
        scores = pd.concat([_score(found.labels[known], truth[known]), *tables])
    index = NicheIndex.from_slides({slide.slide_id: adata}, key)
    return Domains({"domains": pd.Series(adata.obs[column].to_numpy())}, scores, index, note)


def _score(labels: np.ndarray, truth: pd.Series) -> pd.DataFrame:
    """Row of the table for the domains that were found, which are of one clustering."""
    known = truth.astype(str).to_numpy()
    row = {
        "ARI": adjusted_rand_score(known, labels),
        "ARI_std": np.nan,
        "NMI": normalized_mutual_info_score(known, labels),
        "NMI_std": np.nan,
    }
    return pd.DataFrame(row, index=[OURS])


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
