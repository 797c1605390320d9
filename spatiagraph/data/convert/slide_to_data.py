"""``to_data``: a slide, its graph, its niches and its regions."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.data.convert.tissue_data import TissueData
from spatiagraph.data.labels import LabelSet
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.graph.build import knn_graph
from spatiagraph.graph.hierarchy import kd_parts, neighborhood_niches, niche_positions

_WINDOW = {"image": "window_um", "niche_image": "niche_um", "tissue_image": "tissue_um"}


def to_data(
    slide: Slide,
    *,
    panel: GenePanel | None = None,
    graph: Callable[[Tensor], EdgeIndex] | None = None,
    niche: Callable[[Tensor], Tensor] | Tensor | None = None,
    tissue: Callable[[Tensor], Tensor] | Tensor | None = None,
    image: tuple[float | NDArray[np.floating], int] | None = None,
    niche_image: tuple[float, int] | None = None,
    tissue_image: tuple[float, int] | None = None,
    labels: LabelSet | None = None,
    sparse_counts: bool = False,
    progress: bool = False,
) -> TissueData:
    """A slide as a graph.

    Args:
        slide: The slide.
        panel: Genes of ``x``, in their order; the slide's own when not given.
        graph: Positions → cell graph; 8 nearest neighbours when not given.
        niche: Positions → niche of each cell ``[N]`` or membership edges ``[2, P]``; or either of
            them as a tensor. A cell and its 15 nearest others when not given.
        tissue: Niche centres → region of each niche, or the vector ``[M]``; k-d parts of up to
            256 niches when not given.
        image: Side of the crop around each cell in µm (one for all or ``[N]``) and in pixels; no
            crops when ``None``.
        niche_image: The same for crops around the centres of niches.
        tissue_image: The same for crops around the centres of tissue regions.
        labels: Labels to read from ``obs``.
        sparse_counts: Keep ``x`` sparse, as suits a whole slide that is cut into tiles.
        progress: Show a progress bar while crops are read.

    Raises:
        ValueError: If the panel is hardly covered, the slide is smaller than a neighbourhood,
            crops are asked of a slide without image or are larger than it, or cells have classes
            that ``labels`` do not know.

    Examples:
        >>> from spatiagraph.data.synthetic import make_tissue
        >>> to_data(make_tissue(200, num_genes=50, image=None)).x.shape
        torch.Size([200, 50])
    """
    panel = GenePanel(slide.symbols, slide.gene_ids) if panel is None else panel
    counts, measured = panel.counts(slide)
    pos = torch.from_numpy(slide.pos)
    edge_index = (graph or partial(knn_graph, k=8))(pos)
    niche_of_cell, niche_index = _niches(niche, pos)
    centres = niche_positions(pos, niche_index)
    regions = tissue if isinstance(tissue, Tensor) else (tissue or _tissue_parts)(centres)
    region_centres = niche_positions(centres, regions)
    data = TissueData(
        x=_to_tensor(counts) if sparse_counts else torch.from_numpy(counts.toarray()),
        gene_mask=torch.as_tensor(measured),
        depth=torch.as_tensor(slide.depth, dtype=torch.float32),
        # float32 is good to 1 nm only near the origin
        pos=(pos - pos.mean(0)).float(),
        edge_index=edge_index,
        niche=niche_of_cell,
        niche_index=niche_index,
        niche_pos=(centres - pos.mean(0)).float(),
        tissue=regions,
        tissue_pos=(region_centres - pos.mean(0)).float(),
        core=torch.ones(slide.num_cells, dtype=torch.bool),
        cell_index=torch.arange(slide.num_cells),
    )
    if labels is not None:
        data.labels = labels.encode(slide)
    for key, where, size in (
        ("image", pos, image),
        ("niche_image", centres, niche_image),
        ("tissue_image", region_centres, tissue_image),
    ):
        if size is not None:
            data[key], data[f"{key}_mask"] = _crops(slide, key, where, *size, progress)
    if image is not None:
        window = torch.as_tensor(image[0], dtype=torch.float32)
        data.window_um = window.expand(slide.num_cells).clone()
    return data


def _crops(
    slide: Slide,
    key: str,
    centres: Tensor,
    window_um: float | NDArray[np.floating],
    size_px: int,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """Crops around some centres and which of them lie on the image."""
    if slide.image is None:
        raise ValueError(f"Expected an image with slide {slide.slide_id!r} to crop from, got none")
    x0, y0, x1, y1 = slide.image.extent_um
    widest = float(np.max(window_um, initial=0))
    if widest > max(x1 - x0, y1 - y0):
        raise ValueError(
            f"Expected crops no larger than the image of slide {slide.slide_id!r} "
            f"({x1 - x0:g} × {y1 - y0:g} µm), got a window of {widest:g} µm for {key!r}: lower "
            f"{_WINDOW[key]}"
        )
    crops, mask = slide.image.crops(centres.numpy(), window_um, size_px, progress=progress)
    return torch.from_numpy(crops), torch.from_numpy(mask)


def _tissue_parts(centres: Tensor) -> Tensor:
    return kd_parts(centres, 256)


def _niches(
    niche: Callable[[Tensor], Tensor] | Tensor | None, pos: Tensor
) -> tuple[Tensor, EdgeIndex]:
    """Own niche of each cell, and membership edges sorted by niche."""
    found = niche if isinstance(niche, Tensor) else (niche or _neighborhoods)(pos)
    if found.dim() == 2:  # overlapping neighbourhoods: niche i is the one around cell i
        return torch.arange(pos.size(0)), found
    cell = (found >= 0).nonzero().squeeze(1)
    order = found[cell].argsort(stable=True)
    size = (pos.size(0), int(found.max()) + 1)
    edges = torch.stack([cell[order], found[cell][order]])
    return found, EdgeIndex(edges, sparse_size=size, sort_order="col")


def _neighborhoods(pos: Tensor) -> EdgeIndex:
    return neighborhood_niches(pos, k=15, max_ratio=None)


def _to_tensor(counts: sparse.csr_matrix) -> Tensor:
    with warnings.catch_warnings():
        # torch calls its CSR layout beta; we only keep rows in it
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(counts.indptr.astype(np.int64)),
            torch.from_numpy(counts.indices.astype(np.int64)),
            torch.from_numpy(counts.data.astype(np.float32)),
            counts.shape,
            check_invariants=True,
        )
