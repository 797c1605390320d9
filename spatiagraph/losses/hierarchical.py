"""Labels of an ontology: some cells are known to the leaf, some to a branch, some not at all."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus


def hierarchical_bce(logits: Tensor, label: Tensor, descendants: Tensor | None = None) -> Tensor:
    r"""One-vs-rest classification over leaf classes, for labels from any level of an ontology.

    A cell labelled with a branch ("T cell") must be one of the leaves below it, no matter which;
    it must be none of the remaining ones. With :math:`D_i` the leaves that the label of cell
    :math:`i` allows — a leaf allows only itself — and logits :math:`s`,

    .. math::
        L_i = \mathrm{softplus}\left(-\ln\sum_{c \in D_i} e^{s_{ic}}\right)
        + \sum_{c \notin D_i} \mathrm{softplus}(s_{ic}),

    the binary cross-entropies of "below the branch" with target 1 and of each class outside with
    target 0. The loss is the mean over these terms; computed in float32 or better.

    Args:
        logits: Score of each leaf, ``[N, C]``.
        label: Class of each cell, ``[N]``: a leaf in :math:`[0, C)`, a branch as :math:`C` plus
            its row in ``descendants``, or −1 for unknown, which costs nothing.
        descendants: Leaves below each branch, boolean ``[P, C]``, as from
            :func:`leaf_descendants`.

    Returns:
        A scalar; 0 if no label is known.

    Raises:
        ValueError: If shapes disagree, or, on CPU, a label has no class. On an accelerator such
            a label trips the bounds check of the device.

    Examples:
        >>> logits = torch.zeros(3, 2)  # undecided: ln 2 for each term
        >>> hierarchical_bce(logits, torch.tensor([0, 1, -1]))
        tensor(0.6931)
    """
    if logits.dim() != 2 or label.shape != logits.shape[:1]:
        raise ValueError(
            "Expected 'logits' [N, C] with one 'label' per cell [N], got "
            f"{list(logits.shape)} and {list(label.shape)}"
        )
    num_leaves = logits.size(1)
    allowed = torch.eye(num_leaves, dtype=torch.bool, device=logits.device)
    if descendants is not None:
        if descendants.dtype != torch.bool or descendants.shape[1:] != (num_leaves,):
            raise ValueError(
                f"Expected 'descendants' as bool [P, {num_leaves}], got "
                f"{descendants.dtype} {list(descendants.shape)}"
            )
        allowed = torch.cat([allowed, descendants.to(logits.device)])
    if label.device.type == "cpu" and bool((label >= allowed.size(0)).any()):
        raise ValueError(
            f"Expected labels below {allowed.size(0)} ({num_leaves} leaves and "
            f"{allowed.size(0) - num_leaves} branches), got {int(label.max())}"
        )
    known = label >= 0
    allowed = allowed[label.clamp(min=0)]  # [N, C]
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    inside = torch.logsumexp(scores.masked_fill(~allowed, -torch.inf), 1)  # [N]
    loss = softplus(-inside) + softplus(scores).masked_fill(allowed, 0).sum(1)
    terms = 1 + (~allowed).sum(1)
    return torch.where(known, loss, 0).sum() / torch.where(known, terms, 0).sum().clamp(min=1)


def leaf_descendants(
    parents: Mapping[str, Sequence[str]], leaves: Sequence[str]
) -> tuple[list[str], Tensor]:
    """Branches of an ontology, each with the leaves below it.

    Args:
        parents: Direct parents of each term. More than one are fine (the Cell Ontology is no
            tree), and so are terms that lead to no leaf of ours.
        leaves: Leaf classes, in the order of the logits.

    Returns:
        The branches above at least one leaf, sorted, and a boolean table ``[P, C]``.

    Raises:
        ValueError: If a leaf stands above another one.

    Examples:
        >>> parents = {"CD4": ["T cell"], "CD8": ["T cell"], "T cell": ["cell"], "B": ["cell"]}
        >>> branches, below = leaf_descendants(parents, ["B", "CD4", "CD8"])
        >>> branches
        ['T cell', 'cell']
        >>> below.tolist()
        [[False, True, True], [True, True, True]]
    """
    above = [_ancestors(leaf, parents) for leaf in leaves]
    branches = sorted(set().union(*above))
    if inner := sorted(set(branches) & set(leaves)):
        raise ValueError(
            f"Expected leaves without descendants among the leaves, got {inner[:5]} "
            f"({len(inner)}); take them out, their cells are labelled with a branch"
        )
    table = [[branch in terms for terms in above] for branch in branches]
    return branches, torch.tensor(table, dtype=torch.bool).view(len(branches), len(leaves))


def _ancestors(term: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(parents.get(term, ()))
    while ahead:
        if (parent := ahead.pop()) not in found:
            found.add(parent)
            ahead.extend(parents.get(parent, ()))
    return found
