"""Spots on the lattice of a capture array: from cells that are added up, or from only an image."""

import logging
import warnings
from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from spatiagraph import keys
from spatiagraph.data.image import SlideImage
from spatiagraph.data.image.tissue import on_tissue
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.read.parts import image_notes
from spatiagraph.data.recipe.rule import obs_column
from spatiagraph.data.slide import PHOTOGRAPHED, Slide
from spatiagraph.graph.points import as_points

logger = logging.getLogger(__name__)

_ON_TISSUE = 0.8  # share of given positions below which the image may not be theirs


def spots_of_cells(
    slide: Slide,
    pitch_um: float = 100.0,
    *,
    pos: NDArray[np.floating] | None = None,
    diameter_um: float | None = 55.0,
    min_cells: int = 1,
    labels: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> Slide:
    """Capture spots that a slide of cells would have given: the same section, counted coarsely.

    Spots lie on a hexagonal lattice, as those of Visium do, or where the spots of another section
    of the same block lie; each has the counts of the cells whose centres it covers.

    Args:
        slide: Cells.
        pitch_um: Distance of neighbouring spots.
        pos: Centres of the spots in µm, ``[M, 2]``, in place of the lattice.
        diameter_um: Diameter of a spot; ``None`` gives every cell to the nearest spot.
        min_cells: Cells below which a spot is left out.
        labels: Columns of ``obs`` of which a spot has the most frequent value of its cells.
        shares: Columns of ``obs`` of which a spot has the share of each value among its cells with
            one, as a table ``obsm["share_<column>"]``: the answer to a deconvolution. Rows of spots
            whose cells have none are NaN.

    Returns:
        A slide of spots named ``"spot0"``, ``"spot1"``, …, with ``obs["num_cells"]``, the labels,
        the shares and the image of the cells. With ``pos``, ``obs["row"]`` says which of the
        centres a spot has.

    Raises:
        ValueError: If a number is not positive, a column is missing, centres are not ``[M, 2]``, or
            no spot has enough cells.
    """
    for name, value in {"pitch_um": pitch_um, "diameter_um": diameter_um}.items():
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"Expected {name!r} as a number above 0, got {value}")
    columns = {name: obs_column(slide, name) for name in dict.fromkeys([*labels, *shares])}
    centres = _lattice(slide.pos, pitch_um) if pos is None else as_points(pos)
    distance, spot = cKDTree(centres).query(slide.pos)
    inside = np.ones(len(spot), bool) if diameter_um is None else distance <= diameter_um / 2
    cells = np.flatnonzero(inside)
    size = np.bincount(spot[cells], minlength=len(centres))
    kept = np.flatnonzero(size >= max(min_cells, 1))
    if not len(kept):
        raise ValueError(
            f"Expected spots with at least {min_cells} cells, got none on slide "
            f"{slide.slide_id!r}: give a larger diameter_um, or fewer min_cells"
        )
    of_spot = csr_matrix(
        (np.ones(len(cells), np.float32), (spot[cells], cells)),
        shape=(len(centres), slide.num_cells),
    )[kept]
    obs = pd.DataFrame({"num_cells": size[kept]}, index=[f"spot{i}" for i in range(len(kept))])
    if pos is not None:
        obs["row"] = kept
    tables = {}
    for name, column in columns.items():
        codes, values = pd.factorize(column)
        one_hot = csr_matrix(
            (np.ones((codes >= 0).sum()), (np.flatnonzero(codes >= 0), codes[codes >= 0])),
            shape=(len(codes), max(len(values), 1)),
        )
        votes = (of_spot @ one_hot).toarray()
        if name in shares:
            total = votes.sum(1, keepdims=True)
            share = np.divide(votes, total, out=np.full_like(votes, np.nan), where=total > 0)
            found = pd.DataFrame(share[:, : len(values)], obs.index, [str(v) for v in values])
            tables[f"share_{name}"] = found.sort_index(axis=1)
        if name in labels:
            most = np.asarray(values, dtype=object)[votes.argmax(1)] if len(values) else None
            winner = pd.Series(np.where(votes.any(1), most, None), index=obs.index, dtype=object)
            obs[name] = winner.astype("category")
    adata = anndata.AnnData(of_spot @ slide.counts, obs=obs, var=slide.adata.var.copy())
    adata.obsm[keys.SPATIAL] = centres[kept]
    adata.obsm.update(tables)
    counted = np.flatnonzero(np.asarray(adata.X.sum(1)).ravel() > 0)
    return Slide(
        adata[counted].copy(),
        slide.image,
        slide_id=slide.slide_id,
        donor=slide.donor,
        expression=slide.expression,
        assume_um=pos is not None,  # centres are those of a slide, and few of them no lattice
        pitch_um=pitch_um,
    )


def photographed_slide(
    image: SlideImage,
    panel: GenePanel,
    pitch_um: float = 100.0,
    *,
    pos: NDArray[np.floating] | None = None,
    slide_id: str = "slide",
    tissue_only: bool = True,
) -> Slide:
    """A section that was stained and never sequenced, as a slide on which nothing was counted.

    Models that do without genes, such as :class:`~spatiagraph.models.STAlign`, embed its image.
    Some of them compare spots with the rest of their slide, which has to be tissue: glass beside it
    would make all tissue alike.

    Args:
        image: Picture of the section, addressed in µm.
        panel: Genes of the model.
        pitch_um: Distance of spots on a hexagonal lattice.
        pos: Positions in µm, ``[N, 2]``, in place of the lattice; all of them are kept.
        slide_id: Name of the section.
        tissue_only: Leave out what lies on the glass or the black beside the tissue; spots lie all
            over the image with ``False``, or where it does not show where tissue ends.

    Raises:
        ValueError: If the pitch is not positive, a position lies outside of the image, or no spot
            lies on tissue.

    Warns:
        UserWarning: If many of the given positions lie beside the tissue.
    """
    if not 0 < pitch_um < np.inf:
        raise ValueError(f"Expected 'pitch_um' as a number above 0, got {pitch_um}")
    x0, y0, x1, y1 = image.extent_um
    half = pitch_um / 2
    corners = np.array([[x0 + half, y0 + half], [x1 - half, y1 - half]])
    places = _lattice(corners, pitch_um) if pos is None else np.asarray(pos, dtype=np.float64)
    inside = image.covers(places)
    if pos is None:
        places = places[inside]
    elif not inside.all():
        raise ValueError(
            f"Expected positions on the image ({x1 - x0:g} × {y1 - y0:g} µm), got "
            f"{int((~inside).sum())} of {len(places)} outside (first row: "
            f"{int(np.flatnonzero(~inside)[0])})"
        )
    if tissue_only:
        places = _placed(image, places, slide_id, is_lattice=pos is None)
    adata = anndata.AnnData(
        csr_matrix((len(places), len(panel)), dtype=np.float32),
        obs=pd.DataFrame(index=[f"spot{i}" for i in range(len(places))]),
        var=pd.DataFrame(index=list(panel.symbols)),
    )
    adata.obsm[keys.SPATIAL] = places
    notes = {"slide_id": slide_id, "expression": "counts", PHOTOGRAPHED: True}
    # a file of it is in µm, and opens with its image
    adata.uns[keys.UNS] = {"read": notes | image_notes(image)}
    return Slide(adata, image, slide_id=slide_id, check=False)


def _placed(
    image: SlideImage, pos: NDArray[np.float64], slide_id: str, *, is_lattice: bool
) -> NDArray[np.float64]:
    """Places of a lattice that lie on tissue; places that were given as they are."""
    there = on_tissue(image, pos)
    if there is None:
        if is_lattice:
            logger.warning(
                "The image of slide %r does not show where tissue ends: its %d spots lie all over "
                "it. Pass pos=… where part of it is glass",
                slide_id,
                len(pos),
            )
        return pos
    if not is_lattice:
        if there.mean() < _ON_TISSUE:
            warnings.warn(
                f"{there.mean():.0%} of the positions of slide {slide_id!r} lie on what looks like "
                "tissue in its image: spots are compared with the rest of their slide, and glass "
                "is none. Leave these out, check the scale and the place of the image, or pass "
                "tissue_only=False",
                stacklevel=3,
            )
        return pos
    if not there.any():
        raise ValueError(
            f"Expected tissue under the {len(pos)} spots of slide {slide_id!r}, got none. Pass a "
            "smaller pitch_um, pos=…, or tissue_only=False"
        )
    return pos[there]


def _lattice(pos: NDArray[np.float64], pitch_um: float) -> NDArray[np.float64]:
    """Centres of a hexagonal lattice over some positions, ``[n, 2]``."""
    low, high = pos.min(0), pos.max(0)
    row_um = pitch_um * np.sqrt(3) / 2
    rows = np.arange(int((high[1] - low[1]) // row_um) + 1)
    columns = np.arange(int((high[0] - low[0]) // pitch_um) + 1)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    shifted = x + 0.5 * (y % 2)
    return np.stack([low[0] + shifted * pitch_um, low[1] + y * row_um], 2).reshape(-1, 2)
