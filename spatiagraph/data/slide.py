"""One tissue section: cells, image and molecules, everything in µm."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse

from spatiagraph import keys
from spatiagraph.data.checks import (
    FAR_UM,
    as_positions,
    check_image,
    check_names,
    check_not_empty,
    check_positions,
    check_values,
    name_rows,
    nearest,
)
from spatiagraph.data.counts import named_layers, other_counts, shallow_copy
from spatiagraph.data.genes import gene_ids, gene_symbols
from spatiagraph.data.image import SlideImage
from spatiagraph.data.notes import our_notes
from spatiagraph.data.outlines import Outlines
from spatiagraph.data.scale import declared_scale, libraries, unknown_scale
from spatiagraph.data.sections import check_one_section
from spatiagraph.data.sparse import as_csr, check_slots
from spatiagraph.data.units import check_um

if TYPE_CHECKING:
    from anndata import AnnData

Expression = Literal["counts", "normalized"]

PHOTOGRAPHED = "photographed"
"""``uns["spatiagraph"]["read"]``: true of a slide with an image on which nothing was counted."""

_NAMED_BY = (keys.SLIDE_ID, "library_id", "sample_id", "sample", "section")
_MOLECULE_COLUMNS = ("x_um", "y_um", "gene")


class Slide:
    """A section of tissue: counts, positions and image of its cells.

    The slide keeps a shallow copy of ``adata``: arrays are shared, tables and dictionaries are its
    own. Results written to ``slide.adata`` (``obsm``, ``obs``, ``obsp``, ``uns``) therefore do not
    appear in the AnnData you gave, and the slide changes no array of it. A backed AnnData is kept
    as it is.

    Args:
        adata: Cells. ``obsm["spatial"]`` in µm, ``[N, 2]`` as (x, y); raw counts in
            ``layers["counts"]`` or else ``X``, ``[N, G]``.
        image: Picture of the section, addressed in µm.
        transcripts: Molecules: columns ``x_um``, ``y_um``, ``gene`` and, where known,
            ``cell_id`` (an ``obs_names`` entry, or missing), ``z_um``, ``qv``.
        outlines: Outline of each cell, in the order of ``adata``.
        slide_id: Name of the section, unique in a cohort; by default what the AnnData calls it,
            or ``"slide"``.
        donor: The person or animal it comes from; splits by donor need it.
        expression: ``"counts"`` insists on non-negative integers; ``"normalized"`` accepts
            non-negative fractions (such as volume-normalised MERFISH) and takes them as they are.
        assume_um: Skip the µm guard of :func:`~spatiagraph.data.units.check_um`.
        pitch_um: Pitch of the spot array, if it is one the guard does not know.
        one_section: Take cells as one section even if they look like several over each other.
        check: Skip all checks with ``False``; for rows of a slide that was checked.

    Raises:
        ValueError: A cell id occurs twice, a coordinate is not finite or not in µm, a value is
            no count, a cell is empty (but for a slide with an image on which nothing at all was
            counted), the image does not cover the cells, ...; rows are named.

    Examples:
        >>> from anndata import AnnData
        >>> adata = AnnData(np.ones((2, 3), np.float32), obs=pd.DataFrame(index=["a", "b"]))
        >>> adata.obsm["spatial"] = np.array([[0.0, 0.0], [8.0, 6.0]])
        >>> Slide(adata, slide_id="tiny")
        Slide('tiny': 2 cells × 3 genes, 8 × 6 µm)
    """

    def __init__(
        self,
        adata: "AnnData",
        image: SlideImage | None = None,
        transcripts: pd.DataFrame | None = None,
        *,
        outlines: Outlines | None = None,
        slide_id: str | None = None,
        donor: str | None = None,
        expression: Expression = "counts",
        assume_um: bool = False,
        pitch_um: float | None = None,
        one_section: bool = False,
        check: bool = True,
    ):
        from anndata import AnnData  # takes time to load, and models do without

        if not isinstance(adata, AnnData):
            raise TypeError(f"Expected 'adata' to be an AnnData, got {type(adata).__name__}")
        slide_id = default_slide_id(adata) if slide_id is None else slide_id
        if not isinstance(slide_id, str) or not slide_id:
            raise ValueError(f"Expected 'slide_id' to be a non-empty string, got {slide_id!r}")
        if expression not in ("counts", "normalized"):
            raise ValueError(
                f'Expected expression to be "counts" or "normalized", got {expression!r}'
            )
        if check:
            _check_frame(adata, slide_id)
        self.adata = adata if adata.isbacked else shallow_copy(adata)
        self.image = image
        self.transcripts = transcripts
        self.outlines = outlines
        self.slide_id = slide_id
        self.donor = donor
        self.expression: Expression = expression
        if check:
            self._check(pitch_um, assume_um, one_section)

    @property
    def num_cells(self) -> int:
        """Number of cells (or spots), ``N``."""
        return self.adata.n_obs

    @property
    def num_genes(self) -> int:
        """Number of measured genes, ``G``."""
        return self.adata.n_vars

    @cached_property
    def pos(self) -> NDArray[np.float64]:
        """Cell centres in µm, ``[N, 2]`` float64 as (x, y)."""
        if keys.SPATIAL not in self.adata.obsm:
            raise ValueError(
                f"Expected coordinates in obsm[{keys.SPATIAL!r}], got none. "
                f"{nearest(keys.SPATIAL, list(self.adata.obsm))}. Rename the right one, or pass "
                "spatial_key=…, or x_key=… and y_key=…, to read()"
            )
        pos = self.adata.obsm[keys.SPATIAL]
        if isinstance(pos, np.ndarray) and pos.dtype == np.float64:
            return np.ascontiguousarray(pos)
        return as_positions(pos, f"obsm[{keys.SPATIAL!r}]")

    @cached_property
    def counts(self) -> csr_matrix:
        """Expression values, ``[N, G]`` CSR float32; raw counts unless ``expression`` says else."""
        return expression_matrix(self.adata)

    @cached_property
    def depth(self) -> NDArray[np.float32]:
        """Sum over all genes of each cell, ``[N]`` float32."""
        return np.asarray(self.counts.sum(axis=1), dtype=np.float32).ravel()

    @property
    def is_counted(self) -> bool:
        """True if anything was counted; not so of a slide that was only photographed."""
        return bool(self.depth.any())

    @property
    def symbols(self) -> list[str]:
        """Gene symbols, ``[G]``; a gene that has none in the file goes by its id."""
        return gene_symbols(self.adata.var)

    @property
    def gene_ids(self) -> list[str] | None:
        """Ensembl ids without version, ``[G]``; ``None`` where the file has none."""
        return gene_ids(self.adata.var)

    def __getitem__(self, rows: ArrayLike | slice) -> "Slide":
        """Some of the cells, with the same image, and the molecules and outlines of those cells.

        Args:
            rows: Row numbers, cell ids, a slice, or a boolean mask ``[N]``.
        """
        index = rows if isinstance(rows, slice) else np.atleast_1d(np.asarray(rows))
        adata = self.adata[index]
        place = self.adata.obs_names.get_indexer(adata.obs_names)
        molecules = self.transcripts
        if molecules is not None and "cell_id" in molecules:
            molecules = molecules[molecules["cell_id"].isin(adata.obs_names)]
        return Slide(
            adata.to_memory() if adata.isbacked else adata,
            self.image,
            molecules,
            outlines=None if self.outlines is None else self.outlines.select(place),
            slide_id=self.slide_id,
            donor=self.donor,
            expression=self.expression,
            check=False,
        )

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        """Refuse: NumPy would take slides of slides of single cells, without an end."""
        raise TypeError("Expected an array, got a Slide: take its counts or pos")

    def __len__(self) -> int:
        return self.num_cells

    def __repr__(self) -> str:
        parts = [f"{self.num_cells:,} cells × {self.num_genes:,} genes"]
        if self.expression != "counts":
            parts[0] += f" ({self.expression})"
        if self.num_cells:
            width, height = np.ptp(self.pos, axis=0)
            parts.append(f"{width:,.0f} × {height:,.0f} µm")
        if self.image is not None:
            parts.append(f"image {self.image.num_channels} ch at {self.image.mpp:.3g} µm/px")
        if self.transcripts is not None:
            parts.append(f"{len(self.transcripts):,} molecules")
        if self.outlines is not None:
            parts.append(f"{int(self.outlines.known.sum()):,} outlines")
        if self.donor is not None:
            parts.append(f"donor {self.donor!r}")
        return f"Slide({self.slide_id!r}: {', '.join(parts)})"

    def _check(self, pitch_um: float | None, assume_um: bool, one_section: bool) -> None:
        names = self.adata.obs_names
        check_slots(self.adata, self.slide_id)
        check_positions(self.pos, names)
        try:
            check_values(self.counts, names, integral=self.expression == "counts")
        except ValueError as err:
            if not (places := other_counts(self.adata)):
                raise
            ways = " or ".join(f"counts_layer={place!r}" for place in places[:3])
            raise ValueError(
                f"{err}. There are counts in this file: pass {ways} to read()"
            ) from err
        was_photographed = bool(our_notes(self.adata, "read").get(PHOTOGRAPHED))
        check_not_empty(self.counts, names, has_image=self.image is not None or was_photographed)
        if not (assume_um or pitch_um is not None or _was_read(self.adata)):
            _check_declared(self.adata, self.pos)
        if not one_section:
            check_one_section(self.adata.obs, self.pos)
        check_um(self.pos, pitch_um=pitch_um, assume_um=assume_um)
        if self.image is not None:
            check_image(self.image, self.pos, names)
        if self.transcripts is not None:
            _check_molecules(self.transcripts)
        if self.outlines is not None:
            _check_outlines(self.outlines, self.pos, names, self.slide_id)


def expression_matrix(adata: "AnnData") -> csr_matrix:
    """Values of ``layers["counts"]``, or else of ``X``.

    Args:
        adata: Cells, in memory or backed.

    Returns:
        ``[N, G]`` CSR float32; shares memory with the AnnData where it is that already.

    Raises:
        ValueError: There is neither.
    """
    matrix = adata.layers.get(keys.COUNTS)
    if matrix is None:
        matrix = adata.X
    if matrix is None:
        raise ValueError(
            f"Expected counts in layers[{keys.COUNTS!r}] or X, got neither. "
            f"{nearest(keys.COUNTS, list(named_layers(adata)))}"
        )
    if hasattr(matrix, "to_memory"):  # backed sparse
        matrix = matrix.to_memory()
    if not issparse(matrix):
        matrix = np.asarray(matrix[:] if adata.isbacked else matrix)
    return as_csr(matrix, f"layers[{keys.COUNTS!r}]" if keys.COUNTS in adata.layers else "X")


def check_unique_ids(slides: Sequence[Slide]) -> None:
    """Refuse a cohort in which two slides have the same id.

    Args:
        slides: The slides of a cohort.

    Raises:
        ValueError: Two slides share a ``slide_id``; names it and their places.
    """
    seen: dict[str, int] = {}
    for i, slide in enumerate(slides):
        first = seen.setdefault(slide.slide_id, i)
        if first != i:
            raise ValueError(
                f"Expected a different slide_id for each slide, got {slide.slide_id!r} for slides "
                f"{first} and {i}. Pass slide_id=… to read()"
            )


def default_slide_id(adata: "AnnData") -> str:
    """Name of a section by what its AnnData says: notes of a reader, its image, a column of obs."""
    notes = our_notes(adata, "read")
    if "slide_id" in notes:
        return str(notes["slide_id"])
    if len(found := libraries(adata)) == 1:
        return str(next(iter(found)))
    for column in _NAMED_BY:
        if column in adata.obs and adata.obs[column].nunique() == 1:
            return str(adata.obs[column].dropna().iloc[0])
    return "slide"


def _check_frame(adata: "AnnData", slide_id: str) -> None:
    """Something is there, and its rows and columns have names of their own."""
    if not adata.n_obs or not adata.n_vars:
        raise ValueError(
            f"Expected a slide with cells and genes, got {adata.n_obs} cells × {adata.n_vars} "
            f"genes in {slide_id!r}"
        )
    check_names(adata.obs_names, "cell ids", "Rename them, or call adata.obs_names_make_unique()")
    check_names(adata.var_names, "gene names", "Merge them, or adata.var_names_make_unique()")


def _was_read(adata: "AnnData") -> bool:
    """Whether a reader has brought the coordinates to µm."""
    return "read" in our_notes(adata)


def _check_declared(adata: "AnnData", pos: NDArray[np.float64]) -> None:
    """The AnnData does not say that its coordinates are in another unit than µm."""
    found = declared_scale(adata, pos)
    if found is None or found.mpp == 1.0:
        return
    if found.mpp is None:
        raise ValueError(unknown_scale(found))
    raise ValueError(
        f"Expected positions in µm, but by {found.source} a unit of them is {found.mpp:.4g} µm. "
        "spatiagraph.read(adata) converts them; or pass assume_um=True if they are µm by now"
    )


def _check_outlines(
    outlines: Outlines, pos: NDArray[np.float64], names: pd.Index, slide_id: str
) -> None:
    """Each cell has its own outline, and lies in it."""
    if len(outlines) != len(pos):
        raise ValueError(
            f"Expected an outline for each of {len(pos)} cells of slide {slide_id!r}, got "
            f"{len(outlines)}"
        )
    apart = np.flatnonzero(~outlines.around(pos))
    if len(apart):
        raise ValueError(
            f"Expected cells of slide {slide_id!r} inside of their outlines, got "
            f"{len(apart)} of {int(outlines.known.sum())} elsewhere: {name_rows(names, apart)}. "
            "Are outlines in µm (else outlines_mpp=…), and of this region? Or drop these outlines"
        )


def _check_molecules(transcripts: pd.DataFrame) -> None:
    missing = [c for c in _MOLECULE_COLUMNS if c not in transcripts]
    if missing:
        raise ValueError(
            f"Expected transcripts with columns {', '.join(_MOLECULE_COLUMNS)}, got no "
            f"{', '.join(missing)}. {nearest(missing[0], transcripts.columns.astype(str).tolist())}"
        )
    xy = transcripts[["x_um", "y_um"]].to_numpy(np.float64)
    bad = np.flatnonzero(~(np.abs(xy) <= FAR_UM).all(axis=1))  # nor NaN
    if len(bad):
        raise ValueError(
            f"Expected finite transcript coordinates, got NaN, infinity or more than {FAR_UM:g} "
            f"in {len(bad)} of {len(xy)} rows (first: {bad[:5].tolist()})"
        )
