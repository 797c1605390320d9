"""The reference against a loop over targets, on graphs small enough to read."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torch_geometric import EdgeIndex

from spatiagraph.kernels import neighbor_attention, neighbor_self_attention, use
from spatiagraph.kernels._graph import neighbor_graph, notice_unsorted
from spatiagraph.nn import GraphTransformer

# target 0 hears 1, 2 and 2 again; 1 hears itself; 2 hears nobody; 3 hears everyone
SOURCE = [1, 2, 2, 1, 0, 1, 2, 3, 4]
TARGET = [0, 0, 0, 1, 3, 3, 3, 3, 3]
EDGES = torch.tensor([SOURCE, TARGET])


def attention_inputs(heads, channels, dtype=torch.float64, targets=4, sources=5):
    torch.manual_seed(0)
    q = torch.randn(targets, heads, channels, dtype=dtype, requires_grad=True)
    k = torch.randn(sources, heads, channels, dtype=dtype, requires_grad=True)
    v = torch.randn(sources, heads, channels, dtype=dtype, requires_grad=True)
    bias = torch.randn(EDGES.size(1), heads, dtype=dtype, requires_grad=True)
    return q, k, v, bias


def loop_attention(q, k, v, edge_index, bias=None):
    out = []
    for i in range(q.size(0)):
        at = (edge_index[1] == i).nonzero().flatten()
        j = edge_index[0, at]
        score = (q[i] * k[j]).sum(-1) / math.sqrt(q.size(-1))
        if bias is not None:
            score = score + bias[at]
        out.append((score.softmax(0).unsqueeze(-1) * v[j]).sum(0))
    return torch.stack(out)


@pytest.mark.parametrize("with_bias", [False, True])
def test_neighbor_attention_matches_a_loop_over_targets(with_bias):
    q, k, v, bias = attention_inputs(2, 3)
    bias = bias if with_bias else None
    with use("torch"):
        out = neighbor_attention(q, k, v, EDGES, bias)
    assert_close(out, loop_attention(q, k, v, EDGES, bias))
    assert_close(out[2], torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_match_finite_differences(with_bias):
    q, k, v, bias = attention_inputs(2, 3)
    inputs = (q, k, v, EDGES, bias) if with_bias else (q, k, v, EDGES)
    with use("torch"):
        assert torch.autograd.gradcheck(neighbor_attention, inputs)


def test_edge_index_and_plain_tensor_agree():
    q, k, v, bias = attention_inputs(2, 3)
    sorted_edges = EdgeIndex(EDGES, sparse_size=(5, 4), sort_order="col")
    out = neighbor_attention(q, k, v, sorted_edges, bias)
    assert_close(out, neighbor_attention(q, k, v, EDGES, bias))


def test_edge_order_does_not_matter():
    q, k, v, bias = attention_inputs(2, 3)
    perm = torch.randperm(EDGES.size(1), generator=torch.Generator().manual_seed(1))
    out = neighbor_attention(q, k, v, EDGES, bias)
    assert_close(neighbor_attention(q, k, v, EDGES[:, perm], bias[perm]), out)


def test_graph_is_prepared_once_for_all_layers():
    q, k, v, _ = attention_inputs(2, 3)
    edge_index = EdgeIndex(EDGES, sparse_size=(5, 4), sort_order="col")
    graph = neighbor_graph(edge_index, 5, 4)
    assert graph.transpose is None
    for _ in range(3):
        neighbor_attention(q, k, v, edge_index).sum().backward()
        assert neighbor_graph(edge_index, 5, 4) is graph
    assert graph.transpose is not None  # made by the first backward, for all


def test_unsorted_edges_are_said_once(caplog):
    notice_unsorted.cache_clear()  # other tests had them too
    q, k, v, _ = attention_inputs(2, 3)
    with caplog.at_level("INFO", "spatiagraph.kernels"):
        for _ in range(2):
            neighbor_attention(q, k, v, EDGES.flip(1))
    assert caplog.text.count("not sorted by target") == 1


def test_dropout_is_a_function_of_the_seed():
    q, k, v, _ = attention_inputs(2, 3)
    first = neighbor_attention(q, k, v, EDGES, dropout=0.5, seed=1)
    assert torch.equal(first, neighbor_attention(q, k, v, EDGES, dropout=0.5, seed=1))
    assert not torch.equal(first, neighbor_attention(q, k, v, EDGES, dropout=0.5, seed=2))
    torch.manual_seed(7)
    drawn = neighbor_attention(q, k, v, EDGES, dropout=0.5)
    torch.manual_seed(7)
    assert torch.equal(drawn, neighbor_attention(q, k, v, EDGES, dropout=0.5))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_gradients_match_finite_differences_under_dropout(backend):
    q, k, v, bias = attention_inputs(2, 3)

    def dropped(q, k, v, bias):
        return neighbor_attention(q, k, v, EDGES, bias, dropout=0.5, seed=1)

    with use(backend):
        assert torch.autograd.gradcheck(dropped, (q, k, v, bias))


def test_dropout_drops_the_asked_share_and_keeps_the_mean():
    """All values are one, so that a row is the sum of its kept weights."""
    edges, heads, p = 20_000, 4, 0.3
    x = torch.zeros(edges, heads, 1)
    edge_index = torch.arange(edges).repeat(2, 1)
    out = neighbor_attention(x, x, torch.ones_like(x), edge_index, dropout=p, seed=0)
    share = (out == 0).double().mean(0).flatten()
    deviation = (p * (1 - p) / edges) ** 0.5
    assert (share - p).abs().max() < 4 * deviation
    assert_close(out.max(), torch.tensor(1 / (1 - p)))
    kept = (out[..., 0] > 0).double()
    assert (torch.corrcoef(kept.T) - torch.eye(heads)).abs().max() < 4 / edges**0.5
    neighbors = torch.corrcoef(torch.stack([kept[1:, 0], kept[:-1, 0]]))[0, 1]
    assert neighbors.abs() < 4 / edges**0.5


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("with_bias", [False, True])
def test_operators_keep_the_rules_of_torch_library(with_bias):
    from spatiagraph.kernels._graph import neighbor_graph
    from spatiagraph.kernels._operators import attention, attention_backward

    q, k, v, bias = attention_inputs(2, 3)
    bias = bias if with_bias else None
    graph = neighbor_graph(EDGES, 5, 4)
    structure = (graph.colptr, graph.row, *graph.transposed())
    options = (0.5, torch.tensor(3), "numba")
    torch.library.opcheck(attention, (q, k, v, bias, *structure, *options))
    q, k, v = (x.detach() for x in (q, k, v))
    bias = bias.detach() if with_bias else None
    out, lse = attention(q, k, v, bias, *structure, *options)
    torch.library.opcheck(
        attention_backward, (out, lse, q, k, v, bias, out, lse, *structure, *options)
    )


def test_gradient_of_the_log_sum_exp_is_right():
    from spatiagraph.kernels._graph import neighbor_graph
    from spatiagraph.kernels._operators import attention

    q, k, v, bias = attention_inputs(2, 3)
    graph = neighbor_graph(EDGES, 5, 4)

    def both(q, k, v, bias):
        out, lse = attention(
            q, k, v, bias, graph.colptr, graph.row, None, None, None, 0.0, None, "numba"
        )
        return out, lse[[0, 1, 3]]  # row 2 has no edge: minus infinity

    assert torch.autograd.gradcheck(both, (q, k, v, bias))


class TinyLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(6, 18)

    def forward(self, x, edge_index):
        q, k, v = self.project(x).view(-1, 3, 2, 3).unbind(1)
        return neighbor_attention(q, k, v, edge_index, dropout=0.1, seed=0).flatten(1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("make", [EDGES.clone, lambda: EdgeIndex(EDGES, sort_order="col")])
def test_layer_compiles_without_a_graph_break(make):
    torch.manual_seed(0)
    layer, x, edge_index = TinyLayer(), torch.randn(5, 6), make()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected = layer(x, edge_index)
    got = compiled(x, edge_index)
    assert_close(got, expected)
    parameters = list(layer.parameters())
    for a, b in zip(
        torch.autograd.grad(got.sum(), parameters),
        torch.autograd.grad(expected.sum(), parameters),
        strict=True,
    ):
        assert_close(a, b)


def test_autocast_on_cpu_computes_in_float32():
    q, k, v, bias = (x.detach().float() for x in attention_inputs(2, 4))
    with torch.autocast("cpu", torch.bfloat16):
        out = neighbor_attention(q.bfloat16(), k, v, EDGES, bias)
    assert out.dtype == torch.float32
    assert_close(out, neighbor_attention(q.bfloat16().float(), k, v, EDGES, bias))


def test_second_derivatives_are_refused():
    q, k, v, _ = attention_inputs(2, 3)
    (grad,) = torch.autograd.grad(
        neighbor_attention(q, k, v, EDGES).square().sum(), q, create_graph=True
    )
    with pytest.raises((RuntimeError, NotImplementedError), match="backward"):
        grad.sum().backward()


def replaced(**changes):
    q, k, v, bias = (x.detach() for x in attention_inputs(2, 3))
    return {"q": q, "k": k, "v": v, "edge_index": EDGES, "bias": bias} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.zeros(4, 6)}, r"'q' of shape \[nodes, H, D\], got \[4, 6\]"),
        ({"q": torch.zeros(4, 2, 3, dtype=torch.long)}, "'q' of a floating dtype, got torch.int64"),
        ({"q": torch.zeros(4, 3, 3).double()}, r"same heads and channels, got \[4, 3, 3\]"),
        ({"v": torch.zeros(5, 2, 4).double()}, "'k' and 'v' of one shape"),
        ({"v": torch.zeros(5, 2, 3)}, "of one dtype, got torch.float64.*torch.float32"),
        ({"v": torch.zeros(5, 2, 3, device="meta").double()}, "'v' on the device of 'q'"),
        ({"bias": torch.zeros(9, 1)}, r"'bias' of shape \[E, H\] = \[9, 2\], got \[9, 1\]"),
        ({"bias": torch.zeros(9, 2, dtype=torch.long)}, "'bias' of a floating dtype"),
        ({"edge_index": EDGES.T}, r"'edge_index' of shape \[2, E\], got \[9, 2\]"),
        ({"edge_index": EDGES.float()}, "dtype int64 or int32, got torch.float32"),
        ({"edge_index": EDGES + 1}, r"source indices .* in \[0, 5\).*from 1 to 5"),
        ({"edge_index": EDGES.flip(0)}, r"target indices .* in \[0, 4\).*rows of 'q'.*0 to 4"),
        ({"edge_index": EDGES - 1}, "got values from -1 to 3"),
        ({"dropout": 1.0}, r"'dropout' in \[0, 1\), got 1.0"),
    ],
)
def test_bad_input_is_refused(changes, message):
    arguments = replaced(**changes)
    if changes.keys() & {"edge_index"}:
        arguments["bias"] = None
    with pytest.raises(ValueError, match=message):
        neighbor_attention(**arguments)


def joint_projection(dtype=torch.float64):
    torch.manual_seed(0)
    qkv = torch.randn(5, 3, 2, 3, dtype=dtype, requires_grad=True)
    bias = torch.randn(EDGES.size(1), 2, dtype=dtype, requires_grad=True)
    return qkv, bias


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("backend", ["torch", "numba", "scatter"])
def test_joint_projection_gives_what_its_parts_give(backend, with_bias):
    qkv, bias = joint_projection()
    inputs = (qkv, bias) if with_bias else (qkv,)
    bias = bias if with_bias else None
    options = {"dropout": 0.3, "seed": 2}
    with use(backend):
        joint = neighbor_self_attention(qkv, EDGES, bias, **options)
        parts = neighbor_attention(*qkv.unbind(1), EDGES, bias, **options)
        weight = torch.randn_like(joint)
        assert_close(joint, parts)
        for got, expected in zip(
            torch.autograd.grad(joint, inputs, weight),
            torch.autograd.grad(parts, inputs, weight),
            strict=True,
        ):
            assert_close(got, expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_joint_operators_keep_the_rules_of_torch_library():
    from spatiagraph.kernels._graph import neighbor_graph
    from spatiagraph.kernels._operators import self_attention, self_attention_backward

    qkv, bias = joint_projection()
    graph = neighbor_graph(EDGES, 5, 5)
    rest = (graph.colptr, graph.row, *graph.transposed(), 0.5, torch.tensor(3), "numba")
    torch.library.opcheck(self_attention, (qkv, bias, *rest))
    qkv, bias = qkv.detach(), bias.detach()
    out, lse = self_attention(qkv, bias, *rest)
    torch.library.opcheck(self_attention_backward, (out, lse, qkv, bias, out, lse, *rest))


def test_joint_projection_of_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"'qkv' of shape \[N, 3, H, D\], got \[5, 2, 2, 3\]"):
        neighbor_self_attention(torch.zeros(5, 2, 2, 3), EDGES)


def test_layer_is_differentiated_as_a_function_of_its_parameters():
    torch.manual_seed(0)
    layer, x = TinyLayer(), torch.randn(5, 6)
    doubled = {name: (2 * p.detach()).requires_grad_() for name, p in layer.named_parameters()}
    out = torch.func.functional_call(layer, doubled, (x, EDGES))
    grads = torch.autograd.grad(out.sum(), tuple(doubled.values()))
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(2)
    expected = layer(x, EDGES)
    assert_close(out, expected)
    for got, wanted in zip(
        grads, torch.autograd.grad(expected.sum(), tuple(layer.parameters())), strict=True
    ):
        assert_close(got, wanted)


def compiled_equals_eager(backend):
    torch.manual_seed(0)
    model = GraphTransformer(16, num_layers=2, heads=2, edge_dim=3)
    h, edge_attr = torch.randn(5, 16), torch.randn(EDGES.size(1), 3)
    inputs = (h, EdgeIndex(EDGES, sparse_size=(5, 5), sort_order="col"), edge_attr)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    expected, got = model(*inputs), compiled(*inputs)
    assert_close(got, expected)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        assert_close(a, b)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_graph_transformer_compiles_without_a_graph_break():
    compiled_equals_eager("aot_eager")


@pytest.mark.slow
def test_graph_transformer_compiles_to_machine_code():
    """In a process of its own: records of the compiler, once captured, stop it."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        "from test_attention import compiled_equals_eager; compiled_equals_eager('inductor')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
