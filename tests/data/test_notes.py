"""Notes that a file says are spatiagraph's, and that are not."""

import numpy as np
import pytest
from anndata import AnnData

from spatiagraph.data import Slide, make_tissue
from spatiagraph.data.notes import our_notes
from spatiagraph.inference.domains import domains
from spatiagraph.inference.embedded import embedding_record, level_names
from spatiagraph.report import slide_page
from spatiagraph.retrieval import NicheIndex


def embedded(**notes):
    adata = make_tissue(60, num_genes=10, image=None, seed=0).adata
    adata.obsm["X_model"] = np.eye(60, 4, dtype=np.float32)
    adata.uns["spatiagraph"] = {"name": "model", **notes}
    return adata


def test_notes_are_those_of_the_group_or_none():
    adata = AnnData(uns={"spatiagraph": {"read": {"slide_id": "a"}}})
    assert our_notes(adata)["read"] == our_notes(adata, "read") == {"slide_id": "a"}
    assert our_notes(adata, "embed") == our_notes(AnnData(), "read", "deeper") == {}


@pytest.mark.parametrize("thing", ["text with slide_id", 3, [1, 2], np.arange(3), None])
@pytest.mark.parametrize(
    ("group", "ask"),
    [
        ("embed", lambda adata: NicheIndex.from_slides({"a": adata}, "X_model")),
        ("embed", embedding_record),
        ("domains", lambda adata: domains(adata, 3, method="kmeans", key="domain")),
        ("read", Slide),
    ],
)
def test_a_note_that_is_no_group_is_refused_by_name(thing, group, ask):
    with pytest.raises(ValueError, match=rf"\['{group}'\] to be a group of notes, got"):
        ask(embedded(**{group: thing}))


def page(adata):
    slide = Slide(embedded())
    slide.adata.uns["spatiagraph"] = adata.uns["spatiagraph"]
    slide_page(slide)


@pytest.mark.parametrize("ask", [level_names, page, Slide])
def test_notes_that_are_no_group_at_all_are_refused(ask):
    adata = embedded()
    adata.uns["spatiagraph"] = "another thing"
    with pytest.raises(ValueError, match=r"uns\['spatiagraph'\] to be a group of notes, got 'ano"):
        ask(adata)
