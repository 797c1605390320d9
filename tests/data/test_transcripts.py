import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph.data import make_tissue
from spatiagraph.data.transcripts import counts_from_transcripts, filter_transcripts

STEPS = ["quality", "control", "unassigned", "min_counts", "min_genes"]


def cell(name: str, num_molecules: int, num_genes: int, **columns) -> pd.DataFrame:
    genes = [f"G{i % num_genes}" for i in range(num_molecules)]
    return pd.DataFrame({"x_um": 1.0, "y_um": 2.0, "gene": genes, "cell_id": name, **columns})


def test_each_filter_removes_what_it_is_for_and_says_how_much():
    good = cell("good", 30, 10, qv=20.0)
    table = pd.concat(
        [
            good,
            cell("few", 29, 15, qv=40.0),
            cell("dull", 50, 9, qv=40.0),
            cell("blurred", 40, 20, qv=19.9),
            cell("UNASSIGNED", 7, 7, qv=40.0),
            cell("good", 3, 3, qv=np.nan),
            cell("good", 6, 1, qv=40.0).assign(
                gene=["NegControlProbe_1", "BLANK_2", "Blank-3", "UnassignedCodeword_4",
                      "DeprecatedCodeword_5", "Intergenic_Region_6"]
            ),
        ],
        ignore_index=True,
    )  # fmt: skip
    kept, removed = filter_transcripts(table)
    pd.testing.assert_frame_equal(kept, good)
    assert removed.index.tolist() == STEPS
    assert removed["molecules"].tolist() == [43, 6, 7, 29, 50]
    assert removed["cells"].tolist() == [1, 0, 0, 1, 1]


def test_quality_is_only_asked_for_where_it_was_measured():
    table = cell("a", 30, 10)
    kept, removed = filter_transcripts(table)
    assert len(kept) == 30
    assert removed["molecules"].sum() == 0


@pytest.mark.parametrize("gene", ["NEGR1", "Negr1", "BLNK", "UNC5B", "DEPDC5"])
def test_genes_that_sound_like_controls_stay(gene):
    table = pd.DataFrame({"gene": [gene], "cell_id": ["a"]})
    assert len(filter_transcripts(table, min_counts=1, min_genes=1).transcripts) == 1


@pytest.mark.parametrize("nowhere", ["UNASSIGNED", -1, "-1", "", None, np.nan])
def test_molecules_in_no_cell_can_stay_for_the_transcript_graph(nowhere):
    table = pd.DataFrame({"gene": ["A", "B"], "cell_id": [nowhere, "c"]}, dtype=object)
    options = {"min_counts": 1, "min_genes": 1}
    assert filter_transcripts(table, **options).transcripts.index.tolist() == [1]
    assert len(filter_transcripts(table, require_cell=False, **options).transcripts) == 2
    assert filter_transcripts(table, require_cell=False).transcripts.index.tolist() == [0]


def test_filtering_twice_changes_nothing():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "gene": rng.choice([f"G{i}" for i in range(30)] + ["Neg1"], 3000),
            "cell_id": rng.choice([f"c{i}" for i in range(90)] + ["UNASSIGNED"], 3000),
            "qv": rng.uniform(10, 40, 3000),
        }
    )
    once, removed = filter_transcripts(table, min_counts=22, min_genes=16)
    assert (removed["molecules"] > 0).all()
    twice, nothing = filter_transcripts(once, min_counts=22, min_genes=16)
    pd.testing.assert_frame_equal(twice, once)
    assert (nothing == 0).all(axis=None)


def test_order_of_rows_and_kind_of_column_do_not_matter():
    table = make_tissue(60, num_genes=40, transcripts=True, mean_counts=40).transcripts
    shuffled = table.sample(frac=1, random_state=0).astype({"gene": str, "cell_id": str})
    a, removed_a = filter_transcripts(table)
    b, removed_b = filter_transcripts(shuffled)
    assert 0 < len(a) < len(table)
    assert_array_equal(a.index, b.index.sort_values())
    pd.testing.assert_frame_equal(removed_a, removed_b)


def test_counts_and_centroids_equal_a_loop_over_molecules():
    slide = make_tissue(40, num_genes=30, transcripts=True, mean_counts=30)
    table = pd.concat([slide.transcripts, cell("UNASSIGNED", 5, 5)]).sample(frac=1, random_state=0)
    counts, cell_ids, genes, centroids = counts_from_transcripts(table)
    rows = slide.adata.obs_names.get_indexer(cell_ids)
    columns = slide.adata.var_names.get_indexer(genes)
    assert genes == sorted(genes)
    assert sorted(rows) == list(range(40))
    assert_array_equal(counts.toarray(), slide.counts.toarray()[rows][:, columns])
    for row in (0, 17, 39):
        own = table[table["cell_id"] == cell_ids[row]]
        assert_allclose(centroids[row], own[["x_um", "y_um"]].astype(float).mean(), rtol=1e-6)


def test_no_molecules_give_an_empty_table():
    empty = cell("a", 1, 1).iloc[:0]
    assert len(filter_transcripts(empty).transcripts) == 0
    counts, cell_ids, genes, centroids = counts_from_transcripts(empty)
    assert (counts.shape, cell_ids, genes, centroids.shape) == ((0, 0), [], [], (0, 2))


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match=r"\['gene'\] among \['feature_name', 'cell_id'\]"):
        filter_transcripts(pd.DataFrame({"feature_name": ["A"], "cell_id": ["c"]}))
    table = cell("a", 3, 3)
    table.loc[1, "x_um"] = np.nan
    with pytest.raises(ValueError, match=r"1 rows, such as \[1\]"):
        counts_from_transcripts(table)


def test_xenium_molecules_add_up_to_its_published_counts(real_data):
    folder = real_data / "xenium_breast_crop"
    cells = anndata.read_h5ad(folder / "cells.h5ad")
    names = {"feature_name": "gene", "x_location": "x_um", "y_location": "y_um"}
    table = pd.read_parquet(folder / "transcripts.parquet").rename(columns=names)
    kept, removed = filter_transcripts(table, min_counts=1, min_genes=1)
    # the crop was published without control features and below quality 20
    assert removed["molecules"].tolist() == [0, 0, 2773, 0, 0]
    counts, cell_ids, genes, centroids = counts_from_transcripts(kept)
    rows = pd.Index(cell_ids).get_indexer(cells.obs["cell_id"].astype(str))
    columns = pd.Index(genes).get_indexer(cells.var_names)
    assert (rows >= 0).all()
    expected = cells.X.toarray()[:, columns >= 0]
    assert cells.X.sum() == expected.sum()
    assert_array_equal(counts.toarray()[rows][:, columns[columns >= 0]], expected)
    away = np.hypot(*(centroids[rows] - cells.obsm["spatial"]).T)
    assert np.median(away) < 3.0


def test_flags_of_any_dtype_are_read_and_gaps_refused():
    table = cell("a", 30, 10)
    flags = np.arange(30) % 2 == 0
    expected = filter_transcripts(table.assign(is_gene=flags), min_counts=1, min_genes=1)[0]
    assert len(expected) == 15
    for values in (flags.astype(int), flags.astype(object), pd.array(flags, "boolean")):
        kept = filter_transcripts(table.assign(is_gene=values), min_counts=1, min_genes=1)[0]
        assert kept.index.equals(expected.index)
        gap = pd.Series(values)
        gap = (gap.astype("Int64") if values.dtype.kind == "i" else gap).copy()
        gap[3] = None if gap.dtype == object else pd.NA
        with pytest.raises(ValueError, match="true or false in column 'is_gene', got .* in row 3"):
            filter_transcripts(table.assign(is_gene=gap))
