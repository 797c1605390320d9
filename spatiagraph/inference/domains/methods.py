"""Methods that find domains: one embedder and one clusterer, or a vote over many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from spatiagraph.clustering.clusters import Clusterer
from spatiagraph.clustering.names import NAMES, as_clusterer
from spatiagraph.clustering.votes import agreement
from spatiagraph.inference.domains.consensus import Consensus
from spatiagraph.inference.domains.embedders import Embedder, Genes, Level, as_embedder
from spatiagraph.inference.domains.found import FoundDomains, spread
from spatiagraph.inference.domains.sections import Sections
from spatiagraph.inference.embedded import is_embedded, level_names

CONSENSUS = "consensus"


@runtime_checkable
class DomainMethod(Protocol):
    """Way to find domains; what several numbers of domains share is computed once."""

    def find_domains(
        self, sections: Sections, numbers: Sequence[int], seed: int
    ) -> Sequence[FoundDomains]:
        """Domains for each of some numbers of domains."""


@dataclass(frozen=True)
class Clustered:
    """Clusters of one embedding.

    The stability is the mean agreement with clusterings of other seeds, each of the embedding with
    noise of a hundredth of its deviation: what a result is worth that such noise changes.

    Args:
        embedder: What is clustered.
        clusterer: What clusters it.
        num_repeats: Clusterings to measure the stability by; 0 leaves it NaN.
        noise: Deviation of the noise, as a share of that of the embedding.
    """

    embedder: Embedder
    clusterer: Clusterer
    num_repeats: int = 3
    noise: float = 0.01

    def find_domains(
        self, sections: Sections, numbers: Sequence[int], seed: int
    ) -> Sequence[FoundDomains]:
        """Domains for each of some numbers of domains."""
        features = self.embedder(sections)
        z = sections.adjusted(features if isinstance(features, np.ndarray) else features.toarray())
        own = np.isfinite(z).all(axis=1)
        z = z[own]
        different = len(np.unique(z, axis=0))
        return [self._find(z, own, min(k, different), seed) for k in numbers]

    def _find(self, z: np.ndarray, own: np.ndarray, num_domains: int, seed: int) -> FoundDomains:
        found = self.clusterer(z, num_domains, seed)
        rng = np.random.default_rng(seed)
        again = []
        for repeat in range(1, self.num_repeats + 1):
            moved = z + self.noise * z.std() * rng.standard_normal(z.shape).astype(z.dtype)
            again.append(self.clusterer(moved, num_domains, seed + repeat).labels)
        stability = float(agreement([found.labels, *again])[0, 1:].mean()) if again else np.nan
        return spread(found.labels, found.confidence, own, stability)


def as_method(
    method: str | Clusterer | DomainMethod, embedding: str | Embedder | None, sections: Sections
) -> DomainMethod:
    """Method of a name, of a clusterer of an embedding, or the one that is given.

    Args:
        method: ``"consensus"``, the name of a clusterer, a clusterer or a method.
        embedding: What is clustered; when not given, the first level above cells by a clusterer
            and :func:`default_views` by the consensus.
        sections: The slides, which may be embedded or not.

    Raises:
        ValueError: The name is not known.
    """
    if method == CONSENSUS:
        views = default_views(sections) if embedding is None else (as_embedder(embedding),)
        return Consensus(views)
    if isinstance(method, str) and method not in NAMES:
        known = ", ".join(f'"{name}"' for name in (CONSENSUS, *NAMES))
        raise ValueError(
            f"Expected 'method' among {known}, a clusterer or Consensus(…), got {method!r}"
        )
    if isinstance(method, DomainMethod):
        return method
    chosen = Level() if embedding is None else as_embedder(embedding)
    return Clustered(chosen, as_clusterer(method))


def default_views(sections: Sections) -> tuple[Embedder, ...]:
    """Views of a consensus that nobody chose: genes, and niches where all slides are embedded."""
    if all(is_embedded(slide.adata) for slide in sections.slides):
        has_levels = all(level_names(slide.adata) for slide in sections.slides)
        return Genes("sqrt"), Level() if has_levels else Level("cell")
    return Genes("log"), Genes("sqrt"), Genes("logz")
