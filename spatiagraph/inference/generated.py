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
from spatiagraph._files import check_store_place, replaced_folder
from spatiagraph.data.checks import check_real
from spatiagraph.data.notes import our_notes
from spatiagraph.data.read.structure import read_anndata
from spatiagraph.data.read.tables import positive_number
from spatiagraph.data.zarr_tasks import zarr_writers_ended


@dataclass(frozen=True)
class GeneratedImages:
    """Images of some cells, as they are and as they might be, in memory.

    Of 20,000 cells, one image of each in three channels of 64 pixels takes 1 GB, and their controls
    as much.

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
            FileExistsError: There is a folder that is no Zarr store.
        """
        target = Path(path)
        if target.suffix.lower() != ".zarr":
            raise ValueError(f"Expected a name that ends in .zarr, got {target.name!r}")
        check_store_place(target)
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
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: There is no such store, it is damaged, or it holds something else.
        """
        place = Path(path)
        adata = read_anndata(place)
        cells = adata.obs.reset_index(drop=True)
        mpp = positive_number(our_notes(adata), "mpp", place.name)
        found: list[NDArray[np.float32]] = []
        for key, axes in (("generated", 5), ("control", 4)):
            images = adata.obsm.get(key)
            if not isinstance(images, np.ndarray) or images.ndim != axes:
                have = ", ".join(map(repr, adata.obsm)) or "nothing"
                raise ValueError(
                    f"Expected generated images in {place.name}: obsm[{key!r}] of {axes} axes, got "
                    f"{have}. Is this a file that generate wrote?"
                )
            check_real(images.dtype, f"obsm[{key!r}] of {place.name}")
            found.append(images)
        if mpp is None:
            raise ValueError(
                f"Expected uns[{keys.UNS!r}]['mpp'] in {place.name}, µm per pixel, got none. Is "
                "this a file that generate wrote?"
            )
        if missing := [c for c in ("slide", "cell", "row", "transition") if c not in cells]:
            raise ValueError(
                f"Expected obs[{missing[0]!r}] in {place.name}, got none. Is this a file that "
                "generate wrote?"
            )
        return cls(found[0], found[1], cells, mpp)
