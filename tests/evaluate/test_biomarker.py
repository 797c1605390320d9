"""Labels of patients from bags of niches."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.evaluate import BagTraining, score_biomarker
from spatiagraph.evaluate.biomarker import Bags
from spatiagraph.heads import BagHead

QUICK = BagTraining(num_steps=40, hidden_channels=16, dropout=0.0, lr=1e-2)


def patients(kind: str, num: int = 24, niches: int = 12, seed: int = 0):
    """Bags in which the label is told by the mean niche, or by one niche of many."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(num), niches)
    label = np.arange(num) % 2
    z = rng.normal(size=(num * niches, 4))
    if kind == "mean":
        z[:, 0] += 2 * label[patient]
    if kind == "one":  # of the first label up and down cancel, of the other both are the same
        first, second = np.arange(num) * niches, np.arange(num) * niches + 1
        z[first, 1], z[second, 1] = 9, -9
        z[first, 2] = z[second, 2] = np.where(label == 1, 9, 0)
        z[first + 2, 2] = z[second + 2, 2] = np.where(label == 1, -9, 0)
        z[:, 3] = 0
    return z, patient, dict(enumerate(np.array(["no", "yes"])[label].tolist()))


def test_a_bag_has_no_order_and_batches_are_bags_alone():
    torch.manual_seed(0)
    head = BagHead(5, 3).eval()
    h, bag = torch.randn(9, 5), torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 2])
    out = head(h, bag, 3)
    order = torch.randperm(9)
    assert_close(head(h[order], bag[order], 3), out)
    for number in range(3):
        own = h[bag == number]
        assert_close(head(own, torch.zeros(len(own), dtype=torch.long), 1)[0], out[number])


def test_a_bag_of_one_niche_is_that_niche_and_the_mlp_has_three_layers():
    torch.manual_seed(0)
    head = BagHead(5, 2).eval()
    torch.nn.init.normal_(head.pool.query)
    h, bag = torch.randn(7, 5), torch.tensor([2, 0, 2, 2, 0, 1, 2])
    assert_close(head(h, bag, 3)[1], head.mlp(h[bag == 1])[0])
    assert not torch.isclose(head(h, bag, 3)[2], head.mlp(h[bag == 2].mean(0))).all()
    assert sum(isinstance(layer, torch.nn.Linear) for layer in head.mlp) == 3


def test_a_label_in_the_mean_is_found_by_both():
    table = score_biomarker(
        {"z": patients("mean")[0]}, *patients("mean")[1:], training=QUICK, num_repeats=2
    )
    assert (table["auc"] > 0.95).all()
    assert table["num_patients"].tolist() == [24, 24]
    assert table["num_niches"].tolist() == [288, 288]


def test_a_label_in_few_niches_is_found_by_attention_alone():
    z, patient, labels = patients("one", num=40)
    table = score_biomarker({"z": z}, patient, labels, training=QUICK, num_repeats=1)["auc"]
    assert table["z", "attention"] > 0.9
    assert table["z", "mean"] < 0.8


def test_labels_that_mean_nothing_are_not_found():
    """Patients are held out whole: an embedding that names the patient is of no use."""
    z, patient, labels = patients("none")
    z = np.eye(24)[patient] + 0.01 * np.c_[z, np.zeros((len(z), 20))]
    found = score_biomarker({"z": z}, patient, labels, training=QUICK, num_repeats=2)
    assert (found["auc"] < 0.75).all()
    assert (found["train_auc"] > 0.95).all()


def test_the_order_of_niches_changes_nothing():
    z, patient, labels = patients("mean", num=8, niches=5)
    first = score_biomarker({"z": z}, patient, labels, num_folds=2, num_repeats=1, training=QUICK)
    again = score_biomarker({"z": z}, patient, labels, num_folds=2, num_repeats=1, training=QUICK)
    pd.testing.assert_frame_equal(first, again)
    shuffled = np.random.default_rng(1).permutation(len(z))
    mean = score_biomarker(
        {"z": z[shuffled]}, patient[shuffled], labels, num_folds=2, num_repeats=1, training=QUICK
    )
    assert mean.loc[("z", "mean"), "auc"] == first.loc[("z", "mean"), "auc"]


def test_bags_of_one_niche_and_patients_without_a_label():
    z, patient, labels = patients("mean", num=16, niches=1)
    z[:, 0] *= 5
    del labels[3], labels[4]
    table = score_biomarker({"z": z}, patient, labels, num_repeats=1, training=QUICK)
    assert table["num_patients"].tolist() == [14, 14]
    assert table["num_niches"].tolist() == [14, 14]
    assert table.loc[("z", "mean"), "auc"] > 0.8


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_label_is_none(missing):
    z, patient, labels = patients("mean", num=16, niches=2)
    labels[3] = labels[4] = missing
    table = score_biomarker({"z": z}, patient, labels, num_repeats=1, training=QUICK)
    assert table["num_patients"].tolist() == [14, 14]
    only = {name: "a" if name % 2 else missing for name in labels}
    with pytest.raises(ValueError, match=r"two labels of patients, got 1: \['a'\]"):
        score_biomarker({"z": z}, patient, only, num_repeats=1, training=QUICK)


def test_labels_may_be_a_series():
    z, patient, labels = patients("mean", num=12, niches=3)
    options = {"num_folds": 2, "num_repeats": 1, "training": QUICK}
    pd.testing.assert_frame_equal(
        score_biomarker({"z": z}, patient, pd.Series(labels), **options),
        score_biomarker({"z": z}, patient, labels, **options),
    )
    twice = pd.concat([pd.Series(labels), pd.Series({3: "no"})])
    with pytest.raises(ValueError, match="one label of each of the patients, got two of 3"):
        score_biomarker({"z": z}, patient, twice, **options)


def test_regions_of_a_patient_have_labels_and_patients_are_held_out():
    """An embedding that names the patient finds nothing of patients it has not seen."""
    num, each, niches = 16, 3, 4
    region = np.repeat(np.arange(num * each), niches)
    patient = region // each
    label = np.where(
        np.arange(num * each) % each == 0, patient[::niches] % 2 == 0, patient[::niches] % 2
    )
    labels = {f"r{i}": "ab"[int(kind)] for i, kind in enumerate(label)}
    names = np.char.add("r", region.astype(str))
    rng = np.random.default_rng(0)
    z = rng.normal(size=(len(region), 3)) + 3 * label[region][:, None]
    who = np.eye(num)[patient] + 0.01 * rng.normal(size=(len(region), num))
    table = score_biomarker(
        {"label": z, "patient": who}, patient, labels, region=names, num_repeats=2, training=QUICK
    )
    assert (table.loc["label", "auc"] > 0.95).all()
    assert (table.loc["patient", "auc"] < 0.75).all()
    sizes = table[["num_patients", "num_bags", "num_niches"]].drop_duplicates()
    assert sizes.to_numpy().tolist() == [[16, 48, 192]]
    with pytest.raises(ValueError, match="each region in one patient, got several of 'r0'"):
        score_biomarker({"z": z}, np.arange(192) % 16, labels, region=names)
    with pytest.raises(ValueError, match=r"'region' of each of 192 niches, got shape \[191\]"):
        score_biomarker({"z": z}, patient, labels, region=names[1:])


@pytest.mark.parametrize("kind", ["mean", "attention"])
def test_what_patients_that_are_held_out_look_like_is_not_known_in_training(kind):
    z, patient, labels = patients("mean", num=10, niches=4)
    truth = np.array([labels[i] == "yes" for i in range(10)], dtype=np.int64)
    train = np.arange(8)

    def chance(z):
        bags = Bags(z, patient, truth)
        return bags.mean(train) if kind == "mean" else bags.attention(train, QUICK, 0)

    shifted = z + 50.0 * (patient == 9)[:, None]
    first, again = chance(z), chance(shifted)
    np.testing.assert_allclose(again[:9], first[:9], atol=1e-6)
    assert abs(again[9] - first[9]) > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": {str(i): "ab"[i % 2] for i in range(24)}},
            r"patients of the niches \(0, 1, 2, …\), got those of others \('0', '1', '2', …\)",
        ),
        ({"labels": dict.fromkeys(range(24), "a")}, "two labels of patients, got 1"),
        ({"labels": {i: str(i) for i in range(3)}}, "two labels of patients, got 3"),
        ({"num_folds": 13}, "between 2 and the 12 patients of the rarer label, got 13"),
        ({"patient": np.zeros(5)}, "288"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, message):
    z, patient, labels = patients("mean")
    given = {"patient": patient, "labels": labels, **change}
    with pytest.raises(ValueError, match=message):
        score_biomarker({"z": z}, training=QUICK, **given)
