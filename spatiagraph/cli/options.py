"""Options that commands share: how a slide is to be read."""

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from spatiagraph.data.panel import GenePanel
    from spatiagraph.data.slide import Slide

_PANEL = "How to read the slide"

Labels = Annotated[
    str | None, typer.Option(help="Column of obs with known domains, to compare with.")
]
Unlabelled = Annotated[
    list[str] | None,
    typer.Option(
        help="Label that means there is none, in place of unknown, NA, nan, undetermined and "
        "Ambiguous, '' for none of them; may be repeated."
    ),
]


MAX_SEED = 2**32 - 1  # of scikit-learn


def seed_option(help: str) -> Any:
    """An option for a seed that all of torch, NumPy and scikit-learn take."""
    return typer.Option(help=help, min=0, max=MAX_SEED)


class Expression(StrEnum):
    """Kind of the values of a slide."""

    counts = "counts"
    normalized = "normalized"


class Kind(StrEnum):
    """Kind of what was measured of the cells."""

    genes = "genes"
    protein = "protein"
    types = "types"


class Transform(StrEnum):
    """Transform of intensities of proteins."""

    arcsinh = "arcsinh"
    clr = "clr"
    none = "none"


def _option(help: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=_PANEL)


@dataclass(frozen=True)
class SlideOptions:
    """Arguments of :func:`spatiagraph.read` as command-line options."""

    image: Annotated[
        list[Path] | None,
        _option("Image of the slide; with several slides, one for each in their order."),
    ] = None
    outlines: Annotated[
        list[Path] | None,
        _option(
            "Outlines of the cells: GeoJSON, or a table of corners; with several slides, one for "
            "each."
        ),
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
        tuple[float, float] | None,
        _option("x and y of the image's first corner in µm.", metavar="X Y"),
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
        _option("Part of the slide to keep, its corners in µm.", metavar="X0 Y0 X1 Y1"),
    ] = None
    drop_unplaced: Annotated[
        bool, _option("Drop cells that were counted and have no place.", "--drop-unplaced")
    ] = False
    table: Annotated[
        str | None, _option("Table of a .zarr that has several, as one for each size of bins.")
    ] = None
    spatial_key: Annotated[str, _option("Slot of obsm that holds the coordinates.")] = "spatial"
    x_key: Annotated[str | None, _option("Column of obs with x, instead of --spatial-key.")] = None
    y_key: Annotated[str | None, _option("Column of obs with y.")] = None
    swap_xy: Annotated[
        bool, _option("Take the first coordinate for y and the second for x.", "--swap-xy")
    ] = False
    markers: Annotated[
        list[str] | None,
        _option("Feature to keep, or column of a table that is a protein; repeatable."),
    ] = None
    counts_layer: Annotated[
        str | None, _option("Layer that holds the counts, if not 'counts' or X; 'raw' for .raw.")
    ] = None
    kind: Annotated[
        Kind, _option("What was measured: genes, intensities of proteins, or types of cells alone.")
    ] = Kind.genes
    transform: Annotated[
        Transform | None, _option("Of intensities: arcsinh (default), clr or none.")
    ] = None
    type_key: Annotated[str | None, _option("Column of obs with types, for --kind types.")] = None
    sample_key: Annotated[
        str | None, _option("Column of obs that names the section of each cell; each is a slide.")
    ] = None
    sample: Annotated[
        list[str] | None, _option("Section to read, of those of --sample-key; repeatable.")
    ] = None
    one_section: Annotated[
        bool, _option("Take cells as one section, whatever it looks like.", "--one-section")
    ] = False
    slide_id: Annotated[
        list[str] | None, _option("Name of the slide; with several, one for each in their order.")
    ] = None

    def read(self, path: Path, *, molecules: bool = True) -> "Slide":
        """The slide of one file or folder.

        Raises:
            ValueError: If there are several by ``--sample-key``, of which ``--sample`` names none.
        """
        return self.read_one([path], molecules=molecules)

    def read_with_warnings(self, path: Path) -> "tuple[Slide, list[str]]":
        """The slide of one file or folder, and what its reader warned of, for a page about it.

        Args:
            path: The file or folder.

        Returns:
            The slide, and the warnings, which are shown as well.

        Raises:
            ValueError: As :meth:`read`.
        """
        caught: list[warnings.WarningMessage] = []
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                section = self.read(path)
        finally:  # they may explain why it could not be read
            for each in caught:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        return section, [str(each.message) for each in caught if each.category is UserWarning]

    def read_one(self, paths: Sequence[Path], *, molecules: bool = True) -> "Slide":
        """The only slide of some files or folders.

        Raises:
            ValueError: If there are several.
        """
        if len(paths) > 1:
            raise ValueError(f"Expected one slide, got {len(paths)}")
        slides = self.read_all(paths, molecules=molecules)
        if len(slides) > 1:
            names = ", ".join(slide.slide_id for slide in slides[:8])
            raise ValueError(
                f"Expected one section, got {len(slides)} by --sample-key {self.sample_key}: pass "
                f"one as --sample ({names})"
            )
        return slides[0]

    def check_unused(self, **others: Any) -> None:
        """Refuse options where a cohort is given, whose slides were read when it was made.

        Args:
            **others: Further options of the command, with ``None`` for those that were not given.

        Raises:
            ValueError: There are any.
        """
        given = [
            *self._given(),
            *(name for name, value in others.items() if value is not None),
        ]
        if given:
            raise ValueError(
                f"Expected no {_named(given)} with a cohort, whose slides and recipe are those it "
                "was made of: leave it out, or make another cohort"
            )

    def _given(self) -> list[str]:
        """Names of the options that were given."""
        return [
            f.name for f in fields(self) if (getattr(self, f.name) or None) != (f.default or None)
        ]

    def photographed(self, path: Path, panel: "GenePanel") -> "Slide":
        """Slide of an image without counts, with spots on its tissue.

        Args:
            path: The image.
            panel: Genes of the model, of which none was counted.

        Raises:
            ValueError: If the distance of spots is not given, or an option that an image alone does
                not have is.
        """
        from spatiagraph.data.read.parts import open_image
        from spatiagraph.data.spots import photographed_slide

        known = ("image_mpp", "origin_um", "pitch_um", "slide_id")
        if others := [name for name in self._given() if name not in known]:
            raise ValueError(
                f"Expected {_named(known)} with an image alone, got {_named(others)}: leave it out"
            )
        if self.pitch_um is None:
            raise ValueError(
                f"Expected the distance of spots on {path.name}, an image alone, got none: pass "
                "pitch_um=… of the slides that the model was trained on (Visium 100, ST 200)"
            )
        image = open_image(path, self.image_mpp, self.origin_um)
        name = path.name.split(".")[0] if not self.slide_id else self.slide_id[0]
        return photographed_slide(image, panel, self.pitch_um, slide_id=name)

    def check(self, paths: Sequence[Path], **columns: str | None) -> None:
        """Refuse what names show to be wrong, before anything heavy is imported or read.

        Args:
            paths: The files or folders.
            **columns: Name of an option → column of ``obs`` that it names.

        Raises:
            ValueError: There are images or names for some of the slides only, a folder is no slide,
                or an ``.h5ad`` file has no such column.
            OSError: There is no such file.
        """
        from spatiagraph.cli.early import check_slide_file

        if self.image and self.no_image:
            raise ValueError("Expected --image or --no-image, got both")
        for option, given in (
            ("--image", self.image),
            ("--slide-id", self.slide_id),
            ("--outlines", self.outlines),
        ):
            if given and len(given) != len(paths):
                raise ValueError(
                    f"Expected one {option} for each of {len(paths)} slides, got {len(given)}"
                )
        for path in paths:
            own = {"sample_key": self.sample_key, "x_key": self.x_key, "y_key": self.y_key}
            named = {f"--{name.replace('_', '-')}": c for name, c in {**own, **columns}.items()}
            check_slide_file(path, named)
        for image, path in zip(self.image or (), paths, strict=False):
            if path.suffix.lower() == ".h5ad" and not image.exists():
                raise FileNotFoundError(f"Expected the image of {path.name}, found none at {image}")

    def read_all(self, paths: Sequence[Path], *, molecules: bool = True) -> "list[Slide]":
        """The slides of some files or folders.

        Args:
            paths: The files or folders.
            molecules: Whether to keep molecules, which are many and which no model reads.

        Raises:
            ValueError: If there are images or names for some of the slides only, or a section of
                ``--sample`` is in none of them.
        """
        from spatiagraph.data.read import read

        self.check(paths)
        images: list[Any] = [False if self.no_image else None] * len(paths)
        if self.image:
            images = list(self.image)
        if self.sample and self.sample_key is None:
            raise ValueError("Expected --sample-key with --sample: the column that names sections")
        names: Sequence[str | None] = self.slide_id or [None for _ in paths]
        outlines: Sequence[Path | None] = self.outlines or [None for _ in paths]
        each = [
            (path, {"image": image, "slide_id": name, "outlines": corners})
            for path, image, name, corners in zip(paths, images, names, outlines, strict=True)
        ]
        options: dict[str, Any] = {
            "mpp": self.mpp,
            "pitch_um": self.pitch_um,
            "image_mpp": self.image_mpp,
            "origin_um": self.origin_um,
            "assume_um": self.assume_um,
            "expression": None if self.expression is None else self.expression.value,
            "drop_empty": self.drop_empty,
            "crop_um": self.crop_um,
            "drop_unplaced": self.drop_unplaced,
            "spatial_key": self.spatial_key,
            "x_key": self.x_key,
            "y_key": self.y_key,
            "swap_xy": self.swap_xy,
            "markers": self.markers or None,
            "counts_layer": self.counts_layer,
            "kind": self.kind.value,
            "transform": None if self.transform is None else self.transform.value,
            "type_key": self.type_key,
            "one_section": self.one_section,
            "table": self.table,
            "transcripts": molecules,
        }
        if self.sample_key is None:
            return [read(path, **own, **options) for path, own in each]
        options |= {"sample_key": self.sample_key}
        found = [read(path, **own, **options) for path, own in each]
        return self._wanted([slide for sections in found for slide in sections])

    def _wanted(self, slides: "list[Slide]") -> "list[Slide]":
        """The sections that ``--sample`` names, or all of them."""
        if not self.sample:
            return slides
        names = [str(slide.adata.obs[self.sample_key].iloc[0]) for slide in slides]
        for name in self.sample:
            if name not in names:
                raise ValueError(
                    f"Expected a section called {name!r} by --sample-key {self.sample_key}, got "
                    f"{', '.join(map(repr, names[:12]))}"
                )
        return [s for s, name in zip(slides, names, strict=True) if name in self.sample]


def _named(options: Sequence[str]) -> str:
    """Options as they are typed."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in options)


def with_slide_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the argument ``slide_options`` of a command by the options it is made of."""
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
