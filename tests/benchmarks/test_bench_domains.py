"""Domains of real slides by every method, of starts, and of slides of several donors: three tables.

    pytest -m benchmark -s tests/benchmarks/test_bench_domains.py

Needs SPATIAGRAPH_DATA. Ten minutes on two idle cores. All cells are clustered, the labelled ones
scored; as many domains as labels; means over SEEDS (3) seeds of one model that ``fit`` trained by
default. ``noise`` is the deviation over SEEDS runs of one seed on features that noise of 1 % has
moved: figures that differ by less are equal.
"""

import os
import time
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

import spatiagraph as sg
from spatiagraph.clustering import KMeans, Mixture
from spatiagraph.evaluate import domain_baselines
from spatiagraph.evaluate.clustering import moved_by_noise
from spatiagraph.inference import embed_data
from spatiagraph.inference.domains import (
    AveragedPCA,
    Clustered,
    Consensus,
    Genes,
    Level,
    Sections,
)

pytestmark = pytest.mark.benchmark

SEEDS = range(int(os.environ.get("SEEDS", "3")))
HER2 = {"pitch_um": 200}
SLIDES = {
    "A1": ("her2st/A1.h5ad", HER2, "label", "undetermined"),
    "C1": ("her2st/C1.h5ad", HER2, "label", "undetermined"),
    "D1": ("her2st/D1.h5ad", HER2, "label", "undetermined"),
    "E1": ("her2st/E1.h5ad", HER2, "label", "undetermined"),
    "DLPFC": ("dlpfc_151510/151510.h5ad", {"pitch_um": 100}, "layer", "NA"),
    "STARmap": ("starmap_by3/starmap_by3.h5ad", {"mpp": 0.1}, "layer", "NA"),
}
GENES = (Genes("log"), Genes("sqrt"), Genes("logz"))
VIEWS = {
    "genes": GENES,
    "genes and cells": (*GENES, Level("cell")),
    "genes and niches": (*GENES, Level("niche")),
    "roots and niches": (Genes("sqrt"), Level("niche")),
    "niches": (Level("niche"),),
}


@dataclass(frozen=True)
class Noisy:
    """Features of an embedder, moved by noise of 1 %."""

    embedder: object
    seed: int

    @property
    def level(self):
        return getattr(self.embedder, "level", "cell")

    def __call__(self, sections):
        return moved_by_noise(self.embedder(sections), self.seed)


class NoisyLevel(Noisy, Level):
    """The same of a level, whose means above cells are not averaged again."""


@dataclass(frozen=True)
class Baseline:
    """Features that need no model, by their name in ``evaluate.domain_baselines``."""

    name: str
    whiten: bool = False

    def __call__(self, sections):
        z = domain_baselines(sections.counts, sections.pos)[self.name]
        return StandardScaler().fit_transform(z) if self.whiten else z


BASELINES = {
    "PCA": Baseline("pca30"),
    "averaged PCA, whitened": Baseline("pca30_nbr15", whiten=True),
    "local depth": Baseline("depth_nbr15"),
    "position": Baseline("xy_only"),
}


@dataclass(frozen=True)
class Given:
    """Features that are there already."""

    z: np.ndarray

    def __call__(self, sections):
        return self.z


def noisy(method, seed):
    if isinstance(method, Clustered):
        return replace(method, embedder=Noisy(method.embedder, seed))
    of = [(NoisyLevel if isinstance(v, Level) else Noisy)(v, seed) for v in method.views]
    return replace(method, views=tuple(of))


def methods(start):
    """Every method; ``start`` is the niche level before training."""
    made = {}
    for name, clusterer in {"k-means": KMeans(), "mixture": Mixture()}.items():
        made[f"averaged PCA, {name}"] = Clustered(AveragedPCA(), clusterer, 0)
        for label, baseline in BASELINES.items():
            made[f"{label}, {name}"] = Clustered(baseline, clusterer, 0)
        made[f"niche level before training, {name}"] = Clustered(Given(start), clusterer, 0)
        for level in ("cell", "niche", "tissue"):
            made[f"{level} level, {name}"] = Clustered(Level(level), clusterer, 0)
    return made | {f"consensus of {name}": Consensus(views) for name, views in VIEWS.items()}


def read(root, name):
    path, options, column, unlabelled = SLIDES[name]
    slide = sg.read(root / path, image=False, slide_id=name, **options)
    truth = slide.adata.obs[column].astype(object)
    return slide, truth.mask(truth.astype(str) == unlabelled)


def agreement(found, truth):
    known = truth.notna().to_numpy()
    return adjusted_rand_score(truth[known].astype(str), found.labels[known])


def wide(values):
    """Table of a dictionary by row and column, in its order: pandas 2.3 mixes rows up unsorted."""
    rows, columns = (list(dict.fromkeys(key)) for key in zip(*values, strict=True))
    return pd.Series(values).unstack().loc[rows, columns]


@pytest.mark.filterwarnings("ignore")
def test_domains_of_one_slide(real_data):
    ari, seeds, noise, cost = {}, {}, {}, {}
    for name in os.environ.get("SLIDES", ",".join(SLIDES)).split(","):
        slide, truth = read(real_data, name)
        model = sg.models.ContextModel.for_slides([slide], image=None, seed=0)
        started = embed_data(model, model.recipe(slide))["niche"]
        sg.fit(model, [slide], seed=0, accelerator="cpu", progress=False)
        sg.embed(model, slide, device="cpu", progress=False)
        sections, k = Sections([slide]), truth.nunique()
        for label, method in methods(started).items():
            start = time.process_time()
            runs = [agreement(method.find_domains(sections, [k], s)[0], truth) for s in SEEDS]
            cost[label, name] = (time.process_time() - start) / len(SEEDS)
            moved = [noisy(method, s).find_domains(sections, [k], 0)[0] for s in SEEDS]
            ari[label, name], seeds[label, name] = np.mean(runs), np.std(runs)
            noise[label, name] = np.std([agreement(found, truth) for found in moved])
            print(name, label, f"{ari[label, name]:.3f} ± {seeds[label, name]:.3f}", flush=True)
    table = wide(ari)
    table["mean"] = table.mean(axis=1)
    table["without E1"] = table[[c for c in table if c not in ("mean", "E1")]].mean(axis=1)
    for column, values in {"seeds": seeds, "noise": noise, "seconds": cost}.items():
        table[column] = wide(values).mean(axis=1)
    print("\n" + table.round(3).to_string(), flush=True)
    best = "consensus of roots and niches"
    assert table.loc[best, "mean"] > table.loc["averaged PCA, k-means", "mean"]


@dataclass(frozen=True)
class Start:
    """Components of variable genes, averaged over a cell and its nearest."""

    transform: str
    num_components: int
    num_neighbors: int

    def __call__(self, sections):
        x = Genes(self.transform)(sections).toarray()
        size = min(self.num_components, min(x.shape) - 1)
        z = PCA(size, svd_solver="arpack", random_state=0).fit_transform(x)
        return sections.smoother(self.num_neighbors) @ z


@pytest.mark.filterwarnings("ignore")
def test_starts(real_data):
    """Averaged components by transform, number of components and radius."""
    ari = {}
    for name in SLIDES:
        slide, truth = read(real_data, name)
        sections, k = Sections([slide]), truth.nunique()
        for transform, size, radius in product(("sqrt", "log"), (20, 30, 50), (8, 15, 30)):
            method = Clustered(Start(transform, size, radius), KMeans(), 0)
            runs = [agreement(method.find_domains(sections, [k], s)[0], truth) for s in SEEDS]
            ari[f"{transform}, {size}, {radius}", name] = np.mean(runs)
    table = wide(ari)
    table["mean"] = table.mean(axis=1)
    table["without E1"] = table[[name for name in SLIDES if name != "E1"]].mean(axis=1)
    print("\n" + table.round(3).to_string(), flush=True)
    assert table["mean"].min() > 0.1


COHORTS = {
    "her2st": ([(f"her2st/{s}.h5ad", HER2) for s in ("A1", "C1", "D1", "E1")], "label"),
    "STARmap": ([(f"starmap_mpfc/{s}.h5ad", {"mpp": 0.1}) for s in ("BZ5", "BZ9")], "domain"),
}


@pytest.mark.filterwarnings("ignore")
def test_domains_of_several_donors(real_data):
    rows = {}
    for cohort, (paths, column) in COHORTS.items():
        slides = [
            sg.read(real_data / path, image=False, slide_id=path.split("/")[1][:-5], **options)
            for path, options in paths
        ]
        truth = pd.concat([slide.adata.obs[column].astype(object) for slide in slides])
        truth = truth.mask(truth.astype(str) == "undetermined").reset_index(drop=True)
        k = truth.nunique()
        for center in (True, False):
            sections = Sections(slides, center_slides=center)
            for label, method in {
                "consensus of genes": Consensus(GENES),
                "averaged PCA, k-means": Clustered(AveragedPCA(), KMeans(), 0),
                "averaged PCA, mixture": Clustered(AveragedPCA(), Mixture(), 0),
            }.items():
                runs = [agreement(method.find_domains(sections, [k], s)[0], truth) for s in SEEDS]
                key = f"{label}, {'centred' if center else 'as they are'}"
                rows[key, cohort] = f"{np.mean(runs):.3f} ± {np.std(runs):.3f}"
    print("\n" + wide(rows).to_string(), flush=True)
