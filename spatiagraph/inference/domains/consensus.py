"""A vote over many deliberately different, weak clusterings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from spatiagraph.clustering.clusterers import KMeans, Mixture, sample_rows
from spatiagraph.clustering.clusters import check_number
from spatiagraph.clustering.votes import agreement, vote
from spatiagraph.inference.domains.embedders import Embedder, Features, Genes, Level
from spatiagraph.inference.domains.found import FoundDomains, spread
from spatiagraph.inference.domains.sections import Sections

_SEEDS = 2**31  # below what scikit-learn takes


@dataclass(frozen=True)
class Consensus:
    """Vote of clusterings that differ in view, genes, radius, components, order and clusterer.

    Each member draws a view, a share of its columns, a radius and a number of components; fits
    principal components to the cells, or to their means over the radius; averages them over the
    radius; and clusters by k-means or a mixture with one covariance, in turn. The half of them
    that agrees most with the others votes (:func:`~spatiagraph.clustering.vote`), and the votes
    are averaged over a cell and its nearest. The confidence of a cell is its share of the votes,
    and the stability the mean agreement of any two members. Time and memory grow linearly with
    the cells: no matrix of cells by cells is made but that of nearest neighbours.

    Args:
        views: What members look at. The embedding of a level above cells is averaged already: it
            is not averaged again.
        num_members: Clusterings.
        share: Of the columns of its view that a member sees.
        num_neighbors: Radii to draw from, in cells; fewer in a slide that has no more.
        num_components: Numbers of principal components to draw from.
        kept: Share of the members that vote.
        smoothing: Nearest cells that votes are averaged over; 0 leaves them alone.
        max_cells: Members learn components and centres on a sample of this size at most, drawn
            anew for each; all cells are assigned.
    """

    views: tuple[Embedder, ...] = (Genes("log"), Genes("sqrt"), Genes("logz"))
    num_members: int = 40
    share: float = 0.8
    num_neighbors: tuple[int, ...] = (10, 15, 20, 30)
    num_components: tuple[int, ...] = (10, 15, 20)
    kept: float = 0.5
    smoothing: int = 6
    max_cells: int = 20_000

    def __post_init__(self) -> None:
        if not self.views or self.num_members < 2:
            raise ValueError(
                f"Expected a view and two members at least, got {len(self.views)} and "
                f"{self.num_members}"
            )
        if not (0 < self.share <= 1 and 0 < self.kept <= 1):
            raise ValueError(
                f"Expected 'share' and 'kept' in (0, 1], got {self.share} and {self.kept}"
            )

    def find_domains(
        self, sections: Sections, numbers: Sequence[int], seed: int
    ) -> list[FoundDomains]:
        """Domains for each of some numbers of domains, from the same members."""
        features = [view(sections) for view in self.views]
        own = np.all([_finite(each) for each in features], axis=0)
        for k in numbers:
            check_number(k, int(own.sum()))
        if not own.all():  # the others are no neighbours either
            sections, features = sections.part(own), [each[own] for each in features]
        partitions: dict[int, list[NDArray[np.int64]]] = {k: [] for k in numbers}
        for number, (z, member_seed) in enumerate(self._members(sections, features, seed)):
            kmeans = KMeans(2, max_cells=self.max_cells)
            mixture = Mixture(num_starts=1, max_cells=self.max_cells)
            for k in numbers:
                clusterer = kmeans if number % 2 else mixture
                partitions[k].append(clusterer(z, k, member_seed).labels)
        return [self._vote(np.array(partitions[k]), k, sections, own) for k in numbers]

    def _members(
        self, sections: Sections, features: Sequence[Features], seed: int
    ) -> Iterator[tuple[NDArray[np.floating], int]]:
        """Embedding of the cells and seed of each member."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(self.num_members) % len(features)  # each view as often as others
        for number in order:
            whole = features[number]
            kept = max(round(self.share * whole.shape[1]), 1)
            x = whole[:, np.sort(rng.permutation(whole.shape[1])[:kept])]
            radius, num_components = rng.choice(self.num_neighbors), rng.choice(self.num_components)
            of_means, member_seed = rng.integers(2), int(rng.integers(_SEEDS))
            mean = None if _averaged(self.views[number]) else sections.smoother(int(radius))
            rows = sample_rows(len(sections.pos), self.max_cells, 1, member_seed)
            fitted = mean[rows] @ x if of_means and mean is not None else x[rows]
            directions = _components(fitted, int(num_components), member_seed)
            # averaging and projecting commute: the order decides what components are fitted to
            z = x @ directions
            yield sections.adjusted(z if mean is None else mean @ z), member_seed

    def _vote(
        self,
        partitions: NDArray[np.int64],
        num_domains: int,
        sections: Sections,
        own: NDArray[np.bool_],
    ) -> FoundDomains:
        alike = agreement(partitions)
        num = len(partitions)
        stability = float((alike.sum() - num) / (num * (num - 1)))
        best = np.argsort(-alike.sum(axis=1), kind="stable")[: max(round(self.kept * num), 1)]
        votes = vote(partitions[np.sort(best)], num_domains)
        if self.smoothing:
            votes = sections.smoother(self.smoothing) @ votes
        return spread(votes.argmax(axis=1), votes.max(axis=1), own, stability)


def _components(x: Features, num_components: int, seed: int) -> NDArray[np.float32]:
    """Principal directions, ``[F, C]``; fewer where cells or columns do not suffice for them."""
    dense = (x if isinstance(x, np.ndarray) else x.toarray()).astype(np.float32)
    size = max(min(num_components, min(dense.shape) - 1), 1)
    return PCA(size, svd_solver="randomized", random_state=seed).fit(dense).components_.T


def _averaged(view: Embedder) -> bool:
    """Whether a view is an average over neighbours already."""
    return isinstance(view, Level) and view.level != "cell"


def _finite(features: Features) -> NDArray[np.bool_]:
    if isinstance(features, np.ndarray):
        return np.asarray(np.isfinite(features).all(axis=1))
    return np.ones(features.shape[0], dtype=bool)
