import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from spatiagraph._config import from_config, to_config
from spatiagraph.data import LabelSet, make_tissue
from spatiagraph.data.labels import is_unlabelled
from spatiagraph.losses.hierarchical import hierarchical_bce, leaf_descendants

TREE = {"CD4": ["T"], "CD8": ["T"], "T": ["lymphocyte"], "B": ["lymphocyte"]}


def slide_with(slide_id="s", **columns):
    slide = make_tissue(60, num_genes=20, slide_id=slide_id)
    for name, values in columns.items():
        slide.adata.obs[name] = pd.Series(list(values) * 60, dtype=object)[:60].to_numpy()
    return slide


def test_classes_of_a_cohort_are_numbered_the_same_on_every_slide():
    a, b = slide_with(kind=["B", "T"]), slide_with(kind=["T", "mast"])
    labels = LabelSet.from_slides([a, b], ["kind"])
    assert labels.classes == {"kind": ["B", "T", "mast"]}
    assert labels.encode(a)[:2, 0].tolist() == [0, 1]
    assert labels.encode(b)[:2, 0].tolist() == [1, 2]
    assert labels.num_classes == [3]
    assert labels.descendants == [None]


def test_what_is_not_known_is_minus_one():
    """SPATIA fact 22: such labels cost nothing."""
    values = ["B", None, np.nan, "Unknown", "NA", "", "ambiguous", "undetermined"]
    slide = slide_with(kind=values)
    labels = LabelSet.from_slides([slide], ["kind", "cell_type"])
    assert labels.classes["kind"] == ["B"]
    assert labels.encode(slide)[:8, 0].tolist() == [0, -1, -1, -1, -1, -1, -1, -1]


def test_a_column_that_a_slide_lacks_is_unknown_there():
    labels = LabelSet.from_slides([slide_with(kind=["B"]), slide_with()], ["kind", "cell_type"])
    code = labels.encode(slide_with())
    assert code.shape == (60, 2)
    assert code.dtype == torch.long
    assert (code[:, 0] == -1).all()
    assert (code[:, 1] >= 0).all()


def test_categories_strings_and_cluster_numbers_are_all_labels():
    slide = slide_with()
    slide.adata.obs["leiden"] = np.array([2.0, np.nan, 0.0] * 20)
    whole = slide_with()
    whole.adata.obs["leiden"] = np.array([2, 0, 0] * 20)
    labels = LabelSet.from_slides([slide, whole], ["leiden", "cell_type"])
    assert labels.classes["leiden"] == ["0", "2"]
    assert labels.encode(slide)[:3, 0].tolist() == [1, -1, 0]
    assert labels.encode(whole)[:3, 0].tolist() == [1, 0, 0]
    codes = slide.adata.obs["cell_type"].cat.codes.to_numpy()
    np.testing.assert_array_equal(labels.encode(slide)[:, 1], codes)


def test_a_branch_is_numbered_after_the_leaves_and_satisfied_by_any_below_it():
    """SPATIA fact 22."""
    slide = slide_with(kind=["B", "CD4", "T", "lymphocyte"])
    parents = {"kind": {"T": ["CD4", "CD8"], "lymphocyte": ["B", "CD4", "CD8"]}}
    labels = LabelSet.from_slides([slide], ["kind"], parents=parents)
    assert labels.classes["kind"] == ["B", "CD4", "CD8"]  # CD8 though it does not occur
    code = labels.encode(slide)[:4, 0]
    assert code.tolist() == [0, 1, 3, 4]
    (below,) = labels.descendants
    branches, expected = leaf_descendants(TREE, labels.classes["kind"])
    assert branches == list(parents["kind"])
    assert_close(below, expected)
    sure = torch.tensor([[-30.0, 30.0, -30.0]]).expand(3, -1)
    assert hierarchical_bce(sure, code[1:], below) < 1e-6


def test_new_classes_are_refused_with_the_number_of_their_cells():
    labels = LabelSet({"kind": ["B", "T"]})
    with pytest.raises(ValueError, match=r"'plasma' \(20 cells\), 20 of 60 cells.* unknown="):
        labels.encode(slide_with(kind=["B", "T", "plasma"]))
    assert (
        LabelSet({"kind": ["B", "T"]}, unknown=["plasma"]).encode(
            slide_with(kind=["B", "T", "plasma"])
        )[2::3]
        == -1
    ).all()


def test_labels_survive_json():
    labels = LabelSet({"b": ["x"], "a": ["z", "y"]}, {"a": {"p": ["z", "y"]}})
    again = LabelSet.from_dict(json.loads(json.dumps(labels.to_dict())))
    assert again == labels
    assert list(again.classes) == ["b", "a"]
    assert from_config(json.loads(json.dumps(to_config({"labels": labels})))) == {"labels": labels}


@pytest.mark.parametrize(
    ("classes", "parents", "message"),
    [
        ({"a": []}, {}, "Expected classes for the label 'a'"),
        ({"a": ["x", "x"]}, {}, r"each class of 'a' once, got \['x'\]"),
        ({"a": ["x", "unknown"]}, {}, r"say something, got \['unknown'\]"),
        ({"a": ["x"]}, {"b": {"p": ["x"]}}, r"columns with classes, got \['b'\]"),
        ({"a": ["x"]}, {"a": {"x": ["x"]}}, r"no classes, got \['x'\]"),
        ({"a": ["x"]}, {"a": {"p": ["y"]}}, "below its branch 'p'"),
        ({"a": ["x"]}, {"a": {"p": []}}, "below its branch 'p'"),
    ],
)
def test_classes_that_make_no_sense_are_refused(classes, parents, message):
    with pytest.raises(ValueError, match=message):
        LabelSet(classes, parents)


def test_a_column_of_no_slide_is_refused():
    with pytest.raises(ValueError, match=r"'cell_typ' in the obs.* Nearest: 'cell_type'"):
        LabelSet.from_slides([slide_with()], ["cell_typ"])


def test_cells_without_a_label_are_those_whose_name_says_so_unless_names_are_given():
    values = pd.Series(["L1", "NA", " unknown ", None, "AMBIGUOUS", "", "7"], dtype="category")
    assert is_unlabelled(values).tolist() == [False, True, True, True, True, True, False]
    given = is_unlabelled(values, ["l1", "7"])
    assert given.tolist() == [True, False, False, True, False, True, True]
    assert is_unlabelled(pd.Series([1.0, np.nan, 99.0]), ["99.0"]).tolist() == [False, True, True]
    assert is_unlabelled(pd.Series([1.0, np.nan, 99.0]), ["99"]).tolist() == [False, True, True]
    assert is_unlabelled(pd.Series([1e20, np.inf, 2.0]), ["2"]).tolist() == [False] * 3
    assert is_unlabelled(pd.Series([1.5, 99.0]), ["99"]).tolist() == [False, False]
    assert is_unlabelled(pd.Series([1, 99]), ["99"]).tolist() == [False, True]
