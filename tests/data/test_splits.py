import numpy as np
import pandas as pd
import pytest
import torch

import spatiagraph as sg
from spatiagraph.data.splits import (
    Folds,
    away_from,
    check_no_leak,
    neighbor_distance_um,
    spatial_blocks,
    split_by_donor,
    split_by_slide,
)

SPLITS = pytest.mark.parametrize("split", [split_by_donor, split_by_slide])


def scattered(num_cells=400, seed=0):
    return np.random.default_rng(seed).uniform(0, 1000, (num_cells, 2))


@SPLITS
def test_a_group_is_never_divided_and_every_fold_has_one(split):
    names = np.random.default_rng(0).choice([f"g{i}" for i in range(9)], 200)
    folds = split(names, 4, seed=1)
    assert all(len(set(folds[names == name])) == 1 for name in set(names))
    assert set(folds) == {0, 1, 2, 3}


@SPLITS
def test_folds_are_as_even_as_whole_groups_allow(split):
    names = np.repeat(["a", "b", "c", "d", "e"], [50, 30, 20, 26, 24])
    folds = split(names, 3)
    assert sorted(np.bincount(folds)) == [50, 50, 50]


@SPLITS
def test_none_holds_out_one_group_at_a_time(split):
    folds = split(["b", "a", "b", "c"], None)
    assert folds[0] == folds[2]
    assert sorted(set(folds)) == [0, 1, 2]


@SPLITS
def test_group_folds_do_not_depend_on_the_order_of_entries(split):
    names = np.random.default_rng(0).choice([f"g{i}" for i in range(9)], 90)
    perm = np.random.default_rng(1).permutation(90)
    np.testing.assert_array_equal(split(names[perm], 3), split(names, 3)[perm])


@SPLITS
def test_the_seed_decides_which_equal_groups_go_together(split):
    names = np.repeat([f"g{i}" for i in range(8)], 5)
    np.testing.assert_array_equal(split(names, 4, seed=2), split(names, 4, seed=2))
    assert len({tuple(split(names, 4, seed=s)) for s in range(5)}) > 1


def test_slides_are_split_by_what_they_say_of_themselves():
    slides = [
        sg.make_tissue(60, image=None, slide_id=f"s{i}", donor=donor)
        for i, donor in enumerate(["ann", "bob", "ann"])
    ]
    by_donor = split_by_donor(slides, None)
    assert by_donor[0] == by_donor[2] != by_donor[1]
    assert sorted(split_by_slide(slides, 3)) == [0, 1, 2]
    slides[1].donor = None
    with pytest.raises(ValueError, match=r"a donor for each entry, got none for 1 of 3.*\[1\]"):
        split_by_donor(slides, 2)


def test_a_missing_name_and_too_many_folds_are_refused():
    column = pd.Series(["ann", None, "bob"])
    with pytest.raises(ValueError, match=r"got none for 1 of 3 \(first: \[1\]\)"):
        split_by_donor(column, 2)
    with pytest.raises(ValueError, match="number of slides, got 5 for 2 slides"):
        split_by_slide(["a", "b", "b"])
    with pytest.raises(ValueError, match="number of donors, got 1 for 1 donors"):
        split_by_donor(["a", "a"], None)


def test_blocks_match_a_loop_over_ranks():
    pos = scattered(403)
    strip = np.empty(403, int)
    for i, rows in enumerate(np.array_split(np.argsort(pos[:, 0]), 3)):
        strip[rows] = i
    block = np.empty(403, int)
    for i in range(3):
        rows = np.flatnonzero(strip == i)
        for j, part in enumerate(np.array_split(np.argsort(pos[rows, 1]), 2)):
            block[rows[part]] = 2 * i + j
    deal = np.random.default_rng(7).permutation(np.arange(6) % 3)
    got = spatial_blocks(pos, num_folds=3, seed=7, grid=(3, 2))
    np.testing.assert_array_equal(got, deal[block])


def test_blocks_are_even_and_compact():
    pos = scattered(2000)
    folds = spatial_blocks(pos, seed=0)
    np.testing.assert_array_equal(np.bincount(folds), [400] * 5)
    same = folds[sg.graph.knn_graph(pos, 5)]
    assert (same[0] == same[1]).mean() > 0.8  # 0.2 at random


def test_blocks_do_not_depend_on_units_origin_or_order():
    pos = scattered()
    folds = spatial_blocks(pos, seed=3)
    np.testing.assert_array_equal(spatial_blocks(pos * 0.5 - 99, seed=3), folds)
    perm = np.random.default_rng(1).permutation(len(pos))
    np.testing.assert_array_equal(spatial_blocks(torch.from_numpy(pos[perm]), seed=3), folds[perm])
    assert (spatial_blocks(pos, seed=4) != folds).any()


def test_each_slide_is_cut_on_its_own():
    pos, slide = scattered(600), np.repeat(["b", "a"], 300)
    pos[:300] += 5000
    folds = spatial_blocks(pos, num_folds=4, slide=slide, grid=(2, 2))
    for name in "ab":
        assert len(set(folds[slide == name])) > 1
    moved = pos + np.where(slide == "a", 3e4, 0)[:, None]  # a slide may lie anywhere
    np.testing.assert_array_equal(
        spatial_blocks(moved, num_folds=4, slide=slide, grid=(2, 2)), folds
    )


def test_impossible_blocks_are_refused():
    with pytest.raises(ValueError, match=r"at least 20 cells on each slide.*got 19"):
        spatial_blocks(scattered(19))
    with pytest.raises(ValueError, match="between 2 and the 20 blocks, got 21"):
        spatial_blocks(scattered(50), num_folds=21)
    with pytest.raises(ValueError, match=r"one block each way, got \(5, 0\)"):
        spatial_blocks(scattered(50), grid=(5, 0))


def test_away_from_matches_brute_force():
    pos, slide = scattered(150), np.arange(150) % 2
    cells = np.arange(150) < 20
    distance = np.linalg.norm(pos[:, None] - pos[None, cells], axis=2)
    np.testing.assert_array_equal(away_from(pos, cells, 120), (distance > 120).all(1))
    distance[slide[:, None] != slide[None, cells]] = np.inf
    got = away_from(pos, np.flatnonzero(cells), 120, slide=slide)
    np.testing.assert_array_equal(got, (distance > 120).all(1))


def test_the_splits_here_pass_their_own_check():
    """SPATIA fact 8."""
    pos = scattered(600)
    names = np.repeat([f"d{i}" for i in range(6)], 100)
    ids = [f"cell{i}" for i in range(600)]
    by_donor = split_by_donor(names, 3)
    blocks = spatial_blocks(pos)
    for fold in range(3):
        check_no_leak(by_donor != fold, by_donor == fold, donor=names, slide=names, cell_id=ids)
        test = blocks == fold
        check_no_leak(blocks != fold, test, cell_id=ids, pos=pos)
        train = ~test & away_from(pos, test, 50)
        assert 0.4 < train.mean() < (~test).mean()
        check_no_leak(train, test, pos=pos, margin_um=50, slide=np.zeros(600))


def test_a_shared_donor_slide_or_cell_is_a_leak():
    """SPATIA fact 8."""
    with pytest.raises(ValueError, match=r"no donor in both 'train' and 'test', got 'ann' in both"):
        check_no_leak([0, 1], [2], donor=["ann", "bob", "ann"])
    with pytest.raises(ValueError, match=r"no slide in both.*'s1' in both.*pos=…"):
        check_no_leak([0, 1], [2], slide=["s1", "s0", "s1"])
    with pytest.raises(ValueError, match=r"no cell in both.*'AAAC' in both. Drop the copies"):
        check_no_leak([0], [1], cell_id=pd.Index(["AAAC", "AAAC"]), slide=["s0", "s1"])
    with pytest.raises(ValueError, match=r"without a common cell, got 2 in both \(first: \[1, 2\]"):
        check_no_leak([0, 1, 2], [1, 2, 3])
    check_no_leak([0, 1], [2], donor=["ann", "ann", "bob"], slide=["s0", "s1", "s2"])


def test_blocks_that_touch_are_a_leak_within_the_margin():
    pos = np.stack([np.arange(10.0) * 10, np.zeros(10)], 1)
    train, test = np.arange(10) < 5, np.arange(10) >= 5
    check_no_leak(train, test, pos=pos, margin_um=9.9)
    with pytest.raises(ValueError, match=r"more than 10 µm.*got 1 of 5.*\[4\].*away_from"):
        check_no_leak(train, test, pos=pos, margin_um=10)
    check_no_leak(train, test, pos=pos, margin_um=500, slide=np.where(train, "a", "b"))
    check_no_leak(np.arange(4), test, pos=pos, margin_um=10)
    twice = np.zeros((10, 2))
    with pytest.raises(ValueError, match=r"got 5 of 5 that are nearer"):
        check_no_leak(train, test, pos=twice)


def test_sides_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="on both sides, got none in 'test'"):
        check_no_leak([0, 1], [])
    with pytest.raises(ValueError, match=r"rows in \[0, 2\)"):
        check_no_leak([0], [2], donor=["a", "b"])
    with pytest.raises(ValueError, match=r"rows in \[0, 3\)"):
        away_from(np.zeros((3, 2)), [-1], 5.0)
    with pytest.raises(ValueError, match="each of 3 cells, got shape"):
        check_no_leak([True, False], [False, True], donor=["a", "b", "c"])
    with pytest.raises(ValueError, match="a slide for each of 3 entries, got 2"):
        check_no_leak([0], [1], donor=["a", "b", "c"], slide=["s", "t"])
    with pytest.raises(ValueError, match=r"a donor for each entry, got none for 1.*\[1\]"):
        check_no_leak([0], [1], donor=["ann", None])
    with pytest.raises(ValueError, match="'margin_um' of at least 0, got nan"):
        away_from(np.zeros((3, 2)), [0], np.nan)


def test_folds_are_predicted_from_cells_beyond_the_margin():
    pos = np.array([[0, 0], [10, 0], [20, 0], [30, 0], [40, 0]])
    number = np.array([0, 0, 1, 1, -1])
    folds = Folds(number, pos, margin_um=10)
    assert folds.training(0).tolist() == [False, False, False, True, False]  # and not -1
    assert folds.training(1).tolist() == [True, False, False, False, False]
    check_no_leak(folds.training(0), number == 0, pos=pos, margin_um=10)
    apart = Folds(number, pos, margin_um=10, slide=[0, 0, 1, 1, 1])
    assert apart.training(0).tolist() == [False, False, True, True, False]
    assert Folds(number).training(0).tolist() == [False, False, True, True, False]
    with pytest.raises(ValueError, match="position for each of 5 cells .* 10 µm, got 0"):
        Folds(number, margin_um=10)
    with pytest.raises(ValueError, match="'margin_um' of at least 0, got -1"):
        Folds(number, pos, margin_um=-1)


def test_the_15th_neighbour_of_a_square_lattice_is_two_and_a_bit_pitches_away():
    """4 at 1, 4 at √2, 4 at 2 and 8 at √5 pitches: the 15th is at √5."""
    x, y = np.meshgrid(np.arange(30.0), np.arange(30.0))
    pos = 10 * np.c_[x.ravel(), y.ravel()]
    assert neighbor_distance_um(pos) == pytest.approx(10 * 5**0.5)
    assert neighbor_distance_um(pos, 4) == pytest.approx(10)
    assert neighbor_distance_um(pos[:3]) == pytest.approx(20)  # the farthest there is
    assert neighbor_distance_um(pos[:1]) == 0
