"""Distance of two clouds of features as distributions, without pairing their points."""

import torch
from torch import Tensor
from torch.nn import functional as F

_PATCH_PX = 7
_LEAST_SIDE_PX = 8  # of the coarsest level of a pyramid
_PATCHES = 16  # of an image and level


def sliced_wasserstein_loss(
    x: Tensor,
    y: Tensor,
    *,
    num_directions: int = 64,
    group: Tensor | None = None,
    min_size: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Mean Wasserstein-1 distance of two clouds, seen along random directions.

    .. math::
        \mathrm{SWD}(\mathbf{X}, \mathbf{Y}) = \frac{1}{K B} \sum_{k=1}^{K} \lVert
        \mathrm{sort}(\mathbf{X} \boldsymbol\theta_k)
        - \mathrm{sort}(\mathbf{Y} \boldsymbol\theta_k) \rVert_1,
        \qquad \lVert \boldsymbol\theta_k \rVert = 1,

    as in `"Sliced and Radon Wasserstein Barycenters of Measures"
    <https://doi.org/10.1007/s10851-014-0506-3>`_. In float32 or better, also under autocast.

    Args:
        x: Features, ``[B, D]``.
        y: Features of as many others, ``[B, D]``; row by row of the same group as ``x``.
        num_directions: :math:`K`.
        group: Such as the transition of each row, ``[B]``; clouds are then compared group by group
            and count by their size.
        min_size: Rows that a group must have to be compared; the rest costs nothing.
        generator: Source of randomness, on the device of ``x``.

    Returns:
        A scalar; 0 if no group is large enough.

    Raises:
        ValueError: Shapes differ.

    Examples:
        >>> x = torch.tensor([[0.0], [5.0]])
        >>> sliced_wasserstein_loss(x, x.flip(0) + 2)
        tensor(2.)
    """
    if x.dim() != 2 or x.shape != y.shape:
        raise ValueError(
            f"Expected as many features of one width, [B, D], got {list(x.shape)} and "
            f"{list(y.shape)}"
        )
    if num_directions < 1:
        raise ValueError(f"Expected 'num_directions' of at least 1, got {num_directions}")
    if group is not None and group.shape != x.shape[:1]:
        raise ValueError(f"Expected 'group' as [{len(x)}], got {list(group.shape)}")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    direction = torch.randn(
        x.size(1), num_directions, generator=generator, device=x.device, dtype=dtype
    )
    direction = direction / direction.norm(dim=0)
    with torch.autocast(x.device.type, enabled=False):
        shadows = [side.to(dtype) @ direction for side in (x, y)]  # [B, K]
    if group is None:
        group = torch.zeros(len(x), dtype=torch.long, device=x.device)
    group = group.unique(return_inverse=True)[1]
    first, second = (_sorted_within(shadow, group) for shadow in shadows)
    counted = group.bincount()[group.sort().values] >= min_size  # [B]
    distance = (first - second).abs().mean(1)
    return torch.where(counted, distance, 0).sum() / counted.sum().clamp(min=1)


@torch.no_grad()
def pyramid_distance(
    x: Tensor,
    y: Tensor,
    *,
    group: Tensor | None = None,
    min_size: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sliced Wasserstein distance of two clouds of images, at each of their scales.

    Of patches of 7 × 7 pixels at random places of a Laplacian pyramid, each level in units of the
    deviation of ``y``, so that images without detail are far from those with, as in `"Progressive
    Growing of GANs" <https://arxiv.org/abs/1710.10196>`_.

    Args:
        x: Images, ``[B, C, H, W]``.
        y: Images of as many others, ``[B, C, H, W]``; row by row of the same group as ``x``.
        group: As :func:`sliced_wasserstein_loss` takes it, with ``min_size`` and ``generator``.
        min_size: Images that a group must have to be compared.
        generator: Source of randomness, on the device of ``x``.

    Returns:
        A scalar, the mean over levels.

    Raises:
        ValueError: Shapes differ.
    """
    if x.dim() != 4 or x.shape != y.shape:
        raise ValueError(
            f"Expected as many images of one shape, [B, C, H, W], got {list(x.shape)} and "
            f"{list(y.shape)}"
        )
    found = []
    for one, other in zip(_laplacian(x), _laplacian(y), strict=True):
        deviation, mean = torch.std_mean(other.float(), (0, 2, 3), keepdim=True)
        scaled = [(side.float() - mean) / deviation.clamp(min=1e-6) for side in (one, other)]
        patches = [F.unfold(side, min(_PATCH_PX, *side.shape[2:])) for side in scaled]  # [B, D, L]
        places = torch.randint(
            patches[0].size(2), (_PATCHES,), generator=generator, device=x.device
        )
        clouds = [p[:, :, places].transpose(1, 2).flatten(0, 1) for p in patches]  # [B P, D]
        found.append(
            sliced_wasserstein_loss(
                *clouds,
                group=None if group is None else group.repeat_interleave(_PATCHES),
                min_size=min_size * _PATCHES,
                generator=generator,
            )
        )
    return torch.stack(found).mean()


def _laplacian(x: Tensor) -> list[Tensor]:
    """Detail of each scale, and what is left at the coarsest."""
    levels = []
    while min(x.shape[2:]) >= 2 * _LEAST_SIDE_PX:
        low = F.adaptive_avg_pool2d(x, (x.size(2) // 2, x.size(3) // 2))
        levels.append(x - F.interpolate(low, x.shape[2:], mode="bilinear"))
        x = low
    return [*levels, x]


def _sorted_within(values: Tensor, group: Tensor) -> Tensor:
    """Each column sorted within its groups, groups one after the other."""
    by_value = values.argsort(dim=0)
    by_group = group[by_value].argsort(dim=0, stable=True)
    return values.gather(0, by_value.gather(0, by_group))
