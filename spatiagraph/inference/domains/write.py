"""``domains`` and ``domain_curve``: domains of slides, and how many of them hold together."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData

import spatiagraph
from spatiagraph import keys
from spatiagraph.clustering.clusters import Clusterer
from spatiagraph.data.notes import our_notes
from spatiagraph.data.slide import Slide
from spatiagraph.inference.domains.consensus import Consensus
from spatiagraph.inference.domains.embedders import Embedder
from spatiagraph.inference.domains.found import FoundDomains
from spatiagraph.inference.domains.methods import CONSENSUS, DomainMethod, as_method
from spatiagraph.inference.domains.sections import Sections

_MEMBERS = 16  # of a consensus by name, for a curve
_NOTES = "domains"  # of uns["spatiagraph"]

Slides: TypeAlias = Slide | AnnData | Sequence[Slide | AnnData]


def domains(
    slides: Slides,
    num_domains: int,
    *,
    method: str | Clusterer | DomainMethod = CONSENSUS,
    embedding: str | Embedder | None = None,
    key: str = "domain",
    center_slides: bool = True,
    regress_depth: bool = False,
    seed: int = 0,
) -> FoundDomains:
    """Find the domains of one slide, or of several together, and write them to ``obs``.

    Several slides are clustered as one, so a domain has the same name on all of them. Time grows
    linearly with the cells. How many domains there are is a question to the tissue:
    :func:`domain_curve` shows how well each number holds together.

    Args:
        slides: Slides, or their AnnData.
        num_domains: Number of domains, ``K``; fewer where fewer embeddings differ.
        method: ``"consensus"``, a vote over many weak clusterings
            (:class:`~spatiagraph.inference.domains.Consensus`); ``"kmeans"``, ``"gmm"`` or
            ``"leiden"``, or any clusterer; or a method of one's own.
        embedding: What is clustered: a level of the model (``"cell"``, ``"niche"``,
            ``"tissue"``), a slot of ``obsm`` (``"X_…"``), ``"averaged_pca"``, genes (``"log"``,
            ``"sqrt"``, ``"logz"``) for the consensus, or an embedder. When not given, clusterers
            take the first level above cells, niches in most models; the consensus takes square
            roots of genes and that level, or genes on three scales where a slide is not embedded.
            A method has its own.
        key: Column of ``obs`` to write.
        center_slides: Take each slide's mean out of what is clustered, if there are several.
        regress_depth: Take sequencing depth out of what is clustered. It helps where depth is an
            artefact and harms where it is tissue, and nothing but labels tells the two apart.
        seed: The same seed gives the same domains.

    Returns:
        Domains of all cells, slide by slide. ``obs[key]`` is categorical, ``"1"`` the largest
        domain; ``obs[f"{key}_confidence"]`` is in [0, 1]; ``uns["spatiagraph"]["domains"][key]``
        holds the stability, the method, the seed and the slides.

    Raises:
        ValueError: More domains than cells, a slide has no such embedding, two slides have one
            id, or ``obs`` has a column ``key`` of somebody else.

    Examples:
        >>> tissue = spatiagraph.make_tissue(num_cells=300, seed=0)
        >>> found = domains(tissue, 3, method="kmeans", embedding="averaged_pca")
        >>> list(tissue.adata.obs["domain"].cat.categories)
        ['1', '2', '3']
    """
    given = [slides] if isinstance(slides, Slide | AnnData) else list(slides)
    for item in given:
        check_key(_adata(item), key)
    sections = _sections(given, center_slides, regress_depth)
    chosen = as_method(method, embedding, sections)
    (found,) = chosen.find_domains(sections, [num_domains], seed)
    note = {
        "num_domains": int(num_domains),
        "method": repr(chosen),
        "seed": int(seed),
        "stability": float(found.stability),
        "center_slides": center_slides,
        "regress_depth": regress_depth,
        "slides": [slide.slide_id for slide in sections.slides],
        "version": spatiagraph.__version__,
    }
    names = pd.Index([str(number + 1) for number in range(int(found.labels.max()) + 1)])
    for number, item in enumerate(given):
        rows = sections.number == number
        adata = _adata(item)
        adata.obs[key] = pd.Categorical.from_codes(found.labels[rows], names)
        adata.obs[confidence_key(key)] = found.confidence[rows].astype(np.float32)
        noted = {**our_notes(adata, _NOTES), key: note}
        adata.uns[keys.UNS] = {**our_notes(adata), _NOTES: noted}
    return found


def domain_curve(
    slides: Slides,
    numbers: Iterable[int] = range(2, 11),
    *,
    method: str | Clusterer | DomainMethod = CONSENSUS,
    embedding: str | Embedder | None = None,
    center_slides: bool = True,
    regress_depth: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how well each number of domains holds together; nothing is chosen or written.

    The highest stability is no answer: two or three domains nearly always win. A peak above two
    is a hint, right within one on six of seven slides with few known domains, and no more.

    Args:
        slides: As of :func:`domains`.
        numbers: Numbers of domains.
        method: As of :func:`domains`; 16 members are enough for a consensus.
        embedding: As of :func:`domains`.
        center_slides: As of :func:`domains`.
        regress_depth: As of :func:`domains`.
        seed: As of :func:`domains`.

    Returns:
        One row per number (``num_domains``, the index): ``stability``, the mean agreement of
        clusterings; ``confidence``, its mean over cells; ``smallest``, the share of cells in the
        smallest domain; ``peak``, whether the stability is higher than at both numbers beside it,
        with none at the ends.
    """
    given = [slides] if isinstance(slides, Slide | AnnData) else list(slides)
    sections = _sections(given, center_slides, regress_depth)
    asked = sorted(set(numbers))
    chosen = as_method(method, embedding, sections)
    if method == CONSENSUS and isinstance(chosen, Consensus):
        chosen = replace(chosen, num_members=_MEMBERS)
    found = chosen.find_domains(sections, asked, seed)
    stability = np.array([each.stability for each in found])
    peak = np.zeros(len(asked), dtype=bool)
    peak[1:-1] = (stability[1:-1] > stability[:-2]) & (stability[1:-1] > stability[2:])
    return pd.DataFrame(
        {
            "stability": stability,
            "confidence": [float(np.nanmean(each.confidence)) for each in found],
            "smallest": [_smallest(each.labels) for each in found],
            "peak": peak,
        },
        index=pd.Index(asked, name="num_domains"),
    )


def confidence_key(key: str) -> str:
    """Column of ``obs`` that holds the confidence of the domains of a column."""
    return f"{key}_confidence"


def check_key(adata: AnnData, key: str) -> None:
    """Refuse a column that is not of ours: it may hold what an expert drew.

    Args:
        adata: Cells.
        key: Column of ``obs`` to be written.

    Raises:
        ValueError: There is such a column, and :func:`domains` did not write it.
    """
    ours = our_notes(adata, _NOTES)
    if key in adata.obs and key not in ours:
        raise ValueError(
            f"Expected a new column of obs for the domains, got {key!r}, which is there and was "
            "not written by domains(). Pass another key"
        )


def _smallest(labels: np.ndarray) -> float:
    size = np.bincount(labels[labels >= 0])
    return float(size.min() / size.sum())


def _adata(slide: Slide | AnnData) -> AnnData:
    return slide.adata if isinstance(slide, Slide) else slide


def _sections(
    given: Sequence[Slide | AnnData], center_slides: bool, regress_depth: bool
) -> Sections:
    slides = [item if isinstance(item, Slide) else Slide(item) for item in given]
    return Sections(slides, center_slides, regress_depth)
