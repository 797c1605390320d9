"""Mapping of reference cells onto a tissue by the genes that both measure, after Tangram."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from tqdm.auto import tqdm

from spatiagraph.evaluate.inputs import as_embedding


def map_expression(
    reference: ArrayLike | csr_matrix,
    spatial: ArrayLike | csr_matrix,
    values: ArrayLike | csr_matrix,
    *,
    weight: ArrayLike | None = None,
    num_steps: int = 300,
    lr: float = 0.1,
    cell_weight: float = 0.0,
    density_weight: float = 1.0,
    max_pairs: int = 2**24,
    progress: bool = False,
) -> NDArray[np.float32]:
    r"""Values of reference cells, carried to the places that their shared genes map them to.

    The mapping of `Tangram <https://doi.org/10.1038/s41592-021-01264-7>`_ (Biancalani et al.,
    2021): each reference cell is spread over the tissue by a softmax,
    :math:`P_{ij} = \mathrm{softmax}_j(M_{ij})`, and :math:`M` descends by Adam on

    .. math::
        - \frac{1}{G} \sum_g \cos\left((P^\top S)_{\cdot g}, X_{\cdot g}\right)
        - \frac{\lambda_c}{N} \sum_j \cos\left((P^\top S)_{j \cdot}, X_{j \cdot}\right)
        + \lambda_d \, \mathrm{KL}\left(\tfrac{1}{N} \,\Vert\, \textstyle\sum_i w_i P_{ij}\right)

    with expression :math:`S` of the reference, :math:`X` of the tissue, and a share :math:`w_i` of
    each reference cell. Unlike there, :math:`M` starts at 0 and not at random, so nothing is drawn;
    the density is that of one cell a place; and a place has the mean of the cells that map to it,
    not their sum, so that values keep their scale.

    Where there are more than ``max_pairs`` pairs, the tissue is mapped in parts, every n-th
    place in one, each by all of the reference: memory is that of a part. For the mode of clusters,
    which is faster by far, pass mean profiles
    (:func:`~spatiagraph.evaluate.type_profiles`) and how many cells each stands for (``weight``).

    Args:
        reference: Shared genes of the reference, ``[M, G]``, such as log-normalised counts.
        spatial: The same genes in the tissue, ``[N, G]``, on the same scale.
        values: What to carry over, ``[M, H]``, such as genes that the tissue was not asked for.
        weight: How many cells each row of the reference stands for, ``[M]``; one by default.
        num_steps: Steps of Adam; 1,000 in Tangram.
        lr: Rate of Adam.
        cell_weight: :math:`\lambda_c`, of the likeness within each cell; 0 in Tangram.
        density_weight: :math:`\lambda_d`, of an equal number of reference cells at each place.
        max_pairs: Pairs of a reference cell and a place in memory at a time; a pair takes some 24
            bytes.
        progress: Show a bar.

    Returns:
        ``[N, H]``.

    Raises:
        ValueError: Genes or rows do not fit, weights are not positive, or one place of the tissue
            takes more than ``max_pairs``.

    Examples:
        >>> reference, hidden = np.eye(3), np.array([[1.0], [2.0], [3.0]])
        >>> map_expression(reference, reference[[2, 0, 1]], hidden).round(1).ravel().tolist()
        [3.0, 1.0, 2.0]
    """
    s, x, y = (
        as_embedding(z.toarray() if isinstance(z, csr_matrix) else z, name)
        for z, name in ((reference, "reference"), (spatial, "spatial"), (values, "values"))
    )
    if s.shape[1] != x.shape[1] or len(s) != len(y):
        raise ValueError(
            "Expected the same genes in both and a row of values for each reference cell, got "
            f"reference {list(s.shape)}, spatial {list(x.shape)}, values {list(y.shape)}"
        )
    share = np.ones(len(s)) if weight is None else np.asarray(weight, dtype=np.float64)
    if share.shape != (len(s),) or not (np.isfinite(share) & (share > 0)).all():
        raise ValueError(f"Expected a positive 'weight' for each of {len(s)} rows, got {weight!r}")
    if max_pairs < len(s):
        raise ValueError(
            f"Expected 'max_pairs' of at least the {len(s)} reference cells, got {max_pairs}. "
            "Pass mean profiles of clusters"
        )
    num_parts = max(-(-len(s) * len(x) // max_pairs), 1)
    source, carried = (torch.from_numpy(z.astype(np.float32)) for z in (s, y))
    shares = torch.from_numpy((share / share.sum()).astype(np.float32))
    found = np.empty((len(x), y.shape[1]), dtype=np.float32)
    with tqdm(total=num_parts * num_steps, desc="mapping", disable=not progress) as bar:
        for part in range(num_parts):
            mapping = _Mapping(source, shares, len(x[part::num_parts]))
            target = torch.from_numpy(x[part::num_parts].astype(np.float32))
            optimizer = torch.optim.Adam([mapping.logits], lr=lr)
            for _ in range(num_steps):
                optimizer.zero_grad()
                mapping.loss(target, cell_weight, density_weight).backward()
                optimizer.step()
                bar.update()
            found[part::num_parts] = mapping.mean_of(carried).numpy()
    return found


class _Mapping(nn.Module):
    """Shares of each reference cell at each place of a part of the tissue."""

    def __init__(self, source: Tensor, share: Tensor, num_places: int):
        super().__init__()
        self.source, self.share = source, share  # [M, G], [M]
        self.logits = nn.Parameter(torch.zeros(len(source), num_places))

    def placed(self) -> Tensor:
        """Number of reference cells from each row at each place, shares of all, ``[N, M]``."""
        return (self.logits.softmax(dim=1) * self.share[:, None]).T

    def loss(self, target: Tensor, cell_weight: float, density_weight: float) -> Tensor:
        placed = self.placed()
        guess = placed @ self.source
        total = -nn.functional.cosine_similarity(guess, target, dim=0).mean()
        if cell_weight:
            total = total - cell_weight * nn.functional.cosine_similarity(guess, target).mean()
        if density_weight:
            total = total - density_weight * (placed.sum(dim=1) * len(target)).log().mean()
        return total

    @torch.no_grad()
    def mean_of(self, values: Tensor) -> Tensor:
        """Mean value of what is at each place, ``[N, H]``."""
        placed = self.placed()
        return placed @ values / placed.sum(dim=1, keepdim=True)
