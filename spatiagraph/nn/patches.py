"""Images as rows of square patches."""

from torch import Tensor


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches, row by row.

    Args:
        image: ``[N, C, H, W]``.
        patch_size: Side of a patch in pixels, :math:`p`; must divide ``H`` and ``W``.

    Returns:
        ``[N, P, p * p * C]``, channels last within a patch.

    Raises:
        ValueError: If patches do not fill the image.

    Examples:
        >>> import torch
        >>> patchify(torch.arange(16).view(1, 1, 4, 4), 2)[0, 1]
        tensor([2, 3, 6, 7])
    """
    if image.dim() != 4 or image.size(2) % patch_size or image.size(3) % patch_size:
        raise ValueError(
            f"Expected images [N, C, H, W] that patches of {patch_size} px fill, got "
            f"{list(image.shape)}"
        )
    rows = image.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    return rows.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
