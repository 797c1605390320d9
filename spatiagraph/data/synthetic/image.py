"""Image of the synthetic section: nuclei with the shape of their cell type."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

_BLOCK = 4096  # nuclei painted at once
_HEMATOXYLIN = (0.65, 0.70, 0.29)  # optical density of R, G, B, Ruifrok & Johnston 2001
_EOSIN = (0.07, 0.99, 0.11)


@dataclass(frozen=True)
class Nuclei:
    """Ellipses, one per cell: half axes in µm, angle in radians, stain in [0, 1], all ``[N]``."""

    major_um: np.ndarray
    minor_um: np.ndarray
    angle: np.ndarray
    stain: np.ndarray


def draw_shapes(rng: np.random.Generator, num_types: int) -> np.ndarray:
    """Typical radius in µm, axis ratio and stain of the nuclei of each type, ``[T, 3]``."""
    return np.stack(
        [
            rng.permutation(np.linspace(2.3, 4.3, num_types)),
            rng.permutation(np.linspace(1.0, 2.0, num_types)),
            rng.permutation(np.linspace(0.6, 1.0, num_types)),
        ],
        axis=1,
    )


def draw_nuclei(
    rng: np.random.Generator, shapes: np.ndarray, cell_type: np.ndarray, swelling: np.ndarray
) -> Nuclei:
    """One nucleus per cell, around the typical shape of its type.

    Args:
        rng: Source of randomness of the slide.
        shapes: Output of :func:`draw_shapes`, ``[T, 3]``.
        cell_type: Type of each cell, ``[N]``.
        swelling: Factor of the radius of each cell, ``[N]``.
    """
    radius, ratio, stain = shapes[cell_type].T
    radius = radius * swelling * rng.lognormal(0.0, 0.07, len(cell_type))
    ratio = np.maximum(1.0, ratio * rng.lognormal(0.0, 0.07, len(cell_type)))
    stain = np.clip(stain * rng.lognormal(0.0, 0.05, len(cell_type)), 0.0, 1.0)
    angle = rng.uniform(0, np.pi, len(cell_type))
    return Nuclei(radius * np.sqrt(ratio), radius / np.sqrt(ratio), angle, stain)


def paint(
    rng: np.random.Generator,
    pos: np.ndarray,
    nuclei: Nuclei,
    size_um: tuple[float, float],
    mpp: float,
    stain: Literal["he", "dapi"],
) -> np.ndarray:
    """Section as a microscope would show it.

    Args:
        rng: Source of randomness of the slide.
        pos: Centres of the nuclei in µm, ``[N, 2]``.
        nuclei: Their shapes.
        size_um: Width and height of the section.
        mpp: Side of a pixel in µm.
        stain: ``"he"`` gives RGB uint8 ``[H, W, 3]``, ``"dapi"`` grey uint16 ``[H, W]``.
    """
    shape = (int(np.ceil(size_um[1] / mpp)), int(np.ceil(size_um[0] / mpp)))
    density = _nuclear_density(pos, nuclei, shape, mpp)
    grain = rng.standard_normal(shape, dtype=np.float32)
    if stain == "dapi":
        signal = 250 + 4000 * density * (1 + 0.12 * grain) + 40 * grain
        return np.clip(signal, 0, 65535).astype(np.uint16)
    density *= 1.1 * (1 + 0.12 * grain)
    eosin = 0.35 + 0.10 * _clouds(rng, shape, 30 / mpp) + 0.03 * grain
    eosin *= 1 - 0.5 * np.clip(density, 0, 1)
    out = np.empty((*shape, 3), dtype=np.uint8)
    for c in range(3):  # Beer-Lambert law, one channel at a time to spare memory
        light = np.exp(-(_HEMATOXYLIN[c] * density + _EOSIN[c] * eosin))
        out[..., c] = np.clip(255 * light, 0, 255)
    return out


def _nuclear_density(
    pos: np.ndarray, nuclei: Nuclei, shape: tuple[int, int], mpp: float
) -> np.ndarray:
    """Stain of the uppermost nucleus at each pixel, with an edge one pixel wide, ``[H, W]``."""
    reach = int(np.ceil(nuclei.major_um.max() / mpp)) + 2
    step = np.arange(-reach, reach + 1)
    out = np.zeros(shape[0] * shape[1], dtype=np.float32)
    for start in range(0, len(pos), _BLOCK):
        rows = slice(start, start + _BLOCK)
        pixel = np.floor(pos[rows] / mpp).astype(np.int64)[:, :, None] + step  # [B, 2, P]
        away = ((pixel + 0.5) * mpp - pos[rows, :, None]).astype(np.float32)
        dx, dy = away[:, 0, None, :], away[:, 1, :, None]
        cos, sin = (
            f(nuclei.angle[rows])[:, None, None].astype(np.float32) for f in (np.cos, np.sin)
        )
        a, b, stain = (
            v[rows, None, None].astype(np.float32)
            for v in (nuclei.major_um, nuclei.minor_um, nuclei.stain)
        )
        distance = np.hypot((cos * dx + sin * dy) / a, (cos * dy - sin * dx) / b)  # [B, P, P]
        cover = stain * np.clip((1 - distance) * b / mpp + 0.5, 0, 1)
        row, col = pixel[:, 1, :, None], pixel[:, 0, None, :]
        inside = (cover > 0) & (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
        np.maximum.at(out, (row * shape[1] + col)[inside], cover[inside])
    return out.reshape(shape)


def _clouds(rng: np.random.Generator, shape: tuple[int, int], period_px: float) -> np.ndarray:
    """Smooth noise of unit scale, ``[H, W]``."""
    coarse = rng.standard_normal([int(s / period_px) + 3 for s in shape]).astype(np.float32)
    zoom = [s / (c - 1) for s, c in zip(shape, coarse.shape, strict=True)]
    field = ndimage.zoom(coarse, zoom, order=1, grid_mode=False)
    return np.pad(
        field, [(0, max(0, s - f)) for s, f in zip(shape, field.shape, strict=True)], mode="edge"
    )[: shape[0], : shape[1]]
