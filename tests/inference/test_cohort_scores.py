"""Evaluation of a cohort: slide by slide, whole or by shards."""

import os

import numpy as np
import pandas as pd
import pytest

import spatiagraph as sg
from spatiagraph.data.cohort import BusyError, Cohort
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.work import shard_folder
from spatiagraph.evaluate import run_protocols
from spatiagraph.inference import merge_scores, score_cohort

SCORES = ["slide_id", "protocol", "embedding", "metric", "value", "std"]


@pytest.fixture(autouse=True, scope="module")
def fast_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    slides = [
        sg.make_tissue(150, num_genes=20, image=None, seed=seed, slide_id=f"s{seed}")
        for seed in range(3)
    ]
    model = sg.models.ContextModel.for_slides(slides, channels=8)
    place = tmp_path_factory.mktemp("scored") / "c.zarr"
    made = Cohort.create(place, slides, model.recipe, tile_size=64)
    return sg.embed(model, made, device="cpu", progress=False)


def settings(**others):
    return {"domains": "niche", "protocols": ["domains_kmeans"], "num_seeds": 1, **others}


@pytest.fixture(scope="module")
def whole(cohort):
    return score_cohort(cohort, **settings())


def test_a_cohort_is_scored_as_its_slides_are(cohort, whole):
    slide = cohort["s1"]
    slots = {key: slide.adata.obsm[key] for key in sorted(slide.adata.obsm) if key[:2] == "X_"}
    alone = run_protocols(
        slots,
        slide.counts,
        slide.pos,
        domains=slide.adata.obs["niche"],
        protocols=["domains_kmeans"],
        num_seeds=1,
    )
    found = whole[whole["slide_id"] == "s1"].reset_index(drop=True)
    assert {"pca30", "pca30_nbr15", "X_context"} <= {*found["embedding"]}
    pd.testing.assert_frame_equal(found[SCORES[1:]], alone[SCORES[1:]])
    assert whole["slide_id"].unique().tolist() == ["s0", "s1", "s2"]


def test_shards_merge_to_the_table_of_all_and_gaps_are_refused(cohort, whole, tmp_path):
    out = tmp_path / "scores.csv"
    with pytest.raises(FileNotFoundError, match="there are none"):
        merge_scores(out)
    assert score_cohort(cohort, out=out, shard="1/2", **settings()) is None
    with pytest.raises(ValueError, match="none of 0/2: run --shard 0/2"):
        merge_scores(out)
    with pytest.raises(ValueError, match=r"embeddings or settings of the shards .*1/2"):
        score_cohort(cohort, out=out, shard="0/2", **settings(num_seeds=2))
    (begun,) = shard_folder(out).iterdir()
    with only_writer(begun / "0-of-2"), pytest.raises(BusyError):
        score_cohort(cohort, out=out, shard="0/2", **settings())
    score_cohort(cohort, out=out, shard="0/2", **settings())
    merged = merge_scores(out)
    pd.testing.assert_frame_equal(merged[SCORES], whole[SCORES].reset_index(drop=True))
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]
    assert pd.read_csv(out)["value"].tolist() == pytest.approx(merged["value"].tolist())


def labelled(tmp_path, **labels):
    """An embedded cohort, the labels of whose slides are given by slide; one has no such column."""
    slides = [
        sg.make_tissue(150, num_genes=20, image=None, seed=seed, slide_id=name)
        for seed, name in enumerate(labels)
    ]
    for slide, values in zip(slides, labels.values(), strict=True):
        if values is not None:
            slide.adata.obs["known"] = np.resize(values, 150)
    model = sg.models.ContextModel.for_slides(slides, channels=8)
    made = Cohort.create(tmp_path / "c.zarr", slides, model.recipe, tile_size=64)
    return sg.embed(model, made, device="cpu", progress=False)


def test_a_slide_that_cannot_be_scored_is_named_and_the_others_are_scored(tmp_path):
    cohort = labelled(tmp_path, one=["a"], two=["a", "b"], none=None, gone=["?"], three=["b", "c"])
    options = settings(domains="known", unlabelled=["?"])
    with pytest.warns(UserWarning, match="Not scored: one by domains_kmeans: Expected two labels"):
        table = score_cohort(cohort, **options)
    lost = table[table["not_scored"] != ""].set_index("slide_id")
    assert lost.index.tolist() == ["one", "none", "gone"]
    assert "two labels or more in obs['known'], got 1" in lost.loc["one", "not_scored"]
    assert "column of obs with known labels, got 'known'" in lost.loc["none", "not_scored"]
    assert "got 0 in 0 labelled cells" in lost.loc["gone", "not_scored"]
    assert lost["value"].isna().all()
    scored = table[table["not_scored"] == ""]
    assert scored["slide_id"].unique().tolist() == ["two", "three"]
    assert scored["value"].notna().all()
    out = tmp_path / "scores.csv"
    with pytest.warns(UserWarning, match="Not scored: one by domains_kmeans"):
        score_cohort(cohort, out=out, **options)
    written = pd.read_csv(out)
    assert written["slide_id"].tolist() == table["slide_id"].tolist()
    assert written["not_scored"].notna().sum() == 3


def test_each_protocol_is_judged_by_its_own_labels(tmp_path):
    cohort = labelled(tmp_path, mixed=["a"], both=["a", "b"])
    options = settings(types="known", protocols=["domains_kmeans", "annotation_blocks"])
    with pytest.warns(UserWarning, match="Not scored: mixed by annotation_blocks"):
        table = score_cohort(cohort, **options)
    done = table[table["not_scored"] == ""].groupby("slide_id", sort=False)["protocol"].unique()
    assert done["mixed"].tolist() == ["domains_kmeans"]
    assert done["both"].tolist() == ["domains_kmeans", "annotation_blocks"]


def test_labels_that_folds_cannot_hold_out_are_no_scores(tmp_path):
    rare = ["a"] * 149 + ["b"]
    cohort = labelled(tmp_path, rare=rare, both=["a", "b"])
    with pytest.warns(UserWarning, match="Not scored: rare by annotation_blocks"):
        table = score_cohort(cohort, types="known", protocols=["annotation_blocks"], num_seeds=1)
    assert table[table["not_scored"] == ""]["slide_id"].unique().tolist() == ["both"]


def test_a_cohort_of_which_no_slide_can_be_scored_is_refused_and_leaves_nothing(tmp_path):
    cohort = labelled(tmp_path, one=["a"], two=["b"])
    for column in ("known", "knowm"):
        with pytest.raises(ValueError, match=r"can be scored, got none of 2: Expected"):
            score_cohort(cohort, out=tmp_path / "s.csv", **settings(domains=column))
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_shards_of_which_no_slide_can_be_scored_are_not_merged_and_leave_nothing(tmp_path):
    cohort = labelled(tmp_path, one=["a"] * 149 + ["b"], two=["c"] * 149 + ["d"])
    options = {"types": "known", "protocols": ["annotation_blocks"], "num_seeds": 1}
    for shard in ("0/2", "1/2"):
        score_cohort(cohort, out=tmp_path / "s.csv", shard=shard, **options)
    with pytest.raises(ValueError, match=r"got none of 2: Expected at least two"):
        merge_scores(tmp_path / "s.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]
    with pytest.raises(ValueError, match="Expected known 'domains' or 'types'"):
        score_cohort(cohort)


def test_what_cannot_be_scored(cohort, tmp_path):
    with pytest.raises(ValueError, match="Expected out= with shard='0/2'"):
        score_cohort(cohort, shard="0/2", **settings())
    with pytest.raises(ValueError, match=r"ends in .csv, got 'a.txt'"):
        score_cohort(cohort, out=tmp_path / "a.txt", **settings())
    with pytest.raises(ValueError, match="Expected obsm\\['X_none'\\] in slide 's0'"):
        score_cohort(cohort, embeddings=["X_none"], **settings())


def test_a_column_that_no_slide_has_is_refused_though_another_is_there(cohort):
    with pytest.raises(ValueError, match="cel_type"):
        score_cohort(cohort, **settings(types="cel_type"))
