"""The models that ship, on a section and a technology they never saw, beside models trained there.

    pytest -m benchmark -s tests/benchmarks/test_bench_pretrained.py

Needs SPATIAGRAPH_DATA. With PRETRAINED=FOLDER the models are trained again and written there.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import spatiagraph as sg
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import neighbor_mean, pca, score_probe
from spatiagraph.inference import embed_data
from spatiagraph.models import ContextModel, Spatia
from tests.benchmarks.test_bench_training import agreement
from tests.masked_counts import MaskedCounts, block_of

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore")]

QUIET = {"accelerator": "cpu", "progress": False}
MODELS = {"context-mouse-brain": ContextModel, "spatia-mouse-brain": Spatia}
SEEDS = range(int(os.environ.get("SEEDS", "3")))


def mouse_brain(real_data: Path) -> list[sg.Slide]:
    """Slides of mouse brain whose terms allow it: CC0 and MIT."""
    files = {
        "merfish_visp": "merfish_visp/merfish_visp.h5ad",
        "xenium_mousebrain": "xenium_mousebrain_small/cells.h5ad",
    }
    return [
        sg.read(real_data / file, image=False, drop_empty=True, slide_id=name)
        for name, file in files.items()
    ]


def pretrained(real_data: Path, name: str) -> ContextModel | Spatia:
    """A model that ships, or the same trained again."""
    out = os.environ.get("PRETRAINED")
    if out is None:
        return MODELS[name].from_pretrained(name)
    slides = mouse_brain(real_data)
    model = MODELS[name].for_slides(slides, num_genes=None, seed=0)
    print("\n" + sg.fit(model, slides, seed=0, **QUIET).history.tail(1).T.to_string())
    model.save_pretrained(Path(out) / name)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_mouse_brain_on_starmap(real_data, name):
    slide = sg.read(real_data / "starmap_by3" / "starmap_by3.h5ad", mpp=0.1)
    model = pretrained(real_data, name)
    mine = {symbol.upper() for symbol in model.panel.symbols}
    shared = [symbol.upper() in mine for symbol in slide.symbols]
    counted = slide.counts[:, shared].getnnz(axis=1) > 0
    slide = sg.Slide(slide.adata[counted].copy(), slide_id="all", assume_um=True)
    few = sg.Slide(slide.adata[:, shared].copy(), slide_id="shared", assume_um=True)
    print(f"\n{len(mine)} genes of the model, {sum(shared)} of them measured here")
    components = pca(few.counts, 30)
    around = neighbor_mean(components, few.pos, 15)
    found = {
        name: embed_data(model, model.prepare(few)),
        "components of the same genes": {"cell": components, "niche": around},
    }
    for seed in SEEDS:
        for what, where in (("the same genes", few), ("1,000 genes", slide)):
            there = MODELS[name].for_slides([where], seed=seed)
            sg.fit(there, where, seed=seed, **QUIET)
            found[f"trained here, {what}, seed {seed}"] = embed_data(there, there.prepare(where))
    types = slide.adata.obs["celltype"]
    cells = {method: z["cell"] for method, z in found.items()}
    folds = spatial_blocks(slide.pos, seed=0)
    table = score_probe(cells, types, folds, ignore=["NA", "nan"])[["macro_F1"]]
    label = slide.adata.obs["layer"].astype(str).to_numpy()
    for level in ("cell", "niche"):
        table[f"domains, {level}"] = pd.Series(
            {
                method: agreement(np.asarray(z[level]), label, ("NA", "nan"))
                for method, z in found.items()
            }
        )
    print("\n" + table.round(3).to_string(), flush=True)
    train, test = block_of(few)
    there = MODELS[name].for_slides([train])
    score = MaskedCounts(there, train, test)
    gains = {"before training here": score.of_model(there)}
    sg.fit(there, train, **QUIET)
    gains |= {"trained here": score.of_model(there), "similar cells": score.of_similar_cells()}
    gains[name] = MaskedCounts(model, train, test).of_model(model)
    print("\n" + pd.Series(gains).round(1).to_string(), flush=True)
    assert table.loc[name, "macro_F1"] > 0.2
