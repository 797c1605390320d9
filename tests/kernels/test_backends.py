"""Every backend gives what the float64 reference gives, forward and backward, on every graph."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.kernels import backends, neighbor_attention, segment_sum, use

BACKENDS = ["torch", "numba", "scatter"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_matches_the_reference_on_every_graph(compare, graph, backend, dtype):
    compare(backend, graph, dtype=dtype)
    compare(backend, graph, dtype=dtype, with_bias=False)


@pytest.mark.parametrize(
    ("heads", "channels"),
    [(1, 8), (2, 12), (3, 20), (4, 32), (5, 1), (6, 7), (7, 33), (8, 16), (1, 256), (2, 100)],
)
@pytest.mark.parametrize("graph", ["ragged"], indirect=True)
def test_numba_matches_the_reference_for_every_size(compare, graph, heads, channels):
    compare("numba", graph, heads, channels)


@pytest.mark.parametrize("graph", ["ragged", "duplicates"], indirect=True)
@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_need_not_be_contiguous(compare, graph, backend):
    compare(backend, graph, strided=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_may_be_expanded_or_cut_out(backend):
    torch.manual_seed(0)
    edge_index = torch.randint(9, (2, 30))
    one_number, wide = torch.randn(9, 2, 8), torch.randn(18, 2, 24)
    q = one_number[..., :1].expand(9, 2, 8)
    k, v = wide[::2, :, 8:16], wide[:1, :, 16:].expand(9, 2, 8)
    with use(backend):
        out = neighbor_attention(q, k, v, edge_index)
        assert_close(out, neighbor_attention(*(x.clone() for x in (q, k, v)), edge_index))


@pytest.mark.parametrize("graph", ["ragged", "hubs", "duplicates"], indirect=True)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_drop_the_same_edges(compare, graph, backend):
    compare(backend, graph, dropout=0.4)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_match_finite_differences_on_every_graph(graph, backend, with_bias):
    edge_index, num_sources, num_targets = graph
    shapes = [(n, 2, 5) for n in (num_targets, num_sources, num_sources)]
    shapes += [(edge_index.size(1), 2)] if with_bias else []
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def attend(q, k, v, *bias):
        return neighbor_attention(q, k, v, edge_index, *bias)

    with use(backend):
        assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)


@pytest.mark.skipif(
    find_spec("torch_scatter") is None,
    reason="torch_scatter is not installed; PyG's scatter stands in for it in the other tests",
)
def test_scatter_backend_runs_on_torch_scatter(monkeypatch, compare):
    import torch_scatter

    run, calls = torch_scatter.segment_csr, []
    monkeypatch.setattr(
        torch_scatter, "segment_csr", lambda *x, **options: calls.append(x) or run(*x, **options)
    )
    graph = (torch.randint(30, (2, 200), generator=torch.Generator().manual_seed(0)), 30, 30)
    compare("scatter", graph)
    assert calls


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_of_a_neighbor_is_not_hidden(backend):
    q, k, v = torch.randn(3, 12, 1, 8, generator=torch.Generator().manual_seed(0))
    k[3] = torch.nan
    edge_index = torch.tensor([[3, 1, *range(12)], [0, 1, *[2] * 12]])
    with use(backend):
        out = neighbor_attention(q, k, v, edge_index)
    assert out[[0, 2]].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("edges", [10_000, 40_000])
def test_hub_is_summed_as_exactly_as_its_neighbors(compare, edges):
    """40 000 edges are cut into blocks, as target and as source."""
    everyone, nobody = torch.arange(edges), torch.zeros(edges, dtype=torch.long)
    edge_index = torch.stack([torch.cat([everyone, nobody]), torch.cat([nobody, everyone])])
    compare("numba", (edge_index, edges, edges), channels=4, dropout=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_is_summed_in_float32(compare, backend):
    graph = (torch.randint(30, (2, 200), generator=torch.Generator().manual_seed(0)), 30, 30)
    if backend == "numba":
        with pytest.raises(ValueError, match="float32 or float64 on CPU for the 'numba' backend"):
            compare(backend, graph, dtype=torch.bfloat16)
    else:
        compare(backend, graph, dtype=torch.bfloat16)
        compare(backend, graph, dtype=torch.float16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hidden_edges_do_not_count(backend):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 2, 8, requires_grad=True)
    edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])
    bias = torch.tensor([0.0, -torch.inf, -torch.inf, 0.0]).unsqueeze(1).repeat(1, 2)
    with use(backend):
        hidden = neighbor_attention(q, k, v, edge_index, bias)
        shown = neighbor_attention(q, k, v, edge_index[:, [0, 3]])
        assert_close(hidden, shown)
        for got, expected in zip(
            torch.autograd.grad(hidden.square().sum(), (k, v)),
            torch.autograd.grad(shown.square().sum(), (k, v)),
            strict=True,
        ):
            assert_close(got, expected)


@pytest.mark.parametrize("graph", ["nearest", "hubs"], indirect=True)
def test_gradients_are_the_same_bits_from_run_to_run_and_for_any_number_of_threads(graph):
    torch.manual_seed(0)
    edge_index, num_sources, num_targets = graph
    q = torch.randn(num_targets, 4, 32, requires_grad=True)
    k, v = torch.randn(2, num_sources, 4, 32, requires_grad=True)
    weight, threads = torch.randn_like(q), torch.get_num_threads()
    runs = []
    for count in (1, 1, 2):
        torch.set_num_threads(count)
        try:
            out = neighbor_attention(q, k, v, edge_index, dropout=0.1, seed=3)
            runs.append([out, *torch.autograd.grad(out, (q, k, v), weight)])
        finally:
            torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.fixture(scope="module")
def first_calls(tmp_path_factory):
    """Two calls in a process of its own, with nothing compiled: numba starts its threads once."""
    script = """
import logging, torch
logging.basicConfig(level="INFO", format="%(message)s")
from spatiagraph.kernels import segment_sum
for _ in range(2):
    segment_sum(torch.ones(4, 2), torch.tensor([0, 4]))
print(torch.get_num_threads())
"""
    settings = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    settings["NUMBA_CACHE_DIR"] = str(tmp_path_factory.mktemp("numba"))
    command, environment = (
        [sys.executable, "-W", "ignore", "-c", script],
        {**os.environ, **settings},
    )
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_torch_keeps_its_number_of_threads(first_calls):
    assert first_calls.stdout.split() == ["1"]  # numba's start sets OpenMP's number


def test_cpu_kernel_announces_that_it_compiles_once(first_calls):
    before, after = first_calls.stderr.splitlines()
    assert "loading the CPU kernel 'segment_sum' for float32: compiled on" in before
    assert "compiled the CPU kernel 'segment_sum' in" in after


@pytest.mark.parametrize("backend", BACKENDS)
def test_segment_sum_matches_a_loop_on_every_backend(backend):
    torch.manual_seed(0)
    x, ptr = torch.randn(40, 3, 5), torch.tensor([0, 7, 7, 30, 40])
    loop = torch.stack([x[a:b].sum(0) for a, b in zip(ptr[:-1], ptr[1:], strict=True)])
    with use(backend):
        assert_close(segment_sum(x, ptr), loop)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_worker_leaves_the_parents_threads_alone():
    from spatiagraph.kernels.backends import backend_for

    assert backend_for(torch.zeros(1)) == "numba"
    child = os.fork()
    if child == 0:
        os._exit(backend_for(torch.zeros(1)) != "torch")
    assert os.waitpid(child, 0)[1] == 0


def test_available_backends_pass_their_self_test():
    found = {backend.name: backend for backend in backends()}
    assert set(found) == {"torch", "numba", "triton", "scatter"}
    for backend in found.values():
        if backend.available and backend.name != "triton":
            assert backend.self_test() < 1e-5
        assert backend.available == (not backend.reason)


def test_unknown_and_missing_backends_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"out of \['torch', 'numba', .*got 'cuda'"), use("cuda"):
        pass
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="got 'triton': no CUDA device"), use("triton"):
        pass
