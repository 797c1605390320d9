"""``spatiagraph search``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from spatiagraph.cli.options import SlideOptions, with_slide_options

_SHOWN = 3  # columns of metadata in the printed table; the file has all
_ASK = "What to look for"


class Modality(StrEnum):
    """Modality of a query."""

    genes = "genes"
    image = "image"


def _asking(help: str, *names: str) -> typer.models.OptionInfo:
    return typer.Option(*names, help=help, rich_help_panel=_ASK)


@with_slide_options
def search(
    slides: Annotated[
        list[Path], typer.Argument(help="Files that `spatiagraph embed` wrote, of one model.")
    ],
    slide_options: SlideOptions,
    cell: Annotated[
        list[str] | None, _asking("Id of a cell; of several, the mean is looked for.")
    ] = None,
    region: Annotated[
        str | None,
        _asking("Cells inside x0,y0,x1,y1 in µm, or inside the outline in a .geojson or .csv."),
    ] = None,
    niche: Annotated[
        str | None, _asking("Cells with this label, as column=label, such as niche=stroma.")
    ] = None,
    slide: Annotated[
        str | None, _asking("Slide of the cell, region or niche, if it could be on several.")
    ] = None,
    query: Annotated[
        Path | None,
        _asking("Slide to ask with, that is not searched: embedded, or with --model a raw one."),
    ] = None,
    query_image: Annotated[Path | None, _asking("Image of that slide.")] = None,
    model: Annotated[
        str | None, _asking("Folder of the run or model, or Hub id, that embeds the query.")
    ] = None,
    modality: Annotated[
        Modality | None, _asking("Embed the query by its genes or its image alone.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Number of hits.", min=1)] = 10,
    level: Annotated[
        str | None,
        typer.Option(
            help="Compare cells, or groups of a level of the model such as niche or tissue. "
            "The first level, niche, if not given."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Condition that hits meet, such as \"donor == 'B' and area > 50\"."),
    ] = None,
    apart_um: Annotated[
        float | None,
        typer.Option(
            help="Least distance of hits to the query and each other; the diameter of a niche.",
            min=0,
        ),
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(
            help="Distance of embeddings beyond which nothing is a hit; by default that within "
            "which a quarter of all cells lie.",
            min=0,
        ),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Take away what all cells of a slide share.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the table to this .csv file.")] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(help="Draw query and hits to this .png, .pdf or .svg: crops, or maps."),
    ] = None,
    color: Annotated[
        str | None,
        typer.Option(help="Column of names or groups that colours the maps of the gallery."),
    ] = None,
    save_index: Annotated[
        Path | None, typer.Option(help="Keep the index in this folder, for NicheIndex.load.")
    ] = None,
) -> None:
    """Find the cells whose niche is most like a cell's, a region's or a niche's, across slides.

    Hits are different places: a niche's diameter apart from the query and each other, not at the
    rim of the tissue, and none that is less like the query than a quarter of all cells. Where cells
    share a niche or region, one of them is shown for all, and those that share that of the query
    are not.
    """
    if query is None and not (cell or region or niche):
        raise ValueError("Expected what to look for: --cell, --region, --niche or --query")
    if query is None and (model or modality or query_image):
        raise ValueError("Expected --query with --model, --modality and --query-image, got none")
    slide_options.check(slides)
    from spatiagraph import keys
    from spatiagraph._tables import write_csv
    from spatiagraph.cli.console import check_output_file, print_table, say
    from spatiagraph.cli.hit_gallery import check_color, check_gallery, draw_gallery
    from spatiagraph.cli.hits import default_apart_um, find_hits
    from spatiagraph.cli.query import Query, choose_cells, read_query
    from spatiagraph.inference.embedded import check_level, one_model_name
    from spatiagraph.retrieval import NicheIndex

    if out is not None:
        check_output_file(out, ".csv")
    if gallery is not None:
        check_gallery(gallery)
    sections = slide_options.read_all(slides)
    name = one_model_name(sections)
    if color is not None:
        check_color(sections, color)
    level = check_level(sections[0].adata, level)
    key = keys.embedding_key(name, level)
    index = NicheIndex.from_slides(
        {s.slide_id: s.adata for s in sections}, key, calibrate="slide" if calibrate else None
    )
    asking: dict[str, Any] = {"cells": cell, "region": region, "niche": niche, "slide": slide}
    if query is None:
        rows, title = choose_cells(index.obs, **asking)
        asked = Query(title, index.obs, rows, rows)
    else:
        asked = read_query(
            query,
            query_image,
            index,
            model=model,
            modality=None if modality is None else modality.value,
            level=level,
            asking=asking,
        )
    if apart_um is None:
        apart_um = default_apart_um(sections, name, level)
    hits = find_hits(
        index,
        asked,
        k,
        level=level,
        group=keys.group_key(name, level),
        where=where,
        apart_um=apart_um,
        max_distance=max_distance,
    )
    if save_index is not None:
        index.save(save_index)
    table = hits.drop(columns="query").set_index("rank")
    first = ["id", "distance", keys.SLIDE_ID, "x_um", "y_um"]
    shown = [*first, *(c for c in table if c not in (*first, "row"))][: len(first) + _SHOWN]
    far = f", {apart_um:.0f} µm apart" if apart_um > 0 else ""
    print_table(table[shown], f"Most like {asked.name}{far}")
    if len(hits) < k:
        say(f"{len(hits)} of {k}: there are no more that are alike and lie apart")
    if out is not None:
        write_csv(table, out, index=True)
        say(f"written to {out}")
    if gallery is not None:
        draw_gallery(gallery, sections, asked, hits, color=color)
        say(f"drawn to {gallery}")
