import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.kernels import neighbor_attention
from spatiagraph.nn import GraphTransformer, GraphTransformerLayer

EDGES = torch.tensor([[1, 2, 0, 3, 1], [0, 0, 1, 2, 3]])


def test_graph_transformer_matches_dense_attention():
    torch.manual_seed(0)
    model, h = GraphTransformer(8, 1, heads=2), torch.randn(4, 8)
    layer = model.layers[0]
    q, k, v = layer.qkv(layer.norm_attention(h)).view(4, 3, 2, 4).unbind(1)
    logits = torch.einsum("ihd,jhd->hij", q, k) / 2.0
    allowed = torch.zeros(4, 4, dtype=torch.bool)
    allowed[EDGES[1], EDGES[0]] = True
    message = torch.einsum("hij,jhd->ihd", logits.masked_fill(~allowed, -1e9).softmax(-1), v)
    mid = h + layer.out(message.flatten(1))
    assert_close(model(h, EDGES), mid + layer.mlp(layer.norm_mlp(mid)))


def test_graph_transformer_does_not_depend_on_cell_order():
    torch.manual_seed(0)
    model, h = GraphTransformer(8, 2, heads=2, num_global_tokens=2), torch.randn(4, 8)
    for block in model.globals:
        torch.nn.init.ones_(block.scale)
    perm = torch.tensor([2, 0, 3, 1])
    place = perm.argsort()
    assert_close(model(h[perm], place[EDGES]), model(h, EDGES)[perm])


def test_graph_transformer_sees_as_many_hops_as_it_has_layers():
    torch.manual_seed(0)
    chain = torch.tensor([[0, 1, 2], [1, 2, 3]])
    h = torch.randn(4, 8, requires_grad=True)
    GraphTransformer(8, 2)(h, chain)[3].sum().backward()
    assert h.grad[0].abs().sum() == 0
    assert h.grad[1].abs().sum() > 0


def test_global_tokens_reach_every_cell_of_their_graph_only():
    torch.manual_seed(0)
    model = GraphTransformer(8, 1, num_global_tokens=2)
    torch.nn.init.ones_(model.globals[0].scale)
    h = torch.randn(4, 8, requires_grad=True)
    no_edges = torch.empty(2, 0, dtype=torch.long)
    model(h, no_edges, batch=torch.tensor([0, 0, 1, 1]))[0].sum().backward()
    assert h.grad[1].abs().sum() > 0
    assert h.grad[2:].abs().sum() == 0


def test_graph_transformer_of_scale_zero_is_the_identity():
    h = torch.randn(4, 8)
    assert_close(GraphTransformer(8, 2, init_scale=0.0)(h, EDGES), h, rtol=0, atol=0)


def test_edge_features_change_the_attention():
    torch.manual_seed(0)
    model, h = GraphTransformer(8, 1, edge_dim=3), torch.randn(4, 8)
    a, b = model(h, EDGES, torch.zeros(5, 3)), model(h, EDGES, torch.randn(5, 3))
    assert not torch.allclose(a[0], b[0])
    assert_close(a[2], b[2])  # a single neighbour has weight 1 whatever its bias


def test_dropout_follows_the_seed_and_stops_in_evaluation():
    model, h = GraphTransformer(8, 1, dropout=0.5), torch.randn(4, 8)
    torch.manual_seed(1)
    first = model(h, EDGES)
    torch.manual_seed(1)
    assert_close(model(h, EDGES), first)
    model.eval()
    assert_close(model(h, EDGES), model(h, EDGES))


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="divide 8 channels, got 3"):
        GraphTransformer(8, heads=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_is_the_formula_with_scales_over_the_nodes(dtype):
    """Value and gradients of every weight, of the formula written out."""
    torch.manual_seed(0)
    layer = GraphTransformerLayer(8, 2, edge_dim=3).to(dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    h = torch.randn(20, 8, dtype=dtype, requires_grad=True)
    edge_index, edge_attr = torch.randint(20, (2, 90)), torch.randn(90, 3, dtype=dtype)
    weights = [h, *layer.parameters()]

    q, k, v = layer.qkv(layer.norm_attention(h)).view(-1, 3, 2, 4).unbind(1)
    message = neighbor_attention(q, k, v, edge_index, layer.bias(edge_attr)).flatten(1)
    middle = h + layer.scale_attention * layer.out(message)
    expected = middle + layer.scale_mlp * layer.mlp(layer.norm_mlp(middle))

    got = layer(h, edge_index, edge_attr)
    assert_close(got, expected)
    weight = torch.randn_like(got)
    grads = (torch.autograd.grad((out * weight).sum(), weights) for out in (got, expected))
    for one, other in zip(*grads, strict=True):
        assert_close(one, other)


def test_residual_stream_keeps_its_precision_under_autocast():
    layer = GraphTransformerLayer(8, 2)
    h, edge_index = torch.randn(20, 8), torch.randint(20, (2, 90))
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(h, edge_index)
    assert out.dtype == torch.float32
    assert_close(out, layer(h, edge_index), atol=0.1, rtol=0.05)
