import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.testing import assert_close

from spatiagraph.losses import info_nce_loss, paired_info_nce_loss


def views(num_cells, channels=6, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(2, num_cells, channels, dtype=dtype).unbind(0)


def test_views_that_cannot_be_told_apart_cost_the_logarithm_of_the_batch():
    same = torch.ones(8, 6)
    assert_close(info_nce_loss(same, -2 * same).item(), math.log(8), atol=1e-6, rtol=0)


def test_two_orthogonal_cells_by_hand():
    a = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    loss = info_nce_loss(a, a, temperature=0.5)  # cosines 1 and 0
    assert_close(loss.item(), math.log(1 + math.exp(-2)), atol=1e-6, rtol=0)


def test_matches_cross_entropies_in_both_directions():
    a, b = views(5)
    similarity = cosine_similarity(a.unsqueeze(1), b.unsqueeze(0), dim=2) / 0.07
    target = torch.arange(5)
    reference = (cross_entropy(similarity, target) + cross_entropy(similarity.T, target)) / 2
    assert_close(info_nce_loss(a, b), reference)


def test_neither_the_order_of_views_nor_of_cells_nor_their_length_matters():
    a, b = views(7)
    loss = info_nce_loss(a, b)
    perm = torch.randperm(7)
    assert_close(info_nce_loss(b, a), loss)
    assert_close(info_nce_loss(a[perm], b[perm]), loss)
    assert_close(info_nce_loss(a * 3, b * torch.rand(7, 1).double().add(0.1)), loss)
    assert (info_nce_loss(a, b[perm]) - loss).abs() > 1e-3


def test_cells_without_both_views_are_not_there():
    a, b = views(6)
    mask = torch.tensor([True, False, True, True, False, True])
    spoilt = torch.where(mask.unsqueeze(1), b, torch.nan).requires_grad_()
    loss = info_nce_loss(a.requires_grad_(), spoilt, mask=mask)
    assert_close(loss, info_nce_loss(a[mask], b[mask]))
    for gradient in torch.autograd.grad(loss, [a, spoilt]):
        assert_close(gradient[~mask], torch.zeros(2, 6, dtype=torch.float64))
        assert (gradient[mask] != 0).all()


@pytest.mark.parametrize("num_complete", [0, 1])
def test_with_nobody_to_compare_to_there_is_nothing_to_learn(num_complete):
    a, b = (view.requires_grad_() for view in views(3))
    mask = torch.arange(3) < num_complete
    loss = info_nce_loss(a, b, mask=mask)
    loss.backward()
    assert_close(loss, torch.zeros_like(loss))
    assert_close(a.grad, torch.zeros_like(a))


def test_a_learned_temperature_gets_a_gradient():
    a, b = views(5)
    log_temperature = torch.tensor(0.07).log().requires_grad_()
    info_nce_loss(a, b, temperature=log_temperature.exp()).backward()
    assert log_temperature.grad.abs() > 0


def test_gradients_agree_with_finite_differences():
    arguments = [view.requires_grad_() for view in views(4)]
    mask = torch.tensor([True, True, False, True])
    assert torch.autograd.gradcheck(
        lambda a, b: info_nce_loss(a, b, temperature=0.5, mask=mask), arguments
    )


def test_autocast_does_not_blur_the_cosines():
    a, b = views(5, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce_loss(a, b)
    assert_close(loss, info_nce_loss(a, b), atol=0, rtol=0)


def test_views_that_do_not_pair_up_are_refused():
    a, b = views(4)
    with pytest.raises(ValueError, match=r"got \[4, 6\] and \[3, 6\]"):
        info_nce_loss(a, b[:3])
    with pytest.raises(ValueError, match=r"bool \[4\], got torch.bool \[3\]"):
        info_nce_loss(a, b, mask=torch.ones(3, dtype=torch.bool))


def paired(query, positive, negatives):
    return paired_info_nce_loss(query, positive, negatives).item()


def test_paired_values_of_corners():
    """ST-Align fact A1."""
    axes = torch.eye(8)
    q = axes[:1]
    same = q.expand(1, 5, 8)
    orthogonal = axes[1:6].unsqueeze(0)
    assert paired(q, q, same) == pytest.approx(math.log(6), rel=1e-5)
    assert paired(q, q, orthogonal) == pytest.approx(2.26974e-4, abs=1e-6)
    one_equal = torch.cat([axes[:1], axes[2:6]]).unsqueeze(0)
    assert paired(q, axes[1:2], one_equal) == pytest.approx(10.000227, rel=1e-5)
    assert paired(q, q, q.new_zeros(1, 0, 8)) == 0


def test_paired_loss_does_not_see_lengths_nor_masked_negatives():
    """ST-Align fact A1, scales; against the sum that the formula is."""
    generator = torch.Generator().manual_seed(0)
    q, p = torch.randn(2, 4, 6, generator=generator)
    n = torch.randn(4, 5, 6, generator=generator)
    value = paired(q, p, n)
    assert paired(3 * q, 0.1 * p, 7 * n) == pytest.approx(value, rel=1e-5)
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (q, p, n)]
    own = ((unit[0] * unit[1]).sum(1) / 0.1).exp()
    others = ((unit[2] * unit[0][:, None]).sum(2) / 0.1).exp()
    assert value == pytest.approx(-(own / (own + others.sum(1))).log().mean().item(), rel=1e-5)
    mask = torch.tensor([True, True, True, False, False]).expand(4, 5)
    masked = paired_info_nce_loss(q, p, n.masked_fill(~mask[..., None], 1e3), mask=mask)
    assert masked.item() == pytest.approx(paired(q, p, n[:, :3]), rel=1e-5)
    none = paired_info_nce_loss(q, p, n, mask=torch.zeros(4, 5, dtype=torch.bool))
    assert none.item() == 0
    with pytest.raises(ValueError, match=r"'negatives' \[N, M, D\], got \[4, 6\], \[4, 6\] and"):
        paired_info_nce_loss(q, p, n[:, :, :5])


def test_alternatives_leave_out_pairs_on_both_sides():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 6, 4, generator=generator)
    group = torch.tensor([0, 0, 1, 1, 2, 2])
    apart = group != group[:, None]
    everything = torch.ones(6, 6, dtype=torch.bool)
    whole = info_nce_loss(a, b)
    assert torch.equal(info_nce_loss(a, b, alternatives=everything), whole)
    found = info_nce_loss(a, b, alternatives=apart, temperature=0.1)
    expected = 0.0
    for x, y in ((a, b), (b, a)):
        terms = []
        for i in range(6):
            others = y[apart[i]].unsqueeze(0)
            terms.append(paired(x[i : i + 1], y[i : i + 1], others))
        expected += sum(terms) / 6 / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert info_nce_loss(a, b, alternatives=~everything).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match=r"'alternatives' as bool \[6, 6\], got torch.bool \[6\]"):
        info_nce_loss(a, b, alternatives=everything[0])
