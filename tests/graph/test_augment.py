"""Augmentations change what they say, leave their input alone, and repeat by seed."""

import pytest
import torch
from torch.testing import assert_close
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from spatiagraph.graph import knn_graph
from spatiagraph.graph.augment import DropEdges, JitterPositions, MaskGenes, RigidMotion

TRANSFORMS = {
    "genes": lambda g: MaskGenes(0.3, generator=g),
    "whole genes": lambda g: MaskGenes(0.5, whole_genes=True, generator=g),
    "edges": lambda g: DropEdges(0.3, generator=g),
    "motion": lambda g: RigidMotion(translate_um=50, generator=g),
    "jitter": lambda g: JitterPositions(2.0, generator=g),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tissue(num=200):
    pos = 500 * torch.rand(num, 2, generator=seeded(1), dtype=torch.float64)
    edge_index = knn_graph(pos, min(5, num - 1))
    return Data(
        x=1 + torch.randint(5, (num, 20), generator=seeded(2)).float(),
        pos=pos,
        gene_mask=torch.arange(20) >= 4,
        edge_index=edge_index,
        edge_attr=torch.arange(edge_index.size(1)).float()[:, None],
    )


def differing(a, b):
    return {key for key in b.keys() if key not in a or not torch.equal(a[key], b[key])}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_leave_their_input_and_repeat_by_seed(name):
    data, copy = tissue(), tissue()
    first, again = TRANSFORMS[name](seeded())(data), TRANSFORMS[name](seeded())(data)
    assert not differing(data, copy)
    assert not differing(first, again)
    assert differing(data, first)
    assert differing(first, TRANSFORMS[name](seeded(1))(data))


def test_transforms_compose():
    data = tissue()
    Compose([make(seeded()) for make in TRANSFORMS.values()])(data)
    assert not differing(tissue(), data)


def test_mask_genes_hides_measured_counts_at_the_rate_asked_for():
    data = tissue(2000)
    out = MaskGenes(0.3, generator=seeded())(data)
    assert not out.masked[:, :4].any()
    assert out.masked[:, 4:].float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(out.x == 0, out.masked)  # no count was 0 before
    assert torch.equal(out.x[~out.masked], data.x[~out.masked])


def test_mask_genes_can_hide_whole_genes():
    masked = MaskGenes(0.5, whole_genes=True, generator=seeded())(tissue()).masked
    assert torch.equal(masked.any(0), masked.all(0))
    assert 0 < masked.any(0).sum() < 16


def test_drop_edges_takes_their_attributes_along_and_keeps_the_order():
    data = tissue()
    out = DropEdges(0.4, generator=seeded())(data)
    kept = out.edge_attr[:, 0].long()
    assert torch.equal(out.edge_index.as_tensor(), data.edge_index.as_tensor()[:, kept])
    assert isinstance(out.edge_index, EdgeIndex)
    out.edge_index.validate()
    assert out.edge_index.is_sorted_by_col
    assert len(kept) == pytest.approx(600, abs=50)
    assert DropEdges(1.0)(data).edge_index.shape == (2, 0)


def test_rigid_motion_keeps_distances_and_moves():
    data = tissue()
    out = RigidMotion(translate_um=100, generator=seeded())(data)
    assert_close(torch.pdist(out.pos), torch.pdist(data.pos))
    assert (out.pos - data.pos).norm(dim=1).min() > 1


@pytest.mark.parametrize("seed", range(6))
def test_rigid_motion_mirrors_only_when_allowed(seed):
    data = tissue(3)
    edges = data.pos[1:] - data.pos[0]
    moved = RigidMotion(reflect=False, generator=seeded(seed))(data).pos
    assert_close(torch.linalg.det(moved[1:] - moved[0]), torch.linalg.det(edges))
    still = RigidMotion(rotate=False, reflect=False, generator=seeded(seed))(data).pos
    assert_close(still, data.pos)


def test_rigid_motion_mirrors_half_of_the_time():
    data, motion = tissue(3), RigidMotion(generator=seeded())
    area = torch.linalg.det(data.pos[1:] - data.pos[0])
    moved = (motion(data).pos for _ in range(200))
    mirrored = [bool(torch.linalg.det(pos[1:] - pos[0]) * area < 0) for pos in moved]
    assert 70 < sum(mirrored) < 130


def test_jitter_has_the_width_asked_for():
    data = tissue(2000)
    noise = JitterPositions(2.0, generator=seeded())(data).pos - data.pos
    assert noise.std().item() == pytest.approx(2.0, rel=0.05)


def test_transforms_refuse_unusable_arguments_and_show_their_own():
    with pytest.raises(ValueError, match="'p' between 0 and 1, got 1.5"):
        MaskGenes(1.5)
    with pytest.raises(ValueError, match="'p' between 0 and 1, got -1"):
        DropEdges(-1)
    with pytest.raises(ValueError, match="'sigma_um' of at least 0, got -1"):
        JitterPositions(-1)
    assert str(DropEdges(0.2)) == "DropEdges(p=0.2)"
    assert str(MaskGenes(0.2)) == "MaskGenes(p=0.2, whole_genes=False)"
    assert str(RigidMotion()) == "RigidMotion(rotate=True, reflect=True, translate_um=0.0)"
    assert str(JitterPositions()) == "JitterPositions(sigma_um=1.0)"
