"""Cells of a real slide in another state, beside returning them as they are and beside real cells.

``pytest -m benchmark -s tests/benchmarks/test_bench_real_generation.py`` prints the table; with
``GALLERY=folder`` in the environment it also draws the cells. A quarter of an hour on two cores.
"""

import os
from pathlib import Path

import pandas as pd
import pytest
from sklearn.cluster import KMeans

import spatiagraph as sg
from spatiagraph.data.recipe import Crop
from spatiagraph.evaluate import domain_baselines
from spatiagraph.inference import score_transitions
from spatiagraph.models import ImageGenerator
from spatiagraph.training import fit_transitions

pytestmark = pytest.mark.benchmark

TRANSITIONS = [
    ("cluster0", "cluster1", "tumour to T cell"),
    ("cluster1", "cluster3", "T cell to macrophage"),
]


def test_states_of_a_breast_tumour(real_data, capsys):
    """States are four clusters of expression, the largest first: tumour, T cells, stroma, myeloid.

    No cell turns into another here. The question is whether images of one cluster can be moved to
    look like those of another, on tissue that training has not seen.
    """
    folder = real_data / "xenium_breast_crop"
    slide = sg.read(folder / "cells.h5ad", image=folder / "morphology_mip.tif")
    components = domain_baselines(slide.counts, slide.pos)["pca30"]
    cluster = pd.Series(KMeans(4, n_init=10, random_state=0).fit_predict(components))
    order = {old: f"cluster{new}" for new, old in enumerate(cluster.value_counts().index)}
    slide.adata.obs["state"] = pd.Categorical(cluster.map(order))
    model = sg.models.ContextModel.for_slides([slide], seed=0)
    sg.fit(model, [slide], max_epochs=30, progress=False)
    sg.embed(model, slide, progress=False)
    generator = ImageGenerator.for_slides(
        [slide],
        context=["X_context", "X_context_niche"],
        transitions=TRANSITIONS,
        states_key="state",
        signatures=["genes", "morphology"],
        crop=Crop(14.0, 32),
    )
    fitted = fit_transitions(slide, generator, max_epochs=60, progress=False)
    scores = score_transitions(fitted.generator, [slide], fitted.held_out, progress=False)
    with capsys.disabled():
        print(f"\n{len(fitted.pairs)} pairs to train on, {len(fitted.held_out)} held out")
        print(scores.table.round(3).to_string())
    if "GALLERY" in os.environ:
        for tag, group in scores.pairs.groupby("transition"):
            images = (x[group.index] for x in (scores.control, scores.generated, scores.target))
            sg.plot.transition_gallery(*images, save=Path(os.environ["GALLERY"]) / f"{tag}.png")
    ks = scores.table["ks"]
    assert ks["generated", "all"] > ks["identity", "all"]
