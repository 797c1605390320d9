"""``score_cohort``: protocols on every slide of a cohort, one in memory at a time."""

import os
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from spatiagraph import keys
from spatiagraph._files import replaced_file
from spatiagraph._json import Schema
from spatiagraph._tables import write_csv
from spatiagraph.data.cohort import Cohort
from spatiagraph.data.cohort.embedded import stored_columns
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.shards import Shard, as_shard, read_states, write_state
from spatiagraph.data.cohort.work import remove_work, shard_folder, shards_begun, whole_work
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate.inputs import UnscorableError
from spatiagraph.evaluate.protocols import (
    COLUMNS,
    UNSCORED,
    default_protocols,
    labels_of_protocol,
    run_protocols,
)
from spatiagraph.inference.domains.described import known_labels, labels_of

_SHOWN = 4


class ScoreSettings(Schema):
    """Settings of the scores of a cohort: equal where those of slides can stand in one table.

    Attributes:
        folders: Folder of each slide.
        weights: Hashes of the weights of the embeddings of each slide.
        embeddings: Slots of ``obsm`` that are scored; all that start with ``X_`` when ``None``.
        domains: Column of known domains.
        types: Column of known types.
        unlabelled: Labels that mean there is none, in any case;
            unknown, NA, nan, undetermined and Ambiguous when ``None``.
        protocols: Names of the protocols, if they were chosen.
        num_seeds: Clusterings of each embedding.
    """

    folders: list[str]
    weights: list[list[str]]
    embeddings: list[str] | None
    domains: str | None
    types: str | None
    unlabelled: list[str] | None
    protocols: list[str] | None
    num_seeds: int

    @property
    def columns(self) -> dict[str, str | None]:
        """Kind of labels → their column."""
        return {"domains": self.domains, "types": self.types}


def score_cohort(
    cohort: Cohort,
    *,
    domains: str | None = None,
    types: str | None = None,
    unlabelled: Sequence[str] | None = None,
    embeddings: Sequence[str] | None = None,
    protocols: Collection[str] | None = None,
    num_seeds: int = 5,
    out: str | os.PathLike[str] | None = None,
    shard: str | Sequence[int] | None = None,
    progress: bool = False,
) -> pd.DataFrame | None:
    """Score the embeddings of a cohort slide by slide, beside the baselines of each.

    Args:
        cohort: A cohort that was embedded.
        domains: Column of ``obs`` with known domains.
        types: Column of ``obs`` with known cell types.
        unlabelled: Labels that mean there is none, in any case;
            unknown, NA, nan, undetermined and Ambiguous when ``None``.
        embeddings: Slots of ``obsm``; all that start with ``X_`` when not given.
        protocols: As of :func:`~spatiagraph.evaluate.run_protocols`, of those that need no image.
        num_seeds: Clusterings of each embedding.
        out: Table to write, ``.csv``: a call that was interrupted goes on after the last slide.
        shard: Part of the slides to score, such as ``"0/3"``: other processes score the others, and
            :func:`merge_scores` joins them.
        progress: Show progress bars.

    Returns:
        The rows of :func:`~spatiagraph.evaluate.run_protocols` of all slides, after a column
        ``slide_id``; ``None`` for a shard. A slide that a protocol cannot score, as one with a
        single label, has a row without value, and the reason in ``not_scored``, which is empty in
        all other rows; a warning names such slides.

    Raises:
        ValueError: No slide can be scored, one has no such embedding, there is no ``out`` with
            ``shard``, or shards of other settings are done.
        BusyError: Another process scores the same shard, or one of other settings.
    """
    settings = ScoreSettings(
        folders=[entry.folder for entry in cohort.entries],
        weights=[
            [str(result.record.get("weights_hash")) for result in cohort.files(at).results]
            for at in range(len(cohort))
        ],
        embeddings=None if embeddings is None else list(embeddings),
        domains=domains,
        types=types,
        unlabelled=None if unlabelled is None else list(unlabelled),
        protocols=None if protocols is None else sorted(protocols),
        num_seeds=num_seeds,
    )
    if out is None and shard is not None:
        raise ValueError(f"Expected out= with shard={shard!r}, the table of all shards")
    if out is not None and Path(out).suffix != ".csv":
        raise ValueError(f"Expected a table that ends in .csv, got {Path(out).name!r}")
    _check_labels(cohort, settings)
    if out is None:
        return _checked(pd.concat([_scores(slide, settings, progress) for slide in cohort]))
    out = Path(out)
    part = Shard(0, 1) if shard is None else as_shard(shard)
    with shards_begun(shard_folder(out), settings, "embeddings or settings", [part]) as folder:
        for at in part.items(len(cohort)):
            place = _table(folder, at)
            if not place.is_file():
                scores = _scores(cohort[at], settings, progress)
                with replaced_file(place) as new:
                    scores.to_parquet(new, index=False)
        write_state(folder, part, len(cohort))
    return merge_scores(out) if shard is None else None


def merge_scores(out: str | os.PathLike[str]) -> pd.DataFrame:
    """Merge the tables that the shards of :func:`score_cohort` have written.

    Args:
        out: The table that they become.

    Raises:
        FileNotFoundError: No shard has been written.
        ValueError: Shards are missing, overlap or are of different settings.
        BusyError: Another process writes the table.
    """
    out = Path(out)
    with only_writer(shard_folder(out)):
        folder = whole_work(shard_folder(out))
        number = read_states(folder)[0].total
        table = pd.concat(
            [pd.read_parquet(_table(folder, at)) for at in range(number)], ignore_index=True
        )
        try:
            table = _checked(table)
        except ValueError:
            remove_work(folder)  # nothing in it is of use
            raise
        write_csv(table, out)
        remove_work(folder)
    return table


def _table(folder: Path, at: int) -> Path:
    return folder / f"{at}.parquet"


def _scores(slide: Slide, settings: ScoreSettings, progress: bool) -> pd.DataFrame:
    # a store lists its slots in no order
    slots = settings.embeddings or sorted(
        str(key) for key in slide.adata.obsm if str(key).startswith("X_")
    )
    if missing := [key for key in slots if key not in slide.adata.obsm]:
        raise ValueError(
            f"Expected obsm[{missing[0]!r}] in slide {slide.slide_id!r} of the cohort, found "
            f"{sorted(map(str, slide.adata.obsm))}: embed it first"
        )
    chosen = settings.protocols
    if chosen is None:
        chosen = default_protocols(
            domains=settings.domains is not None, types=settings.types is not None
        )
    labels: dict[str, pd.Series | None] = {}
    reasons: dict[str, str] = {}
    for kind, column in settings.columns.items():
        try:
            labels[kind] = known_labels(slide, column, settings.unlabelled)
        except UnscorableError as err:
            reasons |= {name: str(err) for name in chosen if labels_of_protocol(name) == kind}
    table = pd.DataFrame(columns=list(COLUMNS))
    possible = [name for name in chosen if name not in reasons]
    if possible or not chosen:
        table = run_protocols(
            {key: slide.adata.obsm[key] for key in slots},
            slide.counts,
            slide.pos,
            domains=labels.get("domains"),
            types=labels.get("types"),
            protocols=possible or None,
            expression=slide.expression,
            num_seeds=settings.num_seeds,
            unscored=reasons.__setitem__,
            progress=progress,
        )
    table[UNSCORED] = ""
    lost = [_lost_row(name, reason) for name, reason in reasons.items()]
    table = pd.DataFrame([*table.to_dict("records"), *lost], columns=[*COLUMNS, UNSCORED])
    table.insert(0, keys.SLIDE_ID, slide.slide_id)
    return table


def _lost_row(protocol: str, reason: str) -> dict[str, object]:
    """Row of a protocol that a slide does not allow."""
    text = dict.fromkeys(("embedding", "metric"), "")
    numbers = dict.fromkeys(("value", "std", "noise", "seconds", "peak_gb"), float("nan"))
    return {"protocol": protocol, **text, **numbers, UNSCORED: reason}


def _check_labels(cohort: Cohort, settings: ScoreSettings) -> None:
    """Refuse a column of labels that no slide has, before any of them is read whole."""
    missing = {column: "" for column in settings.columns.values() if column is not None}
    for obs in stored_columns(cohort) if missing else ():
        for column in list(missing):
            try:
                labels_of(obs, column, settings.unlabelled)
            except UnscorableError as err:
                missing[column] = missing[column] or str(err)
            else:
                del missing[column]
        if not missing:
            return
    if reasons := [reason for reason in missing.values() if reason]:
        raise ValueError(_none_scored(len(cohort), reasons[0]))


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """A table some rows of which have scores, with a warning on slides that have none."""
    lost = table[table[UNSCORED] != ""]
    if len(lost) == len(table):
        raise ValueError(_none_scored(lost[keys.SLIDE_ID].nunique(), lost[UNSCORED].iloc[0]))
    names = [
        f"{row[keys.SLIDE_ID]} by {row['protocol']}: {row[UNSCORED]}"
        for row in lost.to_dict("records")
    ]
    if names:
        more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        warnings.warn(f"Not scored: {'; '.join(names[:_SHOWN])}{more}", stacklevel=3)
    return table


def _none_scored(num_slides: int, reason: str) -> str:
    return f"Expected a slide that can be scored, got none of {num_slides}: {reason}"
