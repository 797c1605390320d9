"""Convolutions of PyG by name."""

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.nn import GATv2Conv

from spatiagraph.data import make_tissue
from spatiagraph.graph import knn_graph
from spatiagraph.models import ContextEncoder, ContextModel
from spatiagraph.nn import CellEncoder, EdgeEncoding, GeneEncoder, PyGConv
from spatiagraph.nn.pyg_conv import PLAIN, WITH_EDGES

POS = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * 100
EDGES = knn_graph(POS, 4)
MORE = {"TAGConv": {"K": 2}}


@pytest.mark.parametrize("name", [*WITH_EDGES, *PLAIN])
def test_every_convolution_maps_cells_to_cells(name):
    conv = PyGConv(name, in_channels=8, out_channels=8, **MORE.get(name, {}))
    h = torch.randn(40, 8)
    assert conv(h, EDGES, torch.randn(EDGES.size(1), 3)).shape == (40, 8)
    assert conv.num_layers == MORE.get(name, {}).get("K", 1)


def test_it_is_the_convolution_of_pyg_and_reads_features_of_edges():
    torch.manual_seed(0)
    ours = PyGConv("GATv2Conv", in_channels=8, out_channels=4, heads=2, edge_dim=3)
    torch.manual_seed(0)
    theirs = GATv2Conv(in_channels=8, out_channels=4, heads=2, edge_dim=3)
    h, attr = torch.randn(40, 8), torch.randn(EDGES.size(1), 3)
    assert_close(ours(h, EDGES, attr), theirs(h, EDGES.as_tensor(), attr))
    assert not torch.allclose(ours(h, EDGES, attr), ours(h, EDGES, 0 * attr))


def test_a_model_with_it_is_saved(tmp_path):
    slide = make_tissue(100, num_genes=20, image=None)
    recipe = ContextModel.for_slides([slide], channels=8).recipe
    conv = PyGConv("GATv2Conv", in_channels=8, out_channels=2, heads=4, edge_dim=4)
    encoder = ContextEncoder(8, conv=conv, edge_encoding=EdgeEncoding(4))
    model = ContextModel(recipe, CellEncoder(GeneEncoder(20, 8)), encoder)
    model.save_pretrained(tmp_path)
    again = ContextModel.from_pretrained(tmp_path)
    assert_close(again.state_dict(), model.state_dict())
    assert again.context_encoder.num_hops == 1


def test_an_unknown_convolution_is_refused():
    with pytest.raises(ValueError, match="GATv2Conv.*got 'NoConv'"):
        PyGConv("NoConv")
