import numpy as np
import pytest
import torch

from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.data.tokens import Marks, cell_sequences

MARKS = Marks(pad=0, cls=1, sep=99)


def ragged(*lengths):
    """Cells with so many genes; the genes of cell i are 100 (i + 1), and so on."""
    ids = np.concatenate([100 * (i + 1) + np.arange(n) for i, n in enumerate(lengths)])
    return ragged_tensor(ids, np.concatenate([[0], np.cumsum(lengths)]))


def pair(n1, n2, **options):
    meta = torch.tensor([[11, 12, 13, 14], [21, 22, 23, 24]])
    one = torch.tensor([0])
    return cell_sequences(ragged(n1, n2), meta, MARKS, one, one + 1, **options)


def test_layout_of_a_small_pair():
    """SpatialFormer fact F3."""
    found = pair(3, 2)
    left, right = [1, 11, 12, 13, 14, 100, 101, 102, 99], [21, 22, 23, 24, 200, 201, 99]
    assert found.tokens.tolist() == [left + right]
    assert found.token_type.tolist() == [[1] * 9 + [2] * 7]
    assert found.gene_mask[0].nonzero().flatten().tolist() == [5, 6, 7, 13, 14]
    assert found.start.tolist() == [[5, 13]]
    large = pair(69, 69)
    assert large.tokens.size(1) == 149
    assert large.start.tolist() == [[5, 79]]


@pytest.mark.parametrize(
    ("given", "kept", "length"),
    [
        ((244, 245), (244, 245), 500),
        ((250, 250), (244, 245), 500),
        ((300, 50), (300, 50), 361),
        ((480, 50), (439, 50), 500),
        ((50, 480), (50, 439), 500),
    ],
)
def test_a_pair_that_is_too_long_is_cut_fairly(given, kept, length):
    """SpatialFormer fact F4."""
    found = pair(*given)
    assert found.lengths.tolist() == [list(kept)]
    assert found.tokens.size(1) == length
    assert found.mask.all()
    genes, real = found.take_genes(found.tokens)
    assert genes[0][real[0]].tolist() == list(range(100, 100 + kept[0]))
    assert genes[1][real[1]].tolist() == list(range(200, 200 + kept[1]))


def test_single_cells_are_padded_to_the_longest():
    cells = torch.tensor([2, 0, 1])
    meta = torch.tensor([[11], [21], [31]])
    found = cell_sequences(ragged(3, 0, 1), meta, MARKS, cells, max_len=5)
    expected = [[1, 31, 300, 99, 0], [1, 11, 100, 101, 99], [1, 21, 99, 0, 0]]
    assert found.tokens.tolist() == expected
    assert found.token_type.tolist() == [[1, 1, 1, 1, 0], [1] * 5, [1, 1, 1, 0, 0]]
    genes, real = found.take_genes(found.tokens)
    assert real.tolist() == [[True, False], [True, True], [False, False]]
    assert genes[real].tolist() == [300, 100, 101]
    with pytest.raises(ValueError, match="room for genes, got 3"):
        cell_sequences(ragged(3, 0, 1), meta, MARKS, cells, max_len=3)
