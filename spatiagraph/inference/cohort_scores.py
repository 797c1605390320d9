"""``score_cohort``: protocols on every slide of a cohort, one in memory at a time."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from spatiagraph import keys
from spatiagraph._files import replaced_file
from spatiagraph._json import Schema
from spatiagraph._tables import write_csv
from spatiagraph.data.cohort import Cohort
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.shards import Shard, as_shard, read_states, write_state
from spatiagraph.data.cohort.work import remove_work, shard_folder, shards_begun, whole_work
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate import run_protocols
from spatiagraph.inference.domains import known_labels


class ScoreSettings(Schema):
    """Settings of the scores of a cohort: equal where those of slides can stand in one table.

    Attributes:
        folders: Folder of each slide.
        weights: Hashes of the weights of the embeddings of each slide.
        embeddings: Slots of ``obsm`` that are scored; all that start with ``X_`` when ``None``.
        domains: Column of known domains.
        types: Column of known types.
        unlabelled: Labels that mean there is none.
        protocols: Names of the protocols, if they were chosen.
        num_seeds: Clusterings of each embedding.
    """

    folders: list[str]
    weights: list[list[str]]
    embeddings: list[str] | None
    domains: str | None
    types: str | None
    unlabelled: list[str]
    protocols: list[str] | None
    num_seeds: int


def score_cohort(
    cohort: Cohort,
    *,
    domains: str | None = None,
    types: str | None = None,
    unlabelled: Sequence[str] = (),
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
        unlabelled: Labels that mean there is none.
        embeddings: Slots of ``obsm``; all that start with ``X_`` when not given.
        protocols: As of :func:`~spatiagraph.evaluate.run_protocols`, of those that need no image.
        num_seeds: Clusterings of each embedding.
        out: Table to write, ``.csv``: a call that was interrupted goes on after the last slide.
        shard: Part of the slides to score, such as ``"0/3"``: other processes score the others, and
            :func:`merge_scores` joins them.
        progress: Show progress bars.

    Returns:
        The rows of :func:`~spatiagraph.evaluate.run_protocols` of all slides, after a column
        ``slide_id``; ``None`` for a shard.

    Raises:
        ValueError: A slide has no such column or embedding, there is no ``out`` with ``shard``, or
            shards of other settings are done.
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
        unlabelled=list(unlabelled),
        protocols=None if protocols is None else sorted(protocols),
        num_seeds=num_seeds,
    )
    if out is None:
        if shard is not None:
            raise ValueError(f"Expected out= with shard={shard!r}, the table of all shards")
        return pd.concat([_scores(slide, settings, progress) for slide in cohort])
    out = Path(out)
    if out.suffix != ".csv":
        raise ValueError(f"Expected a table that ends in .csv, got {out.name!r}")
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
    table = run_protocols(
        {key: slide.adata.obsm[key] for key in slots},
        slide.counts,
        slide.pos,
        domains=known_labels(slide, settings.domains, settings.unlabelled),
        types=known_labels(slide, settings.types, settings.unlabelled),
        protocols=settings.protocols,
        expression=slide.expression,
        num_seeds=settings.num_seeds,
        progress=progress,
    )
    table.insert(0, keys.SLIDE_ID, slide.slide_id)
    return table
