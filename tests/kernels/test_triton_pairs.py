"""Attention with a table of pairs against the equations: on a GPU, or in Triton's interpreter.

Without a GPU, ``test_triton.py`` runs these in a process of its own.
"""

import os

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.kernels import use
from spatiagraph.kernels._random import keep_scale
from spatiagraph.nn import SE2Transformer
from spatiagraph.nn.pair_states import MatrixOfPairs, TableOfPairs

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = [torch.float16] if DEVICE == "cpu" else [torch.float16, torch.bfloat16]
"""The interpreter's products of bfloat16 are those of its bits: a GPU measures them."""
INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
# Triton's interpreter stores 0-d arrays into 1-d ones
pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim > 0:DeprecationWarning"
)
runs_triton = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETING, reason="runs in the process that test_triton.py starts"
)


def inputs(width, channels, heads=2, lengths=(70, 41), share=0.2, dtype=torch.float32):
    """Queries, keys, values, values of pairs and of far ones; a table of both, and a matrix."""
    generator = torch.Generator().manual_seed(0)
    num = max(lengths)
    real = torch.arange(num) < torch.tensor(lengths)[:, None]
    some = real.unsqueeze(1) & real.unsqueeze(2) & ~torch.eye(num, dtype=torch.bool)
    some[:, 0] = some[:, :, 0] = False
    chosen = some & (torch.rand(some.shape, generator=generator) < share)
    pairs = chosen.triu(1).nonzero().unbind(1)
    shapes = [(len(lengths), heads, num, w) for w in (width, width, channels)]
    shapes += [(len(pairs[0]), heads), (heads,)]
    given = [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]
    given = [x.requires_grad_() for x in given]
    return given, real.to(DEVICE), some.to(DEVICE), tuple(x.to(DEVICE) for x in pairs)


def table(given, real, some, pairs):
    return TableOfPairs(given[3], given[4], some, pairs, real, 0.3)


def by_the_equations(given, real, some, pairs, dropped=None):
    """Messages, written out in float64."""
    q, k, v, value, far = given
    graph, i, j = pairs
    start = far.double()[None, :, None, None] * some[:, None]
    start = start.permute(0, 2, 3, 1).index_put((graph, i, j), value.double())
    start = start.index_put((graph, j, i), value.double()).permute(0, 3, 1, 2)
    s = 0.3 * q.double() @ k.double().transpose(2, 3) + start
    weight = s.masked_fill(~real[:, None, None], -torch.inf).softmax(3)
    return (weight if dropped is None else weight * dropped) @ v.double()


def compared(message, expected, given, real, atol, rtol):
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    weight = weight * real[:, None, :, None]  # nothing comes back from padding
    assert_close(message.double() * weight.abs().bool(), expected * weight.abs().bool(),
                 atol=atol, rtol=rtol)  # fmt: skip
    ours = torch.autograd.grad((message.double() * weight).sum(), given)
    theirs = torch.autograd.grad((expected * weight).sum(), given)
    for name, one, two in zip(("q", "k", "v", "value", "far"), ours, theirs, strict=True):
        size = float(torch.cat([two.abs().flatten(), two.new_ones(1)]).max())
        assert_close(one / size, two / size, atol=5 * atol, rtol=rtol, msg=lambda m, n=name: n + m)


@runs_triton
@pytest.mark.parametrize(("width", "channels"), [(8, 8), (16, 16), (96, 32), (150, 5)])
def test_messages_and_gradients_are_those_of_the_equations(width, channels):
    given, *rest = inputs(width, channels)
    compared(
        table(given, *rest).attend(*given[:3], 0.0), by_the_equations(given, *rest), given, rest[0],
        1e-5, 1e-4,
    )  # fmt: skip


@runs_triton
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_near(dtype):
    given, *rest = inputs(32, 16, dtype=dtype)
    compared(
        table(given, *rest).attend(*given[:3], 0.0), by_the_equations(given, *rest), given, rest[0],
        3e-2, 3e-2,
    )  # fmt: skip


@runs_triton
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_pair_and_all_pairs_can_be_known(share):
    given, *rest = inputs(16, 16, lengths=(20,), share=share)
    compared(
        table(given, *rest).attend(*given[:3], 0.0), by_the_equations(given, *rest), given, rest[0],
        1e-5, 1e-4,
    )  # fmt: skip


@runs_triton
def test_dropout_is_the_same_forwards_and_backwards(monkeypatch):
    given, *rest = inputs(16, 16, lengths=(70,))
    seed = torch.tensor(12345678901234)
    monkeypatch.setattr(torch, "randint", lambda *_: seed)
    message = table(given, *rest).attend(*given[:3], 0.4)
    kept = keep_scale(70 * 70, 2, 0.4, seed, like=given[0].double()).view(1, 70, 70, 2)
    expected = by_the_equations(given, *rest, dropped=kept.permute(0, 3, 1, 2))
    compared(message, expected, given, rest[0], 1e-5, 1e-4)
    assert 0.35 < float((kept == 0).float().mean()) < 0.45


@runs_triton
def test_states_can_be_read_as_a_matrix():
    given, real, some, pairs = inputs(8, 8)
    found = table(given, real, some, pairs)
    start = found.dense()
    assert bool((start * ~some[:, None] == 0).all())
    assert_close(start, start.transpose(2, 3))
    graph, i, j = pairs
    assert_close(found.at(graph, i, j), given[3])
    assert_close(start[graph, :, j, i], given[3])
    far = some.clone()
    far[graph, i, j] = far[graph, j, i] = False
    assert_close(start.permute(0, 2, 3, 1)[far], given[4].expand(int(far.sum()), -1))
    matrix = MatrixOfPairs(start, real, 0.3, 16)
    compared(
        matrix.attend(*given[:3], 0.0), by_the_equations(given, real, some, pairs), given, real,
        1e-5, 1e-4,
    )  # fmt: skip


@runs_triton
def test_a_transformer_is_the_same_with_a_table(nodes_of_two_sub_slices):
    torch.manual_seed(0)
    model = SE2Transformer(8, 16, 3, 4, num_kernels=5, hidden_channels=24, dropout=0.0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or "mlp" in name:
            torch.nn.init.normal_(parameter, std=1.0 if name.startswith("bias") else 0.3)
    nodes = type(nodes_of_two_sub_slices)(*(x.to(DEVICE) for x in nodes_of_two_sub_slices))
    model = model.to(DEVICE)
    at = torch.tensor([[4, 9, 1], [6, 2, 3]], device=DEVICE)
    runs = []
    for backend in ("torch", "triton"):
        with use(backend):
            out = model(nodes, at=at, return_pair=True)
            loss = out.h.square().sum() + out.pair.square().mean() + out.at.sum()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            runs.append([*out, model.attention(nodes, at), *gradients])
    for one, two in zip(*runs, strict=True):
        one, two = one.detach(), two.detach()
        size = float(one.abs().max().clamp(min=1))
        assert_close(two / size, one / size, atol=1e-4, rtol=1e-3)


@pytest.fixture
def nodes_of_two_sub_slices():
    from spatiagraph.graph.pairs import NodeKind, known_pairs
    from spatiagraph.nn import Nodes

    generator = torch.Generator().manual_seed(0)
    parts, start = [], 0
    for number, num in enumerate((13, 25)):
        kind = torch.full((num,), int(NodeKind.CELL))
        kind[0], kind[1:4] = NodeKind.CLS, NodeKind.VIRTUAL
        pos = 4 * torch.rand(num, 2, generator=generator)
        x = torch.randn(num, 8, generator=generator)
        pairs = known_pairs(pos, kind, 5) + start
        parts.append((x, pos, kind, torch.full((num,), number), pairs))
        start += num
    fields = list(zip(*parts, strict=True))
    return Nodes(*(torch.cat(f, 1 if n == 4 else 0) for n, f in enumerate(fields)))
