"""Transfer to donors never seen, ours beside baselines: three cohorts, each donor left out once.

    pytest -m benchmark -s tests/benchmarks/test_bench_transfer.py

Needs SPATIAGRAPH_DATA and, for Harmony, the extra [harmony]. Our model is trained by default on the
other donors (``context``), or only started from their components (``before training``, ``start``).
Two mice and breast cancer patients are scored as ``evaluate --protocol transfer`` does: hidden
genes as well, and genes from images of the two patients that have some. In the cohort of types a
seventh of the cells is hidden: their row is the mean of their slide, for every method, and only
they are scored.
"""

import os
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spatiagraph as sg
from spatiagraph.evaluate import neighbor_mean, score_transfer, summarize_transfer
from spatiagraph.inference import ZeroShot, score_donors
from spatiagraph.inference.domains import Sections
from spatiagraph.tasks import SpatiaPretraining, SpatiaWeights

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore")]

PATIENTS = int(os.environ.get("PATIENTS", "6"))


def of_context(seen):
    model = sg.models.ContextModel.for_slides(seen, image=None, seed=0)
    sg.fit(model, list(seen), seed=0, accelerator="cpu", progress=False)
    return model


def start_of_context(seen):
    return sg.models.ContextModel.for_slides(seen, image=None, seed=0)


def show_donors(slides, column, **options):
    """Means over donors of every part of the protocol, as the package scores them."""
    table = score_donors(slides, column, model=sg.models.ContextModel, num_seeds=3, **options)
    summaries = {}
    for name, part in table.groupby("protocol", sort=False):
        summaries[name] = summarize_transfer(part)
        print(f"\n{name}\n" + summaries[name].round(3).to_string(), flush=True)
    return summaries


def spatia_of(weight):
    """Train SPATIA with an adversary of the slide of some weight; start it if ``None``."""

    def train(seen):
        model = sg.models.Spatia.for_slides(seen, seed=0)
        if weight is not None:
            weights = SpatiaWeights(source_adversary=weight)
            task = SpatiaPretraining(model, weights, num_sources=len(seen))
            sg.fit(model, list(seen), task=task, seed=0, accelerator="cpu", progress=False)
        return model

    return train


CONTEXT = {"context": of_context, "start": start_of_context}
SPATIA = {"start": None, "trained": 0.0, "adversary 0.1": 0.1, "adversary 1": 1.0}


def show(slides, labels, more=None, models=CONTEXT, **options):
    sections = Sections(slides)
    made = {name: ZeroShot(slides, train) for name, train in models.items()}
    ours = {f"{n}_{lv}": z.level(lv) for n, z in made.items() for lv in ("cell", "niche")}
    table = score_transfer(
        {**ours, **(more or {})},
        sections.counts,
        sections.pos,
        labels,
        donor=np.array([slide.donor for slide in slides])[sections.number],
        slide=sections.number,
        expression=sections.expression,
        **options,
    )
    print("\n" + summarize_transfer(table).round(3).to_string(), flush=True)
    wide = table.pivot_table(index="embedding", columns="donor", values="precision", sort=False)
    print("\nprecision by donor\n" + wide.round(3).to_string(), flush=True)
    return summarize_transfer(table)


def check(found):
    """What is visible says something of what is hidden, and averages beat chance."""
    genes, labels = found["imputation"], found["labels"]
    assert genes.loc["ridge", "pearson_mean"] > 0.05 > genes.loc["train_mean", "pearson_mean"]
    assert labels.loc["pca30_nbr15_centered", "precision"] > labels.loc["chance", "precision"]


def test_two_mice(real_data):
    slides = [
        sg.read(real_data / f"starmap_mpfc/{name}.h5ad", mpp=0.1, slide_id=name, donor=name)
        for name in ("BZ5", "BZ9")
    ]
    check(show_donors(slides, "domain"))


def test_breast_cancer_patients(real_data):
    slides = [
        sg.read(
            real_data / f"her2st/{name}.h5ad", pitch_um=200, image=False, slide_id=name, donor=name
        )
        for name in ("A1", "C1", "D1", "E1")
    ]
    check(show_donors(slides, "label"))


def test_genes_of_breast_cancer_patients_from_images(real_data):
    folder = real_data / "her2st"
    slides = [
        sg.read(
            folder / f"{name}.h5ad", image=folder / f"{name}_HE.jpg", pitch_um=200,
            slide_id=name, donor=name[0],
        )
        for name in ("A1", "C2", "C3", "C4", "C5")
    ]  # fmt: skip
    found = show_donors(slides, None, window_um=160.0)["image_to_genes"]
    assert found.loc["color_texture", "pearson_mean"] > found.loc["train_mean", "pearson_mean"]


def test_adversary_of_the_slide(real_data):
    """SPATIA on patients, with and without a term against slides."""
    slides = [
        sg.read(
            real_data / f"her2st/{name}.h5ad", pitch_um=200, image=False, slide_id=name, donor=name
        )
        for name in ("A1", "C1", "D1", "E1")
    ]
    models = {f"SPATIA, {name}": spatia_of(weight) for name, weight in SPATIA.items()}
    labels = pd.concat([slide.adata.obs["label"].astype(object) for slide in slides])
    labels = labels.mask(labels == "undetermined").reset_index(drop=True)
    show(slides, labels, models=models, baselines=["pca30_nbr15_centered"])


@dataclass(frozen=True, eq=False)
class HiddenTypes:
    """Slides of types alone; a seventh of the cells is the mean of its slide, and to be found."""

    kinds: list[str]
    slides: list[sg.Slide] = field(default_factory=list)
    truth: list[str | None] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, name: str, cells: pd.DataFrame, um_per_unit: float) -> None:
        types = pd.Categorical(cells["cell_type"], categories=self.kinds)
        x = np.eye(len(self.kinds), dtype=np.float32)[types.codes]
        hidden = self.rng.random(len(x)) < 1 / 7
        x[hidden] = x[~hidden].mean(axis=0)
        obs = pd.DataFrame(index=[f"{name}_{n}" for n in range(len(x))])
        adata = AnnData(x, obs, pd.DataFrame(index=self.kinds))
        adata.obsm["spatial"] = cells[["x", "y"]].to_numpy(float) * um_per_unit
        self.slides.append(
            sg.Slide(adata, slide_id=name, donor=name, expression="normalized", assume_um=True)
        )
        self.truth.extend(
            kind if is_hidden else None for kind, is_hidden in zip(types, hidden, strict=True)
        )

    def show(self, **options) -> pd.DataFrame:
        sections = Sections(self.slides)
        means = [
            neighbor_mean(sections.counts.toarray(), sections.pos, k, sections.number)
            for k in (10, 25, 50)
        ]
        composition = np.concatenate(means, axis=1)
        truth = pd.Series(self.truth, dtype=object)
        return show(self.slides, truth, {"composition": lambda train: composition}, **options)


def test_hidden_types_of_colorectal_patients(real_data):
    cells = pd.read_parquet(real_data / "codex_crc_types" / "cells.parquet")
    types = HiddenTypes(sorted(cells["cell_type"].unique()))
    for patient in sorted(cells["patient"].unique())[:PATIENTS]:
        own = cells[cells["patient"] == patient]
        own = own[own["region"] == own["region"].iloc[0]].drop_duplicates(["x", "y"])
        types.add(f"p{patient}", own, 0.377)
    table = types.show()
    assert table.loc["composition", "precision"] > table.loc["chance", "precision"]


def test_hidden_types_of_a_spleen(real_data):
    """Four strips of one spleen, each held out in turn: more cells, one donor."""
    cells = pd.read_parquet(real_data / "codex_spleen" / "PKHL.parquet")
    cells = cells.drop_duplicates(["x", "y"])
    types = HiddenTypes(sorted(cells["cell_type"].unique()))
    for n, (_, own) in enumerate(cells.groupby(pd.qcut(cells["x"], 4), observed=True)):
        types.add(f"strip{n}", own, 1.0)
    none = ["pca30", "pca30_nbr15", "pca30_nbr15_white", "pca30_nbr15_centered", "sqrt_expression"]
    table = types.show(baselines=none)
    assert table.loc["composition", "precision"] > table.loc["chance", "precision"]
