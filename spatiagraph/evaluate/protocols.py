"""Protocols of a slide in one tidy table, baselines always beside."""

import resource
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.data.crops import Crops
from spatiagraph.data.splits import Folds, neighbor_distance_um, spatial_blocks
from spatiagraph.evaluate.baselines import Expression, domain_baselines, log_normalize
from spatiagraph.evaluate.cluster_sweep import score_clusters
from spatiagraph.evaluate.clustering import score_domains
from spatiagraph.evaluate.cross_modal import RANDOM, Projection, ridge_map, score_retrieval
from spatiagraph.evaluate.entries import BASELINES as ENTRY_BASELINES
from spatiagraph.evaluate.entries import EntryMethod, score_entry_imputation
from spatiagraph.evaluate.genes import PANEL
from spatiagraph.evaluate.image_features import image_baselines
from spatiagraph.evaluate.image_to_genes import DEPTH_ORACLE, TRAIN_MEAN, score_image_to_genes
from spatiagraph.evaluate.imputation import BASELINES, Method, score_imputation
from spatiagraph.evaluate.inputs import UnscorableError, as_embeddings, as_expression
from spatiagraph.evaluate.probe import MAJORITY, random_folds, score_probe
from spatiagraph.graph.points import as_points

COLUMNS = ("protocol", "embedding", "metric", "value", "std", "noise", "seconds", "peak_gb")
_SWEEP = ("ARI_matched", "NMI_matched", "ARI_one", "NMI_one", "ARI_best", "NMI_best")
_LABELS = ("macro_F1", "accuracy")
_GENES = ("pearson_mean", "pearson_median", "rmse")
METRICS: dict[str, tuple[str, ...]] = {
    "domains_kmeans": ("ARI", "NMI"),
    "domains_gmm": ("ARI", "NMI"),
    "domains_leiden": _SWEEP,
    "types_leiden": _SWEEP,
    "annotation_blocks": _LABELS,
    "annotation_random": _LABELS,
    "annotation_mlp": _LABELS,
    "imputation": _GENES,
    "imputation_entries": _GENES,
    "image_to_genes": ("pearson_mean", "pearson_given_depth", "pearson_median", "mse"),
    "retrieval": ("recall@1", "recall@5", "recall@10", "median_rank"),
}
"""Protocol → the metrics that are reported of it; the first one is plotted."""

_NEEDS = {
    "domains": ("domains_kmeans", "domains_gmm", "domains_leiden"),
    "types": ("types_leiden", "annotation_blocks", "annotation_random", "annotation_mlp"),
    "crops": ("image_to_genes", "retrieval"),
}
UNSCORED = "not_scored"
"""Column of a table of several slides: the reason why a protocol could not score a slide."""
_DEFAULT = {"domains_kmeans", "domains_gmm", "annotation_blocks"}


def run_protocols(
    embeddings: Mapping[str, ArrayLike | Tensor],
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor,
    *,
    domains: ArrayLike | pd.Series | None = None,
    types: ArrayLike | pd.Series | None = None,
    image_features: Mapping[str, ArrayLike | Tensor] | None = None,
    crops: NDArray[np.floating] | Crops | None = None,
    image_mask: ArrayLike | None = None,
    imputers: Mapping[str, Method] | None = None,
    entry_imputers: Mapping[str, EntryMethod] | None = None,
    projections: Mapping[str, Projection] | None = None,
    protocols: Collection[str] | None = None,
    ignore: Collection[object] = (),
    expression: Expression = "counts",
    num_seeds: int = 5,
    margin_um: float | None = None,
    unscored: Callable[[str, str], None] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score embeddings of a slide by the protocols that its labels and images allow.

    ======================= ==================================================================
    ``domains_kmeans``      k-means against ``domains``, mean and deviation over seeds
    ``domains_gmm``         tied Gaussian mixture against ``domains``, the same
    ``annotation_blocks``   logistic regression of ``types``, spatial blocks held out in turn
    ``domains_leiden``      Leiden against ``domains``, over a sweep of resolutions
    ``types_leiden``        Leiden against ``types``, the same
    ``annotation_random``   logistic regression of ``types``, a random fifth held out in turn
    ``annotation_mlp``      a small network instead, spatial blocks held out in turn
    ``imputation``          hidden genes in held-out blocks, by ``imputers``
    ``imputation_entries``  single hidden values, by ``entry_imputers``
    ``image_to_genes``      ridge from image features to genes, spatial blocks held out in turn
    ``retrieval``           image features, mapped to genes by ridge, find their cell and back;
                            and ``projections`` as they are
    ======================= ==================================================================

    The first three are run by default, where there are labels for them; the others when they are
    asked for. Beside embeddings stand ``pca30``, ``pca30_nbr15``, ``depth_nbr15``, ``xy_only``; for
    annotation also the expression itself (``expression``) and the commonest type (``majority``).
    Beside images stand ``color_texture``, ``resnet18_random``, depth itself and chance. Imputation
    does not use ``embeddings``: those have seen the genes that are to be hidden.

    Of held-out blocks, training leaves out all cells within ``margin_um``: vectors of cells and
    their neighbours, and windows of images, would show it what it is tested on. The default is how
    far the baseline of 15 neighbours looks (:func:`~spatiagraph.data.splits.neighbor_distance_um`);
    where an embedding sees farther, or the diagonal of an image window is larger, give that.
    Random splits have no margin, which is what they show.

    Args:
        embeddings: Name → embedding of each cell, ``[N, D]``, by any method.
        counts: Counts or normalised expression, ``[N, G]``.
        pos: Cell centres in µm, ``[N, 2]``.
        domains: Known domain of each cell, ``[N]``.
        types: Known type of each cell, ``[N]``.
        image_features: Name → features of each cell's image, ``[N, F]``, that have seen no gene.
        crops: Image around each cell, ``[N, C, H, W]`` in [0, 1], for the baselines of images; or
            a :class:`~spatiagraph.data.CropSource` of them, read a block at a time.
        image_mask: Which cells have an image, ``[N]``; all by default. The others take no part
            where images are scored.
        imputers: Name → method of :func:`~spatiagraph.evaluate.score_imputation`.
        entry_imputers: Name → method of :func:`~spatiagraph.evaluate.score_entry_imputation`.
        projections: Name → image and gene embedding of each cell in one space, both ``[N, D]``,
            such as :func:`~spatiagraph.inference.project_modalities` makes.
        protocols: Some of the names above.
        ignore: Labels that mean "not labelled".
        expression: Which of the two ``counts`` holds.
        num_seeds: Clusterings of each embedding.
        margin_um: Width in µm of the rim of held-out blocks that is not trained on; 0 for none.
        unscored: Called with the name of a protocol that the labels or cells do not allow, and the
            reason; it is left out then. Without it such a protocol is an error.
        progress: Show a bar.

    Returns:
        One row per protocol, embedding and metric: ``protocol``, ``embedding``, ``metric``,
        ``value``, ``std`` (over seeds, blocks or splits), ``noise`` (the deviation over embeddings
        that noise of 1 % has moved, of k-means and the mixture), ``seconds`` the protocol took for
        the embedding and ``peak_gb``, the memory the process had taken at most by then. Of up to
        500 genes, images predict all, at median depth; of more, the 250 most variable, per
        million.

    Raises:
        ValueError: There are no labels and no protocol is requested, one is not known or lacks
            its labels or images, an embedding has the name of a baseline, or arrays do not fit.
    """
    given = {"domains": domains, "types": types, "crops": crops}
    chosen = _choose(protocols, given, bool(image_features), bool(projections))
    x = as_expression(counts)
    task = _Task(
        embeddings=embeddings,
        counts=x,
        pos=as_points(pos),
        domains=domains,
        types=types,
        image_features=image_features or {},
        crops=crops,
        image_mask=_as_mask(image_mask, x.shape[0]),
        imputers=imputers or {},
        entry_imputers=entry_imputers or {},
        projections=projections or {},
        ignore=ignore,
        expression=expression,
        num_seeds=num_seeds,
        progress=progress,
        margin_um=neighbor_distance_um(pos) if margin_um is None else margin_um,
    )
    task.check_names()
    work: dict[str, list[Callable[[], pd.DataFrame]]] = {}
    for name in chosen:
        with _left_out(name, unscored):
            work[name] = list(task.jobs(name))
    rows: list[tuple] = []
    with tqdm(total=sum(map(len, work.values())), disable=not progress) as bar:
        for name, jobs in work.items():
            bar.set_description(name)
            with _left_out(name, unscored):
                rows += list(_protocol_rows(name, jobs, bar))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def default_protocols(*, domains: bool, types: bool) -> list[str]:
    """Protocols that are run by default.

    Args:
        domains: Whether there are known domains.
        types: Whether there are known types.
    """
    given = {"domains": domains, "types": types}
    return [name for name in METRICS if name in _DEFAULT and given.get(labels_of_protocol(name))]


def labels_of_protocol(protocol: str) -> str:
    """Labels that a protocol compares with: ``"domains"``, ``"types"``, or ``""`` for none."""
    return next((kind for kind in ("domains", "types") if protocol in _NEEDS[kind]), "")


@contextmanager
def _left_out(protocol: str, unscored: Callable[[str, str], None] | None) -> Iterator[None]:
    """Tell of a protocol that the labels or cells do not allow."""
    try:
        yield
    except UnscorableError as err:
        if unscored is None:
            raise
        unscored(protocol, str(err))


def _protocol_rows(
    protocol: str, jobs: Collection[Callable[[], pd.DataFrame]], bar: tqdm
) -> Iterator[tuple]:
    """Rows of one protocol, a job after the other."""
    seen = set[object]()
    for score in jobs:
        start = time.perf_counter()
        table = score()
        seconds = time.perf_counter() - start
        # floors such as the majority come with every table: they are kept once
        new = [name for name in table.index.unique() if name not in seen]
        seen.update(new)
        yield from _tidy(protocol, table.loc[new], seconds)
        bar.update()


@dataclass(frozen=True, eq=False)
class _Task:
    """A slide and all that is to be scored on it; what several protocols need is made once."""

    embeddings: Mapping[str, ArrayLike | Tensor]
    counts: csr_matrix
    pos: NDArray[np.float64]
    domains: ArrayLike | pd.Series | None
    types: ArrayLike | pd.Series | None
    image_features: Mapping[str, ArrayLike | Tensor]
    crops: NDArray[np.floating] | Crops | None
    image_mask: NDArray[np.bool_]
    imputers: Mapping[str, Method]
    entry_imputers: Mapping[str, EntryMethod]
    projections: Mapping[str, Projection]
    ignore: Collection[object]
    expression: Expression
    num_seeds: int
    progress: bool
    margin_um: float

    @cached_property
    def baselines(self) -> dict[str, NDArray[np.floating]]:
        return domain_baselines(self.counts, self.pos, expression=self.expression)

    @cached_property
    def everything(self) -> dict[str, ArrayLike | Tensor]:
        return {**self.embeddings, **self.baselines}

    @cached_property
    def genes(self) -> NDArray[np.float32]:
        return log_normalize(self.counts, expression=self.expression).toarray()

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        try:
            return spatial_blocks(self.pos)
        except ValueError as err:  # too few cells for blocks
            raise UnscorableError(str(err)) from err

    def folds(self, rows: NDArray[np.integer] | slice = slice(None)) -> Folds:
        """Blocks that some cells are in, with the margin around each."""
        return Folds(self.blocks[rows], self.pos[rows], self.margin_um)

    @cached_property
    def images(self) -> dict[str, ArrayLike | Tensor]:
        if self.crops is None:
            return {**self.image_features}
        return {**self.image_features, **image_baselines(self.crops, progress=self.progress)}

    def check_names(self) -> None:
        reserved = {"pca30", "pca30_nbr15", "depth_nbr15", "xy_only", "expression", MAJORITY}
        of_images = {"color_texture", "resnet18_random", TRAIN_MEAN, DEPTH_ORACLE, RANDOM}
        taken = {*self.embeddings} & reserved | {*self.image_features} & of_images
        taken |= {*self.imputers} & {*BASELINES}
        taken |= {*self.entry_imputers} & {*ENTRY_BASELINES}
        taken |= {*self.projections} & {*of_images, *self.image_features}
        if taken:
            raise ValueError(
                f"Expected other names than those of baselines, got {', '.join(sorted(taken))}"
            )

    def jobs(self, protocol: str) -> Iterator[Callable[[], pd.DataFrame]]:
        """One job for each embedding, feature or method that a protocol scores."""
        make = {"domains": self._domains, "types": self._domains, "annotation": self._annotation}
        make |= {"imputation": self._imputation, "image": self._images, "retrieval": self._images}
        yield from make[protocol.split("_")[0]](protocol)

    def _domains(self, protocol: str) -> Iterator[Callable[[], pd.DataFrame]]:
        labels = self.types if protocol == "types_leiden" else self.domains
        common = {"labels": labels, "num_seeds": self.num_seeds, "ignore": self.ignore}
        for name, z in self.everything.items():
            if protocol.endswith("leiden"):
                yield partial(score_clusters, {name: z}, **common)  # type: ignore[arg-type]
            else:
                method = protocol.removeprefix("domains_")
                yield partial(score_domains, {name: z}, method=method, **common)  # type: ignore[arg-type]

    def _annotation(self, protocol: str) -> Iterator[Callable[[], pd.DataFrame]]:
        folds: Folds | NDArray[np.int64] = self.folds()
        if protocol == "annotation_random":
            folds = random_folds(self.types, ignore=self.ignore)  # type: ignore[arg-type]
        for name, z in {**self.everything, "expression": self.genes}.items():
            yield partial(
                score_probe,
                {name: z},
                self.types,  # type: ignore[arg-type]
                folds,
                classifier="mlp" if protocol == "annotation_mlp" else "lr",
                ignore=self.ignore,
            )

    def _imputation(self, protocol: str) -> Iterator[Callable[[], pd.DataFrame]]:
        entries = protocol == "imputation_entries"
        score: Callable[..., pd.DataFrame] = score_entry_imputation if entries else score_imputation
        run = partial(score, counts=self.counts, pos=self.pos, expression=self.expression)
        if not entries:
            run = partial(run, folds=self.folds())
        methods = self.entry_imputers if entries else self.imputers
        for name, method in methods.items():
            yield partial(run, {name: method}, baselines=[])
        for name in ENTRY_BASELINES if entries else BASELINES:
            yield partial(run, {}, baselines=[name])

    def _images(self, protocol: str) -> Iterator[Callable[[], pd.DataFrame]]:
        panel = self.counts.shape[1] <= PANEL
        if protocol == "retrieval":
            for name, pair in self.projections.items():
                yield partial(self._projected, name, pair)
        folds = self.folds()
        images = as_embeddings(self.images, len(self.pos)) if self.images else {}
        for name, z in images.items():
            if protocol == "retrieval":
                yield partial(self._retrieval, name, z)
            else:
                yield partial(
                    score_image_to_genes,
                    {name: z},
                    self.counts,
                    replace(folds, number=np.where(self.image_mask, self.blocks, -1)),
                    genes="all" if panel else "var250",
                    target=None if panel else 1e6,
                    expression=self.expression,
                )

    def _projected(self, name: str, pair: Projection) -> pd.DataFrame:
        rows = np.flatnonzero(self.image_mask)
        image, gene = as_embeddings(
            {f"{name}, image": pair[0], f"{name}, gene": pair[1]}, len(self.pos)
        ).values()
        return score_retrieval({name: (image[rows], gene[rows])}, self.blocks[rows])

    def _retrieval(self, name: str, z: NDArray[np.floating]) -> pd.DataFrame:
        rows = np.flatnonzero(self.image_mask)
        goal, folds = self.baselines["pca30"][rows], self.folds(rows)
        goal = goal - goal.mean(axis=0)
        return score_retrieval({name: (ridge_map(z[rows], goal, folds), goal)}, folds.number)


def _choose(
    protocols: Collection[str] | None,
    given: Mapping[str, object],
    has_features: bool,
    has_projections: bool = False,
) -> list[str]:
    """Protocols to run, in the order of the table."""
    possible = [
        name
        for name in METRICS
        if all(
            given[need] is not None
            or (need == "crops" and has_features)
            or (name == "retrieval" and has_projections)
            for need, names in _NEEDS.items()
            if name in names
        )
    ]
    if protocols is None:
        if chosen := [name for name in possible if name in _DEFAULT]:
            return chosen
        raise ValueError(
            "Expected known 'domains' or 'types' to compare with, got neither. Without labels, "
            f"ask for 'protocols' among {', '.join(possible)}"
        )
    if isinstance(protocols, str):
        raise TypeError(f"Expected 'protocols' to be a list of names, got {protocols!r}")
    if unknown := sorted({*protocols} - {*METRICS}):
        raise ValueError(f"Expected protocols among {', '.join(METRICS)}, got {', '.join(unknown)}")
    for need, names in _NEEDS.items():
        if lacking := [n for n in names if n in protocols and n not in possible]:
            wanted = "'image_features' or 'crops'" if need == "crops" else f"{need!r}"
            raise ValueError(f"Expected {wanted} for {', '.join(lacking)}, got none")
    if not protocols:
        raise ValueError("Expected at least one of the protocols, got none")
    return [name for name in METRICS if name in protocols]


def _as_mask(mask: ArrayLike | None, num_cells: int) -> NDArray[np.bool_]:
    has_image = np.ones(num_cells, dtype=bool) if mask is None else np.asarray(mask)
    if has_image.shape != (num_cells,) or has_image.dtype != bool:
        raise ValueError(
            f"Expected 'image_mask' of {num_cells} booleans, got {has_image.dtype} of shape "
            f"{list(has_image.shape)}"
        )
    return has_image


def _tidy(protocol: str, table: pd.DataFrame, seconds: float) -> Iterator[tuple]:
    """A row per embedding and metric of a table of scores."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_gb = peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes there, kB elsewhere
    for name, scores in table.iterrows():
        prefix = f"{scores['direction']}_" if "direction" in scores else ""
        for metric in METRICS[protocol]:
            value, std = float(scores[metric]), float(scores[f"{metric}_std"])
            noise = float(scores.get(f"{metric}_noise", np.nan))
            yield protocol, name, prefix + metric, value, std, noise, seconds, peak_gb
