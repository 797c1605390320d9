"""``score_donors``: a model and its baselines on each donor, trained on the remaining donors."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph.data.checks import nearest
from spatiagraph.data.labels import is_unlabelled
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate import (
    Cells,
    ridge_on,
    score_transfer,
    score_transfer_imputation,
)
from spatiagraph.evaluate.donor_folds import Embed
from spatiagraph.evaluate.imputation import Method
from spatiagraph.evaluate.inputs import UnscorableError
from spatiagraph.inference.before_training import BEFORE_TRAINING
from spatiagraph.inference.domains import Sections
from spatiagraph.inference.donor_images import score_donor_images
from spatiagraph.inference.hidden_genes import HiddenGenes
from spatiagraph.inference.zero_shot import ZeroShot
from spatiagraph.models.base import SlideModel
from spatiagraph.training.fitting import fit

logger = logging.getLogger(__name__)

PROTOCOL = "protocol"
"""Column that holds the part of the protocol that a row is of."""


def score_donors(
    slides: Sequence[Slide],
    labels: str | None = None,
    *,
    unlabelled: Sequence[str] | None = None,
    donor_key: str | None = None,
    model: type[SlideModel] | None = None,
    levels: Sequence[str] | None = None,
    window_um: float | None = None,
    num_seeds: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Leave out each donor in turn: labels, domains, search, hidden genes, genes from images.

    ==================== =====================================================================
    ``labels``           labels carried over, domains of all slides, search among the remaining
                         donors: :func:`~spatiagraph.evaluate.score_transfer`
    ``imputation``       a fifth of the genes hidden, no label needed:
                         :func:`~spatiagraph.evaluate.score_transfer_imputation`
    ``image_to_genes``   ridge on image features, where two donors or more have images:
                         :func:`~spatiagraph.evaluate.score_transfer_images`
    ==================== =====================================================================

    The model is scored twice, as it is made of the slides of the other donors and after training on
    them; the name of the first ends with ``, before training``. Hidden genes are predicted by its
    decoder (``…_decoder``), if it has one of counts, and by ridge on its embeddings of cells
    (``ridge_…_cell``), both from visible genes; image features are its embeddings of cells without
    genes, if it reads images. The genes that take part are those the trained model reads.

    Args:
        slides: Slides of two donors or more.
        labels: Column of ``obs`` with the labels that are carried over; ``None`` for genes only.
        unlabelled: Labels that mean there is none, in any case;
            unknown, NA, nan, undetermined and Ambiguous when ``None``.
        donor_key: Column of ``obs`` with the donor; what the slides say when ``None``.
        model: Kind of the model that is trained on the other donors, with its defaults; baselines
            alone when ``None``.
        levels: Levels of the model that are scored; ``"cell"`` and the first above when ``None``.
        window_um: Side of the image window of baselines around a cell, in µm; no gene is predicted
            from images when ``None``.
        num_seeds: Clusterings of each embedding.
        seed: Seed of the model and its training, and of the genes that are hidden.
        progress: Show progress bars.

    Returns:
        A row for each ``protocol`` of those above, ``embedding`` and ``donor``, with the metrics of
        its protocol and NaN for the others, ``num_cells`` and ``num_genes``. With too few genes to
        hide some, or images of one donor only, these rows are left out, with a warning in the log.

    Raises:
        ValueError: A donor is not known, there is one only, or labels are missing.
        UnscorableError: Nothing can be scored.
    """
    sections = Sections(slides)
    name_of = np.asarray([donor_of(slide, donor_key) for slide in slides], dtype=object)
    donor = name_of[sections.number]
    ids = np.asarray([slide.slide_id for slide in slides])
    cells = Cells(sections.counts, sections.pos, ids[sections.number], sections.expression)
    models = {} if model is None else _models(model, slides, seed)
    tables: dict[str, pd.DataFrame] = {}
    if labels is not None:
        truth = [_labels(slide, labels, unlabelled) for slide in slides]
        tables["labels"] = score_transfer(
            _embeddings(models, levels, donor),
            cells.counts,
            cells.pos,
            pd.concat(truth, ignore_index=True),
            donor=donor,
            slide=cells.slide,
            expression=cells.expression,
            num_seeds=num_seeds,
            progress=progress,
        )
    of_genes: dict[str, Callable[[], pd.DataFrame]] = {
        "imputation": partial(_imputation, models, sections, cells, donor, seed, progress)
    }
    if window_um is not None:
        of_genes["image_to_genes"] = partial(
            score_donor_images,
            {f"{name}_cell{when}": zero_shot for (name, when), zero_shot in models.items()},
            slides,
            cells,
            donor,
            window_um=window_um,
            seed=seed,
            progress=progress,
        )
    for name, score in of_genes.items():
        try:
            tables[name] = score()
        except UnscorableError as err:
            if not tables and name == [*of_genes][-1]:
                raise
            logger.warning("%s is left out: %s", name, err)
    return _tidy(tables)


def _tidy(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of all parts of the protocol, one under the other."""
    named = [table.assign(**{PROTOCOL: name}) for name, table in tables.items()]
    table = pd.concat(named, ignore_index=True)
    first, last = [PROTOCOL, "embedding", "donor"], ["num_cells", "num_genes"]
    last = [column for column in last if column in table]
    return table[[*first, *table.columns.difference([*first, *last], sort=False), *last]]


def _embeddings(
    models: Mapping[tuple[str, str], ZeroShot],
    levels: Sequence[str] | None,
    donor: NDArray[np.object_],
) -> dict[str, Embed]:
    """Levels of models by name."""
    found: dict[str, Embed] = {}
    for (name, when), zero_shot in models.items():
        if levels is None:
            above = zero_shot.model(donor != donor[0]).recipe.level_names[:1]
            levels = ["cell", *above]
        found |= {f"{name}_{level}{when}": zero_shot.level(level) for level in levels}
    return found


def _models(
    kind: type[SlideModel], slides: Sequence[Slide], seed: int
) -> dict[tuple[str, str], ZeroShot]:
    """Name and state → models of training slides, trained and as they are made."""

    def start(seen: Sequence[Slide]) -> SlideModel:
        return kind.from_options(seen, seed=seed)

    def trained(seen: Sequence[Slide]) -> SlideModel:
        made = start(seen)
        fit(made, list(seen), seed=seed, progress=False)
        return made

    return {
        (kind.name, ""): ZeroShot(slides, trained),
        (kind.name, BEFORE_TRAINING): ZeroShot(slides, start),
    }


def _imputation(
    models: Mapping[tuple[str, str], ZeroShot],
    sections: Sections,
    cells: Cells,
    donor: NDArray[np.object_],
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    """Hidden genes of each donor, by models beside baselines."""
    methods: dict[str, Method] = {}
    genes: Callable[[NDArray[np.bool_]], NDArray[np.int64]] | None = None
    for (name, when), zero_shot in models.items():
        hidden = HiddenGenes(zero_shot, sections)
        genes = hidden.readable if genes is None else genes
        if _decodes(zero_shot.model(donor != donor[0])):
            methods[f"{name}_decoder{when}"] = hidden.decoded
        methods[f"ridge_{name}_cell{when}"] = ridge_on(hidden.embedded)
    return score_transfer_imputation(
        methods, cells, donor, genes=genes, seed=seed, progress=progress
    )


def _decodes(model: SlideModel) -> bool:
    """Whether a model has a decoder of counts."""
    try:
        model.expression_head()
    except ValueError:
        return False
    return True


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
