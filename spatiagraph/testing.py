"""Assertions on symmetry and batching, for our layers and for yours.

Each takes a callable ``Data → Tensor`` (or a tuple of tensors). A layer with another signature
needs one line: ``lambda data: layer(data.x, data.edge_index)``. Put modules in ``eval()`` first.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.testing import assert_close
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

if TYPE_CHECKING:
    import pytest

Output = Tensor | Sequence[Tensor | None]


def assert_permutation_equivariant(
    function: Callable[[Data], Output],
    data: Data,
    *,
    seed: int = 0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Assert that shuffling cells, and edges, shuffles the output and changes nothing else.

    Args:
        function: Model to test. Outputs with one row per cell must follow the cells; outputs of
            another length (niches, tissues, a loss) must stay.
        data: A graph. Attributes that PyG counts as node or edge attributes are shuffled.
        seed: Of the shuffle.
        rtol: Relative tolerance; sums in another order differ in the last digits.
        atol: Absolute tolerance.

    Raises:
        AssertionError: The output depends on the order.
    """
    generator = torch.Generator().manual_seed(seed)
    perm = torch.randperm(data.num_nodes, generator=generator)
    before, after = _tensors(function(data)), _tensors(function(_permute(data, perm, generator)))
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        follows = old.dim() > 0 and old.size(0) == data.num_nodes
        assert_close(
            new, old[perm] if follows else old, rtol=rtol, atol=atol, msg=_named("order", index)
        )


def assert_rigid_invariant(
    function: Callable[[Data], Output],
    data: Data,
    *,
    reflect: bool = True,
    shift_um: float = 1000.0,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> None:
    """Assert that turning, mirroring and moving the slide changes no output.

    Only ``data.pos`` moves: edges and their lengths are those of the same tissue.

    Args:
        function: Model to test.
        data: A graph with ``pos`` in µm.
        reflect: Mirror, too.
        shift_um: How far the slide moves along both axes.
        seed: Of the angle.
        rtol: Relative tolerance; float32 positions lose digits when the slide moves far.
        atol: Absolute tolerance.

    Raises:
        AssertionError: The output depends on where the slide lies.
    """
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * float(torch.rand((), generator=generator))
    cos, sin = math.cos(angle), math.sin(angle)
    sign = -1 if reflect else 1
    moved = data.clone()
    moved.pos = data.pos @ data.pos.new_tensor([[cos, sin], [-sin * sign, cos * sign]]) + shift_um
    for index, (old, new) in enumerate(
        zip(_tensors(function(data)), _tensors(function(moved)), strict=True)
    ):
        assert_close(new, old, rtol=rtol, atol=atol, msg=_named("position", index))


def assert_batch_consistent(
    function: Callable[[Data], Output],
    graphs: Sequence[Data],
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Assert that several graphs in one batch give what each gives in a batch of its own.

    Args:
        function: Model to test; its outputs are compared row by row, graph after graph.
        graphs: Two or more graphs.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        AssertionError: A graph's output depends on the other graphs of its batch.
    """
    together = _tensors(function(Batch.from_data_list(list(graphs))))
    alone = zip(*(_tensors(function(graph)) for graph in graphs), strict=True)
    for index, (batch, parts) in enumerate(zip(together, alone, strict=True)):
        assert_close(batch, torch.cat(parts), rtol=rtol, atol=atol, msg=_named("batch", index))


def requires(*packages: str) -> "pytest.MarkDecorator":
    """Mark that skips a test where a package is not installed.

    Args:
        packages: Import names.

    Examples:
        >>> @requires("squidpy")
        ... def test_same_edges_as_squidpy(): ...
    """
    import pytest

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def _tensors(output: Output) -> list[Tensor]:
    """Tensors of an output, detached; levels that are ``None`` are left out."""
    values = [output] if isinstance(output, Tensor) else output
    return [value.detach() for value in values if value is not None]


def _permute(data: Data, perm: Tensor, generator: torch.Generator) -> Data:
    """The same graph with cell ``perm[i]`` in row ``i``, and its edges in another order."""
    place = perm.argsort()
    edges = torch.randperm(data.num_edges, generator=generator)
    kind = data.edge_index
    if kind is not None:
        plain = kind.as_tensor() if isinstance(kind, EdgeIndex) else kind
        edge_index = place[plain][:, edges]
        if isinstance(kind, EdgeIndex) and kind.is_sorted:
            order = edge_index[1 if kind.is_sorted_by_col else 0].argsort(stable=True)
            edges, edge_index = edges[order], edge_index[:, order]
    shuffled = data.clone()
    for key, value in data.items():
        if key == "edge_index":
            shuffled.edge_index = edge_index.contiguous()
            if isinstance(kind, EdgeIndex):
                shuffled.edge_index = EdgeIndex(
                    edge_index.contiguous(),
                    sparse_size=kind.sparse_size(),
                    sort_order=kind.sort_order,
                )
        elif not isinstance(value, Tensor):
            continue
        elif data.is_node_attr(key):
            shuffled[key] = value[perm]
        elif data.is_edge_attr(key):
            shuffled[key] = value[edges]
    return shuffled


def _named(cause: str, index: int) -> Callable[[str], str]:
    """Message that says which output depends on what."""
    return lambda detail: f"Output {index} depends on the {cause} of the cells.\n{detail}"
