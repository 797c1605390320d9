import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from spatiagraph.heads import GenePairHead


@pytest.mark.parametrize("kind", ["bilinear", "additive"])
def test_scores_are_symmetric(kind):
    torch.manual_seed(0)
    score = GenePairHead(16, 8, kind=kind)(torch.randn(3, 5, 16))
    assert score.shape == (3, 5, 5)
    assert_close(score, score.mT)


def test_scores_start_near_nothing():
    """SpatialFormer fact F14: scaled by the root of the rank."""
    torch.manual_seed(0)
    h = torch.nn.functional.layer_norm(torch.randn(4, 50, 512), (512,))
    head = GenePairHead(512)
    assert head(h).std() < 0.4
    assert head(h).std() * 128**0.5 > 2
    target = (torch.rand(4, 50, 50) < 0.5).float()
    assert abs(binary_cross_entropy_with_logits(head(h), target) - 0.693) < 0.1


def fitted(kind):
    """Error of A–B and C–D together, A–D and C–B apart, after fitting."""
    torch.manual_seed(0)
    h = torch.randn(1, 4, 16)
    head = GenePairHead(16, 8, kind=kind)
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    rows, target = ([0, 2, 0, 2], [1, 3, 3, 1]), torch.tensor([1.0, 1, 0, 0])
    for _ in range(300):
        loss = binary_cross_entropy_with_logits(head(h)[0][rows], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    score = head(h)[0].detach()
    return loss.item(), score


def test_an_additive_head_knows_genes_and_not_pairs():
    """SpatialFormer fact F13."""
    error, score = fitted("additive")
    assert error > 0.69
    assert_close(score[0, 1] + score[2, 3], score[0, 3] + score[2, 1])
    assert fitted("bilinear")[0] < 0.01


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="bilinear or additive, got 'outer'"):
        GenePairHead(8, kind="outer")
