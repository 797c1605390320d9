"""Scale of the coordinates of an AnnData, from what it says of itself.

Positions alone cannot tell 200 µm from 200 pixels, so the words of the file come first: units,
columns of ``obs`` that wear one, the bins of Stereo-seq, scale factors of Space Ranger.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph._json import shortened
from spatiagraph.data.axes import UNITS, AxisPair, axis_pairs, same_places, tokens
from spatiagraph.data.units import (
    CELL_SPACING_UM,
    KNOWN_PITCHES_UM,
    is_close,
    lattice,
    neighbor_distance,
)

if TYPE_CHECKING:
    from anndata import AnnData

DNB_UM = 0.5
"""Distance of the spots of a Stereo-seq chip, where the file does not say it."""
MADE_BY = "spatiagraph"
"""``metadata["software"]`` of a preview: what it says is not of the slide."""
VISIUM_PITCH_UM = 100.0
"""Centre-to-centre distance of Visium spots."""

_DNB_BINS = (20.0, 50.0, 100.0, 200.0)  # whose numbers are known pitches in µm too
_ALL_DNB_BINS = (1.0, 5.0, 10.0, *_DNB_BINS, 150.0, 500.0)
_UNIT_KEYS = ("spatial_units", "spatial_unit", "coordinate_units", "coordinate_unit", "units")
_PIXEL_KEYS = (
    "microns_per_pixel", "micron_per_pixel", "um_per_pixel", "um_per_px", "pixel_size_um",
    "pixel_size", "mpp",
)  # fmt: skip
_TO_UM = {"um": 1.0, "mm": 1e3, "nm": 1e-3, "cm": 1e4}
_SPOT_RATIO = (1.3, 2.1)  # Visium: pitch 100 µm over a spot of 55 or 65 µm


class Scale(NamedTuple):
    """Size of the unit that coordinates are in.

    Attributes:
        mpp: µm per unit; ``None`` if the file says that they are no µm, and not what they are.
        source: Where the file says it.
        is_sure: The file says how large its bins are, and so they are: no pitch is to be guessed.
    """

    mpp: float | None
    source: str
    is_sure: bool = False


def declared_scale(adata: "AnnData", pos: NDArray[np.float64]) -> Scale | None:
    """Size of the unit of coordinates, if the file says so.

    Asked in this order: ``uns["spatial_units"]``; columns of ``obs`` that wear a unit and hold
    these coordinates (``x_px``, ``CenterX_global_px``, ``pxl_col_in_fullres``), with the columns
    in µm beside them; the bins of Stereo-seq (``bin_size``, ``resolution`` in nm); the scale
    factors of Space Ranger in ``uns["spatial"]``; a size of a pixel in ``uns``.

    Args:
        adata: The cells, with what is known of them.
        pos: Coordinates, ``[N, 2]``, as they are in the file.

    Returns:
        The scale; ``None`` if nothing is said, so that the positions must be judged alone.

    Raises:
        ValueError: The file holds a size of a pixel, and the coordinates could be pixels or µm.

    Examples:
        >>> y, x = np.mgrid[:10, :10]
        >>> pos = np.stack([x.ravel(), y.ravel()], 1) * 50.0
        >>> from anndata import AnnData
        >>> bins = AnnData(obs=pd.DataFrame(index=[f"b{i}" for i in range(100)]))
        >>> bins.uns = {"bin_size": 50, "resolution": 500}
        >>> declared_scale(bins, pos)
        Scale(mpp=0.5, source="uns['bin_size']", is_sure=True)
    """
    rules: tuple[Callable[[AnnData, NDArray[np.float64]], Scale | None], ...]
    rules = (_named_unit, _named_columns, _stereo_seq, _scale_factors, _pixel_size)
    found = next((s for rule in rules if (s := rule(adata, pos)) is not None), None)
    if found is None or found.mpp is not None:
        return found
    grid = lattice(pos)  # pixels, then, of an array that is known by its kind
    if grid is not None and grid.kind == "hex":
        return Scale(VISIUM_PITCH_UM / grid.pitch, f"{found.source} and the pitch of Visium")
    return found


def unknown_scale(found: Scale) -> str:
    """Message about coordinates that a file says to be in a unit of unknown size."""
    return (
        f"Expected positions in µm, but by {found.source} they are in pixels of unknown size. Pass "
        "mpp=… (µm per pixel), pitch_um=… for an array of spots, or assume_um=True if these really "
        "are µm"
    )


def swapped_columns(adata: "AnnData", pos: NDArray[np.float64]) -> str | None:
    """Columns of ``obs`` called x and y that hold the coordinates the other way around."""
    for pair, values in _numeric_pairs(adata.obs):
        is_xy = {t[0] for t in tokens(pair.x) + tokens(pair.y)} >= {"x", "y"}
        if is_xy and same_places(values[:, ::-1], pos) and not same_places(values, pos):
            return str(pair)
    return None


def doubts(adata: "AnnData", pos: NDArray[np.float64], scale: Scale | None) -> list[str]:
    """Reasons to doubt a scale that nothing speaks against.

    Args:
        adata: The cells, with what is known of them.
        pos: Coordinates, ``[N, 2]``, as they are in the file.
        scale: What they were multiplied by, if anything.
    """
    said = []
    if (pair := swapped_columns(adata, pos)) is not None:
        said.append(
            f"{pair} are the coordinates with x and y swapped. The coordinates are used; check "
            "on an image which of the two is right"
        )
    if (line := _beside_tissue(adata)) is not None:
        said.append(line)
    if scale is not None:
        return said
    grid = lattice(pos)
    if grid is None and any(not v.get("images") for v in libraries(adata).values()):
        said.append(
            "uns['spatial'] has scale factors of an image, so that the coordinates could be its "
            "pixels. They are taken as µm: pass mpp=… (µm per pixel), or mpp=1 to confirm"
        )
    if grid is not None and grid.kind == "square" and grid.pitch >= _DNB_BINS[0] * DNB_UM:
        bins = next((b for b in _DNB_BINS if is_close(grid.pitch, b)), None)
        if bins is not None and not (pos % 1).any():
            said.append(
                f"the spots form a square lattice with a pitch of {grid.pitch:g} in whole numbers, "
                f"and are taken as µm. If they are bins of {bins:g} spots of Stereo-seq, pass "
                f"mpp={DNB_UM:g}; pitch_um={grid.pitch:g} confirms µm"
            )
    return said


def _beside_tissue(adata: "AnnData") -> str | None:
    """A line on spots that Space Ranger says lie beside the tissue."""
    flags = adata.obs.get("in_tissue")
    if flags is None:
        return None
    beside = int(flags.astype(str).str.lower().isin(("0", "0.0", "false")).sum())
    if not beside:
        return None
    return (
        f"{beside} of {len(flags)} spots lie beside the tissue (obs['in_tissue']) and are read as "
        "the others: leave them out, adata[adata.obs['in_tissue'] == 1], unless they are wanted"
    )


def is_preview(library: Mapping) -> bool:
    """Check that an entry of ``uns["spatial"]`` is one that we added for others to draw on."""
    metadata = library.get("metadata")
    return isinstance(metadata, Mapping) and str(metadata.get("software")) == MADE_BY


def libraries(adata: "AnnData") -> dict[str, Mapping]:
    """Entries of ``uns["spatial"]`` in scanpy's layout; our own previews are none.

    Raises:
        ValueError: What should be a group of entries is none.
    """
    entry = adata.uns.get("spatial")
    if not isinstance(entry, Mapping):
        return {}
    found = {
        k: v
        for k, v in entry.items()
        if isinstance(v, Mapping) and "scalefactors" in v and not is_preview(v)
    }
    for name, library in found.items():
        for part in ("scalefactors", "images"):
            if not isinstance(library.get(part, {}), Mapping):
                raise ValueError(
                    f"Expected uns['spatial'][{name!r}][{part!r}] to be a group of entries, got "
                    f"{shortened(library[part])}. Write the file again, or delete it"
                )
    return found


def _named_unit(adata: "AnnData", pos: NDArray[np.float64]) -> Scale | None:
    for key in _UNIT_KEYS:
        if not isinstance(text := adata.uns.get(key), str):
            continue
        word = (tokens(text) or [""])[0]
        source = f"uns[{key!r}]"
        if word in UNITS["px"]:
            mpp = _size_in(adata)
            return Scale(None, source) if mpp is None else Scale(mpp[0], f"{source} and {mpp[1]}")
        unit = next((u for u in _TO_UM if word in UNITS[u]), None)
        if unit is not None:
            return Scale(_TO_UM[unit], source)
        if key != _UNIT_KEYS[-1]:  # "units" alone may be those of the values
            raise ValueError(
                f"Expected µm, mm, nm, cm or pixels in {source}, got {text!r}. Pass mpp=… (µm per "
                "unit of the coordinates)"
            )
    return None


def _named_columns(adata: "AnnData", pos: NDArray[np.float64]) -> Scale | None:
    pairs = _numeric_pairs(adata.obs)
    same = [p for p, v in pairs if same_places(v, pos) or same_places(v[:, ::-1], pos)]
    for pair in same:
        if pair.unit in _TO_UM:
            return Scale(_TO_UM[pair.unit], str(pair))
    is_px = next((pair for pair in same if pair.unit == "px"), None)
    beside = "" if is_px is None else f"{is_px} beside "
    others = [(p, _slope(pos, v)) for p, v in pairs if p not in same]
    for pair, slope in others:
        if pair.unit in _TO_UM and slope is not None:
            return Scale(slope * _TO_UM[pair.unit], f"{beside}{pair}")
    for pair, slope in others:
        if pair.is_um_by_maker and slope is not None:
            if is_px is None:
                return _either(pos, slope, str(pair))
            return Scale(slope, f"{beside}{pair}")
    if is_px is None:
        return None
    size = _size_in(adata)
    return Scale(None, str(is_px)) if size is None else Scale(size[0], f"{is_px} and {size[1]}")


def _stereo_seq(adata: "AnnData", pos: NDArray[np.float64]) -> Scale | None:
    size, dnb_nm = _number(adata.uns.get("bin_size")), _number(adata.uns.get("resolution"))
    kind = str(adata.uns.get("bin_type", ""))
    if not (kind.endswith(("bin", "bins")) or (size is not None and dnb_nm is not None)):
        return None if size is None else _bins_of_unknown_maker(size, pos)
    unit = DNB_UM if dnb_nm is None else dnb_nm / 1000
    if "cell" in kind:  # spots of the chip are counted in whole numbers
        whole = bool((pos == np.rint(pos)).all())
        return Scale(unit, "uns['bin_type']") if whole else _either(pos, unit, "uns['bin_type']")
    grid = lattice(pos)
    if size is None or grid is None:
        return Scale(None, "uns['bin_type']")
    for pitch, mpp in ((size, unit), (size * unit, 1.0), (1.0, size * unit)):
        if is_close(grid.pitch, pitch):
            return Scale(mpp, "uns['bin_size']", is_sure=True)
    return Scale(None, "uns['bin_size']")


def _bins_of_unknown_maker(size: float, pos: NDArray[np.float64]) -> Scale | None:
    """Bins whose size is that of Stereo-seq in spots, as far as a number can tell.

    Raises:
        ValueError: They could be so many µm as well.
    """
    grid = lattice(pos)
    if size not in _ALL_DNB_BINS or grid is None or not is_close(grid.pitch, size):
        return None
    if (pos % 1).any():
        return None
    if any(is_close(size, pitch) for pitch in KNOWN_PITCHES_UM["square"]):
        raise ValueError(
            f"Expected to know the unit of the coordinates, but uns['bin_size'] is {size:g} and so "
            f"far they lie apart. Pass mpp={DNB_UM:g} if these are bins of Stereo-seq, whose spots "
            f"lie {DNB_UM:g} µm apart, or mpp=1 if they are µm"
        )
    return Scale(DNB_UM, "uns['bin_size']", is_sure=True)


def _scale_factors(adata: "AnnData", pos: NDArray[np.float64]) -> Scale | None:
    found = libraries(adata)
    if len(found) != 1:
        return None
    ((name, library),) = found.items()
    factors, source = library["scalefactors"], f"uns['spatial'][{name!r}]['scalefactors']"
    mpp, grid = _number(factors.get("microns_per_pixel")), lattice(pos)
    spot, bin_um = (_number(factors.get(k)) for k in ("spot_diameter_fullres", "bin_size_um"))
    if bin_um is not None and grid is not None and is_close(grid.pitch, bin_um):
        return Scale(1.0, source)
    if mpp is not None:
        return Scale(mpp, source)
    if bin_um is not None and spot is not None:
        return Scale(bin_um / spot, source)
    if grid is None or not {"tissue_hires_scalef", "tissue_lowres_scalef"} & set(factors):
        return None
    if spot is not None and not _SPOT_RATIO[0] <= grid.pitch / spot <= _SPOT_RATIO[1]:
        # spots larger than their distance: the coordinates are no pixels of this scan any more
        known = any(is_close(grid.pitch, p) for p in KNOWN_PITCHES_UM[grid.kind])
        return Scale(1.0, source) if known else Scale(None, source)
    return Scale(None, source)


def _pixel_size(adata: "AnnData", pos: NDArray[np.float64]) -> Scale | None:
    size = _size_in(adata)
    return None if size is None else _either(pos, *size)


def _either(pos: NDArray[np.float64], mpp: float, source: str) -> Scale | None:
    """Pixels or µm, whichever is plausible.

    Raises:
        ValueError: Both are.
    """
    as_um, as_pixels = _plausible(pos, 1.0), _plausible(pos, mpp)
    if as_um and as_pixels and not np.isclose(mpp, 1.0):
        raise ValueError(
            f"Expected to know the unit of the coordinates, but {source} says {mpp:g} µm per "
            f"pixel, and a nearest neighbour {neighbor_distance(pos):.4g} away could be pixels or "
            f"µm. Pass mpp={mpp:g} if they are pixels, mpp=1 if they are µm"
        )
    return Scale(mpp, source) if as_pixels else None


def _plausible(pos: NDArray[np.float64], mpp: float) -> bool:
    grid, (low, high) = lattice(pos), CELL_SPACING_UM
    if grid is not None:
        return any(is_close(grid.pitch * mpp, p) for p in KNOWN_PITCHES_UM[grid.kind])
    return low <= neighbor_distance(pos) * mpp <= high


def _size_in(adata: "AnnData") -> tuple[float, str] | None:
    """µm per pixel in ``uns``, and its key."""
    for key in _PIXEL_KEYS:
        if (value := _number(adata.uns.get(key))) is not None:
            return value, f"uns[{key!r}]"
    return None


def _number(value: object) -> float | None:
    """A positive number, also of text or in an array of one, as files have them."""
    found = np.asarray(value).ravel()
    if found.size != 1 or found.dtype.kind not in "iufUSO" or found[0] is None:
        return None
    number = pd.to_numeric(pd.Series([found[0]]), errors="coerce").iloc[0]
    return float(number) if np.isfinite(number) and number > 0 else None


def _numeric_pairs(obs: pd.DataFrame) -> list[tuple[AxisPair, NDArray[np.float64]]]:
    """Columns that are coordinates by their names and numbers by their values, ``[N, 2]``."""
    return [
        (pair, pair.values(obs))
        for pair in axis_pairs(obs.columns)
        if all(pd.api.types.is_numeric_dtype(obs[c]) for c in (pair.x, pair.y))
    ]


def _slope(pixels: NDArray[np.float64], um: NDArray[np.float64]) -> float | None:
    """µm per pixel of two tables of the same places; ``None`` if they do not agree."""
    a, b = pixels - pixels.mean(axis=0), um - um.mean(axis=0)
    spread = (a**2).sum(axis=0)
    if not (np.isfinite(b).all() and (spread > 0).all()):
        return None
    slope = (a * b).sum(axis=0) / spread  # an axis may be mirrored
    off = np.abs(b - a * slope).max() / max(float(np.ptp(b)), 1e-12)
    size = np.abs(slope)
    return float(size.mean()) if off < 1e-2 and np.isclose(size[0], size[1], rtol=1e-2) else None
