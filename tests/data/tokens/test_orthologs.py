import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import spatiagraph as sg
from spatiagraph.data import GeneVocabulary
from spatiagraph.data.tokens import merge_orthologs, rank_tokens, read_orthologs

TABLE = {"mA": "HA", "mB": "HB", "mB2": "HB"}


def test_two_mouse_genes_of_one_human_gene_are_added_up():
    """SToFM fact A7."""
    counts = csr_matrix(np.array([[5, 1, 2, 4], [0, 0, 3, 1]], np.float32))
    human = merge_orthologs(counts, ["mA", "mB", "mB2", "mX"], TABLE)
    assert human.gene_ids == ["HA", "HB"]
    np.testing.assert_array_equal(human.counts.toarray(), [[5, 3], [0, 3]])
    same = rank_tokens(csr_matrix(np.array([[5, 3], [0, 3]], np.float32)), [7, 8])
    np.testing.assert_array_equal(rank_tokens(human.counts, [7, 8]).ids, same.ids)


def test_genes_without_counterpart_are_dropped_and_reported():
    counts = csr_matrix(np.array([[5, 1, 2, 4], [0, 0, 3, 1]], np.float32))
    human = merge_orthologs(counts, ["mA", "mB", "mB2", "mX"], TABLE)
    assert human.dropped == ["mX"]
    assert human.dropped_share == pytest.approx(5 / 16)


def test_no_counterpart_at_all_is_refused():
    with pytest.raises(ValueError, match=r"none of its 3 in a, b"):
        merge_orthologs(csr_matrix([[1, 2]]), ["a", "b"], TABLE)
    with pytest.raises(ValueError, match="got 1 for 2"):
        merge_orthologs(csr_matrix([[1, 2]]), ["a"], TABLE)


BIOMART = pd.DataFrame(
    {
        "Gene stable ID": ["E1", "E2", "E2", "E3", "E4"],
        "Gene name": ["mA", "mB", "mB", "mC", None],
        "Human gene name": ["HB2", "HX", "HB", None, "HD"],
        "Human gene stable ID": ["H1", "H9", "H2", "H3", "H4"],
        "Human homology type": ["ortholog_one2one", *["ortholog_one2many"] * 2, *[None] * 2],
        "Human orthology confidence [0 low, 1 high]": [1.0, 0.0, 1.0, None, None],
    }
)


@pytest.mark.parametrize("name", ["table.csv.gz", "table.tsv", "table.parquet"])
def test_tables_of_biomart_give_one_counterpart_of_ids_and_symbols(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        BIOMART.to_parquet(path)
    else:
        BIOMART.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    found = read_orthologs(path)
    assert found == {"E1": "HB2", "mA": "HB2", "E2": "HB", "mB": "HB", "E3": "H3", "mC": "H3",
                     "E4": "HD"}  # fmt: skip


def test_two_columns_are_a_table_and_others_are_refused(tmp_path):
    path = tmp_path / "two.csv"
    pd.DataFrame({"mouse": ["a", "b"], "human": ["A", None]}).to_csv(path, index=False)
    assert read_orthologs(path) == {"a": "A"}
    pd.DataFrame({"x": ["a"], "y": ["A"], "z": [1]}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"in two\.csv, got x, y, z"):
        read_orthologs(path)
    pd.DataFrame({"mouse": ["a", "b"], "human": [None, None]}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="counterpart in two"):
        read_orthologs(path)
    with pytest.raises(FileNotFoundError, match="orthologues at"):
        read_orthologs(tmp_path / "none.csv")


def test_tables_of_two_species_and_of_neither_are_refused(tmp_path):
    table = BIOMART.assign(**{"Rat gene name": "R"})
    table.to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(ValueError, match=r"one other species in two\.csv, got Human, Rat"):
        read_orthologs(tmp_path / "two.csv")
    one = pd.DataFrame({"Gene name": ["a"], "human_symbol": ["A"]})
    one.to_csv(tmp_path / "one.csv", index=False)
    assert read_orthologs(tmp_path / "one.csv") == {"a": "A"}
    slide = sg.make_tissue(50, num_genes=20, image=None)
    with pytest.raises(ValueError, match=r"2 orthologues \(x: X, …\), got none of"):
        GeneVocabulary.from_slides([slide], orthologs={"x": "X", "y": "Y"})


def test_real_mouse_slide_on_human_genes(real_data):
    """The share of a real mouse panel that has a human gene, and the same counts on it."""
    table = read_orthologs(real_data / "gene_tables" / "orthologues_mouse_to_human_biomart.csv.gz")
    slide = sg.read(real_data / "starmap_mpfc" / "BZ5.h5ad", mpp=0.1)
    vocabulary = GeneVocabulary.from_slides([slide], orthologs=table)
    found = vocabulary.align(slide)
    assert found.by == "orthologs"
    assert 150 <= len(vocabulary) <= 166
    assert "SST" in vocabulary.symbols
    assert "Sst" not in vocabulary.symbols
    own = np.asarray(slide.counts[:, list(slide.symbols).index("Sst")].todense()).ravel()
    column = vocabulary.symbols.index("SST")
    assert (vocabulary.counts(slide)[0][:, column].toarray().ravel() == own).all()
