"""ST-Align on real sections: retrieval, genes from images, domains and the cost of a step.

Every table, held-out part and seed is a test of its own::

    ACCELERATOR=gpu TABLES=t pytest -n 16 -m benchmark -s tests/benchmarks/test_bench_st_align.py
    python tests/benchmarks/test_bench_st_align.py t

The second line makes Markdown of what the first has written. ``ACCELERATOR`` is ``cpu`` by default,
``STEPS`` (300) the most steps of a fit, ``SEEDS`` (3) the number of seeds, ``PUBLISHED`` whether
the published start and negatives are fitted too, 1. Needs SPATIAGRAPH_DATA.

The steps of a model are chosen on held-out tissue by the score that ``fit`` watches, Recall@10 of
genes by images and of niches by spots: a section of the training ones where there are three, a
strip of the section else. It is then trained anew on all training sections for as many steps, which
may be none. ``published`` starts at random, with the published negatives.
"""

import copy
import json
import os
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize

import spatiagraph as sg
from spatiagraph.data import CropSource, FeatureCache, SlideImage, spots_of_cells
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import (
    LAYER_MARKERS,
    log_normalize,
    neighbor_mean,
    pca,
    score_few_shot,
    score_image_to_genes,
    score_retrieval,
    score_zero_shot_domains,
)
from spatiagraph.evaluate.image_features import color_texture, network_features
from spatiagraph.evaluate.image_to_genes import grouped_ridge
from spatiagraph.models import STAlign
from spatiagraph.models.st_align import TINY
from spatiagraph.nn import FrozenImageEncoder
from spatiagraph.tasks import PairedNegatives, SlideNegatives, STAlignPretraining
from spatiagraph.training import Run
from tests.pancreas import REGIONS, read_region

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore")]

ACCELERATOR = os.environ.get("ACCELERATOR", "cpu")
STEPS = int(os.environ.get("STEPS", "300"))
PUBLISHED = os.environ.get("PUBLISHED", "1") == "1"
SEEDS = range(int(os.environ.get("SEEDS", "3")))
PATIENCE = 12  # epochs
PARTS = {  # table, part → sections to train on, sections to test on
    ("dlpfc", "itself"): (["151510"], ["151510"]),
    ("dlpfc", "strip"): (["151510 most"], ["151510 strip"]),
    ("her2st patients", "C to A"): (["C2", "C3", "C4", "C5"], ["A1"]),
    ("her2st patients", "A to C"): (["A1"], ["C2", "C3", "C4", "C5"]),
    **{
        ("her2st sections", name): ([n for n in ("C2", "C3", "C4", "C5") if n != name], [name])
        for name in ("C2", "C3", "C4", "C5")
    },
    ("st_mob", "MOB2"): (["MOB1"], ["MOB2"]),
    ("st_mob", "MOB1"): (["MOB2"], ["MOB1"]),
    ("xenium_pancreas", "roi_islet"): (["roi_tumour"], ["roi_islet"]),
    ("xenium_pancreas", "roi_tumour"): (["roi_islet"], ["roi_tumour"]),
}
LABELS = {"A1": ("label", "undetermined"), "151510": ("layer", "NA")}


def section(root, name):
    """A section of spots by its name, in µm and with its image."""
    if name in REGIONS:
        cells = read_region(root / "xenium_pancreas", name, (0, 1, 2))
        return spots_of_cells(cells, 100.0, diameter_um=None)
    if name.startswith("151510"):
        folder = root / "dlpfc_151510"
        slide = sg.read(
            folder / "151510.h5ad",
            image=folder / "tissue_lowres_image.png",
            pitch_um=100,
            slide_id="151510",
        )
        return {part.slide_id: part for part in (slide, *cut(slide))}[name]
    folder = root / ("st_mob" if name.startswith("MOB") else "her2st")
    image = folder / f"{name}_HE.jpg"
    slide = sg.read(
        folder / f"{name}.h5ad", image=image, pitch_um=200, slide_id=name, donor=name[0]
    )
    slide.image = coarse(slide.image)
    return slide


def coarse(image, mpp=3.0):
    """An image with pixels of at most 3 µm averaged: what crops of 64 pixels need, read faster."""
    factor = int(mpp / image.mpp)
    if factor < 2:
        return image
    high, wide = (n // factor for n in image.shape[:2])
    pixels = image.pixels(slice(0, high * factor), slice(0, wide * factor))
    blocks = np.asarray(pixels, np.float32).reshape(high, factor, wide, factor, -1)
    small = blocks.mean((1, 3)).round().astype(np.uint8)
    return SlideImage([small], mpp=image.mpp * factor, origin_um=image.extent_um[:2])


@dataclass
class Sections:
    """Sections one after the other, and what needs no training: crops, colours, profiles."""

    slides: list
    num_train: int
    model: STAlign

    def __post_init__(self):
        sizes = [slide.num_cells for slide in self.slides]
        self.number = np.repeat(np.arange(len(sizes)), sizes)
        self.test = self.number >= self.num_train
        windows = [crop.window_um for crop in self.model.recipe.crops]
        self.crops = [
            np.concatenate([CropSource(s, s.pos, w, 64).read()[0].numpy() for s in self.slides])
            for w in windows
        ]
        self.colors = np.hstack([color_texture(crops) for crops in self.crops])
        counts = [self.model.panel.counts(slide)[0] for slide in self.slides]
        self.counts = sparse_rows(counts)
        log = [log_normalize(x, 1e4).toarray() for x in counts]
        niche = [neighbor_mean(x, s.pos, 6) for x, s in zip(log, self.slides, strict=True)]
        self.log, self.niche = np.concatenate(log), np.concatenate(niche)
        blocks = [spatial_blocks(s.pos, num_folds=4, seed=0) for s in self.slides]
        several = self.num_train > 2
        self.group = self.number if several else np.concatenate(blocks) + 4 * self.number

    @property
    def alike(self):
        """Colours standardised within each section."""
        parts = [self.colors[self.number == i] for i in range(len(self.slides))]
        return np.concatenate([StandardScaler().fit_transform(part) for part in parts])

    def ridge(self, num_components, colors):
        """Colours mapped to profiles of spots and niches, by the training sections."""
        train, sides = ~self.test, []
        for x in (self.log, self.niche):
            basis = PCA(num_components, random_state=0).fit(x[train])
            sides.append(basis.transform(x) / basis.transform(x[train]).std())
        y = np.hstack(sides)
        mapped = grouped_ridge(colors[train], y[train], self.group[train], colors[self.test])
        return mapped - y[train].mean(0), y[self.test] - y[train].mean(0)


def sparse_rows(parts):
    from scipy.sparse import vstack

    return vstack(parts).tocsr()


def new_model(slides, seed, start="canonical"):
    return STAlign.for_slides(slides, replace(TINY, size_px=(16, 24)), start=start, seed=seed)


def cut(slide):
    """Four of five strips of a section, and the fifth, as sections: the start sees the four."""
    last = slide.pos[:, 0] > np.quantile(slide.pos[:, 0], 0.8)
    parts = [slide[~last], slide[last]]
    for part, name in zip(parts, ("most", "strip"), strict=True):
        part.slide_id = f"{slide.slide_id} {name}"
    return parts


def fitted(model, slides, seed, negatives, **options):
    task = STAlignPretraining(model, negatives=negatives)
    run = Run(accelerator=ACCELERATOR, devices=1, seed=seed, progress=False, logger=False)
    return sg.fit(model, slides, task=task, tile_size=128, run=run, **options)


def trained(slides, seed, *, start="canonical", negatives=None):
    """A model after as many steps as were best on held-out tissue, and how that went."""
    negatives = SlideNegatives() if negatives is None else negatives
    *inside, last = slides if len(slides) > 2 else cut(slides[0])
    model = new_model(inside, seed, start)
    options = {"max_steps": STEPS, "patience": PATIENCE}
    history = fitted(model, inside, seed, negatives, validation=[last], **options).history
    recall = history["val_recall@10"].dropna()
    first = history["start_val_recall@10"].iloc[0]
    best = recall.idxmax()
    steps = int(history["steps"][best]) if recall[best] > first else 0
    model = new_model(slides, seed, start)
    if steps:
        fitted(model, slides, seed, negatives, validation=None, max_steps=steps)
    at = history["steps"][recall.index]  # the last epoch may end within
    curve = {"steps": [0, *at.tolist()], "recall": [first, *recall.tolist()]}
    return model, steps, curve


ACCOUNT = {  # part → sections to train on, sections to test on
    "A1 to C": (["A1"], ["C2", "C3", "C4", "C5"]),
    "C2 to A1": (["C2"], ["A1"]),
    "C2 and C4 to A1": (["C2", "C4"], ["A1"]),
    "C2-C5 to A1": (["C2", "C3", "C4", "C5"], ["A1"]),
    "tumour to islets": (["roi_tumour"], ["roi_islet"]),
    "islets to tumour": (["roi_islet"], ["roi_tumour"]),
}
WIDE = {
    "channels": 128,
    "gene_channels": (256, 128),
    "token_channels": 128,
    "head_hidden": 512,
    "out_channels": 256,
    "provider_channels": 128,
}


class Snapshots(Callback):
    """Weights after some steps."""

    def __init__(self, *steps):
        self.steps, self.found = steps, {}

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step in self.steps:
            self.found[trainer.global_step] = copy.deepcopy(module.task.model.state_dict())


class Turned(STAlign):
    """ST-Align whose crops are turned and mirrored in training, each batch in one of eight ways."""

    def inputs(self, batch):
        views, graph, core = super().inputs(batch)
        if not self.training:
            return views, graph, core
        turns = int(torch.randint(8, ()))

        def turn(image):
            if image is None:  # the start looks at statistics alone
                return None
            image = image.flip(3) if turns > 3 else image
            return torch.rot90(image, turns % 4, (2, 3))

        images = {n: turn(getattr(views, n)) for n in ("spot_image", "niche_image")}
        return views._replace(**images), graph, core


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", ["as it is", "twice as wide", "turned"], ids=lambda x: x[:2])
@pytest.mark.parametrize("part", list(ACCOUNT), ids=lambda x: x.replace(" ", "_"))
def test_steps_sections_width_and_turns(real_data, capsys, part, variant, seed):
    """Recall@10 and genes given depth of tissue of another kind after 0 to 96 steps."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    train, test = ([section(real_data, n) for n in names] for names in ACCOUNT[part])
    size = replace(TINY, size_px=(16, 24), **(WIDE if variant == "twice as wide" else {}))
    model = (Turned if variant == "turned" else STAlign).for_slides(train, size, seed=seed)
    snapshots = Snapshots(6, 12, 24, 48, 96)
    weights = {0: copy.deepcopy(model.state_dict())}
    options = {"validation": None, "max_steps": 96, "callbacks": snapshots}
    fitted(model, train, seed, SlideNegatives(), **options)
    known, found = Sections([*train, *test], len(train), model), {}
    for steps, state in {**weights, **snapshots.found}.items():
        model.load_state_dict(state)
        found[str(steps)] = vectors(model, known.slides)
    recall = {r["row"]: r for r in retrieval(known, found) if r["task"] == FORWARD}
    depth = {r["row"]: r for r in genes(known, found, seed, None)}
    rows = [
        {
            "task": "account",
            "row": variant,
            "steps": int(steps),
            "recall@10": recall[steps]["recall@10"],
            "pearson_given_depth": depth[steps]["pearson_given_depth"],
        }
        for steps in found
    ]
    with capsys.disabled():
        write("account", f"{part} {variant}", seed, rows)
    assert len(rows) == 6


def vectors(model, slides):
    """Vectors of all spots by name."""
    found = [sg.embed(model, slide, progress=False, device=device()) for slide in slides]
    names = [key for key in found[0].obsm if key.startswith("X_stalign")]
    return {n.removeprefix("X_stalign").strip("_"): stacked(found, n) for n in names}


def stacked(found, name):
    return np.concatenate([np.asarray(adata.obsm[name]) for adata in found])


def device():
    return "cpu" if ACCELERATOR == "cpu" else "cuda"


def both(z, view):
    """Image or gene vectors of both scales side by side."""
    return np.hstack([normalize(z[f"{scale}_{view}"]) for scale in ("spot", "niche")])


def write(table, part, seed, rows):
    """Print rows and keep them."""
    for row in rows:
        row.update(table=table, part=part, seed=seed)
        print("row", json.dumps(row), flush=True)
    if "TABLES" in os.environ:
        folder = Path(os.environ["TABLES"])
        folder.mkdir(parents=True, exist_ok=True)
        name = f"st_align-{table}-{part}-{seed}.json".replace(" ", "_")
        (folder / name).write_text(json.dumps(rows))


def plain(row):
    keys = [k for k in row.index if k != "direction"]
    return {k: None if pd.isna(row[k]) else round(float(row[k]), 5) for k in keys}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("table", "part"), list(PARTS), ids=lambda x: str(x).replace(" ", "_"))
def test_table(real_data, capsys, table, part, seed):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    train_names, test_names = PARTS[table, part]
    every = {n: section(real_data, n) for n in dict.fromkeys([*train_names, *test_names])}
    train = [every[n] for n in train_names]
    began = time.perf_counter()
    fits = {"st-align": trained(train, seed)}
    if PUBLISHED:
        fits["published"] = trained(train, seed, start=None, negatives=PairedNegatives())
    seconds = time.perf_counter() - began
    itself = train_names == test_names
    slides = train if itself else [*train, *(every[n] for n in test_names)]
    models = {"start": new_model(train, seed), **{name: fit[0] for name, fit in fits.items()}}
    if PUBLISHED:
        models["published, before training"] = new_model(train, seed, None)
    found = {name: vectors(model, slides) for name, model in models.items()}
    steps = {name: fits[name][1] for name in fits}
    rows = [
        {"task": "training", "row": name, "steps": fits[name][1], "curve": fits[name][2]}
        for name in fits
    ]
    if not itself:
        known = Sections(slides, len(train), models["start"])
        rows += retrieval(known, found) + genes(
            known, found, seed, laminar(real_data, known.model.panel, train[0])
        )
    for name in test_names if itself else every:
        if name in LABELS:
            at = list(every).index(name)
            sizes = [slide.num_cells for slide in slides]
            own = slice(sum(sizes[:at]), sum(sizes[: at + 1]))
            rows += domains(every[name], {m: {k: v[own] for k, v in z.items()}
                                          for m, z in found.items()}, models["start"])  # fmt: skip
    for row in rows:
        row.setdefault("steps", steps.get(row["row"].split(":")[0], 0))
    rows.append({"task": "seconds", "row": "fits", "seconds": round(seconds, 1)})
    with capsys.disabled():
        write(table, part, seed, rows)
    assert all(np.isfinite(z).all() for v in found.values() for z in v.values())


def retrieval(known, found):
    pairs = {
        name: (both(z, "img")[known.test], both(z, "gene")[known.test]) for name, z in found.items()
    }
    for k in (5, 20):
        pairs[f"ridge, {k} components"] = known.ridge(k, known.colors)
        pairs[f"ridge, {k} components, within sections"] = known.ridge(k, known.alike)
    table = score_retrieval(pairs, known.number[known.test])
    return [
        {"task": f"retrieval, {row['direction']}", "row": name, **plain(row)}
        for name, row in table.iterrows()
    ]


def laminar(root, panel, slide):
    """Columns of the markers of cortical layers, where the slide is one of cortex."""
    if not slide.slide_id.startswith("151510"):
        return None
    table = pd.read_csv(root / "gene_tables" / "gene_positions_grch38.tsv.gz", sep="\t")
    names = {*LAYER_MARKERS, *table.loc[table["symbol"].isin(LAYER_MARKERS), "ensgene"]}
    return {"laminar": [i for i, name in enumerate(panel.symbols) if name in names]}


def genes(known, found, seed, subsets):
    features = {name: both(z, "img") for name, z in found.items()}
    features["colour statistics"] = known.colors
    features["colour statistics within sections"] = known.alike
    features["random CNN"] = np.hstack([network_features(c, seed=seed) for c in known.crops])
    fold = np.where(known.test, 1, 0)
    options = {"groups": known.group, "target": 1e4, "held_out": [1], "subsets": subsets}
    few = {"colour statistics, 20 components": known.colors}
    tables = (
        score_image_to_genes(features, known.counts, fold, **options),
        score_image_to_genes(few, known.counts, fold, num_components=20, **options).loc[[*few]],
    )
    return [
        {"task": "genes", "row": name, **plain(row)}
        for table in tables
        for name, row in table.iterrows()
    ]


def domains(slide, found, model):
    column, unlabelled = LABELS[slide.slide_id]
    crops = [CropSource(slide, slide.pos, c.window_um, 64).read()[0] for c in model.recipe.crops]
    embeddings = {name: z[""] for name, z in found.items()}
    for name in [n for n in ("st-align", "published") if n in found]:
        for scale in ("spot", "niche"):
            embeddings[f"{name}: {scale}"] = found[name][scale]
    embeddings["image statistics"] = np.hstack([color_texture(c.numpy()) for c in crops])
    model.to("cpu")
    x, mask = model.panel.counts(slide)
    with torch.no_grad():
        profile = model.provider(
            torch.from_numpy(x.toarray()).float(),
            torch.as_tensor(mask),
            torch.from_numpy(np.asarray(slide.depth)).float(),
        )
    embeddings["provider"] = profile.numpy()
    truth = slide.adata.obs[column].astype(object)
    table = score_zero_shot_domains(
        embeddings, truth, slide.counts, slide.pos, ignore=(unlabelled,)
    )
    few = {k: v for k, v in embeddings.items() if ":" not in k}
    few["PCA averaged over the niche"] = neighbor_mean(pca(slide.counts), slide.pos, 6)
    number = truth.value_counts()
    rare = number.index[number < 12]  # ten to learn from
    probes = score_few_shot(few, truth, ignore=(unlabelled, *rare))
    return [
        {"task": f"domains of {slide.slide_id}, {method}", "row": name, **plain(row)}
        for (method, name), row in table.iterrows()
    ] + [
        {"task": f"few-shot of {slide.slide_id}, {number} labelled", "row": name, **plain(row)}
        for (number, name), row in probes.iterrows()
    ]


def test_cost_of_a_step_beside_six_forward_passes(real_data, capsys):
    """One step of 64 spots: all encoded once, and the five negatives of each encoded as well."""
    slide = section(real_data, "C2")
    model = new_model([slide], 0).train()
    batch = next(iter(model.batches([model.prepare(slide, learn=True)], 64)))
    place = torch.device(device())
    model.to(place)
    batch = batch.to(place)
    task = STAlignPretraining(model)
    views = model.inputs(batch)[0]
    wide = type(views)(*(None if v is None else v.repeat(6, *[1] * (v.dim() - 1)) for v in views))

    def ours():
        model.zero_grad()
        task.loss(batch).loss.backward()

    def six():
        model.zero_grad()
        out = model.align(wide)
        sum(z.square().mean() for z in out).backward()

    def seconds(step):
        step()
        if place.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(5):
            step()
        if place.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / 5

    one, many = seconds(ours), seconds(six)
    row = {
        "task": "cost",
        "row": "one pass beside six",
        "seconds": one,
        "six": many,
        "ratio": many / one,
    }
    with capsys.disabled():
        write("cost", place.type, 0, [row])
    assert one > 0


def test_cost_of_a_frozen_backbone_read_from_disk(real_data, capsys, tmp_path):
    """Preparing, a fit of 9 steps and embedding, features of a ViT-Ti computed or read again."""
    slide = section(real_data, "A1")
    backbone = FrozenImageEncoder("vit_tiny_patch16_224", size_px=224)
    rows = []
    for name in ("ResNet, no backbone", "backbone, not kept", "first, kept", "read again"):
        model = STAlign.for_slides(
            [slide], "tiny", backbone=None if name.startswith("ResNet") else backbone
        )
        if name in ("first, kept", "read again"):
            model.cache = FeatureCache(tmp_path)
        began = time.perf_counter()
        model.prepare(slide, learn=True)
        prepared = time.perf_counter() - began
        history = fitted(model, [slide], 0, SlideNegatives(), max_steps=9).history
        fit = time.perf_counter() - began - prepared
        began = time.perf_counter()
        z = sg.embed(model, slide, progress=False, device=device())
        embed = time.perf_counter() - began
        rows.append({
            "task": "backbone", "row": name, "prepare_s": prepared, "fit_s": fit,
            "embed_spots_per_s": slide.num_cells / embed, "steps": int(history["steps"].max()),
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        })  # fmt: skip
        assert np.isfinite(z.obsm["X_stalign"]).all()
    with capsys.disabled():
        write("backbone", device(), 0, rows)
    first, again = rows[2], rows[3]
    assert again["prepare_s"] < first["prepare_s"] / 3


TITLES = {
    "st-align": "**ST-Align**",
    "start": "start of ST-Align",
    "published": "as published",
    "published, before training": "as published, before training",
    "train_mean": "mean of the training spots",
    "depth_oracle": "depth of the spot itself",
    "provider": "profiles of the provider",
    "pca": "PCA",
    "pca_niche": "PCA averaged over the niche",
}
FORWARD, BACK = "retrieval, image_to_gene", "retrieval, gene_to_image"
RETRIEVAL_AND_GENES = (
    ("Recall@1", FORWARD, "recall@1"),
    ("Recall@5", FORWARD, "recall@5"),
    ("Recall@10", FORWARD, "recall@10"),
    ("back: Recall@10", BACK, "recall@10"),
    ("genes: Pearson", "genes", "pearson_mean"),
    ("given depth", "genes", "pearson_given_depth"),
    ("MSE", "genes", "mse"),
)
LAMINAR = tuple(
    (f"{part}: {title}", "genes", f"{score}_{name}")
    for part, name in (("markers", "laminar"), ("others", "other"))
    for title, score in (
        ("Pearson", "pearson_mean"), ("given depth", "pearson_given_depth"), ("MSE", "mse"))
)  # fmt: skip


def over_seeds(own, column):
    """Mean over parts and seeds, and the deviation over seeds of the mean over parts."""
    if column not in own or own[column].dropna().empty:
        return "–"
    seeds = own.groupby("seed")[column].mean()
    digits = 2 if seeds.mean() > 1 else 3
    spread = f"{seeds.std():.{digits}f}" if len(seeds) > 1 else "nan"
    shown = "" if spread == "nan" or float(spread) == 0 else f" ± {spread}"
    return f"{seeds.mean():.{digits}f}{shown}"


def grid(rows, columns):
    """One table: a line per row, a column per title, task and score; steps where there are any."""
    lines = [f"| row | steps | {' | '.join(title for title, _, _ in columns)} |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    tasks = {task for _, task, _ in columns}
    for name, own in rows[rows["task"].isin(tasks)].groupby("row", sort=False):
        taken = sorted(set(own["steps"].astype(int)))
        steps = f"{taken[0]}–{taken[-1]}" if len(taken) > 1 else str(taken[0])
        if name not in TITLES or name in ("train_mean", "depth_oracle") or "pca" in name:
            steps = "–"
        cells = [over_seeds(own[own["task"] == task], column) for _, task, column in columns]
        lines.append(f"| {TITLES.get(name, name)} | {steps} | {' | '.join(cells)} |")
    return lines


def curves(rows):
    """Score of the tissue that steps are chosen by, mean over fits that went on so far."""
    lines = []
    for name, own in rows[rows["task"] == "training"].groupby("row", sort=False):
        each = [dict(zip(c["steps"], c["recall"], strict=True)) for c in own["curve"]]
        steps = sorted(set.intersection(*(set(e) for e in each)))
        steps = steps[:: max(1, len(steps) // 8)]
        shown = ", ".join(f"{np.mean([e[at] for e in each]):.3f}" for at in steps)
        last = [max(e) - max(e, key=e.get) for e in each]
        ended = f"{min(last)}–{max(last)} steps after the best of {len(each)} fits"
        at = ", ".join(map(str, steps))
        lines.append(f"{TITLES.get(name, name)} at {at}: {shown}; ended {ended}")
    return lines


def markdown(folder):
    """Tables of all JSON files of a folder: means over parts, ± deviations over seeds."""
    files = sorted(Path(folder).glob("st_align-*.json"))
    every = pd.DataFrame([row for file in files for row in json.loads(file.read_text())])
    every = every[~every["table"].isin(["account", "cost", "backbone"])]
    lines = []
    for (table, part), rows in every.groupby(
        ["table", every["part"].where(every["table"].isin(["dlpfc", "her2st patients"]), "")]
    ):
        lines += ["", f"### {table} {part}", ""]
        lines.append(f"{rows['seed'].nunique()} seeds, {rows['part'].nunique()} parts")
        if "num_candidates" in rows and rows["num_candidates"].notna().any():
            lines.append(f"{rows['num_candidates'].mean():.0f} candidates")
        if rows["task"].isin([FORWARD]).any():
            own = RETRIEVAL_AND_GENES
            if "mse_laminar" in rows and rows["mse_laminar"].notna().any():
                own = (*RETRIEVAL_AND_GENES[2:4], *LAMINAR)
            lines += ["", *grid(rows, own)]
        for kind, scores in (("domains", ("ARI", "NMI")), ("few-shot", ("macro_F1", "accuracy"))):
            tasks = [t for t in rows["task"].unique() if t.startswith(kind)]
            if tasks:
                columns = [(f"{t}: {score}", t, score) for t in tasks for score in scores]
                lines += ["", *grid(rows, columns)]
        lines += ["", *curves(rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(sys.argv[1]))
