"""A model that is defined outside of the package goes all the way through it, registered nowhere.

It has a recipe with one level and frozen features in place of counts, a task of its own objectives,
and is built, trained, saved, opened, embedded and searched with, in Python and on the command line.
"""

import ast
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import spatiagraph as sg
from spatiagraph.cli import app
from spatiagraph.data import Slide
from spatiagraph.data.recipe import Neighborhoods, Recipe
from spatiagraph.inference.domains import find_domains
from spatiagraph.inference.embedded import level_names
from spatiagraph.models import SlideModel, model_class
from spatiagraph.models.base import cell_graph
from spatiagraph.nn import Embeddings, LevelEmbeddings, NichePool
from spatiagraph.tasks import Objective, ObjectiveTask

ROOT = Path(sg.__file__).parent


class Outside(SlideModel):
    """Frozen features of cells, projected, and pooled over neighbourhoods."""

    name = "outside"

    def __init__(self, recipe: Recipe, in_channels: int, channels: int = 8):
        super().__init__()
        self.recipe = recipe
        self.project = nn.Linear(in_channels, channels)
        self.pool = NichePool(channels)
        self.back = nn.Linear(channels, in_channels)

    @classmethod
    def from_options(cls, slides, *, num_neighbors: int = 10, seed: int = 0):
        panel = sg.GenePanel.from_slides(slides)
        levels = (Neighborhoods(num_neighbors, name="around"),)
        recipe = Recipe(panel, levels=levels, features=("X_frozen",))
        torch.manual_seed(seed)
        return cls(recipe, slides[0].adata.obsm["X_frozen"].shape[1])

    def inputs(self, batch):
        return batch.X_frozen, cell_graph(batch, self.recipe.level_names)

    def forward(self, x, graph):
        z = self.project(x)
        (level,) = graph.levels
        h = self.pool(z, level.members, len(level.pos)).h
        return Embeddings(z, (LevelEmbeddings(h, level.own, h),))


class FromAround(Objective):
    """Features of a cell from its neighbourhood."""

    name = "from_around"

    def forward(self, view):
        model, batch, out = view
        error = model.back(out.levels[0].h)[out.levels[0].own] - batch.X_frozen
        return error[batch.core].square().mean()


class Small(Objective):
    """Embeddings of unit size."""

    name = "small"

    def forward(self, view):
        return (view[2].cell.norm(dim=1) - 1).square().mean()


class OutsideTask(ObjectiveTask, pretrains=Outside):
    """Both objectives on one forward pass."""

    def __init__(self, model, *, seed: int = 0):
        super().__init__(model, [FromAround(), Small(0.1)])

    def view(self, batch, streams):
        return self.model, batch, self.model(*self.model.inputs(batch))


@pytest.fixture(scope="module")
def slide():
    slide = sg.make_tissue(300, num_genes=30, image=None, seed=0)
    noise = 0.1 * np.random.default_rng(0).normal(size=(300, 6))
    slide.adata.obsm["X_frozen"] = np.hstack([slide.pos / 100, noise]).astype(np.float32)
    return slide


@pytest.fixture(scope="module")
def run(slide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside") / "run"
    model = Outside.from_options([slide])
    result = sg.fit(
        model,
        [slide],
        max_epochs=8,
        lr=1e-2,
        tile_size=100,
        accelerator="cpu",
        out=folder,
        progress=False,
    )
    assert {"from_around", "small"} <= set(result.history)
    assert result.history["loss"].iloc[-1] < 0.7 * result.history["loss"].iloc[0]
    return folder


def test_it_is_known_by_its_name():
    assert model_class("outside") is Outside
    assert {"context", "spatia"} <= set(SlideModel.known)
    with pytest.raises(ValueError, match="a model among .*outside.*, got 'nobody'"):
        model_class("nobody")


def test_it_is_saved_opened_embedded_and_searched(slide, run):
    model = SlideModel.from_pretrained(run / "model")
    assert type(model) is Outside
    assert model.recipe.levels == (Neighborhoods(10, name="around"),)
    adata = sg.embed(model, slide[:], progress=False)
    assert level_names(adata) == ("around",)
    assert find_domains(Slide(adata), None).index.key == "X_outside_around"
    assert adata.obsm["X_outside"].shape == adata.obsm["X_outside_around"].shape == (300, 8)
    index = sg.NicheIndex.build(adata.obsm["X_outside_around"], adata.obs)
    hits = index.search(adata.obsm["X_outside_around"][:2], k=3, exclude=[0, 1])
    assert len(hits) == 6
    # neighbourhoods alike in what their cells carry, which here is where they lie
    near = np.linalg.norm(
        slide.pos[hits["id"].str[4:].astype(int)] - slide.pos[[0] * 3 + [1] * 3], axis=1
    )
    assert near.mean() < 0.6 * np.linalg.norm(slide.pos - slide.pos[0], axis=1).mean()


@pytest.mark.usefixtures("without_umap")
def test_the_command_line_trains_embeds_reports_and_searches_with_it(slide, run, tmp_path):
    slide.adata.write_h5ad(tmp_path / "slide.h5ad")
    command = CliRunner()
    out = str(tmp_path / "embedded.h5ad")
    done = command.invoke(app, ["embed", str(run), str(tmp_path / "slide.h5ad"), "--out", out])
    assert done.exit_code == 0, done.output
    embedded = anndata.read_h5ad(out)
    assert embedded.obsm["X_outside_around"].shape == (300, 8)
    expected = sg.embed(SlideModel.from_pretrained(run / "model"), slide[:], progress=False)
    np.testing.assert_allclose(embedded.obsm["X_outside"], expected.obsm["X_outside"], atol=1e-6)

    page = str(tmp_path / "report.html")
    done = command.invoke(
        app, ["report", out, "--run", str(run), "--labels", "niche", "--out", page]
    )
    assert done.exit_code == 0, done.output
    assert "Niches like these" in Path(page).read_text(encoding="utf-8")
    table = str(tmp_path / "hits.csv")
    search = ["search", out, "--cell", str(slide.adata.obs_names[0]), "-k", "3", "--out", table]
    for level in ([], ["--level", "around"], ["--level", "cell"]):
        done = command.invoke(app, [*search, *level])
        assert done.exit_code == 0, done.output
        assert len(pd.read_csv(table)) == 3
    done = command.invoke(app, [*search, "--level", "niche"])
    assert done.exit_code != 0
    assert "cell, around, got 'niche'" in " ".join(done.output.split())

    fit = ["fit", str(tmp_path / "slide.h5ad"), "--model", "outside", "--epochs", "1"]
    done = command.invoke(app, [*fit, "--out", str(tmp_path / "run"), "--neighbors", "5"])
    assert done.exit_code == 0, done.output
    assert SlideModel.from_pretrained(tmp_path / "run" / "model").recipe.levels[0].k == 5
    assert "from_around" in pd.read_csv(tmp_path / "run" / "history.csv")
    done = command.invoke(app, [*fit, "--out", str(tmp_path / "other"), "--preset", "tiny"])
    assert done.exit_code != 0
    assert "--preset of --model spatia" in " ".join(done.output.split())


ROOMS = ("models", "nn", "tasks", "training", "inference")
"""Rooms in which an object is missing where a function takes more than ten arguments."""


def crowded_functions(source):
    """Functions with more than ten arguments, public, private and nested: name and number."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
            names += [x.arg for x in (a.vararg, a.kwarg) if x is not None]
            number = len([name for name in names if name not in ("self", "cls")])
            if number > 10:
                yield f"{node.name}: {number}"


def test_no_function_takes_more_than_ten_arguments():
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    assert len(files) > 80
    found = {str(file): [*crowded_functions(file.read_text(encoding="utf-8"))] for file in files}
    assert not {file: names for file, names in found.items() if names}
    many = ", ".join(f"a{i}" for i in range(9))
    assert [*crowded_functions(f"def f(self, {many}, *b, c, **d): ...")] == ["f: 12"]
