import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix

from spatiagraph.data import MORPHOLOGY, GenePanel, Slide
from spatiagraph.data.normalization import log_normalize
from spatiagraph.pairing import (
    as_transitions,
    gene_signature,
    morphology_signature,
    pair_niches,
    pair_states,
)
from spatiagraph.pairing.expression import joint_components

ACTIVATION = [("resting", "active", "activation")]
KEYS = {"states_key": "state", "niche_key": "niche"}


class Unreadable:
    """An image that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"the image was asked for {name!r}")


def tissue(num=120, num_genes=60, seed=0, slide_id="a", donor="ann", **columns):
    """Cells of three niches and two states; a state doubles the even genes."""
    rng = np.random.default_rng(seed)
    state = rng.choice(["resting", "active"], num)
    rate = rng.gamma(2.0, 4.0, num_genes) * rng.gamma(3.0, 0.4, (num, num_genes))
    rate[:, ::2] *= np.where(state == "active", 2, 1)[:, None]
    obs = pd.DataFrame(
        {"state": state, "niche": rng.choice(["core", "edge", "stroma"], num), **columns},
        index=[f"{slide_id}{i}" for i in range(num)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(num_genes)])
    adata = AnnData(csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)
    adata.obsm["spatial"] = rng.random((num, 2)) * 100
    return Slide(adata, Unreadable(), slide_id=slide_id, donor=donor, check=False)


def changed(slide, values):
    """The slide with other counts."""
    adata = slide.adata.copy()
    adata.X = csr_matrix(values)
    return Slide(adata, slide_id=slide.slide_id, donor=slide.donor, check=False)


def obs(slide, name, rows):
    return slide.adata.obs[name].to_numpy()[rows]


def test_pairs_stay_in_their_niche_and_go_from_state_to_state_unseen():
    """SPATIA fact 26."""
    slides = [tissue(), tissue(seed=1, slide_id="b", donor="bob")]
    pairs = pair_states(slides, ACTIVATION, **KEYS)
    assert set(pairs["niche"]) == {"core", "edge", "stroma"}
    for slide in slides:
        here = pairs[pairs["slide"] == slide.slide_id]
        control, target = (here[f"{side}_row"].to_numpy() for side in ("control", "target"))
        assert_array_equal(np.sort(control), np.flatnonzero(slide.adata.obs["state"] == "resting"))
        assert set(obs(slide, "state", target)) == {"active"}
        assert_array_equal(obs(slide, "niche", control), here["niche"].to_numpy(object))
        assert_array_equal(obs(slide, "niche", target), here["niche"].to_numpy(object))
        assert_array_equal(slide.adata.obs_names[target], here["target"].to_numpy(object))
        assert_array_equal(slide.adata.obs_names[control], here["control"].to_numpy(object))
        assert set(here["donor"]) == {slide.donor}
    assert pairs["confidence"].between(0.02, 1).all()
    assert set(pairs["transition"]) == {"activation"}


def test_each_cell_finds_its_double():
    slide = tissue()
    rows = np.flatnonzero(slide.adata.obs["state"] == "resting")
    twice = np.concatenate([rows, rows[::-1]])
    table = slide.adata.obs.iloc[twice].reset_index(drop=True).rename(index=str)
    table["state"] = ["resting"] * len(rows) + ["active"] * len(rows)
    doubled = Slide(AnnData(slide.counts[twice], obs=table), slide_id="doubled", check=False)
    pairs = pair_states([doubled], ACTIVATION, epsilon=0.01, **KEYS)
    assert_array_equal(pairs["control_row"] + pairs["target_row"], 2 * len(rows) - 1)
    assert (pairs["confidence"] > 0.99).all()


def test_multiplying_expression_by_a_constant_changes_no_pair():
    """SPATIA fact 26."""
    slide = tissue()
    louder = changed(slide, slide.counts * 7)
    pd.testing.assert_frame_equal(
        pair_states([louder], ACTIVATION, **KEYS), pair_states([slide], ACTIVATION, **KEYS)
    )


@pytest.mark.parametrize("match", ["argmax", "sample"])
def test_a_slide_is_paired_alike_whatever_lies_beside_it(match):
    slides = [tissue(300, seed=s, slide_id=f"s{s}") for s in range(2)]
    options = {"max_cells": 20, "match": match, "epsilon": 0.5, **KEYS}
    both, alone = (pair_states(some, ACTIVATION, **options) for some in (slides, slides[1:]))
    pd.testing.assert_frame_equal(both[both["slide"] == "s1"].reset_index(drop=True), alone)


def test_large_groups_are_drawn_from_by_seed():
    slide = tissue(300)
    first, again, other = (
        pair_states([slide], ACTIVATION, max_cells=20, seed=s, **KEYS) for s in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert (first.groupby("niche").size() == 20).all()
    assert not first["control"].equals(other["control"])
    assert not first["control"].duplicated().any()


def test_small_groups_are_left_out():
    slide = tissue()
    core = np.flatnonzero(
        (slide.adata.obs["niche"] == "core") & (slide.adata.obs["state"] == "active")
    )
    slide.adata.obs.loc[slide.adata.obs_names[core[4:]], "niche"] = None
    assert set(pair_states([slide], ACTIVATION, **KEYS)["niche"]) == {"edge", "stroma"}
    assert "core" in set(pair_states([slide], ACTIVATION, min_cells=4, **KEYS)["niche"])


def test_states_that_share_no_niche_pair_across_niches_only_if_asked():
    slide = tissue()
    slide.adata.obs["niche"] = slide.adata.obs["state"].map({"resting": "one", "active": "two"})
    with pytest.raises(ValueError, match=r"none for \['activation'\].*fallback=\"global\""):
        pair_states([slide], ACTIVATION, **KEYS)
    pairs = pair_states([slide], ACTIVATION, fallback="global", **KEYS)
    assert pairs["niche"].isna().all()
    assert len(pairs) == (slide.adata.obs["state"] == "resting").sum()
    whole = pair_states([slide], ACTIVATION, states_key="state", niche_key=None)
    pd.testing.assert_frame_equal(whole, pairs)
    slides = [slide, tissue(seed=1, slide_id="b")]
    pairs = pair_states(slides, ACTIVATION, **KEYS)  # skips the first
    assert set(pairs["slide"]) == {"b"}


def test_niches_that_hold_too_few_of_both_states_pair_across_niches_if_asked():
    slide = tissue(num=30)
    slide.adata.obs["niche"] = [f"n{i // 6}" for i in range(30)]  # some three cells of each
    with pytest.raises(ValueError, match=r"5 cells of both .*fallback=\"global\""):
        pair_states([slide], ACTIVATION, **KEYS)
    pairs = pair_states([slide], ACTIVATION, fallback="global", **KEYS)
    assert pairs["niche"].isna().all()
    assert len(pairs) == (slide.adata.obs["state"] == "resting").sum()
    alone = pair_states([slide], ACTIVATION, states_key="state", niche_key=None)
    pd.testing.assert_frame_equal(pairs, alone)
    with pytest.raises(ValueError, match="29 cells .* in some slide, .* Lower min_cells$"):
        pair_states([slide], ACTIVATION, fallback="global", min_cells=29, **KEYS)


def test_a_transition_that_cannot_be_paired_is_named():
    slide = tissue()
    slide.adata.obs.iloc[:3, 0] = "rare"
    asked = [*ACTIVATION, ("resting", "rare", "odd")]
    with pytest.warns(UserWarning, match=r"5 cells of both states .* none for \['odd'\]"):
        assert set(pair_states([slide], asked, **KEYS)["transition"]) == {"activation"}


def test_assignment_leaves_some_alone_and_all_cells_may_be_taken():
    slide = tissue(200)
    pairs = pair_states([slide], ACTIVATION, match="assignment", max_cells=None, **KEYS)
    assert not pairs["target"].duplicated().any()
    assert not pairs["control"].duplicated().any()
    sides = slide.adata.obs.groupby("niche")["state"].value_counts().unstack().min(axis=1)
    assert_array_equal(pairs.groupby("niche").size(), sides)


@pytest.mark.parametrize("num_genes", [8, 20, 30, 100])  # fewer and more than cells
def test_components_keep_as_much_of_the_distances_as_they_can(num_genes):
    rng = np.random.default_rng(0)
    x, y = (csr_matrix(rng.normal(size=(n, num_genes))) for n in (12, 17))
    first, second = joint_components(x, y, num_components=10)
    both = np.vstack([x.toarray(), y.toarray()])
    singular = np.linalg.svd(both - both.mean(0), compute_uv=False)[:10]
    found = np.vstack([first, second])
    assert_allclose(((found - found.mean(0)) ** 2).sum(), (singular**2).sum())
    assert found.shape == (29, min(10, num_genes))


def test_expression_is_scaled_per_cell():
    x = csr_matrix(np.array([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert_allclose(log_normalize(x).toarray(), [np.log1p([7500, 2500, 0]), np.zeros(3)])


def pairs_of(slide, num=9):
    return pd.DataFrame(
        {
            "transition": "activation",
            "slide": slide.slide_id,
            "control_row": np.arange(num),
            "target_row": np.arange(num) + 30,
        }
    )


def shifted(slide, shift):
    """Targets are their controls and a shift."""
    values = slide.counts.toarray()
    values[30:39] = values[:9] + shift
    return changed(slide, values)


def test_signature_of_a_constant_shift_is_the_shift():
    """SPATIA fact 27."""
    shift = np.arange(60.0)
    slide = shifted(tissue(), shift)
    panel = GenePanel(slide.symbols)
    found = gene_signature([slide], pairs_of(slide), panel=panel, donors=["ann"], normalize=False)
    assert_allclose(found.delta.loc["activation"], shift)
    assert found.num_pairs["activation"] == 9
    sigma = slide.counts.toarray().astype(float).std(0)
    assert_allclose(found.sigma, sigma)
    assert_allclose(found.features(clip=2)[0], np.clip(shift / sigma, -2, 2), rtol=1e-6)


def test_signature_is_the_mean_difference_of_normalised_expression():
    slide = tissue()
    pairs = pair_states([slide], ACTIVATION, **KEYS)
    x = log_normalize(slide.counts).toarray()
    found = gene_signature([slide], pairs, panel=GenePanel(slide.symbols), donors=["ann"])
    known = (x[pairs["target_row"]] - x[pairs["control_row"]]).mean(0)
    assert_allclose(found.delta.loc["activation"], known)
    assert known[::2].mean() > 0.2 > known[1::2].mean()


def test_test_donors_do_not_enter_a_signature():
    """SPATIA fact 27."""
    slides = [tissue(), tissue(seed=1, slide_id="b", donor="bob")]
    pairs = pd.concat([pairs_of(slide) for slide in slides])
    panel = GenePanel(slides[0].symbols)
    before = gene_signature(slides, pairs, panel=panel, donors=["ann"])
    slides[1] = changed(slides[1], slides[1].counts.toarray() ** 2 + 1)
    after = gene_signature(slides, pairs, panel=panel, donors=["ann"])
    pd.testing.assert_frame_equal(after.delta, before.delta)
    pd.testing.assert_series_equal(after.sigma, before.sigma)
    both = gene_signature(slides, pairs, panel=panel, donors=["ann", "bob"])
    assert not np.allclose(both.delta, before.delta)


def test_test_tissue_does_not_enter_a_signature():
    """SPATIA fact 27."""
    slide = tissue()
    training = np.arange(120) < 60  # the pairs are among these
    given = {"panel": GenePanel(slide.symbols), "donors": None, "among": {"a": training}}
    before = gene_signature([slide], pairs_of(slide), **given)
    values = slide.counts.toarray()
    values[60:] = values[60:] ** 2 + 1
    after = gene_signature([changed(slide, values)], pairs_of(slide), **given)
    pd.testing.assert_frame_equal(after.delta, before.delta)
    pd.testing.assert_series_equal(after.sigma, before.sigma)
    with pytest.raises(ValueError, match=r"mask of 120 cells for slide 'a', got bool \[9\]"):
        gene_signature([slide], pairs_of(slide), **{**given, "among": {"a": training[:9]}})


def test_a_gene_counts_where_it_is_measured():
    slides = [tissue(), tissue(seed=1, slide_id="b")]
    panel = GenePanel([*slides[0].symbols, "never"])
    less = slides[1].adata[:, 20:].copy()
    slides[1] = Slide(less, slide_id="b", donor="ann", check=False)
    pairs = pd.concat([pairs_of(slide) for slide in slides])
    options = {"panel": panel, "donors": ["ann"], "normalize": False}
    both = gene_signature(slides, pairs, **options)
    first, second = (gene_signature([s], pairs_of(s), **options).delta for s in slides)
    assert_allclose(both.delta.iloc[0, :20], first.iloc[0, :20])
    assert_allclose(both.delta.iloc[0, 20:60], (first + second).iloc[0, 20:60] / 2)
    assert np.isnan(both.delta["never"]).all()
    assert both.features()[0, -1] == 0


def nuclei(slide, seed=0):
    """Features of all cells of a slide, whatever they are."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(rng.gamma(3, 20, (slide.num_cells, 10)), columns=list(MORPHOLOGY))


def test_morphology_signature_of_a_constant_shift_is_the_shift():
    """SPATIA fact 27."""
    slide, shift = tissue(), np.linspace(-150.0, 150.0, 10)
    table = nuclei(slide)
    table.iloc[30:39] = table.iloc[:9].to_numpy() + shift
    found = morphology_signature([slide], {"a": table}, pairs_of(slide), donors=["ann"])
    assert_allclose(found.delta.loc["activation"], shift)
    assert found.delta.columns.tolist() == list(MORPHOLOGY)
    assert found.num_pairs["activation"] == 9
    assert found.num_left_out["activation"] == 0
    assert_allclose(found.sigma, table.std(ddof=0))
    assert_allclose(found.features()[0], np.clip(shift / table.std(ddof=0), -3, 3), rtol=1e-6)
    assert abs(found.features(clip=0.5)).max() == 0.5


def test_test_donors_do_not_enter_a_morphology_signature():
    """SPATIA fact 27."""
    slides = [tissue(), tissue(seed=1, slide_id="b", donor="bob")]
    pairs = pd.concat([pairs_of(slide) for slide in slides])
    tables = {"a": nuclei(slides[0]), "b": nuclei(slides[1], 1)}
    before = morphology_signature(slides, tables, pairs, donors=["ann"])
    after = morphology_signature(slides, {"a": tables["a"]}, pairs, donors=["ann"])
    pd.testing.assert_frame_equal(after.delta, before.delta)
    pd.testing.assert_series_equal(after.sigma, before.sigma)
    both = morphology_signature(slides, tables, pairs, donors=["ann", "bob"])
    alone = morphology_signature(slides, tables, pairs, donors=["bob"])
    assert_allclose(both.delta, (before.delta + alone.delta) / 2)


def test_pairs_of_cells_that_could_not_be_measured_are_left_out_and_counted():
    slide = tissue()
    table = nuclei(slide)
    whole = table.drop(index=[0, 31, 100])
    table.loc[[0, 31, 100]] = np.nan  # control of the first pair, target of the second, no pair
    found = morphology_signature([slide], {"a": table}, pairs_of(slide), donors=["ann"])
    known = (table.iloc[32:39].to_numpy() - table.iloc[2:9].to_numpy()).mean(0)
    assert_allclose(found.delta.loc["activation"], known)
    assert found.num_pairs["activation"] == 7
    assert found.num_left_out["activation"] == 2
    assert_allclose(found.sigma, whole.std(ddof=0))
    table[:] = np.nan
    with pytest.raises(ValueError, match="NaN in every pair"):
        morphology_signature([slide], {"a": table}, pairs_of(slide), donors=["ann"])


def test_features_of_other_cells_are_refused():
    slide = tissue()
    table, pairs = nuclei(slide), pairs_of(slide)
    with pytest.raises(ValueError, match=r"features of slide 'a', got those of \['b'\]"):
        morphology_signature([slide], {"b": table}, pairs, donors=["ann"])
    with pytest.raises(ValueError, match="each of 120 cells of slide 'a', got 119 rows"):
        morphology_signature([slide], {"a": table[1:]}, pairs, donors=["ann"])
    with pytest.raises(ValueError, match="got 120 rows without solidity"):
        morphology_signature([slide], {"a": table.drop(columns="solidity")}, pairs, donors=["ann"])
    with pytest.raises(ValueError, match=r"\(\['ann'\]\), got \['eve'\]"):
        morphology_signature([slide], {"a": table}, pairs, donors=["eve"])


def blocks(num_niches=30, per_niche=10):
    """Niches before, after and outside of a transition; a tenth of the cells is not labelled."""
    slide = tissue(num_niches * per_niche)
    niche = np.repeat(np.arange(num_niches), per_niche)
    state = np.where(niche % 3 == 0, "resting", np.where(niche % 3 == 1, "active", "other"))
    state = state.astype(object)
    state[::per_niche] = None
    slide.adata.obs["niche"], slide.adata.obs["state"] = niche, state
    return slide


def test_niches_before_a_transition_are_paired_with_niches_after_it():
    pairs = pair_niches([blocks()], ACTIVATION, **KEYS)
    control, target = (pairs[side].astype(int) for side in ("control", "target"))
    assert_array_equal(np.sort(control), np.arange(0, 30, 3))
    assert (target % 3 == 1).all()
    assert pairs["confidence"].between(0.1, 1).all()


@pytest.mark.parametrize("expression", ["normalized", "counts"])
def test_niches_of_normalised_expression_differ_by_its_level_and_those_of_counts_do_not(expression):
    """Each niche has the same profile at a level of its own; niches differ in size, too."""
    niche = np.repeat(np.arange(6), [10, 20, 30, 30, 20, 10])
    values = np.tile([1.0, 2.0, 3.0, 4.0], (len(niche), 1)) * (1 + niche[:, None] % 3)
    adata = AnnData(values, obsm={"spatial": np.arange(240.0).reshape(-1, 2)})
    adata.obs["niche"], adata.obs["state"] = niche, np.where(niche < 3, "resting", "active")
    slide = Slide(adata, slide_id="a", expression=expression, check=False)
    pairs = pair_niches([slide], ACTIVATION, **KEYS).set_index("control")["target"]
    assert (pairs.to_dict() == {"0": "3", "1": "4", "2": "5"}) == (expression == "normalized")


def test_a_niche_with_both_states_is_a_target():
    slide = blocks()
    slide.adata.obs.iloc[1, 0] = "active"  # one of nine labelled cells of niche 0
    controls = set(pair_niches([slide], ACTIVATION, **KEYS)["control"])
    assert controls == {str(niche) for niche in range(3, 30, 3)}
    controls = pair_niches([slide], ACTIVATION, min_fraction=0.2, **KEYS)["control"]
    assert "0" in set(controls)


def test_few_niches_make_no_pairs_and_many_are_drawn_from():
    slide = blocks()
    with pytest.raises(ValueError, match=r"11 niches of 5 labelled cells"):
        pair_niches([slide], ACTIVATION, min_niches=11, **KEYS)
    with pytest.raises(ValueError, match=r"2 niches of 10 labelled cells"):
        pair_niches([slide], ACTIVATION, min_cells=10, **KEYS)
    first, again = (pair_niches([slide], ACTIVATION, max_niches=4, **KEYS) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert len(first) == 4


def test_transitions_come_as_table_or_rows():
    table = pd.DataFrame({"tag": ["x"], "control": ["a"], "target": ["b"], "note": ["?"]})
    assert as_transitions(table) == as_transitions([("a", "b", "x")])
    with pytest.raises(ValueError, match=r"got no target\. Nearest: 'tag'; there are: 'control'"):
        as_transitions(table[["control", "tag"]])
    with pytest.raises(ValueError, match="at least one transition"):
        as_transitions([])
    with pytest.raises(ValueError, match="at least one transition"):
        as_transitions("abc")
    with pytest.raises(ValueError, match=r"a tag of its own .* \['x', 'x'\]"):
        as_transitions([("a", "b", "x"), ("a", "c", "x")])
    with pytest.raises(ValueError, match=r"none 'all', got \['all'\]"):
        as_transitions([("a", "b", "all")])
    with pytest.raises(ValueError, match=r"two states, got the same for \['x'\]"):
        as_transitions([("a", "a", "x")])


def test_bad_input_is_refused():
    slide = tissue()
    with pytest.raises(ValueError, match="no cell in 'rest'. Nearest: 'resting'"):
        pair_states([slide], [("rest", "active", "x")], **KEYS)
    with pytest.raises(ValueError, match="column 'statee' in obs of slide 'a'. Nearest: 'state'"):
        pair_states([slide], ACTIVATION, states_key="statee", niche_key="niche")
    with pytest.raises(ValueError, match="column 'nich' in obs"):
        pair_states([slide], ACTIVATION, states_key="state", niche_key="nich")
    with pytest.raises(ValueError, match="got 'any'"):
        pair_states([slide], ACTIVATION, fallback="any", **KEYS)
    with pytest.raises(ValueError, match="got 5 and 2"):
        pair_states([slide], ACTIVATION, max_cells=2, **KEYS)
    with pytest.raises(ValueError, match="different slide_id"):
        pair_states([slide, slide], ACTIVATION, **KEYS)
    panel, pairs = GenePanel(slide.symbols), pairs_of(slide)
    with pytest.raises(ValueError, match=r"\(\['ann'\]\), got \['eve'\]"):
        gene_signature([slide], pairs, panel=panel, donors=["ann", "eve"])
    with pytest.raises(ValueError, match=r"those of \['a'\]"):
        gene_signature([tissue(slide_id="b")], pairs, panel=panel, donors=["ann"])
    with pytest.raises(ValueError, match=r"training donors \['ann'\], got none"):
        gene_signature([slide], pairs[:0], panel=panel, donors=["ann"])
