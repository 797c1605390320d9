"""Results of an embedded slide, shown by ``demo`` and ``report`` alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatiagraph import keys

if TYPE_CHECKING:
    from anndata import AnnData

    from spatiagraph.data.slide import Slide
    from spatiagraph.models.base import SlideModel
    from spatiagraph.report import Generation
    from spatiagraph.retrieval.index import NicheIndex

OURS = "spatiagraph"
_LEVELS = ("niche", "tissue")  # that have domains


@dataclass(frozen=True)
class Results:
    """Domains of an embedded slide, their agreement with labels, and an index of its niches.

    Attributes:
        domains: Level → domain of each cell, ``[N]``.
        scores: One row per method, if the slide has labels.
        index: The niches.
    """

    domains: dict[str, pd.Series]
    scores: pd.DataFrame | None
    index: "NicheIndex"


def read_embedded(path: Path) -> "Slide":
    """A slide with its embeddings, as ``spatiagraph embed`` wrote it."""
    from spatiagraph.data.read import read

    slide = read(path)
    model_name(slide.adata)
    return slide


def model_name(adata: "AnnData") -> str:
    """Short name of the model whose embeddings a slide has.

    Raises:
        ValueError: If it has none.
    """
    notes = adata.uns.get(keys.UNS)
    name = notes.get("name") if isinstance(notes, Mapping) else None
    needed = [keys.embedding_key(str(name), level) for level in _LEVELS]
    if not isinstance(name, str) or any(key not in adata.obsm for key in needed):
        raise ValueError(
            f"Expected a file that `spatiagraph embed` wrote, found no embeddings in obsm "
            f"({', '.join(adata.obsm) or 'empty'})"
        )
    return name


def embedding_record(adata: "AnnData") -> dict[str, Any]:
    """Record of the embedding of a slide, as ``spatiagraph embed`` notes it; empty if not noted.

    Raises:
        ValueError: If the note is damaged.
    """
    from spatiagraph.training.folder import check_record

    note = _plain(adata.uns[keys.UNS].get("embed", {}))
    return check_record(note, f"uns[{keys.UNS!r}]['embed'] of the slide")


def _plain(value: Any) -> Any:
    """A value from ``uns`` as Python has it: a file gives NumPy's numbers and arrays back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def one_model_name(slides: "Sequence[Slide]") -> str:
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


def known_labels(slide: "Slide", labels: str | None, unlabelled: Sequence[str]) -> pd.Series | None:
    """The known domain of each cell, ``[N]``.

    Args:
        slide: The slide.
        labels: Column of ``obs``; ``None`` for none.
        unlabelled: Labels that mean there is none.

    Raises:
        ValueError: If there is no such column, or cells do not differ in it.
    """
    from spatiagraph.data.checks import nearest

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
    slide: "Slide",
    truth: pd.Series | None,
    *,
    num_domains: int | None = None,
    seed: int = 0,
) -> Results:
    """Cluster niches and regions, score them if there are labels, and index the niches.

    Args:
        slide: A slide with embeddings. Domains are written to its ``obs``.
        truth: Known domain of each cell, as :func:`known_labels` gives it.
        num_domains: Number of domains; that of the labels, or else 7, when not given.
        seed: Of the clustering.
    """
    from spatiagraph.evaluate import cluster_domains, domain_baselines, score_domains
    from spatiagraph.retrieval.index import NicheIndex

    adata = slide.adata
    name = model_name(adata)
    key = keys.embedding_key(name, "niche")
    if num_domains is None:
        num_domains = 7 if truth is None else truth.nunique()
    domains, has = {}, {}
    for level in _LEVELS:
        z = np.asarray(adata.obsm[keys.embedding_key(name, level)])
        own = has[level] = np.isfinite(z).all(1)  # a cell without a niche has none
        codes = np.full(len(z), -1)
        codes[own] = cluster_domains(z[own], min(num_domains, own.sum()), seed=seed)
        numbers = pd.RangeIndex(1, int(codes.max()) + 2)
        found = pd.Categorical.from_codes(codes, numbers).remove_unused_categories()
        adata.obs[f"{keys.group_key(name, 'domain')}_{level}"] = found
        domains[f"domains at {level} level"] = pd.Series(found)
    scores = None
    if truth is not None:
        baselines = domain_baselines(
            slide.counts, slide.pos, expression=slide.expression, seed=seed
        )
        own = has["niche"]
        methods = {OURS: adata.obsm[key], **baselines}
        scores = score_domains({name: z[own] for name, z in methods.items()}, truth[own])
    index = NicheIndex.from_slides({slide.slide_id: adata}, key)
    return Results(domains, scores, index)


def write_page(
    path: Path,
    slide: "Slide",
    results: Results,
    *,
    labels: str | None,
    model: "SlideModel | None" = None,
    run: Path | None = None,
    generation: "Sequence[Generation]" = (),
    warnings: Sequence[str] = (),
) -> Path:
    """Write the report of a slide.

    Args:
        path: The HTML file.
        slide: The slide with embeddings.
        results: What was found in it.
        labels: Column of ``obs`` with known domains.
        model: The model, for the coverage of its panel.
        run: Folder of the run that trained it, for the curve and the arguments.
        generation: Images of cells in another state.
        warnings: What to know before trusting the page.
    """
    from spatiagraph.report import write_report
    from spatiagraph.training.folder import read_history, read_record

    name = model_name(slide.adata)
    record, history = embedding_record(slide.adata), None
    if run is not None:
        record, history = read_record(run), read_history(run)
    coverage, missing = None, list[str]()
    if model is not None:
        coverage = model.panel.coverage([slide]).set_index("slide_id")
        missing = model.panel.align(slide).missing
    return write_report(
        path,
        slide=slide,
        run=record,
        history=history,
        domains=results.domains,
        labels=labels,
        scores=_shown(results.scores),
        highlight=OURS,
        index=results.index,
        embedding=keys.embedding_key(name, "niche"),
        generation=generation,
        coverage=coverage,
        missing=missing,
        warnings=warnings,
    )


def _shown(scores: pd.DataFrame | None) -> pd.DataFrame | None:
    if scores is None:
        return None
    return scores[["ARI", "ARI_std", "NMI", "NMI_std"]].astype(np.float64).round(3)
