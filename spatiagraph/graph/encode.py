r"""Distances, directions and positions as numbers a network can use. No parameters.

What depends on distances alone (:func:`distance_rbf`) does not change under any rigid motion;
:func:`edge_direction` and :func:`position_encoding` turn with the slide.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from spatiagraph.graph.edges import plain_edges


def edge_vectors(pos: Tensor, edge_index: Tensor) -> Tensor:
    """Vector from each edge's target to its source in µm, ``[E, 2]``.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        edge_index: Messages source → target, ``[2, E]``.
    """
    source, target = plain_edges(edge_index)
    return pos[source] - pos[target]


def edge_direction(pos: Tensor, edge_index: Tensor) -> Tensor:
    """Direction of each edge, from its target to its source.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        edge_index: Messages source → target, ``[2, E]``.

    Returns:
        Unit vectors (cosine and sine of the angle), ``[E, 2]``; zero for cells at one position.
    """
    vector = edge_vectors(pos, edge_index)
    length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return torch.where(length > 0, vector / length.clamp(min=torch.finfo(length.dtype).tiny), 0.0)


def distance_rbf(
    distance: Tensor, num_basis: int = 16, *, min_um: float = 0.0, max_um: float = 100.0
) -> Tensor:
    r"""Gaussian radial basis of distances, as in SchNet.

    .. math::
        g_k(d) = \exp\left(-\frac{(d - \mu_k)^2}{2 \Delta^2}\right)

    with :math:`\mu_k` evenly spaced from ``min_um`` to ``max_um`` and :math:`\Delta` their spacing
    (`arXiv:1706.08566 <https://arxiv.org/abs/1706.08566>`_). Beyond ``max_um`` it fades to zero.

    Args:
        distance: Distances in µm, ``[...]``.
        num_basis: Number of centres, ``K``, at least 2.
        min_um: First centre.
        max_um: Last centre.

    Returns:
        ``[..., K]``.

    Raises:
        ValueError: Fewer than two centres, or an empty range.
    """
    if num_basis < 2 or not max_um > min_um:
        raise ValueError(
            f"Expected 'num_basis' of at least 2 and max_um > min_um, got {num_basis} centres "
            f"from {min_um} to {max_um} µm"
        )
    center = torch.linspace(min_um, max_um, num_basis, dtype=distance.dtype, device=distance.device)
    spacing = (max_um - min_um) / (num_basis - 1)
    return torch.exp(-0.5 * ((distance[..., None] - center) / spacing) ** 2)


def position_encoding(
    pos: Tensor, channels: int = 512, *, min_um: float = 2.0, max_um: float = 2000.0
) -> Tensor:
    r"""Sinusoidal encoding of positions in the plane, ``PE2D`` of SPATIA.

    .. math::
        [\sin(x/\lambda), \cos(x/\lambda), \sin(y/\lambda), \cos(y/\lambda)]

    with ``channels/4`` lengths :math:`\lambda`, spaced evenly in the logarithm
    (`arXiv:2507.04704 <https://arxiv.org/abs/2507.04704>`_). Hand it positions relative to a niche
    or region centre and it does not depend on where the slide lies.

    Args:
        pos: Positions in µm, ``[..., 2]``.
        channels: Width ``D``, a multiple of 4.
        min_um: Shortest length.
        max_um: Longest length.

    Returns:
        ``[..., D]``: all sines of x, cosines of x, sines of y, cosines of y.

    Raises:
        ValueError: ``channels`` is not a positive multiple of 4, or an empty range.
    """
    if channels < 4 or channels % 4 or not 0 < min_um <= max_um:
        raise ValueError(
            "Expected 'channels' a multiple of 4 and 0 < min_um <= max_um, got "
            f"{channels} channels from {min_um} to {max_um} µm"
        )
    log_length = torch.linspace(
        math.log(min_um), math.log(max_um), channels // 4, dtype=pos.dtype, device=pos.device
    )
    phase = pos[..., None] / log_length.exp()  # [..., 2, D/4]
    return torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(-2)


class NormalizedPositions(NamedTuple):
    """Positions without origin and unit.

    Attributes:
        pos: ``[N, 2]``.
        scale: Units per µm: dividing a distance by it gives µm.
    """

    pos: Tensor
    scale: float


def normalize_positions(
    pos: Tensor, norm: Literal["rms", "bbox", "none"] = "rms"
) -> NormalizedPositions:
    r"""Positions of one slide, centred and scaled so that the slide's diagonal is about 100.

    ``"rms"`` subtracts the centroid and multiplies by :math:`100 / (\sqrt{12}\, r)`, with :math:`r`
    the root mean square distance to the centroid; it turns with the slide, and for an evenly filled
    rectangle :math:`\sqrt{12}\,r` is the diagonal. ``"bbox"`` centres the axis-aligned bounding box
    and makes its diagonal 100, as SToFM's code does
    (`arXiv:2507.11588 <https://arxiv.org/abs/2507.11588>`_); it depends on the orientation.
    ``"none"`` keeps µm and origin.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        norm: Which rule. All cells at one position are centred and not scaled.

    Raises:
        ValueError: ``norm`` is unknown.
    """
    if norm == "none":
        return NormalizedPositions(pos, 1.0)
    if norm == "rms":
        centered = pos - pos.mean(dim=0)
        size = math.sqrt(12) * float(centered.square().sum(dim=1).mean().sqrt())
    elif norm == "bbox":
        low, high = pos.amin(dim=0), pos.amax(dim=0)
        centered = pos - (low + high) / 2
        size = float(torch.linalg.vector_norm(high - low))
    else:
        raise ValueError(f'Expected \'norm\' "rms", "bbox" or "none", got {norm!r}')
    scale = 100 / size if size > 0 else 1.0
    return NormalizedPositions(centered * scale, scale)
