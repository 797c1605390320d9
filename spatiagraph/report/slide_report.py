"""``report_slide``: an embedded slide on one page, in one call."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.slide import Slide
from spatiagraph.inference.before_training import BEFORE_TRAINING, embed_before_training
from spatiagraph.inference.domains import (
    OURS,
    Domains,
    find_domains,
    known_labels,
)
from spatiagraph.inference.domains.write import confidence_key
from spatiagraph.inference.embedded import check_level, embedding_record, model_name
from spatiagraph.inference.transition_scores import TransitionScores
from spatiagraph.models.base import SlideModel
from spatiagraph.report.compose import slide_page
from spatiagraph.report.generation import Generation, add_generation, as_generations
from spatiagraph.report.page import Report
from spatiagraph.training.folder import read_history, read_record
from spatiagraph.training.start import has_start


@dataclass(frozen=True)
class SlideReport(Domains):
    """Domains, scores and index of a slide, and the page that shows them.

    Attributes:
        path: The HTML file.
        page: What it shows; sections can be added, and the file be written anew.
    """

    path: Path
    page: Report

    def add_transitions(self, scores: TransitionScores) -> None:
        """Add images of cells in another state to the page, and write the file anew."""
        for made in as_generations(scores):
            add_generation(self.page, made)
        self.page.write(self.path)


def report_slide(
    slide: Slide | AnnData,
    path: str | os.PathLike[str] = "report.html",
    *,
    labels: str | None = None,
    unlabelled: Sequence[str] | None = None,
    num_domains: int | None = None,
    model: SlideModel | None = None,
    run: str | os.PathLike[str] | None = None,
    generation: Sequence[Generation] = (),
    warnings: Sequence[str] = (),
    seed: int = 0,
    progress: bool = False,
) -> SlideReport:
    """Find the domains of an embedded slide and show it on one page that works offline.

    Args:
        slide: What :func:`~spatiagraph.embed` has embedded: the slide, or its AnnData where no
            image is to be shown. Domains are written to its ``obs``.
        path: The HTML file to write.
        labels: Column of ``obs`` with known domains, to score beside baselines.
        unlabelled: Labels that mean there is none, in any case;
            unknown, NA, nan, undetermined and Ambiguous when ``None``.
        num_domains: Number of domains; that of the labels, or else 7 with a warning, when not
            given.
        model: The model, for the coverage of its panel.
        run: Folder of the run that trained it, for the curve and the arguments; with ``labels``,
            its model of before training is scored beside the trained one, if it has kept it.
        generation: Images of cells in another state, see
            :func:`~spatiagraph.report.as_generations`.
        warnings: What to know before trusting the page.
        seed: Seed of the clustering.
        progress: Show a progress bar.

    Raises:
        ValueError: The slide has no embeddings or no such labels, or the folder holds no run.
    """
    given = slide
    slide = given if isinstance(given, Slide) else Slide(given)
    name, first = model_name(slide.adata), check_level(slide.adata, None)
    truth = known_labels(slide, labels, unlabelled)
    record, history = embedding_record(slide.adata), None
    if run is not None:
        record, history = read_record(Path(run)), read_history(Path(run))
    before, said = dict[str, NDArray[np.float32]](), list[str]()
    if run is not None and truth is not None and has_start(run):
        key = keys.embedding_key(name, first)
        try:
            before = embed_before_training(slide, run, [key])
        except ValueError as err:
            said = [f"Not compared with the model before training: {err}"]
    found = find_domains(
        slide,
        truth,
        num_domains=num_domains,
        beside={f"{name}, {first}{BEFORE_TRAINING}": z for z in before.values()},
        seed=seed,
    )
    if isinstance(given, AnnData):  # a slide works on a copy of the table of cells
        column = keys.group_key(name, "domain")
        for own in (column, confidence_key(column)):
            given.obs[own] = slide.adata.obs[own]
        given.uns[keys.UNS] = slide.adata.uns[keys.UNS]
    coverage, missing = None, list[str]()
    if model is not None:
        coverage = model.panel.coverage([slide]).set_index("slide_id")
        missing = model.panel.align(slide).missing
    page = slide_page(
        slide,
        run=record,
        history=history,
        domains=found.domains,
        labels=labels,
        unlabelled=unlabelled,
        scores=_shown(found.scores),
        highlight=OURS,
        index=found.index,
        embedding=keys.embedding_key(name, first),
        generation=generation,
        coverage=coverage,
        missing=missing,
        warnings=[*warnings, *([] if found.note is None else [found.note]), *said],
        progress=progress,
    )
    written = page.write(path)
    return SlideReport(found.domains, found.scores, found.index, found.note, written, page)


def _shown(scores: pd.DataFrame | None) -> pd.DataFrame | None:
    if scores is None:
        return None
    columns = ("ARI", "ARI_std", "ARI_noise", "NMI", "NMI_std")
    return scores[[c for c in columns if c in scores]].astype(np.float64).round(3)
