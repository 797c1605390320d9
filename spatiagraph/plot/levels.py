"""The levels of one slide side by side, each outlined on the finer one."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial import QhullError, Voronoi

from spatiagraph import keys
from spatiagraph.data.convert.tissue_data import CELL
from spatiagraph.data.image import SlideImage
from spatiagraph.data.notes import our_notes
from spatiagraph.data.slide import Slide
from spatiagraph.inference.embedded import level_names
from spatiagraph.plot.canvas import DPI, save_figure
from spatiagraph.plot.colors import PALETTE, categories, is_categorical
from spatiagraph.plot.maps import cell_positions, cell_spacing, cell_values, spatial

Values = str | pd.Series | Sequence | NDArray
"""Column of ``obs``, name of a gene, or values ``[N]``."""
_LEVELS = ("niche", "tissue")  # of a slide that no model has embedded
_TITLES = {"cell": "Cells", "niche": "Niches", "tissue": "Tissue"}
_SIDE = 3.9  # inches
_GAP = 8.0  # spacings between cells that are no neighbours any more


def hierarchy(
    cells: Slide | AnnData | NDArray,
    levels: Mapping[str, Values | None] | None = None,
    *,
    image: SlideImage | bool | None = False,
    palettes: Mapping[str, Mapping[object, str]] | None = None,
    outlines: bool = True,
    legend: bool = True,
    axes: Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> list[Axes]:
    """Draw the levels of a slide, a panel for each: what lies within what.

    Cells wear the colour of their group at the level. A line is drawn around the groups of the
    level above, unless they are so scattered that there would be more lines than cells: niches are
    outlined on the cells, tissue regions on the niches. Of more than twenty groups the title says
    how many there are, in place of a legend.

    Args:
        cells: A slide, an AnnData with positions in ``obsm["spatial"]``, or positions ``[N, 2]``
            in µm.
        levels: Name of each level, from cells upwards → column of ``obs``, name of a gene, or
            values ``[N]``; ``None`` for what :func:`known_levels` finds. Not given, all levels it
            finds.
        image: Image to lay beneath, none by default; ``None`` for that of the slide.
        palettes: Name of a level → colours of some or all of its groups.
        outlines: Whether to outline the groups of the level above.
        legend: Whether to draw legends, below the panels.
        axes: Axes to draw into, one for each level there is; new ones when not given.
        save: File to write.

    Returns:
        The axes, from the finest level to the coarsest; the figure is ``axes[0].figure``.

    Raises:
        ValueError: If no level is known, a column does not exist, or there are not as many axes
            as levels.
    """
    pos = cell_positions(cells)
    known = known_levels(cells)
    given = known if levels is None else levels
    chosen = {level: known.get(level) if v is None else v for level, v in given.items()}
    values = {k: cell_values(cells, v, len(pos)) for k, v in chosen.items() if v is not None}
    if not values:
        raise ValueError(
            "Expected a column or values for at least one level, as levels={'niche': …}, got none"
        )
    values = {k: v if k == CELL else _as_groups(v) for k, v in values.items()}
    axes = _new_axes(len(values)) if axes is None else list(axes)
    if len(axes) != len(values):
        raise ValueError(f"Expected axes for {', '.join(values)}, got {len(axes)}")
    names = list(values)
    for number, (ax, level) in enumerate(zip(axes, names, strict=True)):
        few = not is_categorical(values[level]) or values[level].nunique() <= len(PALETTE)
        spatial(
            cells,
            values[level],
            image=image,
            ax=ax,
            title=_title(level, values[level]),
            palette=(palettes or {}).get(level),
            legend="below" if legend and few else False,
        )
        if outlines and number + 1 < len(names):
            above = values[names[number + 1]]
            width = 0.6 if number == 0 else 1.0
            found = group_outlines(pos, above)
            if len(found) <= len(pos):  # scattered groups would be all lines
                lines = LineCollection(list(found), colors="black", linewidths=width, zorder=2)
                ax.add_collection(lines, autolim=False)
    save_figure(axes[0], save)
    return axes


def group_outlines(pos: NDArray[np.floating], groups: pd.Series) -> NDArray[np.float64]:
    """Lines between neighbouring cells of different groups.

    They are the sides of the cells' Voronoi polygons, so that a line runs midway between two cells.
    Across gaps in the tissue there is none.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        groups: Group of each cell, ``[N]``; cells without one belong together.

    Returns:
        Both ends of each line, ``[S, 2, 2]``.

    Examples:
        >>> square = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
        >>> group_outlines(square, pd.Series(["left", "right", "left", "right"]))[:, :, 0]
        array([[5., 5.],
               [5., 5.]])
    """
    pos = np.asarray(pos, dtype=np.float64)
    limit = _GAP * cell_spacing(pos)
    # four cells far away, so that the polygons at the rim have ends too
    center, reach = pos.mean(0), 10 * np.ptp(pos, axis=0).max() + limit
    far = center + reach * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    try:
        polygons = Voronoi(np.concatenate([pos, far]))
    except QhullError as err:
        raise ValueError("Expected cells with different, finite positions") from err
    codes = pd.factorize(groups)[0]
    pair, ends = polygons.ridge_points, np.asarray(polygons.ridge_vertices)
    inside = (pair < len(pos)).all(1) & (ends >= 0).all(1)
    pair, ends = pair[inside], ends[inside]
    near = np.linalg.norm(pos[pair[:, 0]] - pos[pair[:, 1]], axis=1) <= limit
    kept = near & (codes[pair[:, 0]] != codes[pair[:, 1]])
    middle = pos[pair[kept]].mean(1, keepdims=True)  # [S, 1, 2]
    along = polygons.vertices[ends[kept]] - middle  # [S, 2, 2]
    length = np.linalg.norm(along, axis=2, keepdims=True)
    return middle + along * np.minimum(1, limit / 2 / np.maximum(length, 1e-12))


def known_levels(cells: Slide | AnnData | NDArray) -> dict[str, str]:
    """Columns of ``obs`` that hold the levels of a slide, from cells upwards, where there.

    Cells have their type (``cell_type``, ``celltype``). A level that ``embed`` notes (``niche`` and
    ``tissue`` of a slide without notes) has the domains that ``spatiagraph report`` finds, or else
    a column of its name, or the groups that ``embed`` writes.

    Args:
        cells: A slide, an AnnData, or positions, of which nothing is known.
    """
    adata = cells.adata if isinstance(cells, Slide) else cells
    if not isinstance(adata, AnnData):
        return {}
    name = str(our_notes(adata).get("name", ""))
    columns = {CELL: ["cell_type", "celltype"]}
    for level in level_names(adata) or _LEVELS:
        domain = f"{keys.group_key(name, 'domain')}_{level}"
        columns[level] = [domain, level, keys.group_key(name, level)]
    found = {level: [c for c in names if c in adata.obs] for level, names in columns.items()}
    return {level: names[0] for level, names in found.items() if names}


def _as_groups(values: pd.Series) -> pd.Series:
    """Values above cells are groups, also where they are many and have numbers."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values
    return pd.Series(pd.Categorical(values, categories=categories(values)), name=values.name)


def _title(level: str, values: pd.Series) -> str:
    what = _TITLES.get(level, level.capitalize())
    name = "" if values.name is None else f": {values.name}"
    return f"{what}{name}" + (f" ({values.nunique()})" if is_categorical(values) else "")


def _new_axes(num: int) -> list[Axes]:
    figure = Figure(figsize=(num * _SIDE, _SIDE + 0.8), layout="constrained", dpi=DPI)
    return list(figure.subplots(1, num, squeeze=False)[0])
