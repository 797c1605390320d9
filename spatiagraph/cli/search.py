"""``spatiagraph search``."""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spatiagraph.cli.options import SlideOptions, with_slide_options

if TYPE_CHECKING:
    import pandas as pd

    from spatiagraph.data.slide import Slide
    from spatiagraph.retrieval import Selection

_PICTURES = (".png", ".pdf", ".svg")

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
        list[Path],
        typer.Argument(
            help="Files that `spatiagraph embed` wrote, of one model; or one cohort.zarr."
        ),
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
    query_image_mpp: Annotated[float | None, _asking("µm per pixel of that image.")] = None,
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
    by: Annotated[
        str | None,
        _asking(
            "Vectors to ask with where they are others: --level niche_gene --by niche_img finds "
            "genes by images (st-align)."
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
    if query_image is None and query_image_mpp is not None:
        raise ValueError("Expected --query-image with --query-image-mpp, got none")
    from spatiagraph.data.cohort.layout import is_cohort

    stored = len(slides) == 1 and is_cohort(slides[0])
    if not stored:
        slide_options.check(slides)
    from spatiagraph import keys
    from spatiagraph._tables import write_csv
    from spatiagraph.cli.console import check_output_file, print_table, say
    from spatiagraph.cli.embed import load_model
    from spatiagraph.data.cohort import Cohort
    from spatiagraph.inference import QuerySlide, search_slides
    from spatiagraph.report.hits import check_color, hit_gallery

    if out is not None:
        check_output_file(out, ".csv")
    if gallery is not None:
        if gallery.suffix.lower() not in _PICTURES:
            wanted = ", ".join(_PICTURES)
            raise ValueError(f"Expected a gallery that ends in {wanted}, got {gallery.name}")
        check_output_file(gallery, gallery.suffix)
    sections: Any = Cohort(slides[0]) if stored else slide_options.read_all(slides)
    if color is not None:
        check_color(sections, color)
    asking = None
    if query is not None:
        asking = QuerySlide(
            _query_slide(query, query_image, query_image_mpp),
            None if model is None else load_model(model),
            None if modality is None else modality.value,
        )
    searched_with = sections if asking is None else [asking.slide]
    found = search_slides(
        sections,
        selection(
            [] if niche is None else [s.adata.obs for s in searched_with],
            cell,
            region,
            niche,
            slide,
        ),
        k,
        query=asking,
        level=level,
        by=by,
        where=where,
        apart_um=apart_um,
        max_distance=max_distance,
        calibrate=calibrate,
    )
    if save_index is not None:
        found.index.save(save_index)
    hits = found.hits.drop(columns="query").set_index("rank")
    first = ["id", "distance", keys.SLIDE_ID, "x_um", "y_um"]
    shown = [*first, *(c for c in hits if c not in (*first, "row"))][: len(first) + _SHOWN]
    far = f", {found.apart_um:.0f} µm apart" if found.apart_um > 0 else ""
    print_table(hits[shown], f"Most like {found.query.name}{far}")
    if len(hits) < k:
        say(f"{len(hits)} of {k}: there are no more that are alike and lie apart")
    if out is not None:
        write_csv(hits, out, index=True)
        say(f"written to {out}")
    if gallery is not None:
        hit_gallery(sections, found, color=color, save=gallery)
        say(f"drawn to {gallery}")


def _query_slide(path: Path, image: Path | None, image_mpp: float | None) -> "Slide":
    """The slide that asks, with the picture and the scale that were given for it."""
    from spatiagraph.data.read import read

    try:
        return read(path, image=image, image_mpp=image_mpp)
    except ValueError as err:  # --image and --image-mpp are of the slides that are searched
        raise ValueError(re.sub(r"\b(image|image_mpp)=", r"query_\1=", str(err))) from err


def selection(
    tables: "Sequence[pd.DataFrame]",
    cells: list[str] | None,
    region: str | None,
    niche: str | None,
    slide: str | None,
) -> "Selection":
    """Cells that the options of a query mean.

    Args:
        tables: A row for each cell of a slide, with the column of ``niche``.
        cells: Ids.
        region: ``x0,y0,x1,y1`` in µm, or a file.
        niche: ``column=label``.
        slide: Name of their slide.

    Raises:
        ValueError: An option is malformed.
    """
    from spatiagraph.retrieval import Selection

    outline = None if region is None else _outline(region)
    where = None if niche is None else _label(tables, niche)
    names = [f"region {region}"] * (region is not None) + [f"{niche}"] * (niche is not None)
    return Selection(cells, outline, where, slide, ", ".join(names) or None)


def _outline(text: str) -> Any:
    """Corners in µm of ``x0,y0,x1,y1``, or what a file holds."""
    from spatiagraph.retrieval import read_region

    parts = text.split(",")
    try:
        x0, y0, x1, y1 = (float(part) for part in parts)
    except ValueError as err:
        if Path(text).is_file():
            return read_region(text)
        raise ValueError(
            f"Expected a region as x0,y0,x1,y1 in µm or a .geojson or .csv file, got {text!r}"
        ) from err
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _label(tables: "Sequence[pd.DataFrame]", text: str) -> dict[str, Any]:
    """The column and the value, in its own type, of ``column=label``."""
    column, equals, label = text.partition("=")
    if not equals:
        raise ValueError(f"Expected a niche as column=label, got {text!r}")
    own = [obs[column].dropna().unique() for obs in tables if column in obs]
    values = {str(value): value for values in own for value in values}
    return {column: values.get(label, label)}  # what is unknown is refused where it is searched
