"""Compiled loops stay inside of their arrays: the tests of every kernel with numba's own checks.

numba looks at indices only when told so before it compiles, and keeps what it compiled without: so
the tests run in a process, and with a cache, of their own. What our own LLVM code and Triton read
is not seen by these checks; their indices come from ``sort_edges``, which refuses those outside.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric import EdgeIndex

from spatiagraph.kernels import neighbor_attention, segment_sum

TESTS = Path(__file__).parents[1]
KERNELS = ["kernels", "data/tokens", "data/test_image.py", "graph/test_build.py"]


@pytest.mark.slow
def test_no_compiled_loop_leaves_its_arrays(tmp_path):
    environment = os.environ | {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }
    check = "import numba; assert numba.config.BOUNDSCHECK == 1; import pytest, sys; "
    run = "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
    done = subprocess.run(
        [sys.executable, "-c", check + run, *(str(TESTS / name) for name in KERNELS)],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("edges", [[[0, 9], [0, 1]], [[0, -1], [0, 1]], [[0, 1], [0, 3]]])
def test_edges_to_nowhere_are_refused(edges, dtype):
    q = torch.ones(3, 1, 4)
    with pytest.raises(ValueError, match=r"indices .* in \[0, 3\)"):
        neighbor_attention(q, q, q, torch.tensor(edges, dtype=dtype))


def test_edges_that_change_after_they_were_checked_change_nothing():
    edges = torch.tensor([[0, 1, 2], [0, 1, 2]], dtype=torch.int32)
    index = EdgeIndex(edges, sparse_size=(3, 3), sort_order="col")
    q = torch.randn(3, 1, 4)
    before = neighbor_attention(q, q, q, index)
    index.as_tensor()[0, 1] = 1_000_000_000
    torch.testing.assert_close(neighbor_attention(q, q, q, index), before)


@pytest.mark.parametrize("ptr", [[0, 3, 9], [0, 4, 2, 5], [-3, 2, 5], [0, 2]])
def test_bounds_outside_of_the_rows_are_refused_by_the_operator_too(ptr):
    """Code that is being compiled calls it without the checks at the door."""
    x, ptr = torch.ones(5, 2), torch.tensor(ptr)
    for backend in ("torch", "numba"):
        with pytest.raises(ValueError, match="to rise from 0 to the 5 rows"):
            torch.ops.spatiagraph.segment_sum(x, ptr, backend)
    compiled = torch.compile(segment_sum, backend="eager")
    with pytest.raises(ValueError, match="to rise from 0 to the 5 rows"):
        compiled(x, ptr)
