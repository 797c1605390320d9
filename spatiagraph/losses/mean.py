"""Mean over the entries that count."""

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of the entries where the mask is true; 0 if there are none.

    Entries outside the mask get no gradient and may be ``nan``; what they were computed from may
    not, since ``nan`` times no gradient is ``nan``. No entry is picked out by index, so that
    nothing waits for the device.

    Args:
        values: Losses, any shape.
        mask: Entries that count, boolean, broadcastable to ``values``; all when ``None``.

    Returns:
        A scalar.

    Examples:
        >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
        tensor(2.)
    """
    if mask is None:
        mask = values.new_ones((), dtype=torch.bool)
    if mask.dtype != torch.bool:
        raise ValueError(f"Expected a boolean 'mask', got {mask.dtype}")
    mask = mask.expand(values.shape)
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)
