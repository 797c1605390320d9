"""Slides → graphs for PyTorch Geometric, and embeddings back to AnnData."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import anndata
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from spatiagraph import keys
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.graph.build import knn_graph
from spatiagraph.graph.edges import plain_edges
from spatiagraph.graph.hierarchy import kd_parts, neighborhood_niches, niche_positions


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
        return torch.where(self.niche >= 0, self.tissue[self.niche.clamp(min=0)], -1)

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


def to_data(
    slide: Slide,
    *,
    panel: GenePanel | None = None,
    graph: Callable[[Tensor], EdgeIndex] | None = None,
    niche: Callable[[Tensor], Tensor] | Tensor | None = None,
    tissue: Callable[[Tensor], Tensor] | Tensor | None = None,
    image: tuple[float, int] | None = None,
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
        image: Side of the crop around each cell in µm and in pixels; no crops when ``None``.
        sparse_counts: Keep ``x`` sparse, as suits a whole slide that is cut into tiles.
        progress: Show a progress bar while crops are read.

    Raises:
        ValueError: If the panel is hardly covered, the slide is smaller than a neighbourhood, or
            crops are asked of a slide without image.

    Examples:
        >>> from spatiagraph.data.synthetic import make_tissue
        >>> to_data(make_tissue(200, num_genes=50, image=None)).x.shape
        torch.Size([200, 50])
    """
    if image is not None and slide.image is None:
        raise ValueError(f"Expected an image with slide {slide.slide_id!r} to crop from, got none")
    panel = GenePanel(slide.symbols, slide.gene_ids) if panel is None else panel
    counts, measured = panel.counts(slide)
    pos = torch.from_numpy(slide.pos)
    edge_index = (graph or partial(knn_graph, k=8))(pos)
    niche_of_cell, niche_index = _niches(niche, pos)
    centres = niche_positions(pos, niche_index)
    regions = tissue if isinstance(tissue, Tensor) else (tissue or _tissue_parts)(centres)
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
        tissue_pos=(niche_positions(centres, regions) - pos.mean(0)).float(),
        core=torch.ones(slide.num_cells, dtype=torch.bool),
        cell_index=torch.arange(slide.num_cells),
    )
    if image is not None:
        assert slide.image is not None
        crops, mask = slide.image.crops(slide.pos, *image, progress=progress)
        data.image, data.image_mask = torch.from_numpy(crops), torch.from_numpy(mask)
    return data


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


@dataclass(frozen=True)
class SlideToGraph:
    """How a model wants its slides: genes, graph, niches, regions and crops. Saved with it.

    Attributes:
        panel: Genes, in order.
        num_neighbors: Neighbours of a cell in the graph.
        niche_size: A niche is a cell and this many nearest others.
        tissue_size: Most niches of a tissue region.
        window_um: Side of the crop around a cell; ``None`` for no crops.
        size_px: Side of the crop in pixels.
    """

    panel: GenePanel
    num_neighbors: int = 8
    niche_size: int = 15
    tissue_size: int = 256
    window_um: float | None = None
    size_px: int = 32

    def __call__(self, slide: Slide, *, progress: bool = False) -> TissueData:
        """Convert a slide; counts stay sparse.

        Raises:
            ValueError: If the slide is too small or hardly shares genes with the panel.
        """
        needed = max(self.num_neighbors, self.niche_size) + 1
        if slide.num_cells < needed:
            raise ValueError(
                f"Expected at least {needed} cells for {self.num_neighbors} neighbours and niches "
                f"of {self.niche_size} others, got {slide.num_cells} in {slide.slide_id!r}: lower "
                "num_neighbors and niche_size"
            )
        has_crops = self.window_um is not None and slide.image is not None
        return to_data(
            slide,
            panel=self.panel,
            graph=partial(knn_graph, k=self.num_neighbors),
            niche=partial(neighborhood_niches, k=self.niche_size, max_ratio=None),
            tissue=partial(kd_parts, max_cells=self.tissue_size),
            image=(self.window_um, self.size_px) if has_crops and self.window_um else None,
            sparse_counts=True,
            progress=progress,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "panel": self.panel.to_dict()}

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` wrote."""
        return cls(**{**config, "panel": GenePanel.from_dict(config["panel"])})


def write_embeddings(
    adata: anndata.AnnData,
    name: str,
    embeddings: Mapping[str, NDArray[np.floating]],
    *,
    data: TissueData,
    uns: Mapping[str, Any],
) -> anndata.AnnData:
    """Put embeddings and the graph they were made on where the ecosystem looks for them.

    Args:
        adata: Written to in place: ``obsm``, ``obsp``, ``obs`` and ``uns``.
        name: Short name of the model: ``obsm["X_{name}"]``, ``obsm["X_{name}_niche"]``, …
        embeddings: Level → ``[N, D]``, one row per cell.
        data: The graph of the whole slide.
        uns: What made the embeddings; stored under ``uns["spatiagraph"]``.

    Returns:
        The same object.
    """
    for level, value in embeddings.items():
        adata.obsm[keys.embedding_key(name, level)] = np.ascontiguousarray(value)
    source, target = plain_edges(data.edge_index)
    distance = (data.pos[source] - data.pos[target]).norm(dim=1).numpy()
    shape = (adata.n_obs, adata.n_obs)
    # rows are targets: row i lists the neighbours of cell i, as squidpy does
    place = (target.numpy(), source.numpy())
    adata.obsp[keys.DISTANCES] = sparse.csr_matrix((distance.astype(np.float32), place), shape)
    ones = np.ones(len(distance), dtype=np.float32)
    adata.obsp[keys.CONNECTIVITIES] = sparse.csr_matrix((ones, place), shape)
    adata.obs[keys.group_key(name, "tissue")] = data.tissue_of_cell.numpy()
    if data.num_niches < data.num_nodes:  # else every cell has a niche of its own
        adata.obs[keys.group_key(name, "niche")] = data.niche.numpy()
    adata.uns[keys.UNS] = {**adata.uns.get(keys.UNS, {}), **uns}
    return adata
