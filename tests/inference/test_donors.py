"""A model on donors that it has never seen, beside itself before training."""

import logging

import anndata
import numpy as np
import pandas as pd
import pytest

import spatiagraph as sg
from spatiagraph.evaluate import score_transfer
from spatiagraph.evaluate.inputs import UnscorableError
from spatiagraph.inference import ZeroShot, score_donors
from spatiagraph.inference.domains import Sections
from spatiagraph.models import ContextModel


class Recorded(ContextModel):
    """Model that remembers the donors that it was made of and how far it was trained."""

    num_steps = 5
    made_of: list[list[str]] = []

    @classmethod
    def from_options(cls, slides, **options):
        cls.made_of.append([slide.donor for slide in slides])
        return super().from_options(slides, channels=8, **options)


def cohort(**options):
    return [
        sg.make_tissue(150, num_genes=30, seed=n, slide_id=f"s{n}", donor=f"d{n}", **options)
        for n in range(3)
    ]


@pytest.fixture(scope="module")
def slides():
    return cohort(image="he")


@pytest.fixture(scope="module")
def table(slides):
    Recorded.made_of.clear()
    found = score_donors(slides, "niche", model=Recorded, window_um=24.0, num_seeds=1)
    return found.set_index(["protocol", "embedding", "donor"]).sort_index()


def test_no_model_is_made_of_the_held_out_donor_and_each_is_made_once(table):
    folds = [["d1", "d2"], ["d0", "d2"], ["d0", "d1"]]
    assert sorted(Recorded.made_of) == sorted([*folds, *folds])  # trained, and before training


def test_rows_before_training_are_those_of_the_untrained_model(table, slides):
    start = ZeroShot(slides, lambda seen: Recorded.from_options(seen, seed=0))
    sections = Sections(slides)
    donor = np.array(["d0", "d1", "d2"])[sections.number]
    labels = pd.concat([slide.adata.obs["niche"] for slide in slides])
    expected = score_transfer(
        {"cell": start.level("cell")}, sections.counts, sections.pos, labels,
        donor=donor, baselines=[], num_seeds=1,
    ).set_index(["embedding", "donor"]).sort_index()  # fmt: skip
    metrics = ["macro_F1", "accuracy", "ARI", "precision"]
    before = table.loc[("labels", "context_cell, before training"), metrics]
    np.testing.assert_allclose(before, expected.loc["cell", metrics], rtol=1e-6)
    after = table.loc[("labels", "context_cell"), metrics]
    assert not np.allclose(before, after)


def test_every_part_has_the_model_twice_beside_baselines(table):
    names = {key: {*part.index.get_level_values(1)} for key, part in table.groupby(level=0)}
    both = ["", ", before training"]
    assert names["labels"] >= {
        *(f"context_{level}{when}" for level in ("cell", "niche") for when in both),
        "pca30", "chance",
    }  # fmt: skip
    assert names["imputation"] >= {
        *(f"{name}{when}" for name in ("context_decoder", "ridge_context_cell") for when in both),
        "ridge", "train_mean",
    }  # fmt: skip
    assert names["image_to_genes"] >= {
        *(f"context_cell{when}" for when in both), "color_texture", "resnet18_random", "train_mean"
    }  # fmt: skip
    assert (table.groupby(level=[0, 1]).size() == 3).all()
    assert table.loc["imputation", "pearson_mean"].notna().all()
    assert table.loc["imputation", "macro_F1"].isna().all()
    assert table.loc["labels", "num_genes"].isna().all()


def test_a_decoder_predicts_better_than_the_mean(table):
    mean = table.loc["imputation"].groupby(level=0)["pearson_mean"].mean()
    assert mean["context_decoder"] > 0.05 > mean["train_mean"] == 0


def test_imputation_needs_no_labels(slides):
    bare = []
    for slide in slides:
        adata = anndata.AnnData(slide.counts, var=slide.adata.var)
        adata.obsm["spatial"] = slide.pos
        bare.append(sg.Slide(adata, slide_id=slide.slide_id, donor=slide.donor, assume_um=True))
    table = score_donors(bare)
    assert {*table["protocol"]} == {"imputation"}
    assert {"ridge", "knn_expr"} <= {*table["embedding"]}
    with pytest.raises(UnscorableError, match="two donors with images, got 0"):
        score_donors([_few_genes(slide) for slide in bare], window_um=9)


def _few_genes(slide):
    adata = slide.adata[:, :3].copy()
    return sg.Slide(adata, slide_id=slide.slide_id, donor=slide.donor, assume_um=True, check=False)


def test_what_cannot_be_scored_is_left_out_with_a_word(caplog):
    few = [_few_genes(slide) for slide in cohort()]
    with caplog.at_level(logging.WARNING):
        table = score_donors(few, "niche", window_um=24.0, num_seeds=1)
    assert {*table["protocol"]} == {"labels"}
    assert "imputation is left out: Expected 5 genes" in caplog.text
    assert "image_to_genes is left out: Expected at least two donors with images" in caplog.text
    with pytest.raises(UnscorableError, match="5 genes"):
        score_donors(few)


def test_a_level_that_the_model_does_not_have_is_named(slides):
    with pytest.raises(ValueError, match="level among cell, niche, .* got 'organ'"):
        score_donors(slides, "niche", model=Recorded, levels=["organ"])
