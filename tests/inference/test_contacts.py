"""Dissociated cells: a model is asked about them, wherever they are."""

import pytest

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


def test_what_cannot_be_asked_is_refused(slide, model):
    with pytest.raises(ValueError, match="a column 'kind'"):
        score_contacts(model, slide.adata, "kind")
    with pytest.raises(ValueError, match="two cells or more"):
        score_contacts(model, slide.adata, "cell_type", num_cells=1)
