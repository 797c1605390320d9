import torch
from scipy.spatial.distance import cdist

from spatiagraph.graph.pairs import NodeKind, known_pairs


def test_pairs_are_those_of_a_sorted_distance_matrix():
    """CLS takes no place, nearest ones are mutual, virtual cells know all nodes."""
    pos = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kind = torch.tensor([1, 2, 2] + [0] * 37)
    away = cdist(pos, pos)
    away[0] = away[:, 0] = torch.inf
    expected = set()
    for i in range(1, 40):
        near = [j for j in away[i].argsort() if j not in (0, i)][:5]
        expected |= {(min(i, int(j)), max(i, int(j))) for j in near}
        expected |= {(min(i, v), max(i, v)) for v in (1, 2) if v != i}
    found = known_pairs(pos, kind, 5)
    assert set(map(tuple, found.T.tolist())) == expected
    assert found.size(1) == len(expected)


def test_coincident_nodes_know_each_other_and_few_nodes_know_all():
    pos = torch.tensor([[0.0, 0], [1, 1], [1, 1], [9, 9], [9, 9.5]])
    kind = torch.tensor([NodeKind.CLS, 0, 0, 0, 0])
    assert [1, 2] in known_pairs(pos, kind, 1).T.tolist()
    assert known_pairs(pos, kind, 49).size(1) == known_pairs(pos, kind, 1, dense=True).size(1) == 6
    assert known_pairs(pos[:2], kind[:2], 49).shape == (2, 0)
    assert known_pairs(pos[:1], kind[:1], 49).shape == (2, 0)
