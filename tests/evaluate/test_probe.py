import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, precision_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import spatiagraph as sg
from spatiagraph.data.splits import Folds, spatial_blocks
from spatiagraph.evaluate import log_normalize, pca, random_folds, score_probe


def task(num_cells=120, num_classes=3, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, num_cells)
    z = np.eye(num_classes)[label] * 2 + spread * rng.normal(size=(num_cells, num_classes))
    return z, label, rng.integers(0, 4, num_cells)


@pytest.mark.parametrize("classifier", ["lr", "knn"])
def test_scores_match_a_loop_over_folds(classifier):
    z, label, fold = task()
    z = z * [1.0, 0.01, 1.0]  # a column that is small, not idle
    guess = np.empty_like(label)
    parts = []
    for f in range(4):
        train, test = fold != f, fold == f
        if classifier == "lr":
            scaler = StandardScaler().fit(z[train])
            model = LogisticRegression(C=1.0, max_iter=500)
            guess[test] = model.fit(scaler.transform(z[train]), label[train]).predict(
                scaler.transform(z[test])
            )
        else:
            model = KNeighborsClassifier(15).fit(z[train], label[train])
            guess[test] = model.predict(z[test])
        parts.append(accuracy_score(label[test], guess[test]))
    row = score_probe({"z": z}, label, fold, classifier=classifier).loc["z"]
    assert row["macro_F1"] == pytest.approx(f1_score(label, guess, average="macro"))
    precision = precision_score(label, guess, average="macro")
    assert row["macro_precision"] == pytest.approx(precision)
    assert row["accuracy"] == pytest.approx(accuracy_score(label, guess))
    assert row["accuracy_mean"] == pytest.approx(np.mean(parts))
    assert row["accuracy_std"] == pytest.approx(np.std(parts, ddof=1))
    assert row["accuracy"] > 0.7


def test_the_majority_is_always_in_the_table():
    label = np.array([0] * 60 + [1] * 30 + [2] * 10)
    fold = np.arange(100) % 5
    table = score_probe({"z": np.eye(3)[label]}, label, fold)
    assert table.index.tolist() == ["z", "majority"]
    assert table.loc["majority", "accuracy"] == pytest.approx(0.6)
    assert table.loc["majority", "macro_F1"] == pytest.approx((2 * 0.6 / 1.6) / 3)
    assert table.loc["z", "macro_F1"] == 1


def test_a_label_that_a_fold_lacks_does_not_lower_the_score_of_that_fold():
    label = np.repeat([0, 1, 2], 12)
    fold = np.where(label == 2, 1 + np.arange(36) % 2, np.arange(36) % 3)  # none of 2 in fold 0
    row = score_probe({"z": np.eye(3)[label]}, label, fold).loc["z"]
    assert row["macro_F1_mean"] == 1
    assert row["macro_F1_std"] == 0
    seen_as = label.copy()
    seen_as[0] = 2  # one of four is taken for the label that fold 0 lacks: F1 = 6/7 and 1
    row = score_probe({"z": np.eye(3)[seen_as]}, label, fold).loc["z"]
    assert row["macro_F1_mean"] == pytest.approx(((6 / 7 + 1) / 2 + 1 + 1) / 3)


def test_held_out_labels_are_not_seen():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400)
    fold = rng.integers(0, 4, 400)
    own_row = np.eye(400)  # tells training cells apart, says nothing of others
    assert abs(score_probe({"z": own_row}, label, fold).loc["z", "accuracy"] - 0.5) < 0.1


def test_scores_do_not_depend_on_the_order_of_cells():
    z, label, fold = task()
    perm = np.random.default_rng(1).permutation(len(z))
    table = score_probe({"z": z}, label, fold)
    shuffled = score_probe({"z": z[perm]}, label[perm], fold[perm])
    pd.testing.assert_frame_equal(shuffled, table)


def test_rare_and_missing_labels_and_cells_without_fold_take_no_part():
    z, label, fold = task()
    table = score_probe({"z": z}, label, fold)
    names = np.array(["T", "B", "NK"], dtype=object)[label]
    more = np.array(["rare"] * 9 + ["?"] * 20 + [None] * 5 + ["T"] * 7, dtype=object)
    junk = np.full((len(more), 3), 50.0)
    extra = np.r_[np.arange(34) % 4, np.full(7, -1)]
    got = score_probe(
        {"z": np.vstack([z, junk])}, np.r_[names, more], np.r_[fold, extra], ignore=["?"]
    )
    # the codes of the labels differ, which moves no prediction
    pd.testing.assert_frame_equal(got, table, rtol=1e-6)
    assert got.loc["z", "num_cells"] == 120
    assert got.loc["z", "num_classes"] == 3


def test_any_classifier_of_scikit_learn_serves():
    z, label, fold = task()
    model = DummyClassifier(strategy="constant", constant=1)
    table = score_probe({"z": z}, label, fold, classifier=model)
    assert table.loc["z", "accuracy"] == pytest.approx((label == 1).mean())
    assert not hasattr(model, "classes_")  # a copy was trained


def test_cell_types_are_read_from_genes_and_shuffled_labels_are_not():
    slide = sg.make_tissue(600, num_types=4, num_genes=60, image=None, seed=0)
    z, fold = pca(slide.counts, 10), spatial_blocks(slide.pos, seed=0)
    label = slide.adata.obs["cell_type"].to_numpy()
    table = score_probe({"pca": z}, label, fold)
    assert table.loc["pca", "macro_F1"] > table.loc["majority", "macro_F1"] + 0.5
    shuffled = np.random.default_rng(0).permutation(label)
    assert score_probe({"pca": z}, shuffled, fold).loc["pca", "macro_F1"] < 0.35


def test_a_network_learns_what_a_line_cannot_part():
    rng = np.random.default_rng(0)
    z = rng.uniform(-1, 1, (400, 2))
    label = (z[:, 0] * z[:, 1] > 0).astype(int)
    fold = rng.integers(0, 3, 400)
    line = score_probe({"z": z}, label, fold).loc["z", "accuracy"]
    network = score_probe({"z": z}, label, fold, classifier="mlp").loc["z", "accuracy"]
    again = score_probe({"z": z}, label, fold, classifier="mlp").loc["z", "accuracy"]
    assert line < 0.65
    assert network > 0.85
    assert again == network


def test_random_folds_hold_a_share_of_every_label():
    label = np.array(["a"] * 50 + ["b"] * 25 + ["rare"] * 4 + ["?"] * 20)
    perm = np.random.default_rng(0).permutation(len(label))
    label = label[perm]
    fold = random_folds(label, ignore=["?"])
    for number in range(5):
        assert (label[fold == number] == "a").sum() == 10
        assert (label[fold == number] == "b").sum() == 5
    assert set(fold[np.isin(label, ["rare", "?"])]) == {-1}
    assert (random_folds(label, seed=1) != random_folds(label)).any()
    with pytest.raises(ValueError, match="got 60 for 95 cells"):
        random_folds(label, 60)
    with pytest.raises(ValueError, match="got 5 for 0 cells"):
        random_folds(label, min_cells=1000)


def test_bad_input_is_refused():
    z, label, fold = task()
    with pytest.raises(ValueError, match="each of 120 cells, got shape"):
        score_probe({"z": z}, label, fold[:100])
    with pytest.raises(ValueError, match="integers, got float64"):
        score_probe({"z": z}, label, fold / 2)
    with pytest.raises(ValueError, match="at least two folds"):
        score_probe({"z": z}, label, np.zeros(120, int))
    with pytest.raises(ValueError, match=r"got 0 \(0 cells with a label that 500"):
        score_probe({"z": z}, label, fold, min_cells=500)
    with pytest.raises(ValueError, match="two labels to train on, got 1 outside of fold 1"):
        score_probe({"z": z}, label, label.clip(max=1), min_cells=1)
    place = np.column_stack([np.array([0, 1, 5])[label], np.zeros(120)])
    near = Folds(label, place, margin_um=1.5)
    with pytest.raises(ValueError, match="min_cells' than 10, or a smaller 'margin_um' than 1.5"):
        score_probe({"z": z}, label, near)
    with pytest.raises(ValueError, match="named 'majority'"):
        score_probe({"majority": z}, label, fold)
    with pytest.raises(
        ValueError, match='"lr", "mlp", "knn" or a scikit-learn classifier, got \'svm\''
    ):
        score_probe({"z": z}, label, fold, classifier="svm")


def test_cell_types_score_as_published(real_data):
    """STARmap, logistic regression on genes, five deals of blocks: 0.634; majority 0.011."""
    slide = sg.read(real_data / "starmap_by3" / "starmap_by3.h5ad", mpp=0.1)
    slide = slide[(slide.adata.obs["celltype"].astype(str) != "nan").to_numpy()]
    genes = {"genes": log_normalize(slide.counts).toarray()}
    label = slide.adata.obs["celltype"]
    tables = [score_probe(genes, label, spatial_blocks(slide.pos, seed=s)) for s in range(5)]
    f1 = pd.concat(tables)["macro_F1"].groupby(level=0).mean()
    assert (tables[0][["num_classes", "num_cells"]] == [16, 1207]).all(axis=None)
    assert f1["genes"] == pytest.approx(0.634, abs=0.01)
    assert f1["majority"] == pytest.approx(0.011, abs=0.001)


def test_random_splits_score_higher_than_blocks_as_published(real_data):
    """STARmap, logistic regression on genes: 0.702 on random fifths, 0.634 on blocks."""
    slide = sg.read(real_data / "starmap_by3" / "starmap_by3.h5ad", mpp=0.1)
    slide = slide[(slide.adata.obs["celltype"].astype(str) != "nan").to_numpy()]
    label = slide.adata.obs["celltype"]
    genes = {"genes": log_normalize(slide.counts).toarray()}
    table = score_probe(genes, label, random_folds(label))
    assert table.loc["genes", "macro_F1"] == pytest.approx(0.702, abs=0.03)
