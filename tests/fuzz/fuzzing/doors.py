"""The doors that files come in by. Each gives numbers that say what was read, or raises."""

import json
import warnings

import anndata
import numpy as np
import pandas as pd
import torch

import spatiagraph as sg
from fuzzing.bases import FIT, command
from spatiagraph.cli.embed import load_model
from spatiagraph.data import GenePanel
from spatiagraph.flow import Sampling
from spatiagraph.models import ImageGenerator
from spatiagraph.nn import Condition
from spatiagraph.retrieval import NicheIndex, in_region, read_region


class Refused(Exception):
    """The command line gave up."""

    def __init__(self, done):
        super().__init__(done.output)
        self.done = done


def _run(*arguments):
    done = command(*arguments)
    if done.exit_code != 0:
        raise Refused(done)
    return done


def _seen(slide):
    counts = slide.counts.toarray()
    return [slide.pos, counts, slide.symbols, slide.adata.obs_names.tolist()]


def _image(slide):
    if slide.image is None:
        return ["no image"]
    crops, has = slide.image.crops(slide.pos[:20], 12.0, 8)
    return [slide.image.mpp, list(slide.image.origin_um), crops, has]


def slide(path, bases, out):
    """A slide is read, embedded by a model, and written."""
    target = out / "embedded.h5ad"
    _run("embed", bases / "model", path, "--out", target, "--device", "cpu")
    adata = anndata.read_h5ad(target)
    x = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    found = [np.asarray(adata.obsm[key]) for key in sorted(adata.obsm) if "context" in key]
    return [x, adata.obsm["spatial"], adata.var_names.tolist(), *found]


def prepare(path, bases, out):
    """A slide is read, described and written again."""
    _run("prepare", path, "--out", out / "clean.h5ad")
    return _seen(sg.read(out / "clean.h5ad"))


def folder(path, bases, out):
    """A folder is read with its image and molecules."""
    found = sg.read(path)
    molecules = found.transcripts
    columns = [] if molecules is None else [molecules["x_um"].to_numpy(), len(molecules)]
    return [*_seen(found), *_image(found), *columns]


def molecules(path, bases, out):
    """Genes are found that lie together, in the molecules of a folder."""
    least = ("--draws", 1, "--min-counts", 5, "--min-genes", 2)
    _run("colocalize", path, "--out", out / "pairs", *least)
    return [pd.read_csv(out / "pairs" / "pairs.csv").select_dtypes("number").fillna(-1).to_numpy()]


def image(path, bases, out):
    """An image goes with a slide, and crops are cut."""
    place = json.loads((bases / "image.json").read_text())
    found = sg.read(
        bases / "slide.h5ad", image=path, image_mpp=place["mpp"], origin_um=place["origin_um"]
    )
    return _image(found)


def model(path, bases, out):
    """A model is loaded and embeds."""
    loaded = load_model(str(path))
    adata = sg.embed(loaded, sg.read(bases / "slide.h5ad"), device="cpu", progress=False)
    adata = getattr(adata, "adata", adata)
    return [np.asarray(adata.obsm[key]) for key in sorted(adata.obsm) if "context" in key]


def generator(path, bases, out):
    """A generator of images is loaded and generates."""
    loaded = ImageGenerator.from_pretrained(path)
    size = loaded.size_px
    image = torch.linspace(0, 1, 2 * 3 * size**2).reshape(2, 3, size, size)
    condition = Condition(torch.ones(2, 4), transition=torch.zeros(2, dtype=torch.long))
    return [loaded.generate(image, condition, Sampling(2)).numpy()]


def run(path, bases, out):
    """A report is written of a run."""
    _run("report", bases / "embedded.h5ad", "--run", path, "--out", out / "r.html", "--domains", 3)
    return ["written"]


def resume(path, bases, out):
    """A run goes on."""
    _run("fit", bases / "slide.h5ad", "--out", path, *FIT)
    history = pd.read_csv(path / "history.csv")
    return [history.select_dtypes("number").to_numpy(), *model(path, bases, out)]


def search(path, bases, out):
    """An embedded slide is searched."""
    _run("search", path, "--cell", "cell3", "--out", out / "hits.csv", "-k", 5)
    table = pd.read_csv(out / "hits.csv")
    return [table["id"].astype(str).tolist(), table["distance"].to_numpy()]


def evaluate(path, bases, out):
    """Embeddings of a slide are scored."""
    _run("evaluate", path, "--domains", "niche", "--seeds", 1, "--out", out / "scores.csv")
    return ["written"]


def index(path, bases, out):
    """An index is loaded and searched."""
    found = NicheIndex.load(path)
    hits = found.search_like([3, 4], k=5)
    return [found.num_items, hits["row"].to_numpy(), hits["distance"].to_numpy(), repr(found)]


def region(path, bases, out):
    """A region is read and finds cells."""
    grid = np.stack(np.meshgrid(np.arange(-5, 100, 7.0), np.arange(-5, 100, 7.0)), -1)
    return [in_region(grid.reshape(-1, 2), read_region(path))]


def panel(path, bases, out):
    """A panel of genes is read."""
    found = GenePanel.from_json(path)
    return [list(found.symbols), len(found)]


DOORS = {
    f.__name__: f
    for f in (
        slide,
        prepare,
        folder,
        molecules,
        image,
        model,
        run,
        resume,
        search,
        evaluate,
        index,
        region,
    )
    + (panel, generator)
}


def come_in(door, path, bases, out):
    """What a door says was read; warnings are not looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DOORS[door](path, bases, out)
