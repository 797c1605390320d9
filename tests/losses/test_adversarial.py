import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from spatiagraph.losses import LabelAdversary, SourceAdversary, hierarchical_bce

LABELS = torch.tensor([[0, 1, 0], [2, 0, -1], [1, 1, 1], [-1, 0, 0]])
SOURCE = torch.tensor([0, 1, -1, 1])


def random_tokens(*shape):
    torch.manual_seed(0)
    return torch.randn(*shape, requires_grad=True)


def test_each_label_is_sought_in_the_mean_of_the_other_tokens():
    tokens, adversary = random_tokens(4, 3, 8), LabelAdversary(8, [3, 2, 2])
    loss = torch.zeros(())
    for own, others in enumerate([(1, 2), (0, 2), (0, 1)]):
        mean = torch.stack([tokens[:, token] for token in others]).mean(0)
        loss = loss + hierarchical_bce(adversary.classifiers[own](mean), LABELS[:, own])
    assert_close(adversary(tokens, LABELS), loss)


def test_a_label_sends_no_gradient_to_its_own_token():
    tokens, adversary = random_tokens(4, 3, 8), LabelAdversary(8, [3, 2, 2])
    labels = torch.full_like(LABELS, -1)
    labels[:, 1] = LABELS[:, 1]  # this one alone is known
    adversary(tokens, labels).backward()
    assert_close(tokens.grad[:, 1], torch.zeros(4, 8))
    assert (tokens.grad[:, [0, 2]] != 0).any(-1).all()


def test_the_classifier_descends_where_the_tokens_climb():
    tokens, adversary = random_tokens(4, 3, 8), LabelAdversary(8, [3, 2, 2], strength=1.0)
    plain = LabelAdversary(8, [3, 2, 2], strength=-1.0)  # reversed twice
    plain.load_state_dict(adversary.state_dict())
    parameters = [*adversary.parameters()]
    turned = torch.autograd.grad(adversary(tokens, LABELS), [tokens, *parameters])
    usual = torch.autograd.grad(plain(tokens, LABELS), [tokens, *plain.parameters()])
    assert_close(turned[0], -usual[0])
    assert_close(turned[1:], usual[1:])


def test_branches_of_an_ontology_reach_their_label():
    """SPATIA fact 22."""
    tokens, adversary = random_tokens(1, 2, 8), LabelAdversary(8, [3, 2])
    below, all_leaves = torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]])
    branch, unknown = torch.tensor([[3, -1]]), torch.tensor([[-1, -1]])
    narrow = adversary(tokens, branch, [below, None])
    wide = adversary(tokens, branch, [all_leaves, None])
    assert narrow != wide
    assert adversary(tokens, unknown, [below, None]) == 0


def test_the_source_is_found_by_cross_entropy_over_known_cells():
    h, adversary = random_tokens(4, 8), SourceAdversary(8, 2)
    known = SOURCE >= 0
    reference = cross_entropy(adversary.classifier(h[known]), SOURCE[known])
    assert_close(adversary(h, SOURCE), reference)


def test_cells_of_unknown_source_teach_nothing():
    h, adversary = random_tokens(4, 8), SourceAdversary(8, 2)
    adversary(h, SOURCE).backward()
    assert_close(h.grad[2], torch.zeros(8))
    assert (h.grad[[0, 1, 3]] != 0).any(-1).all()
    assert adversary(h, torch.full((4,), -1)) == 0


@pytest.mark.parametrize(("strength", "raised"), [(0.0, 0.0), (1.0, 0.3)])
def test_reversed_gradient_leads_an_encoder_away_from_what_a_trained_adversary_finds(
    strength, raised
):
    torch.manual_seed(1)
    source = torch.arange(200) % 2
    x = torch.randn(200, 4)
    x[:, 0] += 2 * source
    adversary = SourceAdversary(4, 2, strength)
    learn(adversary, 0.2, lambda: adversary(x, source))
    encoder = nn.Linear(4, 4, bias=False)
    nn.init.eye_(encoder.weight)
    found = adversary(encoder(x), source).item()
    assert found < 0.45  # chance is 0.69
    learn(encoder, 0.1, lambda: adversary(encoder(x), source), steps=50)
    assert adversary(encoder(x), source).item() >= found + raised


def learn(module: nn.Module, lr: float, loss, steps: int = 200) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def test_one_label_alone_is_refused():
    with pytest.raises(ValueError, match=r"two or more labels.*got \[5\]"):
        LabelAdversary(8, [5])


def test_tokens_and_labels_that_do_not_match_are_refused():
    adversary = LabelAdversary(8, [3, 2, 2])
    with pytest.raises(ValueError, match=r"of 3 labels, got \(6, 3, 3\)"):
        adversary(random_tokens(4, 6, 8), LABELS)
    with pytest.raises(ValueError, match=r"of 3 labels, got \(3, 3, 1\)"):
        adversary(random_tokens(4, 3, 8), LABELS, [None])
