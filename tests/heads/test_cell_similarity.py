"""CellSimilarity: the cosine of ranks, from which a model of neighbours starts."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.data.tokens import Marks, cell_sequences
from spatiagraph.heads import CellSimilarity

FIRST, NUM = 10, 6  # ids of genes


def sequences(cells, first=(0,), second=(1,)):
    ptr = np.concatenate([[0], np.cumsum([len(genes) for genes in cells])])
    ids = ragged_tensor(FIRST + np.concatenate(cells), ptr)
    meta = torch.tensor([[3, 4]] * len(cells))
    return cell_sequences(ids, meta, Marks(0, 1, 2), torch.tensor(first), torch.tensor(second))


def test_profiles_hold_the_gene_of_rank_r_with_one_over_its_logarithm():
    head = CellSimilarity(FIRST, NUM)
    first, second = head.profiles(sequences([[4, 0, 1], [5]]))
    rank = 1 / np.log2([2, 3, 4])
    expected = torch.zeros(NUM)
    expected[[4, 0, 1]] = torch.from_numpy(rank / np.linalg.norm(rank)).float()
    assert_close(first, expected)
    assert_close(second, torch.eye(NUM)[5])


def test_log_odds_are_the_cosine_on_a_scale_and_do_not_know_an_order():
    head = CellSimilarity(FIRST, NUM)
    head.weight.data.fill_(3.0)
    head.bias.data.fill_(-1.0)
    cells = [[0, 1, 2], [2, 1, 0], [3]]
    both = sequences(cells, (0, 0, 1), (1, 2, 0))
    rank = 1 / np.log2([2, 3, 4])
    cosine = rank @ rank[::-1] / (rank @ rank)
    assert_close(
        head(both), torch.tensor([3 * cosine - 1, -1.0, 3 * cosine - 1], dtype=torch.float32)
    )


def test_hidden_tokens_and_padding_are_no_genes():
    head = CellSimilarity(FIRST, NUM)
    alone = head.profiles(sequences([[0, 1], [2]]))
    beside = head.profiles(sequences([[0, 1], [2], [0, 1, 2, 3, 4, 5]], (0, 2), (1, 2)))
    assert_close(beside[[0, 2]], alone)
    pair = sequences([[0, 1], [2]])
    hidden = pair._replace(tokens=pair.tokens.clone())
    hidden.tokens[0, pair.start[0, 0]] = 2
    assert_close(head.profiles(hidden)[0], torch.eye(NUM)[1])


@pytest.mark.parametrize("alike", [True, False])
def test_it_starts_from_what_the_cosine_tells(alike):
    """Of cells whose neighbours have the same genes, or any; both kinds of pairs weigh the same."""
    rng = np.random.default_rng(0)
    kind = np.arange(200) % 2
    cells = [np.concatenate([3 * k + rng.permutation(3), [5 - 5 * k]])[:3] for k in kind]
    head = CellSimilarity(FIRST, NUM)
    rows = torch.arange(200)
    profiles = head.profiles(sequences(cells, rows.tolist(), rows.tolist()))[:200]
    first, second = torch.from_numpy(rng.integers(0, 200, (2, 3000)))
    same = torch.from_numpy(kind)[first] == torch.from_numpy(kind)[second]
    label = same if alike else torch.from_numpy(rng.random(3000) < 0.2)
    head.initialize(profiles, first, second, label)
    pairs = sequences(cells, first.tolist(), second.tolist())
    odds = head(pairs).detach()
    if alike:
        assert odds[label].min() > 2
        assert odds[~label].max() < -2
    else:
        assert odds.abs().max() < 0.4
    assert_close(head.mean, profiles.mean(0))
