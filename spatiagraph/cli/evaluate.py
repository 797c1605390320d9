"""``spatiagraph evaluate``."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spatiagraph.cli.options import SlideOptions, Unlabelled, with_slide_options

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from spatiagraph.data.slide import Slide

_TRANSFER = "transfer"
_FROM_IMAGES = ("image_to_genes", "retrieval")
_CROP_PX = 112
_CELL_WINDOW_UM = 24.0  # a nucleus and what surrounds it
_SPOT_WINDOW = 0.8  # of the pitch


class Protocol(StrEnum):
    """Protocols of :func:`spatiagraph.evaluate.run_protocols`, and transfer between donors."""

    domains_kmeans = "domains_kmeans"
    domains_gmm = "domains_gmm"
    domains_leiden = "domains_leiden"
    types_leiden = "types_leiden"
    annotation_blocks = "annotation_blocks"
    annotation_random = "annotation_random"
    annotation_mlp = "annotation_mlp"
    imputation = "imputation"
    imputation_entries = "imputation_entries"
    image_to_genes = "image_to_genes"
    retrieval = "retrieval"
    transfer = "transfer"


@with_slide_options
def evaluate(
    slides: Annotated[
        list[Path],
        typer.Argument(
            help="Slide with embeddings in obsm, of any method; several for transfer; or one "
            "cohort.zarr."
        ),
    ],
    slide_options: SlideOptions,
    embedding: Annotated[
        list[str] | None,
        typer.Option(help="Slot of obsm; may be repeated. All that start with X_ by default."),
    ] = None,
    domains: Annotated[str | None, typer.Option(help="Column of obs with known domains.")] = None,
    types: Annotated[str | None, typer.Option(help="Column of obs with known cell types.")] = None,
    unlabelled: Unlabelled = None,
    protocol: Annotated[
        list[Protocol] | None,
        typer.Option(help="What to score by; may be repeated. What labels allow by default."),
    ] = None,
    image_embedding: Annotated[
        list[str] | None,
        typer.Option(help="Slot of obsm made from images alone; may be repeated."),
    ] = None,
    window_um: Annotated[
        float | None,
        typer.Option(help="Side of the image window in µm; 24, or 0.8 of the pitch of spots."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run that embedded the slide: its model before training is scored "
            "beside the trained one, in every protocol."
        ),
    ] = None,
    margin_um: Annotated[
        float | None,
        typer.Option(
            help="Rim around held-out blocks, in µm, that is not trained on: the 15th neighbour of "
            "a typical cell, and the diagonal of the image window where images are scored.",
            min=0,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Clusterings of each embedding.", min=1)] = 5,
    donor_key: Annotated[
        str | None,
        typer.Option(help="Column of obs that names the donor of each slide, for transfer."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Model that transfer trains on the other donors; none for none.")
    ] = "context",
    out: Annotated[
        Path | None, typer.Option(help="Write the tidy table to this .csv, a picture beside it.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Part of the slides of a cohort, 0/3 for a third; then `merge` of --out"),
    ] = None,
) -> None:
    """Score embeddings of any method against known domains and cell types, beside baselines.

    Domains: k-means and a Gaussian mixture. Types: logistic regression, blocks of tissue held out
    in turn. The baselines are PCA, neighbour-averaged PCA, sequencing depth and position.

    Leiden sweeps, imputation of hidden genes, and prediction of genes from the image are run when
    --protocol names them. Imputation shows its baselines only: embeddings have seen all genes.
    Images are shown beside colour statistics, a random network and sequencing depth. Cells within
    --margin-um of a held-out block are not trained on.

    --protocol transfer takes slides of several donors. Each donor is left out in turn: a model is
    trained on the others and embeds it as it is; then labels are carried over, domains found on all
    slides at once, and cells searched for among the other donors. Beside it stand the model before
    training, PCA, its spatial means, Harmony if it is installed, and a regression on genes. A fifth
    of the genes of the donor is hidden and predicted, for which no labels are needed; and where two
    donors have images, genes are predicted from them.

    With --run, the slide is embedded with the model of the run as it was before training, and each
    slot of that model gets a row beside it, such as `X_context_niche, before training`: what
    training gave, or took. Where it took, `spatiagraph embed --before-training` embeds with that.

    Of a cohort, every slide is scored by itself, and the mean over slides is shown; a slide that
    cannot be, as one with a single label, is named with the reason.
    """
    from spatiagraph.cli.early import check_start
    from spatiagraph.data.cohort.layout import is_cohort

    wanted = [name.value for name in protocol or ()]
    if run is not None:
        check_start(str(run))
    if len(slides) == 1 and is_cohort(slides[0]):
        slide_options.check_unused(
            image_embedding=image_embedding,
            window_um=window_um,
            margin_um=margin_um,
            donor_key=donor_key,
        )
        if _TRANSFER in wanted:
            raise ValueError("Expected slides for transfer, got a cohort: pass their files")
        if run is not None:
            raise ValueError(
                f"Expected one slide with --run {run}, got a cohort: pass the file of a slide"
            )
        _evaluate_cohort(
            slides[0],
            out,
            domains=domains,
            types=types,
            unlabelled=unlabelled or None,
            embeddings=embedding,
            protocols=wanted or None,
            num_seeds=seeds,
            shard=shard,
        )
        return
    if shard is not None:
        raise ValueError(f"Expected one cohort with --shard {shard}, got slides: leave it out")
    slide_options.check(slides, domains=domains, types=types)
    from spatiagraph._tables import write_csv
    from spatiagraph.cli.console import (
        check_output_file,
        print_table,
        quiet_libraries,
        say,
        say_unlabelled,
    )
    from spatiagraph.data import CropSource
    from spatiagraph.data.checks import nearest
    from spatiagraph.data.splits import neighbor_distance_um
    from spatiagraph.evaluate import run_protocols, summarize_transfer
    from spatiagraph.inference import embed_before_training, score_donors
    from spatiagraph.inference.domains import known_labels
    from spatiagraph.models import model_class
    from spatiagraph.plot import protocol_bars

    if out is not None:
        check_output_file(out, ".csv")
    if _TRANSFER in wanted:
        if wanted != [_TRANSFER]:
            raise ValueError(f"Expected --protocol {_TRANSFER} alone, got {', '.join(wanted)}")
        if run is not None:
            raise ValueError(
                f"Expected no --run with --protocol {_TRANSFER}, which trains a model for each "
                f"donor that is left out, got {run}: leave it out"
            )
        cohort = slide_options.read_all(slides, molecules=False)
        if domains and types:
            raise ValueError("Expected --domains or --types, one of them, for transfer, got both")
        quiet_libraries()
        windows = [_window_um(slide) for slide in cohort if slide.image is not None]
        table = score_donors(
            cohort,
            domains or types,
            unlabelled=unlabelled or None,
            donor_key=donor_key,
            model=None if model == "none" else model_class(model),
            window_um=(window_um or max(windows)) if windows else None,
            num_seeds=seeds,
            progress=True,
        )
        say(f"\nLearned on other donors, of {table['donor'].nunique()}; mean over donors")
        for name, part in table.groupby("protocol", sort=False):
            print_table(_readable(summarize_transfer(part)), f"\n{name}")
        if out is not None:
            write_csv(table, out)
            say(f"\nwritten to {out}")
        return
    section = slide_options.read_one(slides, molecules=False)
    slots = [str(k) for k in section.adata.obsm if str(k).startswith("X_")]
    for option, keys in {"embedding": embedding, "image-embedding": image_embedding}.items():
        for key in keys or ():
            if key not in section.adata.obsm:
                close = nearest(key, [str(k) for k in section.adata.obsm])
                raise ValueError(f"Expected a slot of obsm for --{option}, got {key!r}. {close}")
    slots = embedding or [key for key in slots if key not in (image_embedding or ())]
    with_images = {*wanted} & {*_FROM_IMAGES}
    crops, reach_um = None, neighbor_distance_um(section.pos)
    if with_images and section.image is not None:
        window_um = _window_um(section) if window_um is None else window_um
        crops = CropSource(section, section.pos, window_um, _CROP_PX)
        reach_um = max(reach_um, window_um * 2**0.5)
    known = {
        column: known_labels(section, column, unlabelled or None) for column in (domains, types)
    }
    for column, values in known.items():
        say_unlabelled(section.adata.obs, column, values)
    images = [*(image_embedding or ())]
    start = {} if run is None else embed_before_training(section, run, [*slots, *images])
    table = run_protocols(
        _with_start(section, slots, start),
        section.counts,
        section.pos,
        domains=known[domains],
        types=known[types],
        image_features=_with_start(section, images, start),
        crops=crops,
        image_mask=None if crops is None else crops.image.covers(section.pos),
        protocols=wanted or None,
        expression=section.expression,
        num_seeds=seeds,
        margin_um=reach_um if margin_um is None else margin_um,
        progress=True,
    )
    for name, part in table.groupby("protocol", sort=False):
        wide = part.pivot_table(index="embedding", columns="metric", values="value", sort=False)
        if part["noise"].notna().any():
            first = part[part["metric"] == wide.columns[0]].set_index("embedding")
            for kind in ("std", "noise"):
                wide[f"{first['metric'].iloc[0]}_{kind}"] = first[kind]
        logged = part.groupby("embedding")[["seconds", "peak_gb"]].first()
        wide[["seconds", "peak_gb"]] = logged.loc[wide.index]
        print_table(wide, f"\n{name}")
    if out is not None:
        write_csv(table, out)
        picture = out.with_suffix(".png")
        protocol_bars(table, save=picture, highlight=[*slots, *(image_embedding or ())])
        say(f"\nwritten to {out} and {picture}")


def _evaluate_cohort(path: Path, out: Path | None, *, shard: str | None, **given: Any) -> None:
    """Score every slide of a cohort, and print the mean over slides."""
    from spatiagraph.cli.console import check_output_file, print_table, quiet_libraries, say
    from spatiagraph.data.cohort import Cohort
    from spatiagraph.evaluate.protocols import UNSCORED
    from spatiagraph.inference import score_cohort

    if out is not None:
        check_output_file(out, ".csv")
    quiet_libraries()
    table = score_cohort(Cohort(path), out=out, shard=shard, progress=True, **given)
    if table is None:
        say(f"shard {shard} is done; once all are, spatiagraph merge {out}")
        return
    for name, part in table[table[UNSCORED] == ""].groupby("protocol", sort=False):
        wide = part.pivot_table(index="embedding", columns="metric", values="value", sort=False)
        print_table(wide, f"\n{name}, mean over {part['slide_id'].nunique()} slides")
    if out is not None:
        say(f"\nwritten to {out}")


def _with_start(
    slide: "Slide", slots: list[str], start: Mapping[str, "NDArray[np.float32]"]
) -> dict[str, Any]:
    """Embeddings in some slots, each with that of before training after it where there is one."""
    from spatiagraph.inference.before_training import BEFORE_TRAINING

    found: dict[str, Any] = {}
    for slot in slots:
        found[slot] = slide.adata.obsm[slot]
        if slot in start:
            found[f"{slot}{BEFORE_TRAINING}"] = start[slot]
    return found


def _window_um(slide: "Slide") -> float:
    """Side of the image window around a cell or spot, in µm."""
    from spatiagraph.data.units import lattice

    spots = lattice(slide.pos)
    return _CELL_WINDOW_UM if spots is None else _SPOT_WINDOW * spots.pitch


def _readable(summary: "pd.DataFrame") -> "pd.DataFrame":
    """Mean and deviation in one column each: four metrics fit on a line."""
    import pandas as pd

    names = [name for name in summary if f"{name}_std" in summary]
    columns = {}
    for name in names:
        pairs = zip(summary[name], summary[f"{name}_std"], strict=True)
        columns[name] = [f"{m:.3f} ± {s:.3f}" if m == m else "–" for m, s in pairs]
    return pd.DataFrame(columns, index=summary.index)
