"""Images that were generated, and what they were made of."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anndata
import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph._files import replaced_folder
from spatiagraph.data.zarr_tasks import zarr_writers_ended


@dataclass(frozen=True)
class GeneratedImages:
    """Images of some cells, as they are and as they might be.

    Attributes:
        images: Generated, ``[N, S, C, H, W]`` in [0, 1], S of each cell.
        control: The cells as they are, ``[N, C, H, W]``.
        cells: One row per cell: ``slide``, ``cell`` (id), ``row`` and ``transition``.
        mpp: µm per pixel.
    """

    images: NDArray[np.float32]
    control: NDArray[np.float32]
    cells: pd.DataFrame
    mpp: float

    def to_anndata(self) -> anndata.AnnData:
        """One observation per row; images under ``obsm["generated"]`` and ``obsm["control"]``.

        The id of a cell is its name; where a cell comes again, a number follows it.
        """
        names = make_index_unique(pd.Index(self.cells["cell"]))
        obs = self.cells.set_index(names).rename_axis(None)
        return anndata.AnnData(
            obs=obs,
            obsm={"generated": self.images, "control": self.control},
            uns={keys.UNS: {"mpp": self.mpp}},
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`to_anndata` as ``.zarr``; a failed write leaves what was there.

        Raises:
            ValueError: The name does not end in ``.zarr``.
        """
        target = Path(path)
        if target.suffix != ".zarr":
            raise ValueError(f"Expected a name that ends in .zarr, got {target.name!r}")
        with (
            replaced_folder(target) as new,
            zarr_writers_ended(),
            anndata.settings.override(zarr_write_format=3),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", UserWarning)  # of zarr, about its own future
            self.to_anndata().write_zarr(new)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote."""
        adata = anndata.read_zarr(path)
        cells = adata.obs.reset_index(drop=True)
        mpp = float(adata.uns[keys.UNS]["mpp"])
        return cls(adata.obsm["generated"], adata.obsm["control"], cells, mpp)
