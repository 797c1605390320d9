"""Features of a recipe: embeddings of other networks that travel with cells or groups."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from torch import Tensor

from spatiagraph.data.checks import name_rows, nearest
from spatiagraph.data.convert.tissue_data import CELL
from spatiagraph.data.recipe.rule import Groups, Rule
from spatiagraph.data.slide import Slide


@dataclass(frozen=True)
class Feature(Rule):
    """Slot of ``obsm``, such as frozen scGPT, UNI or PCA vectors.

    Attributes:
        key: Key of ``obsm``.
        of: ``"cell"``, or the name of a level: then the mean over its members.
        required: Refuse slides without it; otherwise their batches go without. In a batch
            of several slides (:class:`~spatiagraph.data.HierarchicalLoader`) all have it or none.

    Raises:
        ValueError: If a slide lacks it, or it is not finite numbers, one row per cell.
    """

    key: str
    of: str = CELL
    required: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise ValueError(f"Expected 'key' of Feature as a slot of obsm, got {self.key!r}")

    @property
    def name(self) -> str:
        """Attribute of a batch: the key, or ``"{level}_{key}"``."""
        return self.key if self.of == CELL else f"{self.of}_{self.key}"

    def values(self, slide: Slide) -> Tensor | None:
        """One row per cell, ``[N, F]`` float32; ``None`` where the slide goes without."""
        if self.key not in slide.adata.obsm:
            if not self.required:
                return None
            raise ValueError(
                f"Expected obsm[{self.key!r}] in slide {slide.slide_id!r}, got none. "
                f"{nearest(self.key, list(slide.adata.obsm))}"
            )
        values = finite_features(slide.adata.obsm[self.key], f"obsm[{self.key!r}]", slide)
        return torch.from_numpy(values)


def mean_over_members(values: Tensor, groups: Groups) -> Tensor:
    """Mean of member rows in each group, ``[M, F]``; 0 for a group without members.

    Args:
        values: ``[n, F]``.
        groups: Groups of the members.
    """
    member, group = groups.members.as_tensor()
    total = values.new_zeros(len(groups.pos), values.size(1)).index_add_(0, group, values[member])
    size = torch.bincount(group, minlength=len(groups.pos)).clamp(min=1)
    return total / size.unsqueeze(1)


def finite_features(found: Any, what: str, slide: Slide) -> NDArray[np.float32]:
    """Features of the cells of a slide, if they are such, ``[N, F]``.

    Args:
        found: An array, or a sparse matrix.
        what: Name of it in a message.
        slide: The slide.

    Raises:
        ValueError: If it is not finite numbers, one row per cell.
    """
    values = np.asarray(found.toarray() if issparse(found) else found)
    shape = f"[{slide.num_cells}, F]"
    if values.ndim != 2 or len(values) != slide.num_cells or values.dtype.kind not in "iuf":
        raise ValueError(
            f"Expected numbers {shape} in {what} of slide {slide.slide_id!r}, got {values.dtype} "
            f"{list(values.shape)}"
        )
    wrong = np.flatnonzero(~np.isfinite(values).all(1))
    if wrong.size:
        raise ValueError(
            f"Expected finite values in {what} of slide {slide.slide_id!r}, got others for "
            f"{name_rows(slide.adata.obs_names, wrong)}"
        )
    return values.astype(np.float32)
