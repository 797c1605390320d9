"""The graph of a slide, as PyTorch Geometric batches it."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from spatiagraph.graph.edges import plain_edges
from spatiagraph.graph.hierarchy import region_of


class TissueData(Data):
    """One slide, or a part of it, as a graph of cells with their niches and tissue regions.

    Attributes:
        x: Counts of the panel, ``[N, G]``; dense, or sparse CSR for a whole slide.
        gene_mask: Measured genes, ``[G]``; ``[B, G]`` in a batch of slides.
        depth: Total counts over all genes of the slide, ``[N]``.
        pos: Cell centres in µm, ``[N, 2]``.
        edge_index: Cell graph, :class:`~torch_geometric.EdgeIndex` sorted by target.
        niche: Own niche of each cell, ``[N]``; -1 for none.
        niche_index: Cells → the niches they are part of, ``[2, P]``, sorted by niche.
        niche_pos: Centres of the niches in µm, ``[M, 2]``.
        tissue: Region of each niche, ``[M]``.
        tissue_pos: Centres of the regions in µm, ``[R, 2]``.
        image: Crops in ``[0, 1]``, ``[N, C, H, W]``, where there are any.
        image_mask: Cells with a crop, ``[N]``.
        window_um: Side of the window of each crop in µm, ``[N]``, where there are crops.
        niche_image: Crops of the niches, ``[M, C, H, W]``, where they were asked for.
        niche_image_mask: Niches with a crop, ``[M]``.
        tissue_image: Crops of the regions, ``[R, C, H, W]``, where they were asked for.
        tissue_image_mask: Regions with a crop, ``[R]``.
        labels: Numbers of the labels of each cell, ``[N, K]``, -1 for unknown, where asked for.
        z: Embeddings of cells computed before, ``[N, D]``, where there are any.
        core: Cells this batch answers for, ``[N]``; the rest is context.
        cell_index: Row of each cell in its slide, ``[N]``.
    """

    @property
    def num_niches(self) -> int:
        """Number of niches, :math:`M`."""
        return self.niche_pos.size(0)

    @property
    def num_tissues(self) -> int:
        """Number of tissue regions, :math:`R`."""
        return self.tissue_pos.size(0)

    @property
    def tissue_of_cell(self) -> Tensor:
        """Region of each cell, ``[N]``; -1 for none."""
        return region_of(self.niche, self.tissue)

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "niche_index":
            return torch.tensor([[self.num_nodes], [self.num_niches]])
        if key == "niche":
            return self.num_niches
        if key == "tissue":
            return self.num_tissues
        if key == "cell_index":
            return 0
        return super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "gene_mask":
            return None
        if key == "cell_index":
            return 0
        return super().__cat_dim__(key, value, *args, **kwargs)


_EDGES = ("edge_index", "niche_index")


def batched(graphs: Sequence[TissueData]) -> TissueData:
    """Graphs side by side as one, as PyG does it, which would take "no niche" for one of the first.

    Args:
        graphs: Slides, or parts of them.
    """
    parts = [copy(graph) for graph in graphs]
    # of a single edge, or none, PyG cannot tell whether they are sorted
    few = [key for key in _EDGES if sum(part[key].size(1) for part in parts) < 2]
    for part in parts:
        for key in few:
            part[key] = plain_edges(part[key])
    batch = Batch.from_data_list(parts)
    for key in few:
        size = (batch.num_nodes, batch.num_niches if key == "niche_index" else batch.num_nodes)
        batch[key] = EdgeIndex(batch[key], sparse_size=size, sort_order="col")
    for key in ("niche", "tissue"):
        none = torch.cat([graph[key] < 0 for graph in graphs])
        batch[key] = batch[key].masked_fill(none, -1)
    return batch
