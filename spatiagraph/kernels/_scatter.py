"""The torch backend with torch_scatter's CSR kernels, or PyG's scatter where it is not installed.

Only runs on request: it needs as much memory as plain torch.
"""

from functools import partial
from importlib.util import find_spec

from torch import Tensor
from torch_geometric.utils import scatter

from spatiagraph.kernels import _torch
from spatiagraph.kernels._graph import segment_ids


def segment_reduce(x: Tensor, ptr: Tensor, reduce: str, initial: float) -> Tensor:
    """As :func:`spatiagraph.kernels._torch.segment_reduce`; empty segments are zero."""
    if find_spec("torch_scatter") is not None:
        from torch_scatter import segment_csr

        return segment_csr(x, ptr.long(), reduce=reduce)
    segment = segment_ids(ptr, x.size(0)).long()
    return scatter(x, segment, dim=0, dim_size=ptr.numel() - 1, reduce=reduce)


attention_forward = partial(_torch.attention_forward, segment_reduce=segment_reduce)
attention_backward = partial(_torch.attention_backward, segment_reduce=segment_reduce)


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    """Sum of the rows of each segment."""
    return segment_reduce(x, ptr, "sum", 0.0)
