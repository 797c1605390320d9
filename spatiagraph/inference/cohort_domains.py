"""Domains of a cohort: centres from a sample of all its cells, each cell to the nearest."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from spatiagraph.data.cohort import Cohort
from spatiagraph.data.cohort.embedded import EmbeddedSlide, embedded_slides

SAMPLE = 100_000
"""Cells that centres are found from, of all slides together."""
_BLOCK = 65_536  # rows


class SlideDomains(NamedTuple):
    """Domains of a slide of a cohort.

    Attributes:
        slide: The slide, cells in the order of the store.
        domain: Domain of each cell, ``[N]``; -1 where it has no embedding.
    """

    slide: EmbeddedSlide
    domain: NDArray[np.int64]


def cohort_domains(
    cohort: Cohort, key: str, num_domains: int = 7, *, seed: int = 0
) -> Iterator[SlideDomains]:
    """Domains of the slides of a cohort, one slide after the other; the same in all of them.

    Args:
        cohort: An embedded cohort.
        key: Slot of ``obsm``.
        num_domains: Number of domains.
        seed: Seed of the sample and of the centres.

    Raises:
        ValueError: It was not embedded, or has fewer cells than domains.
    """
    sample = _sample(cohort, key, seed)
    if not 1 <= num_domains <= len(sample):
        raise ValueError(
            f"Expected from 1 to {len(sample)} domains, as many as cells, got {num_domains}"
        )
    centres = MiniBatchKMeans(num_domains, random_state=seed, n_init=5, batch_size=4096).fit(sample)
    for slide in embedded_slides(cohort.part(), key):
        yield SlideDomains(slide, _nearest(centres, slide))


def _sample(cohort: Cohort, key: str, seed: int) -> NDArray[np.float32]:
    """Random cells of each slide, as many as its share of all cells."""
    found = []
    generator = np.random.default_rng(seed)
    share = min(1.0, SAMPLE / cohort.num_cells)
    for slide in embedded_slides(cohort.part(), key):
        for start in range(0, slide.values.shape[0], _BLOCK):
            block = np.asarray(slide.values[start : start + _BLOCK])
            size = max(1, round(share * len(block)))
            block = block[np.sort(generator.choice(len(block), size, replace=False))]
            found.append(block[np.isfinite(block).all(1)])
    return np.concatenate(found)


def _nearest(centres: MiniBatchKMeans, slide: EmbeddedSlide) -> NDArray[np.int64]:
    domain = np.full(slide.values.shape[0], -1, dtype=np.int64)
    for start in range(0, len(domain), _BLOCK):
        block = np.asarray(slide.values[start : start + _BLOCK])
        there = np.isfinite(block).all(1)
        if there.any():
            domain[start : start + _BLOCK][there] = centres.predict(block[there])
    return domain
