"""Options that commands share: how a slide is to be read."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from spatiagraph.data.slide import Slide

_PANEL = "How to read the slide"

Labels = Annotated[
    str | None, typer.Option(help="Column of obs with known domains, to compare with.")
]
Unlabelled = Annotated[
    list[str] | None, typer.Option(help="Label that means there is none; may be repeated.")
]


MAX_SEED = 2**32 - 1  # of scikit-learn


def seed_option(help: str) -> Any:
    """An option for a seed that all of torch, NumPy and scikit-learn take."""
    return typer.Option(help=help, min=0, max=MAX_SEED)


class Expression(StrEnum):
    """What the values of a slide are."""

    counts = "counts"
    normalized = "normalized"


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_PANEL)


@dataclass(frozen=True)
class SlideOptions:
    """Arguments of :func:`spatiagraph.read` as command-line options."""

    image: Annotated[
        list[Path] | None,
        _option("Image of the slide; with several slides, one for each in their order."),
    ] = None
    no_image: Annotated[
        bool, _option("Leave out the image that comes with the slide.", "--no-image")
    ] = False
    mpp: Annotated[float | None, _option("µm per unit of the coordinates, if in pixels.")] = None
    pitch_um: Annotated[
        float | None,
        _option("Distance of neighbouring spots in µm, instead of --mpp (Visium 100, ST 200)."),
    ] = None
    image_mpp: Annotated[float | None, _option("µm per pixel of the image.")] = None
    origin_um: Annotated[
        tuple[float, float] | None, _option("x and y of the image's first corner in µm.")
    ] = None
    assume_um: Annotated[
        bool, _option("Take coordinates as µm, however unlikely they look.", "--assume-um")
    ] = False
    expression: Annotated[
        Expression | None, _option("'normalized' accepts values that are no counts.")
    ] = None
    drop_empty: Annotated[bool, _option("Drop cells without counts.", "--drop-empty")] = False
    crop_um: Annotated[
        tuple[float, float, float, float] | None,
        _option("Part of the slide to keep: x0 y0 x1 y1 in µm."),
    ] = None
    drop_unplaced: Annotated[
        bool, _option("Drop cells that were counted and have no place.", "--drop-unplaced")
    ] = False
    table: Annotated[
        str | None, _option("Table of a .zarr that has several, as one for each size of bins.")
    ] = None
    spatial_key: Annotated[str, _option("Slot of obsm that holds the coordinates.")] = "spatial"

    def read(self, path: Path, *, molecules: bool = True) -> "Slide":
        """The slide of one file or folder."""
        return self.read_all([path], molecules=molecules)[0]

    def read_all(self, paths: Sequence[Path], *, molecules: bool = True) -> "list[Slide]":
        """The slides of some files or folders.

        Args:
            paths: The files or folders.
            molecules: Whether to keep molecules, which are many and which no model reads.

        Raises:
            ValueError: If there are images for some of the slides only.
        """
        from spatiagraph.data.read import read

        images: list[Any] = [False if self.no_image else None] * len(paths)
        if self.image:
            if self.no_image:
                raise ValueError("Expected --image or --no-image, got both")
            if len(self.image) != len(paths):
                raise ValueError(
                    f"Expected an --image for each of {len(paths)} slides, got {len(self.image)}"
                )
            images = list(self.image)
        return [
            read(
                path,
                image=image,
                mpp=self.mpp,
                pitch_um=self.pitch_um,
                image_mpp=self.image_mpp,
                origin_um=self.origin_um,
                assume_um=self.assume_um,
                expression=None if self.expression is None else self.expression.value,
                drop_empty=self.drop_empty,
                crop_um=self.crop_um,
                drop_unplaced=self.drop_unplaced,
                table=self.table,
                spatial_key=self.spatial_key,
                transcripts=molecules,
            )
            for path, image in zip(paths, images, strict=True)
        ]


def with_slide_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the argument ``slide_options`` of a command by the options it is made of."""
    hints = get_type_hints(SlideOptions, include_extras=True)
    added = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint
        )
        for field in fields(SlideOptions)
        if (hint := hints[field.name])
    ]
    own = inspect.signature(command, eval_str=True)
    kept = [p for p in own.parameters.values() if p.name != "slide_options"]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        options = SlideOptions(**{p.name: arguments.pop(p.name) for p in added})
        command(**arguments, slide_options=options)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in kept] + added
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__
    return run
