import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from torch.testing import assert_close

from spatiagraph.losses import hierarchical_bce, leaf_descendants

LEAVES = ["B", "CD4", "CD8", "tumour"]
PARENTS = {
    "CD4": ["T cell"],
    "CD8": ["T cell", "cytotoxic"],
    "T cell": ["lymphocyte"],
    "B": ["lymphocyte"],
    "NK": ["cytotoxic"],
}
BRANCHES, BELOW = leaf_descendants(PARENTS, LEAVES)
T_CELL = len(LEAVES) + BRANCHES.index("T cell")


def random_logits(num_cells):
    torch.manual_seed(0)
    return torch.randn(num_cells, len(LEAVES), dtype=torch.float64)


def test_leaf_labels_alone_are_plain_one_vs_rest():
    """SPATIA fact 22."""
    logits, label = random_logits(6), torch.tensor([0, 1, 2, 3, 3, 0])
    reference = binary_cross_entropy_with_logits(logits, one_hot(label, 4).double())
    assert_close(hierarchical_bce(logits, label), reference)
    assert_close(hierarchical_bce(logits, label, BELOW), reference)


def test_an_unknown_label_costs_nothing_and_teaches_nothing():
    """SPATIA fact 22."""
    logits, label = random_logits(4).requires_grad_(), torch.tensor([1, -1, T_CELL, -1])
    known = torch.tensor([0, 2])
    loss = hierarchical_bce(logits, label, BELOW)
    assert_close(loss, hierarchical_bce(logits[known], label[known], BELOW))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_close(gradient[[1, 3]], torch.zeros(2, 4, dtype=torch.float64))
    assert (gradient[known] != 0).all()


def test_nothing_known_is_zero_with_zero_gradient():
    """SPATIA fact 22."""
    logits = random_logits(3).requires_grad_()
    loss = hierarchical_bce(logits, torch.full((3,), -1))
    loss.backward()
    assert loss == 0
    assert_close(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("leaf", ["CD4", "CD8"])
def test_a_branch_is_satisfied_by_any_leaf_below_it(leaf):
    """SPATIA fact 22."""
    logits = torch.full((1, 4), -20.0)
    label = torch.tensor([T_CELL])
    assert hierarchical_bce(logits, label, BELOW) > 4
    logits[0, LEAVES.index(leaf)] = 20.0
    assert hierarchical_bce(logits, label, BELOW) < 1e-6


def test_a_branch_is_not_satisfied_by_a_leaf_elsewhere():
    """SPATIA fact 22."""
    logits = torch.full((1, 4), -20.0)
    logits[0, LEAVES.index("B")] = 20.0
    assert hierarchical_bce(logits, torch.tensor([T_CELL]), BELOW) > 10


def test_a_branch_matches_cross_entropies_written_out():
    """SPATIA fact 22: its leaves have weight 0, their logsumexp has target 1."""
    logits = random_logits(1)
    b, cd4, cd8, tumour = logits[0]
    extra = torch.stack([torch.logaddexp(cd4, cd8), b, tumour])
    target = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    loss = hierarchical_bce(logits, torch.tensor([T_CELL]), BELOW)
    assert_close(loss, binary_cross_entropy_with_logits(extra, target))


def test_a_branch_with_one_leaf_is_that_leaf():
    logits = random_logits(3)
    label = torch.tensor([2, 0, 2])
    same = hierarchical_bce(
        logits, torch.where(label == 2, 4, label), BELOW.new_tensor([[0, 0, 1, 0]])
    )
    assert_close(same, hierarchical_bce(logits, label))


def test_gradients_agree_with_finite_differences():
    label = torch.tensor([0, -1, T_CELL, 3, len(LEAVES)])
    logits = random_logits(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: hierarchical_bce(s, label, BELOW), [logits])


def test_half_precision_is_computed_in_single():
    logits, label = random_logits(3).bfloat16(), torch.tensor([0, T_CELL, -1])
    loss = hierarchical_bce(logits, label, BELOW)
    assert_close(loss, hierarchical_bce(logits.float(), label, BELOW))


def test_leaves_are_found_below_every_branch_also_along_two_paths():
    below = {
        branch: {leaf for leaf, yes in zip(LEAVES, row, strict=True) if yes}
        for branch, row in zip(BRANCHES, BELOW.tolist(), strict=True)
    }
    assert below == {
        "T cell": {"CD4", "CD8"},
        "cytotoxic": {"CD8"},
        "lymphocyte": {"B", "CD4", "CD8"},
    }


def test_leaves_without_ontology_have_no_branches():
    branches, below = leaf_descendants({}, LEAVES)
    assert branches == []
    assert below.shape == (0, 4)
    label = torch.tensor([1, 2])
    assert_close(
        hierarchical_bce(random_logits(2), label, below), hierarchical_bce(random_logits(2), label)
    )


def test_a_leaf_above_another_leaf_is_refused():
    with pytest.raises(ValueError, match=r"got \['T cell'\] \(1\)"):
        leaf_descendants(PARENTS, [*LEAVES, "T cell"])


def test_a_label_without_class_is_refused():
    logits = random_logits(2)
    with pytest.raises(ValueError, match=r"below 4 \(4 leaves and 0 branches\), got 4"):
        hierarchical_bce(logits, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match=r"below 7 \(4 leaves and 3 branches\), got 7"):
        hierarchical_bce(logits, torch.tensor([0, 7]), BELOW)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"got \[2, 4\] and \[3\]"):
        hierarchical_bce(random_logits(2), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"bool \[P, 4\], got torch.bool \[3, 3\]"):
        hierarchical_bce(random_logits(2), torch.tensor([0, 1]), BELOW[:, :3])
