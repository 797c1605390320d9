"""Dissociated cells: a model that knows partners names them, wherever cells are."""

import numpy as np
import pytest
import torch

import spatiagraph as sg
from spatiagraph.inference import score_contacts
from spatiagraph.models import SpatialFormer


@pytest.fixture(scope="module")
def slide():
    return sg.make_tissue(80, num_genes=20, image=None, seed=0)


@pytest.fixture(scope="module")
def model(slide):
    return SpatialFormer.from_options([slide], channels=16)


def test_cells_are_asked_wherever_they_are(slide, model):
    adata = slide.adata.copy()
    del adata.obsm["spatial"]
    options = {"num_cells": 30, "num_permutations": 20, "device": "cpu"}
    found = score_contacts(model, adata, "cell_type", **options)
    assert found.table["pairs"].sum() == 30 * 29 / 2
    assert "spatial" not in adata.obsm
    again = score_contacts(model, slide.adata, "cell_type", **options)
    assert found.table.equals(again.table)
    few = score_contacts(model, adata, "cell_type", nearest=3, **options)
    assert 30 * 3 / 2 <= few.table["pairs"].sum() <= 30 * 3


def test_partners_that_a_model_knows_are_found(slide, model, monkeypatch):
    types = slide.adata.obs["cell_type"].astype(str).to_numpy()
    first, second = sorted(set(types))[:2]

    def knows(model, data, pairs, **options):
        names = np.sort(types[data.cell_index.numpy()[pairs]], axis=1)
        return np.where((names == [first, second]).all(axis=1), 3.0, -3.0)

    monkeypatch.setattr("spatiagraph.inference.contacts.score_neighbors", knows)
    monkeypatch.setattr(
        SpatialFormer, "prepare", lambda self, slide: sg.data.TissueData(
            num_nodes=slide.num_cells, cell_index=torch.arange(slide.num_cells)
        )
    )  # fmt: skip
    found = score_contacts(model, slide.adata, "cell_type", num_cells=80, num_permutations=3000)
    best = found.table.sort_values("z").iloc[-1]
    assert (best["type_a"], best["type_b"], best["share"]) == (first, second, 1)
    assert best["q"] < 0.05


def test_what_cannot_be_asked_is_refused(slide, model):
    with pytest.raises(ValueError, match="a column 'kind'"):
        score_contacts(model, slide.adata, "kind")
    with pytest.raises(ValueError, match="two cells or more"):
        score_contacts(model, slide.adata, "cell_type", num_cells=1)
