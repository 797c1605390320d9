"""What a trained model must know: neighbours where they decide, the cell where it decides."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spatiagraph.data import make_tissue
from spatiagraph.data.recipe import Neighborhoods, Parts
from spatiagraph.inference import embed
from spatiagraph.models import ContextModel, default_recipe
from spatiagraph.training import fit


@pytest.fixture(scope="module")
def adata():
    slide = make_tissue(2000, num_genes=100, image=None, seed=0)
    levels = (Neighborhoods(7), Parts(256))  # as far as the label looks
    model = ContextModel.for_slides([slide], default_recipe([slide], image=False, levels=levels))
    # before training the gates are closed: the cell alone, without any context
    initial = embed(model, slide, progress=False).obsm["X_context"]
    fit(model, [slide], max_epochs=20, tile_size=512, accelerator="cpu", progress=False)
    result = embed(model, slide, progress=False)
    result.obsm["X_context_initial"] = initial
    return result


def accuracy(z: np.ndarray, label: np.ndarray) -> float:
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return float(cross_val_score(probe, z, label, cv=4).mean())


def test_niches_know_what_only_the_neighbours_decide(adata):
    """SPATIA fact 44, first half: the label is the majority among the neighbours."""
    label = adata.obs["neighbor_label"].to_numpy()
    cell_only = accuracy(adata.obsm["X_context_initial"], label)
    both = np.hstack([adata.obsm["X_context"], adata.obsm["X_context_niche"]])
    assert accuracy(both, label) > cell_only + 0.15


def test_context_does_not_cost_what_the_cell_knows(adata):
    """SPATIA fact 44, second half: the label is the cell's own type."""
    label = adata.obs["cell_type"].to_numpy()
    cell_only = accuracy(adata.obsm["X_context_initial"], label)
    both = np.hstack([adata.obsm["X_context"], adata.obsm["X_context_niche"]])
    assert accuracy(both, label) > cell_only - 0.02
    assert accuracy(adata.obsm["X_context"], label) > cell_only - 0.02


def test_shuffled_positions_carry_no_context():
    slide = make_tissue(2000, num_genes=100, image=None, seed=0)
    mixed = slide.adata.copy()
    order = np.random.default_rng(0).permutation(slide.num_cells)
    mixed.obsm["spatial"] = slide.pos[order]
    shuffled = type(slide)(mixed, slide_id="shuffled")
    model = ContextModel.for_slides([shuffled])
    fit(model, [shuffled], max_epochs=5, tile_size=512, accelerator="cpu", progress=False)
    result = embed(model, shuffled, progress=False)
    label = result.obs["neighbor_label"].to_numpy()
    chance = max(np.mean(label == value) for value in np.unique(label))
    assert accuracy(result.obsm["X_context_niche"], label) < chance + 0.08
