"""The µm guard: positions that are really pixels, millimetres or array indices are caught here.

Cells are irregular clouds a few µm apart; spots sit on lattices whose pitch the maker published.
Both are recognised from the positions alone, so a wrong unit is found before anything is trained.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

KNOWN_PITCHES_UM: dict[str, dict[float, str]] = {
    "square": {
        2.0: "Visium HD 2 µm",
        8.0: "Visium HD 8 µm",
        10.0: "Stereo-seq bin20",
        16.0: "Visium HD 16 µm",
        20.0: "DBiT-seq 10 µm",
        25.0: "Stereo-seq bin50",
        50.0: "DBiT-seq 25 µm, Stereo-seq bin100",
        100.0: "DBiT-seq 50 µm, Stereo-seq bin200",
        200.0: "Spatial Transcriptomics (ST)",
    },
    "hex": {100.0: "Visium"},
}
"""Kind of lattice → centre-to-centre distance of capture spots in µm → who makes them."""
CELL_SPACING_UM = (2.0, 60.0)
"""Median nearest-neighbour distance of real cells, in µm."""

PIXEL_UM = (0.05, 20.0)
"""Size of the pixels that coordinates are counted in, in µm."""

_ARRAY_TOLERANCE = 0.1  # glass shrinks, and Space Ranger's own scale is rounded
_PITCH_TOLERANCE = 0.03  # the fitted pitch of a registered array is good to about 1 %
_MIN_ORDER = 0.6  # bond order: ~0.95 on a registered lattice, ~0.15 in tissue ...
_MIN_ORDER_FEW = 0.85  # ... but a handful of random points can reach 0.7
_MIN_LATTICE_POINTS = 9
_PATCHES, _PATCH_SIZE = 400, 25  # judge up to 400 patches of 25 points, whatever the slide's size


class Lattice(NamedTuple):
    """A regular arrangement of spots.

    Attributes:
        kind: ``"square"`` (four neighbours) or ``"hex"`` (six).
        pitch: Distance between neighbouring sites, in the units of the positions.
    """

    kind: Literal["square", "hex"]
    pitch: float


def neighbor_distance(pos: NDArray[np.floating]) -> float:
    """Median distance to the nearest other cell, in the units of ``pos``.

    Args:
        pos: Cell centres, ``[N, 2]``.

    Returns:
        The median; NaN for fewer than two cells.

    Examples:
        >>> neighbor_distance(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]))
        5.0
    """
    if len(pos) < 2:
        return float("nan")
    sample = pos[:: max(1, len(pos) // 20_000)]
    return float(np.median(cKDTree(pos).query(sample, k=2)[0][:, 1]))


def lattice(pos: NDArray[np.floating]) -> Lattice | None:
    r"""Recognise a square or hexagonal lattice, also when registration to an image bent it.

    Bonds join each point to neighbours within 1.3 nearest-neighbour distances. In patches of 25
    points, the bond order :math:`|\langle e^{i n \theta} \rangle|` is near one on a lattice with
    :math:`n`-fold bonds, whatever its rotation, and near zero in tissue. The pitch is the length
    of the *mean* bond: the nearest-neighbour distance of a jittered lattice would be too small
    (7 % on registered ST arrays).

    Args:
        pos: Spot centres, ``[N, 2]``, in any unit.

    Returns:
        The lattice, or ``None`` if the points are irregular or fewer than nine.

    Examples:
        >>> y, x = np.mgrid[:10, :10]
        >>> lattice(np.stack([x.ravel() * 100.0, y.ravel() * 100.0], 1))
        Lattice(kind='square', pitch=100.0)
    """
    if len(pos) < _MIN_LATTICE_POINTS:
        return None
    tree = cKDTree(pos)
    anchors = pos[:: max(1, len(pos) // _PATCHES)]
    _, patch = tree.query(anchors, k=min(_PATCH_SIZE, len(pos)))  # [A, P]
    _, near = tree.query(pos[patch], k=9)  # [A, P, 9], first is the point itself
    bonds = pos[near[..., 1:]] - pos[patch][..., None, :]  # [A, P, 8, 2]
    z = (bonds[..., 0] + 1j * bonds[..., 1]).reshape(len(anchors), -1)  # [A, P * 8]
    spacing = float(np.median(np.abs(z.reshape(len(anchors), -1, 8)[..., 0])))
    if spacing == 0:
        return None
    orders = {n: np.abs(_mean_phase(z, n, spacing)) for n in (4, 6)}
    fold = max(orders, key=lambda n: float(np.median(orders[n])))
    few = len(pos) < 2 * _PATCH_SIZE
    if np.median(orders[fold]) < (_MIN_ORDER_FEW if few else _MIN_ORDER):
        return None
    pitch = spacing
    for _ in range(3):  # the cut-off follows the pitch, which the spacing underestimates
        pitch = _mean_bond(z, fold, pitch)
    return Lattice("square" if fold == 4 else "hex", round(pitch, 12))


def is_close(value: float, pitch: float) -> bool:
    """Check that a fitted pitch is that of an array, to 3 %."""
    return abs(value / pitch - 1) <= _PITCH_TOLERANCE


def scale_from_pitch(pos: NDArray[np.floating], pitch_um: float) -> float:
    """µm per unit of ``pos``, from the known pitch of the capture array.

    Args:
        pos: Spot centres, ``[N, 2]``, in pixels or any unit.
        pitch_um: Distance between neighbouring spots in µm: 100 for Visium, 200 for ST.

    Raises:
        ValueError: The points form no lattice, so that the scale does not follow from the pitch.
    """
    if not (np.isfinite(pitch_um) and pitch_um > 0):
        raise ValueError(f"Expected 'pitch_um' to be positive, got {pitch_um}")
    found = lattice(pos)
    if found is None:
        raise ValueError(
            f"Expected spots on a square or hexagonal lattice for pitch_um={pitch_um:g}, got "
            f"{len(pos)} irregular points (median nearest neighbour "
            f"{neighbor_distance(pos):.4g}). Pass mpp=… (µm per unit of the coordinates) instead"
        )
    return pitch_um / found.pitch


def check_um(
    pos: NDArray[np.floating], *, pitch_um: float | None = None, assume_um: bool = False
) -> None:
    """Refuse positions that cannot be µm.

    An irregular cloud must have a median nearest-neighbour distance of 2–60 µm; a lattice must
    match a known pitch of its own kind to 3 %: 200 µm is a square array, and no hexagonal one.
    Two cells or more are judged; one cell has no distance.

    Args:
        pos: Cell or spot centres, ``[N, 2]``.
        pitch_um: Pitch the lattice must have, if it is not among ``KNOWN_PITCHES_UM``.
        assume_um: Skip the check.

    Raises:
        ValueError: The positions look like another unit; says which, and what to pass.
    """
    if assume_um or len(pos) < 2:
        return
    distance = neighbor_distance(pos)
    found = lattice(pos)
    if found is not None:
        pitches = [pitch_um] if pitch_um is not None else list(KNOWN_PITCHES_UM[found.kind])
        if not any(is_close(found.pitch, p) for p in pitches):
            raise ValueError(_lattice_message(found, distance, pitch_um))
        return
    low, high = CELL_SPACING_UM
    known = {p for pitches in KNOWN_PITCHES_UM.values() for p in pitches}
    arrays = known if pitch_um is None else {pitch_um}
    few_spots = len(pos) < _MIN_LATTICE_POINTS and any(is_close(distance, p) for p in arrays)
    if not (low <= distance <= high or few_spots):
        raise ValueError(
            f"Expected positions in µm, but the median nearest-neighbour distance is "
            f"{distance:.4g} and cells lie {low:g}–{high:g} µm apart. {_guess(distance)} "
            "Pass mpp=… (µm per unit), pitch_um=… for an array of spots, or assume_um=True "
            "if these really are µm"
        )


def similarity_scale(a: NDArray[np.floating], b: NDArray[np.floating]) -> float | None:
    """Size of a unit of ``a`` in units of ``b``, of two tables of the same positions.

    The axes of one may be turned, swapped or mirrored against those of the other, as the stage of a
    microscope is against its camera.

    Args:
        a: Places, ``[N, 2]``.
        b: The same places, ``[N, 2]``.

    Returns:
        ``None`` if one is not a turned, scaled and shifted copy of the other, to 3 %, or if all
        places are one.

    Examples:
        >>> px = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]])
        >>> similarity_scale(px, px[:, ::-1] * (0.5, -0.5))
        0.5
    """
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = float((a**2).sum())
    if not (np.isfinite(spread) and np.isfinite(b).all() and spread > 0):
        return None
    u, singular, v = np.linalg.svd(a.T @ b)
    scale = float(singular.sum() / spread)
    off = float(np.abs(b - scale * a @ u @ v).max())
    return scale if scale > 0 and off < _PITCH_TOLERANCE * float(np.ptp(b, axis=0).max()) else None


def check_scale(
    mpp: float,
    source: str,
    *,
    pixels: NDArray[np.floating],
    sites_um: NDArray[np.floating] | None = None,
) -> None:
    """Refuse a scale that was inferred or declared, where the positions speak against it.

    Every scale that the user did not give passes here, whoever found it. Spots of an array must lie
    where the array has them, to 10 %; cells must lie 2–60 µm apart, in whatever arrangement.

    Args:
        mpp: µm per pixel.
        source: Where it is from, for the message.
        pixels: Cell or spot centres in pixels, ``[N, 2]``.
        sites_um: Where the array has the same spots, in µm, ``[N, 2]``.

    Raises:
        ValueError: No microscope has such pixels, or the positions do not fit; says what to pass.
    """
    low, high = PIXEL_UM
    if not low <= mpp <= high:
        raise ValueError(
            f"Expected {low:g}–{high:g} µm per pixel, got {mpp:.4g} from {source}. Pass mpp=… (µm "
            "per pixel)"
        )
    if sites_um is None:
        distance, (low, high) = neighbor_distance(pixels * mpp), CELL_SPACING_UM
        if len(pixels) > 1 and not low <= distance <= high:
            raise ValueError(
                f"Expected cells {low:g}–{high:g} µm apart, but with {mpp:.4g} µm per pixel from "
                f"{source} the median nearest-neighbour distance is {distance:.4g} µm. Pass mpp=… "
                "(µm per pixel)"
            )
        return
    if len(pixels) < 2 or not np.ptp(sites_um, axis=0).any():
        return
    fitted = similarity_scale(pixels, sites_um)
    if fitted is None:
        raise ValueError(
            f"Expected spots in rows and columns of one distance, got an image in which they are "
            f"stretched or out of place: rows and columns of the array do not give {source}. Pass "
            "mpp=… (µm per pixel)"
        )
    if abs(mpp / fitted - 1) > _ARRAY_TOLERANCE:
        raise ValueError(
            f"Expected the distance of the spots to fit {mpp:.4g} µm per pixel from {source}, but "
            f"the array gives {fitted:.4g}. Pass mpp=… (µm per pixel), the one that is right"
        )


def _mean_phase(z: NDArray, fold: int, spacing: float) -> NDArray:
    """Mean of ``exp(i fold θ)`` over the bonds of each patch, ``[A]``."""
    bond = (np.abs(z) < 1.3 * spacing) & (z != 0)
    phase = np.exp(1j * fold * np.angle(z)) * bond
    return phase.sum(1) / np.maximum(bond.sum(1), 1)


def _mean_bond(z: NDArray, fold: int, pitch: float) -> float:
    """Length of the mean bond after turning every bond onto its patch's first lattice axis."""
    axis = np.angle(_mean_phase(z, fold, pitch))[:, None] / fold  # [A, 1]
    sector = 2 * np.pi / fold
    turned = z * np.exp(-1j * axis)
    turned = turned * np.exp(-1j * sector * np.round(np.angle(turned) / sector))
    bond = (np.abs(z) < 1.3 * pitch) & (z != 0) & (np.abs(np.angle(turned)) < sector / 3)
    return float(np.abs(turned[bond].mean()))


def _lattice_message(found: Lattice, distance: float, pitch_um: float | None) -> str:
    wanted = (
        f"pitch_um={pitch_um:g}"
        if pitch_um is not None
        else "known pitches of such arrays in µm: "
        + ", ".join(f"{p:g}" for p in KNOWN_PITCHES_UM[found.kind])
    )
    if 0.8 <= found.pitch <= 1.2:
        guess = "Array indices?"
    else:
        guess = "Pixels of the image?"
    array = "100 (Visium)" if found.kind == "hex" else "200 (ST)"
    return (
        f"Expected positions in µm, but the spots form a {found.kind} lattice with a pitch of "
        f"{found.pitch:.4g} (median nearest neighbour {distance:.4g}; {wanted}). {guess} "
        f"Pass pitch_um={array} or your array's pitch, mpp=… (µm per unit), or assume_um=True "
        "if these really are µm"
    )


def _guess(distance: float) -> str:
    low, high = CELL_SPACING_UM
    if distance > high:
        return "Pixels of the image, or nm?" if distance > 1000 * low else "Pixels of the image?"
    if low <= 1000 * distance <= high:
        return "Millimetres (mpp=1000)?"
    if distance == 0:
        return "Most cells lie on top of each other: several slides in one?"
    return "Array indices, or coordinates scaled to a unit range?"
