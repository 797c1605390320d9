"""Cells of one region of a pancreas in another state, by what was learned in another region.

    pytest -m benchmark -s tests/benchmarks/test_bench_pancreas.py

A run of EPOCHS=5, CHANNELS=16 takes a quarter of an hour on one core. A fifth of the training
region says which weights are kept (``val_image_distance``), but for ``published``. In the
environment: EPOCHS, CHANNELS of the network, PIXELS of a side, BATCH (pairs of a step), SEEDS of
training; ``GALLERY=folder`` draws cells, and ``TABLES=folder`` keeps every table. One run:
``-k "niche-0"``, the names below and the seed.
"""

import functools
import os
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional as F

import spatiagraph as sg
from spatiagraph.data import GenePanel, measure_nuclei, read_nuclei
from spatiagraph.data.loader import inside_image, read_crops
from spatiagraph.data.normalization import log_normalize
from spatiagraph.data.recipe import Crop
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import kernel_distance
from spatiagraph.flow import Sampling
from spatiagraph.inference import score_transitions
from spatiagraph.models import ImageGenerator
from spatiagraph.models.generator import GeneratorSize
from spatiagraph.pairing import gene_signature, morphology_signature, pair_states
from spatiagraph.training import Run, fit_generator, fit_morphology
from tests.pancreas import REGIONS, read_region

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore:Dropped")]

PIXELS = int(os.environ.get("PIXELS", "32"))
CROP = Crop(0.425 * PIXELS, PIXELS)  # at the resolution of the image
MARKERS = {
    "T cell": ["CD3D", "CD3E", "TRAC", "CD2", "CD247", "IL7R"],
    "macrophage": ["CD163", "CD68", "CD14", "MRC1", "MPEG1", "MS4A6A"],
    "fibroblast": ["PDGFRA", "FBN1", "DPT", "VCAN", "PCOLCE", "THBS2"],
    "epithelium": ["EPCAM", "KRT7", "EHF", "CFTR", "TM4SF4", "MET"],
    "endothelium": ["PECAM1", "VWF", "CLEC14A", "ECSCR", "EGFL7", "RAMP2"],
}
TRANSITIONS = [
    ("T cell", "macrophage", "T cell to macrophage"),
    ("fibroblast", "T cell", "fibroblast to T cell"),
    ("epithelium", "fibroblast", "epithelium to fibroblast"),
    ("endothelium", "epithelium", "endothelium to epithelium"),
]
EPOCHS = int(os.environ.get("EPOCHS", "3"))
BATCH = int(os.environ.get("BATCH", "64"))
SEEDS = range(int(os.environ.get("SEEDS", "1")))
RUNS = {  # levels of embeddings that are conditioned on, niches to pair within, epochs
    "start": (2, "niche", 0),  # images of the closed form that flows start with, and no step
    "niche": (2, "niche", EPOCHS),
    "cell": (1, "niche", EPOCHS),
    "short": (2, "niche", max(EPOCHS // 3, 1)),
    "across": (2, None, EPOCHS),
    "tissue": (3, "niche", EPOCHS),
    "control": (2, "niche", EPOCHS),  # flows start at the control cells themselves
    "matched": (2, "niche", EPOCHS),  # partners assigned anew by the images that flows start at
    "published": (2, "niche", EPOCHS),  # morphology aligned, weights after the last step
}
NETWORK = GeneratorSize(
    channels=int(os.environ.get("CHANNELS", "8")),
    multipliers=(1, 2, 4),
    num_blocks=1,
    condition_channels=64,
    dropout=0.0,
)


def region(folder: Path, name: str) -> sg.data.Slide:
    """Cells of one region with its nuclear stain and outlines, and weak labels from markers."""
    slide = read_region(folder, name, (0,), outlines=folder / name / "cell_outlines.parquet")
    slide.adata.obs["state"] = weak_labels(slide)
    return slide


def weak_labels(slide: sg.data.Slide) -> pd.Categorical:
    """State of the markers that a cell has most of, where it has two counts of them or more."""
    genes = {symbol: i for i, symbol in enumerate(slide.symbols)}
    sets = [[genes[g] for g in names] for names in MARKERS.values()]
    values = log_normalize(slide.counts)
    score = np.stack([np.asarray(values[:, s].mean(axis=1)).ravel() for s in sets], axis=1)
    counts = np.stack([np.asarray(slide.counts[:, s].sum(axis=1)).ravel() for s in sets], axis=1)
    order = np.sort(score, axis=1)
    clear = (counts.max(axis=1) >= 2) & (order[:, -1] > 1.5 * order[:, -2])
    return pd.Categorical.from_codes(np.where(clear, score.argmax(axis=1), -1), list(MARKERS))


def add_niches(slides: list[sg.data.Slide], num: int = 4) -> None:
    """Niches by the composition of the 20 nearest cells, found in the first slide."""
    found = None
    for slide in slides:
        code = slide.adata.obs["state"].cat.codes.to_numpy()
        near = cKDTree(slide.pos).query(slide.pos, k=20)[1]
        share = np.stack([(code[near] == i).mean(axis=1) for i in range(len(MARKERS))], axis=1)
        found = found or KMeans(num, n_init=10, random_state=0).fit(share)
        slide.adata.obs["niche"] = pd.Categorical([f"niche{i}" for i in found.predict(share)])


class StateFeatures(nn.Module):
    """Small network that tells states apart, for distances: ``[B, 1, 32, 32]`` → ``[B, 64]``."""

    def __init__(self, num_states: int):
        super().__init__()
        sides = [(1, 16), (16, 32), (32, 64)]
        layers = [
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in sides
        ]
        self.layers, self.scale = nn.Sequential(*layers), nn.BatchNorm1d(64, affine=False)
        self.classify = nn.Linear(64, num_states)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale(self.layers(x).mean((2, 3)))


def state_features(slide: sg.data.Slide, epochs: int = 8) -> StateFeatures:
    """Train it on one region."""
    torch.manual_seed(0)
    code = slide.adata.obs["state"].cat.codes.to_numpy()
    rows = np.flatnonzero((code >= 0) & inside_image(slide, CROP))
    images, labels = read_crops(slide, rows, CROP), torch.from_numpy(code[rows]).long()
    network = StateFeatures(len(MARKERS))
    weight = 1 / labels.bincount().float()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(rows)).split(128):
            loss = F.cross_entropy(network.classify(network(images[part])), labels[part], weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@functools.cache
def prepared(folder: Path):
    """Embedded regions, pairs to score, and what both are measured by."""
    train, test = (region(folder, name) for name in REGIONS)
    add_niches([train, test])
    model = sg.models.ContextModel.for_slides([train], image=None, seed=0)
    sg.fit(model, [train], max_epochs=10, progress=False)
    for slide in (train, test):
        sg.embed(model, slide, progress=False)
    whole = {slide.slide_id: inside_image(slide, CROP) for slide in (train, test)}
    nuclei = {train.slide_id: measure_nuclei(train, CROP)}
    found = read_nuclei([train], nuclei, CROP)
    profile = fit_morphology(*found, run=Run(max_epochs=6, progress=False)).model
    return train, test, whole, nuclei, profile, state_features(train)


def matched(generator, slide, pairs):
    """Pairs with partners exchanged within a transition and niche, so that paths are short.

    Distances are of the components in which flows start, of the image that each starts at.
    """
    tags = [tag for _, _, tag in TRANSITIONS]
    found = pairs.copy()
    for (tag, _), rows in pairs.groupby(["transition", "niche"]).groups.items():
        own = pairs.loc[rows]
        control, target = (
            2 * read_crops(slide, own[f"{end}_row"].to_numpy(), CROP) - 1
            for end in ("control", "target")
        )
        first = generator.transport(control, torch.full((len(own),), tags.index(tag)))
        ends = [x.flatten(1) @ generator.transport.basis for x in (first, target)]
        partner = linear_sum_assignment(torch.cdist(*ends).square().numpy())[1]
        moved = [(first - target[order]).square().mean() for order in (slice(None), partner)]
        print(f"{tag}: mean squared step {moved[0]:.3f} → {moved[1]:.3f}")
        for column in ("target", "target_row"):
            found.loc[rows, column] = own[column].to_numpy()[partner]
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", RUNS)
def test_cells_of_one_region_in_states_learned_in_another(real_data, name, seed, capsys):
    """States are weak labels from marker genes; no cell turns into another here.

    Trained on the region of the tumour, scored on the region of the islets.
    """
    train, test, whole, nuclei, profile, features = prepared(real_data / "xenium_pancreas")
    num_levels, niche_key, epochs = RUNS[name]
    pairing = {"states_key": "state", "max_cells": None, "among": whole}
    held_out = pair_states([test], TRANSITIONS, niche_key="niche", **pairing)
    told = spatial_blocks(train.pos, num_folds=5, seed=0) == 0  # those say which weights are kept
    pairs, validation = (
        pair_states(
            [train],
            TRANSITIONS,
            niche_key=niche_key,
            **{**pairing, "among": {train.slide_id: whole[train.slide_id] & side}},
        )
        for side in (~told, told)
    )
    generator = ImageGenerator.for_slides(
        [train],
        NETWORK,
        context=["X_context", "X_context_niche", "X_context_tissue"][:num_levels],
        transitions=TRANSITIONS,
        states_key="state",
        signatures=["genes", "morphology"],
        crop=CROP,
        seed=seed,
        **({"transport": None} if name == "control" else {}),
    )
    panel = GenePanel.from_slides([train])
    generator.initialize(
        [train],
        pairs,
        delta_genes=gene_signature([train], pairs, panel=panel, donors=None),
        delta_morphology=morphology_signature([train], nuclei, pairs, donors=None),
    )
    if name == "matched":
        pairs = matched(generator, train, pairs)
    start, history = time.process_time(), pd.DataFrame()
    if epochs:
        run = Run(max_epochs=epochs, average=0.99, seed=seed, progress=False)
        how = {"validation": validation}
        if name == "published":
            how = {"profile": profile}
        history = fit_generator(generator, [train], pairs, batch_size=BATCH, run=run, **how).history
    seconds, start = time.process_time() - start, time.process_time()
    scores = score_transitions(
        generator,
        [test],
        held_out,
        max_pairs=550,
        sampling=Sampling(5, guidance=0.0),
        extractors={"morphology": "morphology", "states": features},
        min_frechet=600,  # the halves of real targets are no larger, which raises their distance
        progress=False,
    )
    sampled = 2 * len(scores.pairs) / (time.process_time() - start)  # own and wrong transition
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    steps = epochs * -(-len(pairs) // BATCH)
    with capsys.disabled():
        print(f"\n{name}, seed {seed}: {len(pairs)} pairs, {steps} steps, {seconds:.0f} s of them")
        print(f"{sampled:.1f} images made and measured per second of CPU, {memory:.1f} GiB")
        print(history.filter(regex="steps|flow|distance").round(4).to_string())
        print(scores.table.round(3).to_string())
        print(closed(scores.table).round(2).to_string(), flush=True)
    if "TABLES" in os.environ:
        scores.table.assign(run=name, seed=seed, steps=steps, pairs=len(pairs)).to_csv(
            Path(os.environ["TABLES"]) / f"pancreas_{name}_{PIXELS}_{seed}.csv"
        )
        history.to_csv(Path(os.environ["TABLES"]) / f"pancreas_{name}_{PIXELS}_{seed}_history.csv")
    if "GALLERY" in os.environ:
        out = Path(os.environ["GALLERY"])
        for tag, group in scores.pairs.groupby("transition"):
            images = (x[group.index] for x in (scores.control, scores.generated, scores.target))
            sg.plot.transition_gallery(*images, save=out / f"{name}_{tag}.png".replace(" ", "_"))
    assert scores.table["num_images"]["generated", "all"] >= 2000


def test_how_far_cells_of_a_state_differ_between_niches(real_data, capsys):
    """What a niche could tell of images beyond the state: kernel distances of real cells.

    Between the two most frequent niches of each state in the region that is tested on, beside
    halves of the first, and beside the state that it is a transition of.
    """
    _, test, whole, _, _, features = prepared(real_data / "xenium_pancreas")
    state, niche = (test.adata.obs[key].to_numpy() for key in ("state", "niche"))
    rng, found = np.random.default_rng(0), {}
    for control, target, _ in TRANSITIONS:
        rows = np.flatnonzero((state == target) & whole[test.slide_id])
        common = pd.Series(niche[rows]).value_counts().index[:2]
        sides = [rng.permutation(rows[niche[rows] == name]) for name in common]
        other = rng.permutation(np.flatnonzero((state == control) & whole[test.slide_id]))
        half = len(sides[0]) // 2
        pairs = {
            "niches": sides,
            "halves": [sides[0][:half], sides[0][half:]],
            "states": [sides[0], other],
        }
        found[target] = {
            what: kernel_distance(*(looks(features, test, side[:1000]) for side in ends))[0]
            for what, ends in pairs.items()
        } | {"cells": str([len(side) for side in sides])}
    with capsys.disabled():
        print(f"\n{pd.DataFrame(found).T.to_string()}", flush=True)


@torch.no_grad()
def looks(features: StateFeatures, slide: sg.Slide, rows: np.ndarray) -> np.ndarray:
    """Features of the images of some cells."""
    return features(read_crops(slide, rows, CROP)).numpy()


def closed(table: pd.DataFrame) -> pd.DataFrame:
    """Share of the gap between the cells as they are and real targets that is closed."""
    names = [
        c for c in ("ks", "kernel_states", "kernel_morphology", "frechet_states") if c in table
    ]
    made, same, real = (table.loc[w, names] for w in ("generated", "identity", "random_target"))
    return (made - same) / (real - same)
