import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import spatiagraph as sg
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import (
    choose_genes,
    color_texture,
    gene_pearson,
    log_normalize,
    score_image_to_genes,
)
from spatiagraph.evaluate.image_to_genes import grouped_ridge


def tissue(num_cells=160, num_genes=30, seed=0):
    """Features that drive half of the genes, counts of varying depth, four folds."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num_cells, 5))
    weight = rng.normal(size=(5, num_genes)) * (np.arange(num_genes) % 2)
    rate = np.exp(0.5 * z @ weight + 1) * rng.lognormal(0, 0.5, (num_cells, 1))
    return z, csr_matrix(rng.poisson(rate).astype(np.float32)), np.arange(num_cells) % 4


def test_features_that_carry_the_genes_score_beyond_depth_and_noise_does_not():
    z, counts, fold = tissue()
    noise = np.random.default_rng(1).normal(size=z.shape)
    table = score_image_to_genes({"z": z, "noise": noise}, counts, fold, genes="all")
    assert table.index.tolist() == ["z", "noise", "train_mean", "depth_oracle"]
    assert table.loc["z", "pearson_given_depth"] > 0.2
    assert abs(table.loc["noise", "pearson_mean"]) < 0.15
    assert table.loc["train_mean", "pearson_mean"] == 0
    assert table.loc["train_mean", "pearson_given_depth"] == 0
    assert table.loc["depth_oracle", "pearson_given_depth"] == 0
    assert (table["num_genes"] == 30).all()


def test_knowing_the_answer_scores_one():
    """SPATIA fact 41, for genes."""
    _, counts, fold = tissue(400, 6)
    log = log_normalize(counts, 1e6).toarray()
    row = score_image_to_genes({"oracle": log}, counts, fold, genes="all").loc["oracle"]
    assert row["pearson_mean"] == pytest.approx(1, abs=1e-3)
    assert row["pearson_given_depth"] == pytest.approx(1, abs=1e-2)


def test_ridge_takes_the_strength_that_predicts_left_out_groups_best():
    rng = np.random.default_rng(1)  # a draw in which training on one group would choose another
    group = np.repeat([1, 2, 3, 0], 40)  # 0 is the test set
    z = rng.normal(size=(160, 20))
    y = z @ rng.normal(size=(20, 5)) + 4 * rng.normal(size=(160, 5))

    def fit(rows, strength):
        scaler = StandardScaler().fit(z[rows])
        model = Ridge(strength).fit(scaler.transform(z[rows]), y[rows])
        return lambda new: model.predict(scaler.transform(z[new]))

    def error(strength, g):
        guess = fit((group != g) & (group > 0), strength)(group == g)
        return ((guess - y[group == g]) ** 2).sum()

    strengths = np.logspace(0, 7, 15)
    best = strengths[np.argmin([sum(error(a, g) for g in (1, 2, 3)) for a in strengths])]
    train, test = group > 0, group == 0
    got = grouped_ridge(z[train], y[train], group[train], z[test])
    np.testing.assert_allclose(got, fit(train, best)(test), rtol=1e-8)


def test_scores_are_those_of_a_loop_over_folds():
    z, counts, fold = tissue()
    y = log_normalize(counts, 1e6).toarray()
    table = score_image_to_genes({"z": z}, counts, fold, genes="all")
    parts = []
    for f in range(4):
        a, b = fold != f, fold == f
        guess = grouped_ridge(z[a], y[a], fold[a], z[b])
        parts.append(gene_pearson(y[b], guess).mean())
    assert table.loc["z", "pearson_mean"] == pytest.approx(np.mean(parts), rel=1e-5)
    assert table.loc["z", "pearson_mean_std"] == pytest.approx(np.std(parts, ddof=1), rel=1e-4)


def test_genes_are_chosen_once_each_and_the_commonest_first():
    z, counts, fold = tissue()
    log = log_normalize(counts, 1e6)
    for name in ("var250", "mean250", "hvg50", "all"):
        columns = choose_genes(counts, name, log)
        assert len(np.unique(columns)) == len(columns) == 30
    dense = counts.toarray()
    dense[:, 4] *= 20
    more = csr_matrix(np.hstack([dense] * 10))
    picked = choose_genes(more, "mean250", log_normalize(more, 1e6))
    assert set(np.arange(4, 300, 30)) <= set(picked[:10])


@pytest.mark.parametrize("genes", ["var250", "mean250", "hvg50"])
def test_genes_to_predict_are_chosen_on_training_cells(genes):
    """Fold 0 varies where training cells do not: with it, other genes would be the best."""
    rng = np.random.default_rng(0)
    fold = np.repeat([0, 1, 2, 3], 40)
    rate = np.full((160, 300), 2.0)
    rate[fold == 0, :50] *= rng.choice([0.2, 8.0], (40, 50))
    counts = csr_matrix(rng.poisson(rate).astype(np.float32))
    log, train = log_normalize(counts, 1e6), fold != 0
    columns = choose_genes(counts[train], genes, log[train])
    assert set(columns) != set(choose_genes(counts, genes, log))
    z = rng.normal(size=(160, 3))
    found = score_image_to_genes({"z": z}, counts, fold, genes=genes, held_out=[0])
    y, truth = (log[rows][:, columns].toarray() for rows in (train, ~train))
    error = ((truth - y.mean(axis=0)) ** 2).mean()
    assert found.loc["train_mean", "mse"] == pytest.approx(error, rel=1e-4)


def test_components_are_fitted_on_training_cells():
    z, counts, fold = tissue()
    rotated = np.hstack([z, z @ np.random.default_rng(2).normal(size=(5, 40))])
    table = score_image_to_genes({"wide": rotated}, counts, fold, genes="all", num_components=5)
    assert table.loc["wide", "pearson_given_depth"] > 0.2
    own = np.where(fold[:, None] == 0, 0, np.eye(160) * 100)  # says nothing of held-out cells
    row = score_image_to_genes({"own": own}, counts, fold, genes="all", num_components=20)
    assert abs(row.loc["own", "pearson_mean"]) < 0.1


@pytest.mark.parametrize("strength", ["groups", "hest"])
def test_components_keep_their_variance(strength):
    """Beside a pipeline of scikit-learn; columns that say the same leave components of nothing."""
    z, counts, fold = tissue()
    wide = z @ np.random.default_rng(2).normal(size=(5, 40))  # five components and rounding
    y = log_normalize(counts, 1e6).toarray()
    scores = []
    for number in range(4):
        train, test = fold != number, fold == number
        pipe = make_pipeline(StandardScaler(), PCA(20, random_state=0)).fit(wide[train])
        a, b = pipe.transform(wide[train]), pipe.transform(wide[test])
        if strength == "hest":
            guess = Ridge(100 / (20 * 30)).fit(a, y[train]).predict(b)
        else:
            strengths = np.logspace(0, 7, 15)
            error = np.zeros(len(strengths))
            for left in np.unique(fold[train]):
                inside = fold[train] != left
                for i, alpha in enumerate(strengths):
                    model = Ridge(alpha).fit(a[inside], y[train][inside])
                    error[i] += ((model.predict(a[~inside]) - y[train][~inside]) ** 2).sum()
            guess = Ridge(strengths[error.argmin()]).fit(a, y[train]).predict(b)
        scores.append(gene_pearson(y[test], guess).mean())
    options = {"genes": "all", "num_components": 20, "strength": strength}
    found = score_image_to_genes({"wide": wide, "z": z}, counts, fold, **options)
    assert found.loc["wide", "pearson_mean"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert found.loc["wide", "pearson_mean"] == pytest.approx(
        found.loc["z", "pearson_mean"], abs=0.02
    )


def test_the_order_of_cells_does_not_matter():
    z, counts, fold = tissue()
    perm = np.random.default_rng(3).permutation(160)
    table = score_image_to_genes({"z": z}, counts, fold, genes="var250")
    other = score_image_to_genes({"z": z[perm]}, counts[perm], fold[perm], genes="var250")
    pd.testing.assert_frame_equal(table, other, rtol=1e-4, atol=1e-6)


def test_bad_input_is_refused():
    z, counts, fold = tissue()
    for arguments, words in (
        ({"features": {"z": z[:9]}, "folds": fold}, "each of 160"),
        ({"features": {"train_mean": z}, "folds": fold}, "names than those of baselines"),
        ({"features": {"z": z}, "folds": fold * 0}, "at least two folds, got 1"),
        ({"features": {"z": z}, "folds": fold % 2}, "got 1 outside of fold 0. Pass 'groups'"),
        ({"features": {"z": z}, "folds": fold, "genes": "top"}, "among var250"),
        ({"features": {"z": z}, "folds": fold, "groups": fold[:3]}, "group for each of 160"),
    ):
        with pytest.raises(ValueError, match=words):
            score_image_to_genes(counts=counts, **arguments)
    two = score_image_to_genes({"z": z}, counts, fold % 2, groups=fold, genes="all")
    assert (two["num_folds"] == 2).all()


def test_nuclei_predict_genes_as_published(real_data):
    """Xenium, DAPI windows of 112 pixels: 0.151 and 0.134 given depth; depth alone 0.088."""
    folder = real_data / "xenium_breast_crop"
    slide = sg.read(folder / "cells.h5ad", image=folder / "morphology_mip.tif")
    crops, _ = slide.image.crops(slide.pos, 112 * slide.image.mpp, 112)
    table = score_image_to_genes(
        {"color_texture": color_texture(crops)},
        slide.counts,
        spatial_blocks(slide.pos, seed=0),
        genes="all",
        target=None,
    )
    assert table.loc["color_texture", "pearson_mean"] == pytest.approx(0.151, abs=0.01)
    assert table.loc["color_texture", "pearson_given_depth"] == pytest.approx(0.134, abs=0.01)
    assert table.loc["depth_oracle", "pearson_mean"] == pytest.approx(0.088, abs=2e-3)
    assert table.loc["train_mean", "mse"] == pytest.approx(0.166, abs=2e-3)


@pytest.mark.slow
def test_histology_predicts_genes_as_published(real_data):
    """Breast tumour sections C2 to C5, each left out: colours, and depth alone.

    The crops were resampled by another filter when these were measured.
    """
    names = ("C2", "C3", "C4", "C5")
    folder = real_data / "her2st"
    slides = [
        sg.read(folder / f"{n}.h5ad", image=folder / f"{n}_HE.jpg", pitch_um=200) for n in names
    ]
    symbols = [pd.Index(s.symbols) for s in slides]
    other = sg.read(folder / "A1.h5ad", image=False, pitch_um=200).symbols
    genes = sorted(set(other).intersection(*symbols))
    counts = sparse.vstack(
        [s.counts[:, i.get_indexer(genes)] for s, i in zip(slides, symbols, strict=True)]
    ).tocsr()
    colors = [color_texture(s.image.crops(s.pos, 160, 224)[0]) for s in slides]
    fold = np.repeat(np.arange(4), [s.num_cells for s in slides])
    published = {"var250": (0.342, 0.068, 0.419), "mean250": (0.286, 0.117, 0.488)}
    for name, (pearson, given_depth, oracle) in published.items():
        table = score_image_to_genes(
            {"color_texture": np.concatenate(colors)}, counts, fold, genes=name
        )
        assert table.loc["color_texture", "pearson_mean"] == pytest.approx(pearson, abs=0.01)
        got = table.loc["color_texture", "pearson_given_depth"]
        assert got == pytest.approx(given_depth, abs=0.01)
        assert table.loc["depth_oracle", "pearson_mean"] == pytest.approx(oracle, abs=3e-3)


def test_the_strength_of_hest_is_a_hundred_over_features_and_genes():
    """Beside scikit-learn, on standardised features and principal components of them."""
    z, counts, fold = tissue()
    rng = np.random.default_rng(0)
    wide = np.c_[z, rng.normal(size=(len(z), 7))]
    table = score_image_to_genes({"z": wide}, counts, fold % 2, genes="all", strength="hest")
    log = log_normalize(counts, 1e6).toarray()
    scores = []
    for number in (0, 1):
        train, test = fold % 2 != number, fold % 2 == number
        scaler = StandardScaler().fit(wide[train])
        ridge = Ridge(alpha=100 / (12 * 30)).fit(scaler.transform(wide[train]), log[train])
        scores.append(gene_pearson(log[test], ridge.predict(scaler.transform(wide[test]))).mean())
    assert table.loc["z", "pearson_mean"] == pytest.approx(np.mean(scores), abs=1e-9)
    assert table.loc["train_mean", "num_folds"] == 2  # needs no third group
    with pytest.raises(ValueError, match="'strength' in"):
        score_image_to_genes({"z": z}, counts, fold, strength="strong")


def test_boosted_trees_see_a_step_that_ridge_does_not():
    pytest.importorskip("xgboost", reason="boosted trees need the extra [xgboost]")
    rng = np.random.default_rng(0)
    z = rng.uniform(-1, 1, (400, 3))
    rate = np.where(np.abs(z[:, :1]) > 0.5, 20.0, 2.0) * np.array([[1.0, 0.0, 0.0]]) + 10
    counts = csr_matrix(rng.poisson(rate).astype(np.float32))
    donor = np.arange(400) % 4  # patients, each held out in turn
    r = {
        name: score_image_to_genes({"z": z}, counts, donor, genes=[0], regressor=name).loc["z"]
        for name in ("ridge", "xgboost")
    }
    assert r["xgboost"]["pearson_mean"] > 0.6 > 0.2 > r["ridge"]["pearson_mean"]
    assert r["xgboost"]["num_folds"] == 4


def test_boosted_trees_are_those_of_hest_and_say_how_to_install_them(monkeypatch):
    z, counts, fold = tissue()
    given = {}

    class Trees:
        def __init__(self, **options):
            given.update(options)

        def fit(self, x, y):
            self.mean = y.mean(axis=0)
            return self

        def predict(self, x):
            return np.tile(self.mean, (len(x), 1))

    monkeypatch.setitem(sys.modules, "xgboost", SimpleNamespace(XGBRegressor=Trees))
    table = score_image_to_genes({"z": z}, counts, fold, genes="all", regressor="xgboost")
    assert given == {
        "n_estimators": 100, "max_depth": 3, "learning_rate": 0.1, "subsample": 0.8,
        "colsample_bytree": 0.8, "random_state": 0,
    }  # fmt: skip
    assert table.loc["z", "rmse"] == pytest.approx(table.loc["train_mean", "rmse"])
    assert table.loc["depth_oracle", "pearson_mean"] > 0.1  # a ridge all the same
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ImportError, match=r"pip install 'spatiagraph\[xgboost\]'"):
        score_image_to_genes({"z": z}, counts, fold, genes="all", regressor="xgboost")
    with pytest.raises(ValueError, match="'regressor' in .*, got 'forest'"):
        score_image_to_genes({"z": z}, counts, fold, regressor="forest")


def test_subsets_of_genes_are_scored_apart_and_predicted_though_no_rule_chose_them():
    z, counts, fold = tissue()
    even, odd = np.arange(0, 30, 2), np.arange(1, 30, 2)  # the odd ones follow the features
    table = score_image_to_genes({"z": z}, counts, fold, genes=[0, 1, 2], subsets={"driven": odd})
    row = table.loc["z"]
    alone = score_image_to_genes({"z": z}, counts, fold, genes=odd).loc["z"]
    assert row["num_genes"] == 17
    for score in ("pearson_mean", "mse", "pearson_given_depth"):
        assert row[f"{score}_driven"] == pytest.approx(alone[score], rel=0.02)
        assert row[score] == pytest.approx(
            (15 * row[f"{score}_driven"] + 2 * row[f"{score}_other"]) / 17
        )
    assert row["pearson_given_depth_driven"] > row["pearson_given_depth_other"] + 0.1
    both = score_image_to_genes({"z": z}, counts, fold, genes="all", subsets={"a": even, "b": odd})
    assert not any(name.endswith("other") for name in both)


@pytest.mark.parametrize(
    ("subsets", "match"),
    [
        ({"laminar": []}, "subset 'laminar'"),
        ({"laminar": ["MBP"]}, "columns of genes"),
        ({"laminar": [-1]}, "columns of genes"),
        ({"laminar": [30]}, "below 30"),
        ({"other": [0]}, "another name"),
    ],
)
def test_subsets_without_genes_are_refused(subsets, match):
    z, counts, fold = tissue()
    with pytest.raises(ValueError, match=match):
        score_image_to_genes({"z": z}, counts, fold, subsets=subsets)
