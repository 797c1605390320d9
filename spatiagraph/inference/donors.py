"""``score_donors``: a model and its baselines on each donor, trained on the remaining donors."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from spatiagraph.data.checks import nearest
from spatiagraph.data.labels import is_unlabelled
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate.transfer import score_transfer
from spatiagraph.inference.domains import Sections
from spatiagraph.inference.zero_shot import ZeroShot
from spatiagraph.models.base import SlideModel
from spatiagraph.training.fitting import fit


def score_donors(
    slides: Sequence[Slide],
    labels: str,
    *,
    unlabelled: Sequence[str] | None = None,
    donor_key: str | None = None,
    model: type[SlideModel] | None = None,
    levels: Sequence[str] = ("cell", "niche"),
    num_seeds: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Leave out each donor in turn: carry labels over, find domains, search the remaining.

    Args:
        slides: Slides of two donors or more.
        labels: Column of ``obs`` with the labels that are carried over.
        unlabelled: Labels that mean there is none, in any case;
            unknown, NA, nan, undetermined and Ambiguous when ``None``.
        donor_key: Column of ``obs`` with the donor; what the slides say when ``None``.
        model: Kind of the model that is trained on the other donors, with its defaults; baselines
            alone when ``None``.
        levels: Levels of the model that are scored.
        num_seeds: Clusterings of each embedding.
        seed: Seed of the model and its training.
        progress: Show progress bars.

    Returns:
        A row for each embedding and donor, as :func:`~spatiagraph.evaluate.score_transfer`.

    Raises:
        ValueError: A donor is not known, there is one only, or labels are missing.
    """
    sections = Sections(slides)
    donors = [donor_of(slide, donor_key) for slide in slides]
    truth = pd.concat([_labels(slide, labels, unlabelled) for slide in slides], ignore_index=True)
    embeddings = {}
    if model is not None:
        kind = model

        def train(seen: Sequence[Slide]) -> SlideModel:
            made = kind.from_options(seen, seed=seed)
            fit(made, list(seen), seed=seed, progress=False)
            return made

        zero_shot = ZeroShot(slides, train)
        embeddings = {f"{kind.name}_{level}": zero_shot.level(level) for level in levels}
    return score_transfer(
        embeddings,
        sections.counts,
        sections.pos,
        truth,
        donor=np.asarray(donors, dtype=object)[sections.number],
        slide=np.asarray([slide.slide_id for slide in slides])[sections.number],
        expression=sections.expression,
        num_seeds=num_seeds,
        progress=progress,
    )


def donor_of(slide: Slide, key: str | None) -> str:
    """Donor of a slide: the only entry of a column of ``obs``, or what the slide says.

    Args:
        slide: The slide.
        key: Column of ``obs``.

    Raises:
        ValueError: It is not known, or the column has several.
    """
    if key is None:
        if slide.donor is None:
            raise ValueError(
                f"Expected the donor of slide {slide.slide_id!r}, which does not say: pass "
                "donor_key=, a column of obs"
            )
        return slide.donor
    if key not in slide.adata.obs:
        close = nearest(key, [str(c) for c in slide.adata.obs])
        raise ValueError(f"Expected a column of obs as donor_key=, got {key!r}. {close}")
    names = slide.adata.obs[key].dropna().astype(str).unique()
    if len(names) != 1:
        raise ValueError(
            f"Expected one donor in obs[{key!r}] of slide {slide.slide_id!r}, got {len(names)}. "
            "Sections of several donors in one file are told apart by sample_key="
        )
    return str(names[0])


def _labels(slide: Slide, column: str, unlabelled: Sequence[str] | None) -> pd.Series:
    if column not in slide.adata.obs:
        close = nearest(column, [str(c) for c in slide.adata.obs])
        raise ValueError(
            f"Expected labels in obs[{column!r}] of slide {slide.slide_id!r}, got none. {close}"
        )
    values = slide.adata.obs[column].astype(object)
    return values.mask(is_unlabelled(values, unlabelled))
