"""Pairs of genes whose molecules lie together in a cell, and the nulls they are tested against."""

import networkx as nx
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import cKDTree
from scipy.stats import false_discovery_control

import spatiagraph as sg
from spatiagraph.data.colocalization import (
    Colocalization,
    SortedMolecules,
    _kernels,
    cell_molecules,
    differential_gene_pairs,
    gene_pair_tests,
    sort_molecules,
)
from spatiagraph.data.transcripts import filter_transcripts

BLOB = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
LINE = [(5.0 * i, 0) for i in range(6)]


def table(points, genes, cell="c"):
    x, y = np.array(points, dtype=float).T
    return pd.DataFrame({"x_um": x, "y_um": y, "gene": list(genes), "cell_id": cell})


def molecules(frame):
    return cell_molecules(frame, min_counts=1, min_genes=1)


def pairs(frame, **options):
    """Pairs of all cells by name."""
    found = Colocalization(**options)(molecules(frame))
    return {tuple(found.genes[pair]) for pair in found.pairs}


def crowd(num_cells=40, size=60, genes="ABCDEFGH", seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        table(rng.normal(0, 4, (size, 2)), rng.choice(list(genes), size), f"cell{i}")
        for i in range(num_cells)
    ]
    return pd.concat(parts, ignore_index=True)


FAR = [(x + 50, y) for x, y in BLOB]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("points", "genes", "expected"),
    [
        pytest.param(BLOB, "AAABBB", {("A", "B")}, id="F15a"),
        pytest.param(BLOB, "AAABBC", set(), id="F15b"),
        pytest.param(BLOB + FAR, "AAABBBAAACCC", {("A", "B"), ("A", "C")}, id="F15c"),
        pytest.param(BLOB[:3] + FAR[:3], "AAABBB", set(), id="F15d"),
        pytest.param(LINE, "AAABBB", set(), id="F15e, in reach"),
        pytest.param([(5.01 * i, 0) for i in range(6)], "AAABBB", set(), id="F15e, apart"),
    ],
)
def test_known_answers_of_louvain(points, genes, expected, seed):
    """SpatialFormer facts F15a to F15e."""
    assert pairs(table(points, genes), seed=seed) == expected
    turned = np.array(points) @ [[0.6, 0.8], [-0.8, 0.6]] + 7.0
    if points is not LINE:  # rounding decides what is 5.0 apart
        assert pairs(table(turned, genes), seed=seed) == expected


def test_molecules_at_exactly_the_radius_are_joined():
    """SpatialFormer fact F15e: each molecule of the line sees the one before and the one behind."""
    start, members = _kernels.balls(np.array(LINE), 5.0)
    assert np.diff(start).tolist() == [1, 2, 2, 2, 2, 1]
    assert members.tolist() == [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]


def test_order_of_rows_and_other_cells_change_nothing():
    """SpatialFormer fact F15f."""
    frame = crowd()
    rule = Colocalization(seed=3)
    first = rule(molecules(frame))
    assert len(first.pairs) > 50
    again = rule(molecules(frame.sample(frac=1, random_state=1)))
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a, b)
    for name in ("cell7", "cell30"):
        alone = rule(cell_molecules(frame[frame["cell_id"] == name], min_counts=1, min_genes=1,
                                    genes=list("ABCDEFGH")))  # fmt: skip
        row = list(first.cell_ids).index(name)
        assert_array_equal(alone.pairs, first.pairs[first.ptr[row] : first.ptr[row + 1]])
    assert (first.pairs[:, 0] < first.pairs[:, 1]).all()  # symmetric, zero diagonal


def test_cells_of_many_molecules_give_what_each_gives_alone(capsys):
    """More molecules than a thread takes at a time, in fewer cells."""
    frame = crowd(num_cells=5, size=20_000)
    rule = Colocalization(mode="cell", min_copies=2_490)
    cells = molecules(frame)
    found = rule(cells)
    names = dict(list(frame.groupby("cell_id")))
    for i, name in enumerate(found.cell_ids):
        alone = rule(cell_molecules(names[name], min_genes=1, genes=list("ABCDEFGH")))
        assert len(alone.pairs)
        assert_array_equal(alone.pairs, found.pairs[found.ptr[i] : found.ptr[i + 1]])
    gene_pair_tests(cells, found, rule, num_draws=1, min_support=1, progress=True)
    assert "10/10" in capsys.readouterr().err  # both nulls of five cells


def test_seeds_differ():
    cells = molecules(crowd(num_cells=20, size=100))
    own = [Colocalization(radius_um=2.0, seed=s)(cells) for s in range(3)]
    assert any(own[0].pairs.tolist() != other.pairs.tolist() for other in own[1:])


def test_louvain_reaches_the_modularity_of_networkx():
    from spatiagraph.data.colocalization import _kernels

    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for i in range(8):
        pos = rng.normal(0, 6, (120, 2))
        pos = pos[np.argsort(pos[:, 0])]
        graph = nx.Graph(list(cKDTree(pos).query_pairs(3.0)))
        graph.add_nodes_from(range(120))
        ptr, adjacent = _kernels.balls(pos, 3.0)
        assert_array_equal(np.diff(ptr), [graph.degree[n] for n in range(120)])
        label = _kernels.louvain(ptr, adjacent, 1.0, np.uint64(i))
        groups = [set(np.flatnonzero(label == c).tolist()) for c in np.unique(label)]
        ours.append(nx.community.modularity(graph, groups))
        found = nx.community.louvain_communities(graph, seed=i)
        theirs.append(nx.community.modularity(graph, found))
    assert np.mean(ours) > np.mean(theirs) - 0.005


def test_neighborhoods_hold_the_pairs_that_a_loop_over_balls_finds():
    frame = crowd(num_cells=3)
    for cell, own in frame.groupby("cell_id"):
        pos, gene = own[["x_um", "y_um"]].to_numpy(), own["gene"].to_numpy()
        expected = set()
        for ball in cKDTree(pos).query_ball_point(pos, 2.5):
            names, number = np.unique(gene[ball], return_counts=True)
            kept = names[number >= 3]
            expected |= {(a, b) for a in kept for b in kept if a < b}
        assert expected
        assert pairs(own, mode="neighborhood", radius_um=2.5) == expected, cell


def test_weight_is_the_share_of_the_best_community():
    frame = pd.concat([table(BLOB, "AAABBB"), table([(50, 0), *FAR], "AAAABBB")])
    found = Colocalization()(molecules(frame))
    assert_allclose(found.weight, [7 / 13])


def test_depth_counts_where_it_is_asked_for():
    frame = table(BLOB, "AAABBB").assign(z_um=[0.0, 0, 0, 20, 20, 20])
    assert pairs(frame) == {("A", "B")}
    assert pairs(frame, use_z=True) == set()
    with pytest.raises(ValueError, match="z_um"):
        pairs(table(BLOB, "AAABBB"), use_z=True)


def test_pairs_become_a_table_whose_variables_are_pairs():
    frame = pd.concat(
        [table(BLOB, "AAABBB", "x"), table(BLOB, "BBBACA", "y"), table(BLOB, "AAACCC", "z")]
    )
    adata = Colocalization()(molecules(frame)).to_adata()
    assert adata.var_names.tolist() == ["A|B", "A|C"]
    assert adata.obs_names.tolist() == ["x", "z"]
    assert_array_equal(adata.X.toarray(), np.eye(2))
    wide = Colocalization()(molecules(frame)).to_adata(["z", "unknown", "x"])
    assert_array_equal(wide.X.toarray(), [[0, 1], [0, 0], [1, 0]])


def together(num_cells, near, seed=0):
    """Cells of A, B and C everywhere; in ``near`` of them A and B gather at one end."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(num_cells):
        gene = rng.permutation(list("AAAABBBB" + "CDEFGHIJ" * 5))
        pos = rng.uniform(0, 12, (len(gene), 2))
        mark = np.isin(gene, ["A", "B"])
        if i < near:
            pos[mark] = rng.uniform(0, 2, (mark.sum(), 2))
        parts.append(table(pos, gene, f"{i}"))
    return molecules(pd.concat(parts, ignore_index=True))


def test_pairs_beyond_abundance_are_found_and_others_are_not():
    rule = Colocalization(radius_um=2.0)
    cells = together(60, near=30)
    tested = gene_pair_tests(cells, rule(cells), rule, num_draws=10)
    first = tested.iloc[0]
    assert (first["gene_a"], first["gene_b"]) == ("A", "B")
    assert first["support"] == 60
    assert first["cells"] >= 30 > 3 * first["expected_shuffle"]
    assert max(first["q_shuffle"], first["q_jitter"]) < 1e-6
    assert (tested["q_shuffle"].iloc[1:] > 0.05).all()
    assert_allclose(tested["q_shuffle"], false_discovery_control(tested["p_shuffle"]))


def test_without_anything_to_find_p_values_are_no_smaller_than_even():
    rule = Colocalization(radius_um=3.0)
    p = np.concatenate(
        [
            gene_pair_tests(cells, rule(cells), rule, nulls=("shuffle",), num_draws=10)["p_shuffle"]
            for cells in (molecules(crowd(num_cells=50, seed=s)) for s in range(4))
        ]
    )
    assert len(p) == 4 * 28
    assert (p < 0.05).mean() < 0.1
    assert p.mean() > 0.45


def test_benjamini_hochberg_corrects_over_all_tests():
    """SpatialFormer fact F18: correcting the survivors alone would call three significant."""
    assert_allclose(false_discovery_control([0.01, 0.02, 0.03, 0.5]), [0.04, 0.04, 0.04, 0.5])
    p = [0.012, 0.03, 0.04, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95]
    assert_allclose(false_discovery_control(p).min(), 0.12)
    assert_allclose(false_discovery_control(p[:3]), [0.036, 0.04, 0.04])


def test_pairs_of_one_group_of_cells_come_first():
    cells = together(60, near=30)
    adata = Colocalization(radius_um=2.0)(cells).to_adata()
    adata.obs["kind"] = np.where(adata.obs_names.astype(int) < 30, "near", "even")
    found = differential_gene_pairs(adata, "kind")
    best = found[found["group"] == "near"].iloc[0]
    assert best["pair"] == "A|B"
    assert best["q"] < 1e-3
    assert best["log2_fold_change"] > 2
    assert best["share"] > 0.9
    with pytest.raises(ValueError, match="two groups"):
        differential_gene_pairs(adata[adata.obs["kind"] == "near"], "kind")


@pytest.fixture
def raw():
    """Molecules as a machine writes them: blurred ones, controls, in no cell, of small cells."""
    rng = np.random.default_rng(0)
    frame = crowd(num_cells=30, size=50, genes=list("ABCDEFGHIJKLMNO"))
    small = crowd(num_cells=20, size=15, seed=1).assign(cell_id="small")
    small["cell_id"] += (np.arange(len(small)) // 15).astype(str)
    frame = pd.concat([frame, small, crowd(3, 80, "ABC", 2).replace("cell", "dull", regex=True)])
    frame["qv"] = rng.choice([40.0, 25.0, 10.0], len(frame), p=[0.6, 0.3, 0.1])
    frame.loc[rng.random(len(frame)) < 0.1, "gene"] = "NegControlProbe_7"
    frame.loc[rng.random(len(frame)) < 0.1, "cell_id"] = "UNASSIGNED"
    return frame.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_a_file_is_filtered_and_sorted_in_parts_as_it_is_as_a_whole(raw, tmp_path, suffix):
    path, out = tmp_path / f"raw{suffix}", tmp_path / "sorted.parquet"
    theirs = raw.rename(columns={"x_um": "x_location", "y_um": "y_location",
                                 "gene": "feature_name"})  # fmt: skip
    if suffix == ".parquet":
        theirs["feature_name"] = theirs["feature_name"].str.encode("ascii")
        theirs.to_parquet(path)
    else:
        theirs.to_csv(path, index=False)
    removed = sort_molecules(path, out, bucket_size=300, batch_size=100)
    kept, expected = filter_transcripts(raw)
    pd.testing.assert_frame_equal(removed, expected)
    assert (expected["molecules"] > 0).all()
    assert pq.ParquetFile(out).num_row_groups > 2

    whole, parts = cell_molecules(raw), list(SortedMolecules(out).parts())
    assert np.concatenate([part.cell_ids for part in parts]).tolist() == whole.cell_ids.tolist()
    assert_array_equal(np.concatenate([part.gene for part in parts]), whole.gene)
    assert_array_equal(np.concatenate([part.pos for part in parts]), whole.pos)
    rule = Colocalization()
    in_parts = np.concatenate([rule(part).pairs for part in parts])
    assert_array_equal(in_parts, rule(whole).pairs)
    assert len(pq.read_table(out)) == len(kept)

    twice = sort_molecules(out, tmp_path / "twice.parquet")
    assert not twice.to_numpy().any()
    pd.testing.assert_frame_equal(pd.read_parquet(out), pd.read_parquet(tmp_path / "twice.parquet"))


def test_bad_files_are_refused(raw, tmp_path):
    path, out = tmp_path / "raw.parquet", tmp_path / "sorted.parquet"
    raw.drop(columns="cell_id").to_parquet(path)
    with pytest.raises(ValueError, match=r"columns of molecules in cells in raw.parquet"):
        sort_molecules(path, out)
    raw.assign(x_um=np.nan).to_parquet(path)
    with pytest.raises(ValueError, match="finite position"):
        sort_molecules(path, out)
    raw.to_parquet(path)
    with pytest.raises(ValueError, match="lower min_counts"):
        sort_molecules(path, out, min_counts=1000)
    assert not out.exists()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"raw.parquet"):
        sort_molecules(path, out)
    raw.to_parquet(path)
    with pytest.raises(ValueError, match="sort_molecules"):
        SortedMolecules(path)


def test_the_front_door_takes_a_slide():
    slide = sg.make_tissue(150, num_genes=30, image=None, seed=0)
    with pytest.raises(ValueError, match="with molecules, got none"):
        sg.colocalized_genes(slide)
    frame = crowd(num_cells=150, size=40, genes=slide.symbols[:12])
    frame["cell_id"] = slide.adata.obs_names[
        frame["cell_id"].str.removeprefix("cell").astype(int)
    ].to_numpy()
    frame[["x_um", "y_um"]] += np.repeat(slide.pos, 40, axis=0)
    slide = sg.Slide(slide.adata, transcripts=frame)
    found = sg.colocalized_genes(slide, Colocalization(radius_um=3.0), num_draws=4)
    assert {"support", "cells", "q_shuffle", "q_jitter"} <= set(found.table)
    assert len(found.significant()) == 0
    adata = found.to_adata(slide)
    assert "niche" in adata.obs
    assert adata.n_obs <= 150
    slide.transcripts.drop(columns="cell_id", inplace=True)
    with pytest.raises(ValueError, match="cell_id"):
        sg.colocalized_genes(slide)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius_um": 0}, "radius_um"),
        ({"min_copies": 0}, "min_copies"),
        ({"mode": "leiden"}, "louvain, neighborhood, cell"),
    ],
)
def test_rules_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Colocalization(**options)


def _some_molecules():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": rng.uniform(0, 10, 120),
            "y": rng.uniform(0, 10, 120),
            "gene": np.tile(["A", "B", "C"], 40),
            "cell_id": np.repeat(["c1", "c2"], 60),
            "qv": 30.0,
        }
    )


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("qv", "high", "numbers in column 'qv' of odd.parquet"),
        ("x", True, "numbers in column 'x_um' of odd.parquet"),
        ("is_gene", "False", "true or false in column 'is_gene' of odd.parquet"),
        ("is_gene", [None, True, True] * 40, "true or false .* of odd.parquet"),
        ("gene", ["A", None, "B"] * 40, "a gene for each molecule in odd.parquet"),
    ],
)
def test_columns_of_another_kind_are_refused_by_name(tmp_path, column, values, message):
    _some_molecules().assign(**{column: values}).to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(ValueError, match=f"Expected .*{message}"):
        sort_molecules(tmp_path / "odd.parquet", tmp_path / "out.parquet", min_genes=1)


def test_tables_that_are_cut_or_have_a_column_twice_are_refused(tmp_path):
    text, path = _some_molecules().to_csv(index=False), tmp_path / "table.csv"
    lines = text.splitlines()
    twice = "\n".join([f"{lines[0]},x", *(f"{line},1.5" for line in lines[1:])])
    cut = text[: text.rindex(",")]
    for content, message in (
        (twice, r"each column of table\.csv once, got x"),
        (cut, r"table\.csv \(a last row of 4 fields of 5\)"),
        (f"{text}\0", r"table\.csv \(a NUL byte"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            sort_molecules(path, tmp_path / "out.parquet", min_genes=1)
