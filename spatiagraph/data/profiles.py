"""Profiles of cells by a frozen network of genes, and one that needs no weights."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.normalization import log_normalize
from spatiagraph.data.recipe.features import finite_features
from spatiagraph.data.slide import Slide


class ProfileProvider(Protocol):
    """Counts → one vector per cell, such as scGPT behind a function."""

    def __call__(self, counts: csr_matrix, gene_names: Sequence[str], /) -> ArrayLike:
        """Profiles, ``[N, F]``.

        Args:
            counts: Counts or normalised expression, ``[N, G]``.
            gene_names: Symbol of each column, ``[G]``.
        """


@dataclass(frozen=True)
class RandomProjection:
    r"""Seeded random projection of log-normalised counts: a provider without weights to load.

    Each gene has a Gaussian vector that follows from its symbol and the seed, so that slides of
    other panels share the space. Distances between cells are kept up to
    :math:`\sqrt{\log N / F}` (Johnson and Lindenstrauss).

    Attributes:
        channels: Size of a profile, :math:`F`.
        seed: Of the vectors.

    Raises:
        ValueError: If there is no channel.

    Examples:
        >>> project = RandomProjection(8)
        >>> x = csr_matrix([[1.0, 2.0, 0.0]])
        >>> np.allclose(project(x, ["A", "B", "C"]), project(x[:, [1, 0]], ["B", "A"]))
        True
    """

    channels: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"Expected 'channels' of at least 1, got {self.channels}")

    def __call__(self, counts: csr_matrix, gene_names: Sequence[str], /) -> NDArray[np.float32]:
        names = [[self.seed, zlib.crc32(str(name).encode())] for name in gene_names]
        rows = [np.random.default_rng(name).standard_normal(self.channels) for name in names]
        basis = np.stack(rows).astype(np.float32) / np.sqrt(self.channels)
        return np.asarray(log_normalize(counts, 1e4) @ basis, np.float32)


def add_profiles(slide: Slide, key: str, provider: ProfileProvider) -> None:
    """Put the profiles that a provider makes of the counts of a slide in ``obsm``.

    Models read them as ``features=(key,)``. Of a model of this package, which reads places too,
    :func:`~spatiagraph.embed` writes them.

    Args:
        slide: The slide, which is written to.
        key: Slot of ``obsm``.
        provider: Counts and symbols of genes → ``[N, F]``.

    Raises:
        ValueError: If the provider returns anything but finite numbers, one row per cell.
    """
    found = provider(slide.counts, list(slide.symbols))
    slide.adata.obsm[key] = finite_features(found, "the profiles of the provider", slide)
