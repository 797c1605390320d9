"""Distance of two clouds of features as distributions, without pairing their points."""

import torch
from torch import Tensor


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


def _sorted_within(values: Tensor, group: Tensor) -> Tensor:
    """Each column sorted within its groups, groups one after the other."""
    by_value = values.argsort(dim=0)
    by_group = group[by_value].argsort(dim=0, stable=True)
    return values.gather(0, by_value.gather(0, by_group))
