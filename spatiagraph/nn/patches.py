"""Images as rows of square patches, and back."""

from collections.abc import Sequence

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


def unpatchify(patches: Tensor, patch_size: int, grid: Sequence[int]) -> Tensor:
    """Put images together from their patches; undoes :func:`patchify`.

    Args:
        patches: ``[N, P, p * p * C]``.
        patch_size: Side of a patch in pixels, :math:`p`.
        grid: Rows and columns of patches.

    Returns:
        ``[N, C, H, W]``.

    Raises:
        ValueError: If the patches do not fill the grid.
    """
    if (
        patches.dim() != 3
        or patches.size(1) != grid[0] * grid[1]
        or patches.size(2) % patch_size**2
    ):
        raise ValueError(
            f"Expected patches [N, {grid[0] * grid[1]}, {patch_size**2} * C], got "
            f"{list(patches.shape)}"
        )
    pixels = patches.unflatten(2, (patch_size, patch_size, -1)).unflatten(1, tuple(grid))
    return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
