"""Genes taken from two cells in pairs: the grid, its effects, and their tests."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import ttest_ind
from torch.testing import assert_close

import spatiagraph as sg
from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.data.tokens import Marks, cell_sequences
from spatiagraph.evaluate import gene_pair_effects, known_gene_pairs
from spatiagraph.inference import TypedNeighbors, perturb_gene_pairs, study_gene_pairs
from spatiagraph.inference.gene_pair_deletion import gene_pair_grid, without_genes
from spatiagraph.models import SpatialFormer

MARKS = Marks(0, 1, 99)


def pair(n1, n2):
    ids = ragged_tensor(np.arange(100, 100 + n1 + n2), np.array([0, n1, n1 + n2]))
    meta = torch.tensor([[11, 12, 13, 14], [21, 22, 23, 24]])
    return cell_sequences(ids, meta, MARKS, torch.tensor([0]), torch.tensor([1]))


def naive(sequences, i, j):
    """Tokens and types without two places, by hand."""
    gone = {int(sequences.start[0, 0]) + i, int(sequences.start[0, 1]) + j}
    kept = [k for k in range(sequences.tokens.size(1)) if k not in gone]
    return sequences.tokens[0, kept].tolist(), sequences.token_type[0, kept].tolist()


@pytest.mark.parametrize(("n1", "n2"), [(2, 3), (1, 1), (5, 4)])
def test_the_grid_of_deletions_is_that_of_a_loop(n1, n2):
    """SpatialFormer fact F20."""
    sequences = pair(n1, n2)
    a, b = torch.arange(n1).repeat_interleave(n2), torch.arange(n2).repeat(n1)
    found = without_genes(sequences, a, b)
    assert found.tokens.shape == (n1 * n2, n1 + n2 + 9)
    for row, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        tokens, types = naive(sequences, i, j)
        assert found.tokens[row].tolist() == tokens
        assert found.token_type[row].tolist() == types
        assert [t for t in tokens if t < 100] == [1, 11, 12, 13, 14, 99, 21, 22, 23, 24, 99]
    genes, real = found.take_genes(found.tokens)
    assert (genes[real] >= 100).all()
    assert real.sum() == n1 * n2 * (n1 + n2 - 2)


@pytest.mark.parametrize("mask_id", [None, 2])
def test_effects_of_a_sum_of_genes_have_no_interaction(mask_id):
    """SpatialFormer fact F20."""
    weight = torch.zeros(200, dtype=torch.float64)
    weight[100:] = torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    sequences = pair(4, 6)
    grid = gene_pair_grid(lambda s: weight[s.tokens].sum(1), sequences, mask_id=mask_id)
    a, b = weight[100:104], weight[104:110]
    assert_close(grid.both, -(a[:, None] + b))
    assert_close(grid.interaction, torch.zeros(4, 6, dtype=torch.float64))
    few = gene_pair_grid(lambda s: weight[s.tokens].sum(1), sequences, max_tokens=50)
    assert_close(few.both, grid.both)


def effects(values, genes=("A", "B")):
    return pd.DataFrame(
        {"pair": range(len(values)), "gene_a": genes[0], "gene_b": genes[1], "effect": values}
    )


def test_the_test_is_one_tailed():
    """SpatialFormer fact F18."""
    (row,) = gene_pair_effects(effects([-0.02, -0.01, -0.03, 0.0]), min_support=3).itertuples()
    assert_allclose((row.mean, row.t, row.p), (-0.015, -2.3238, 0.05136), atol=1e-4)
    assert gene_pair_effects(effects([-0.02, -0.01]), min_support=2).empty


def test_all_supported_pairs_are_corrected_for():
    """SpatialFormer fact F18."""
    rng = np.random.default_rng(0)
    table = pd.concat([effects(rng.normal(-0.1, 1, 60), ("A", f"G{i}")) for i in range(300)])
    table = pd.concat([table, effects(rng.normal(-1, 1, 60), ("A", "B"))], ignore_index=True)
    found = gene_pair_effects(table)
    assert len(found) == 301
    best = found.iloc[0]
    assert best["gene_b"] == "B"
    assert_allclose(best["q"], best["p"] * 301)
    assert (found["q"] >= found["p"]).all()


def test_a_constant_score_has_no_effects():
    """SpatialFormer fact F20."""
    grid = gene_pair_grid(lambda s: torch.full((len(s.tokens),), 0.7), pair(5, 4))
    assert not any(part.any() for part in (grid.both, grid.first, grid.second, grid.interaction))


def test_constant_effects_are_never_significant():
    """SpatialFormer fact F20: with a score that knows nothing."""
    zero = gene_pair_effects(effects(np.zeros(60)))
    assert zero[["p", "q"]].to_numpy().tolist() == [[1.0, 1.0]]
    both = pd.concat([effects(np.full(60, -0.1)), effects(np.r_[np.zeros(59), 1], ("A", "C"))])
    found = gene_pair_effects(both).set_index("gene_b")
    assert np.isnan(found.loc["B", "q"])
    assert found.loc["C", "q"] == found.loc["C", "p"]


def test_a_pair_of_cells_counts_once():
    table = pd.concat([effects([1.0, 2, 3]), effects([3.0, 2, 5], ("B", "A"))])
    (row,) = gene_pair_effects(table, ordered=False, min_support=2).itertuples()
    assert (row.n, row.mean) == (3, pytest.approx(8 / 3))
    assert len(gene_pair_effects(table, min_support=2)) == 2


@pytest.fixture(scope="module")
def slide():
    return sg.make_tissue(100, num_genes=12, image=None, seed=0)


def test_a_model_is_asked_and_answers_are_kept(slide, tmp_path):
    model = SpatialFormer.from_options([slide], channels=16)
    pairs = [[0, 1], [5, 9], [3, 4]]
    table = perturb_gene_pairs(model, slide, pairs, device="cpu", max_tokens=2000)
    genes = [np.array(slide.symbols)[slide.counts[i].indices] for i in range(2)]
    first = table[table["pair"] == 0]
    assert len(first) == len(genes[0]) * len(genes[1])
    assert set(first["gene_a"]) == set(genes[0])
    assert set(first["gene_b"]) == set(genes[1])
    assert table["effect"].abs().max() > 1e-4

    out = tmp_path / "kept"
    perturb_gene_pairs(model, slide, pairs, device="cpu", out=out)
    (out / "000001.parquet").unlink()
    again = perturb_gene_pairs(model, slide, pairs, device="cpu", out=out)
    pd.testing.assert_frame_equal(again, table, atol=1e-5)
    with pytest.raises(ValueError, match="choose another"):
        perturb_gene_pairs(model, slide, pairs, device="cpu", kind="mask", out=out)
    probability = perturb_gene_pairs(model, slide, pairs[:1], score="probability", device="cpu")
    assert probability["effect"].abs().max() < 1
    with pytest.raises(ValueError, match="100 cells"):
        perturb_gene_pairs(model, slide, [[0, 100]])
    with pytest.raises(ValueError, match="'drop'"):
        perturb_gene_pairs(model, slide, pairs, kind="drop")


def test_damaged_answers_are_asked_again_and_those_of_other_counts_refused(slide, tmp_path):
    model = SpatialFormer.from_options([slide], channels=16)
    pairs, out = [[0, 1], [5, 9]], tmp_path / "kept"
    table = perturb_gene_pairs(model, slide, pairs, device="cpu", out=out)
    first, second = out / "000000.parquet", out / "000001.parquet"
    first.write_bytes(first.read_bytes()[:500])
    pd.read_parquet(second).assign(effect=np.nan).to_parquet(second)
    again = perturb_gene_pairs(model, slide, pairs, device="cpu", out=out)
    pd.testing.assert_frame_equal(again, table, atol=1e-5)
    adata = slide.adata.copy()
    adata.X = adata.X * 2
    other = sg.Slide(adata, slide_id=slide.slide_id)
    with pytest.raises(ValueError, match="choose another"):
        perturb_gene_pairs(model, other, pairs, device="cpu", out=out)
    (out / "perturb.json").write_text('{"weights"')
    with pytest.raises(ValueError, match=r"perturb\.json"):
        perturb_gene_pairs(model, slide, pairs, device="cpu", out=out)


def test_a_screen_asks_genes_of_large_effects_alone():
    weight = torch.zeros(200, dtype=torch.float64)
    weight[100:110] = torch.tensor([1.0, 5, 2, 7, 0, 3, 9, 4, 8, 1])
    sequences = pair(4, 6)

    def score(s):
        total = weight[s.tokens].sum(1)
        return total + 0.5 * ((s.tokens == 101).any(1) & (s.tokens == 106).any(1))

    whole, few = gene_pair_grid(score, sequences), gene_pair_grid(score, sequences, screen=2)
    assert [r.tolist() for r in few.ranks] == [[1, 3], [2, 4]]
    assert_close(few.both, whole.both[[1, 3]][:, [2, 4]])
    assert_close(few.interaction, torch.tensor([[0.5, 0], [0, 0]], dtype=torch.float64))


def test_effects_are_compared_with_those_beside_other_cells():
    rng = np.random.default_rng(0)

    def drawn(mean, gene):
        return effects(rng.normal(mean, 1, 60), ("A", gene))

    near = pd.concat([drawn(-1, "B"), drawn(-1, "C"), drawn(-1, "D")])
    far = pd.concat([drawn(0, "B"), drawn(-1, "C")])
    found = gene_pair_effects(near, others=far).set_index("gene_b")
    assert (found["q"] < 0.01).all()
    assert found["q_others"].lt(0.05).to_dict() == {"B": True, "C": False, "D": False}
    assert found["n_others"].to_dict() == {"B": 60, "C": 60, "D": 0}
    a, b = near[near["gene_b"] == "B"]["effect"], far[far["gene_b"] == "B"]["effect"]
    assert_allclose(
        found.loc["B", "p_others"], ttest_ind(a, b, equal_var=False, alternative="less").pvalue
    )


def test_known_pairs_are_counted_whichever_gene_comes_first():
    tested = pd.DataFrame(
        [("L1", "R1", -1, 0.01), ("R2", "L2", -1, 0.2), ("A", "A", -1, 0.01), ("B", "C", -1, 0.01),
         ("R1", "L1", -1, 0.3), ("D", "E", 1, 0.01)],
        columns=["gene_a", "gene_b", "mean", "q"],
    )  # fmt: skip
    known = pd.DataFrame({"ligand": ["L1", "L2", "A", "Z"], "receptor": ["R1", "R2", "A", "Y"]})
    found = known_gene_pairs(tested, known)
    assert found[1:5] == (4, 2, 2, 1)
    assert found.p == pytest.approx(1 - 1 / 6)  # of two drawn from four, two known
    assert found.table["found"].tolist() == [True, False, False]
    with pytest.raises(ValueError, match="none of the 9 tested genes"):
        known_gene_pairs(tested, known[3:])
    with pytest.raises(ValueError, match="ligand and receptor"):
        known_gene_pairs(tested, known[["ligand"]])


def test_neighbours_of_two_types_and_others_in_their_place(slide):
    chosen = TypedNeighbors("cell_type", "type0", "type1", num_pairs=12, radius_um=40)
    types = slide.adata.obs["cell_type"].to_numpy()
    pairs = chosen(slide)
    assert len(pairs) == 12
    assert set(types[pairs[:, 0]]) == {"type0"}
    assert set(types[pairs[:, 1]]) == {"type1"}
    assert np.linalg.norm(np.subtract(*slide.pos[pairs.T]), axis=1).max() <= 40
    others = chosen.others(slide, pairs)
    assert np.array_equal(others[:, 0], pairs[:, 0])
    assert set(types[others[:, 1]]) == {"type1"}
    assert np.linalg.norm(np.subtract(*slide.pos[others.T]), axis=1).min() > 40
    same = TypedNeighbors("cell_type", "type0", "type0", num_pairs=None)(slide)
    assert len({frozenset(row) for row in same.tolist()}) == len(same)
    with pytest.raises(ValueError, match="got 'T'; it has type0"):
        TypedNeighbors("cell_type", "type0", "T")(slide)
    with pytest.raises(ValueError, match="a column 'kind'"):
        TypedNeighbors("kind", "type0", "type1")(slide)
    with pytest.raises(ValueError, match="widen the radius"):
        TypedNeighbors("cell_type", "type0", "type1", radius_um=0.01)(slide)
    everywhere = TypedNeighbors("cell_type", "type0", "type1", radius_um=1e5)
    with pytest.raises(ValueError, match="none for"):
        everywhere.others(slide, pairs)


def test_a_study_goes_on_where_it_stopped(slide, tmp_path, caplog):
    model = SpatialFormer.from_options([slide], channels=16)
    chosen = TypedNeighbors("cell_type", "type0", "type1", num_pairs=6)
    options = {"min_support": 2, "device": "cpu", "screen": 4}
    whole = study_gene_pairs(model, slide, chosen, **options, out=tmp_path)
    assert {"n", "mean", "q", "q_others", "interaction"} <= set(whole.table)
    assert (whole.table["n"] > 2).all()
    for name in ("effects", "others"):
        assert len(list((tmp_path / name).glob("*.parquet"))) == 6
    for file in sorted((tmp_path / "others").glob("*.parquet"))[2:]:
        file.unlink()
    kept = (tmp_path / "effects" / "000000.parquet").stat().st_mtime_ns
    again = study_gene_pairs(model, slide, chosen, **options, out=tmp_path)
    pd.testing.assert_frame_equal(again.table, whole.table)
    assert (tmp_path / "effects" / "000000.parquet").stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="min_support=50, got 6"):
        study_gene_pairs(model, slide, chosen)
    model.max_len = 15
    study_gene_pairs(model, slide, chosen, **options)
    assert "6 of 6 pairs have more than 4 genes" in caplog.text
    assert whole.significant(q=1.1).shape[0] <= len(whole.table)
