import gc
import weakref

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.data.synthetic import make_tissue
from spatiagraph.models.context import default_recipe


def slide_of(counts, var_names, slide_id="s", **var):
    """Four cells on a 10 µm square, unless there are more."""
    counts = np.asarray(counts, np.float32)
    adata = anndata.AnnData(csr_matrix(counts), var=pd.DataFrame(var, index=list(var_names)))
    adata.obs_names = [f"c{i}" for i in range(len(counts))]
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 50, (len(counts), 2))
    return Slide(adata, slide_id=slide_id, check=False)


ONES = np.ones((4, 3))


def test_counts_follow_the_panel_and_the_mask_tells_unmeasured_from_zero():
    slide = slide_of([[1, 2, 3], [4, 5, 6]], ["a", "b", "c"])
    counts, measured = GenePanel(["c", "x", "a"]).counts(slide)
    np.testing.assert_array_equal(counts.toarray(), [[3, 0, 1], [6, 0, 4]])
    np.testing.assert_array_equal(measured, [True, False, True])
    assert counts.dtype == np.float32
    assert counts.has_sorted_indices


def test_alignment_reports_columns_coverage_and_missing():
    found = GenePanel(["c", "x", "a"]).align(slide_of(ONES, ["a", "b", "c"]))
    np.testing.assert_array_equal(found.columns, [2, -1, 0])
    np.testing.assert_array_equal(found.genes, [2, -1, 0])
    assert (found.coverage, found.missing, found.by) == (2 / 3, ["x"], "symbols")


def test_gene_order_of_the_slide_does_not_matter():
    slide = make_tissue(100, num_genes=30, image=None)
    panel = GenePanel.from_slides([slide])
    shuffled = Slide(
        slide.adata[:, np.random.default_rng(1).permutation(30)].copy(), slide_id="other"
    )
    assert (panel.counts(slide)[0] != panel.counts(shuffled)[0]).nnz == 0


def test_ensembl_ids_match_in_any_version():
    panel = GenePanel(["ACTB", "KRT8"], ["ENSG00000075624.17", "ENSG00000170421"])
    slide = slide_of(ONES, ["ENSG00000170421.3", "ENSG00000999999", "ENSG00000075624.1"])
    found = panel.align(slide)
    assert found.by == "gene_ids"
    np.testing.assert_array_equal(found.columns, [2, 0])


def test_a_panel_of_ensembl_ids_matches_a_slide_of_symbols_with_ids():
    panel = GenePanel(["ENSG00000170421", "ENSG00000075624"])
    slide = slide_of(
        ONES, ["ACTB", "KRT8", "CD4"], gene_ids=["ENSG00000075624.2", "ENSG00000170421", ""]
    )
    np.testing.assert_array_equal(panel.align(slide).columns, [1, 0])


def test_duplicate_columns_of_a_slide_are_added_up():
    ids = [f"ENSG0000000000{i}" for i in range(3)]
    slide = slide_of([[1, 2, 4], [0, 3, 1]], ids, symbol=["TBCE", "A", "TBCE"])
    counts, _ = GenePanel(["TBCE", "A"]).counts(slide)
    np.testing.assert_array_equal(counts.toarray(), [[5, 2], [1, 3]])
    merged = GenePanel.from_slides([slide], min_cells=0)
    assert merged.symbols == ("TBCE", "A")
    assert merged.counts(slide)[0].sum() == slide.counts.sum()


def test_low_coverage_is_refused_and_lists_both_sides():
    panel = GenePanel([f"g{i}" for i in range(20)])
    with pytest.raises(ValueError, match="1 of 20 genes") as error:
        panel.counts(slide_of(ONES, ["g3", "other", "thing"], "breast"))
    for word in ("'breast'", "g0, g1, g2, g4, g5 and 14 more", "other, thing"):
        assert word in str(error.value)
    assert panel.counts(slide_of(ONES, ["g3", "x", "y"]), min_coverage=0.05)[1].sum() == 1


def test_a_slide_of_few_genes_of_the_panel_has_nothing_else():
    panel = GenePanel([f"g{i}" for i in range(50)])
    with pytest.raises(ValueError, match=r"3 of 50 genes.*The slide has: nothing else\."):
        panel.counts(slide_of(ONES, ["g1", "g2", "g3"]))


def test_no_overlap_is_refused_whatever_the_minimum():
    with pytest.raises(ValueError, match="0 of 1 genes"):
        GenePanel(["q"]).align(slide_of(ONES, ["a", "b", "c"]), min_coverage=0.0)


def test_genes_that_differ_in_case_only_are_said_so():
    slide = slide_of(ONES, ["Actb", "Krt8", "Cd4"])
    with pytest.raises(ValueError, match=r"2 of the missing differ in case only.*'ACTB'.*'Actb'"):
        GenePanel(["ACTB", "KRT8"]).align(slide)
    with pytest.warns(UserWarning, match=r"1 genes.*another case only.*'KRT8'.*'Krt8'"):
        found = GenePanel(["Actb", "KRT8"]).align(slide)
    assert found.case_only == [("KRT8", "Krt8")]


def test_a_panel_refuses_duplicates_by_name():
    with pytest.raises(ValueError, match="1 symbols more than once: b"):
        GenePanel(["a", "b", "b"])
    with pytest.raises(ValueError, match="1 Ensembl ids more than once: ENSG00000000001"):
        GenePanel(["a", "b"], ["ENSG00000000001.1", "ENSG00000000001.2"])
    with pytest.raises(ValueError, match="1 for 2 symbols"):
        GenePanel(["a", "b"], ["ENSG00000000001"])
    with pytest.raises(ValueError, match="at least one gene"):
        GenePanel([])


def test_json_round_trip(tmp_path):
    for panel in (GenePanel(["a", "β"]), GenePanel(["a", "b"], ["ENSG00000000001", ""])):
        panel.to_json(tmp_path / "panel.json")
        again = GenePanel.from_json(tmp_path / "panel.json")
        assert again == panel
        assert hash(again) == hash(panel)
    with pytest.raises(
        ValueError, match="Expected arguments of a GenePanel as the saved panel, got 'genes'"
    ):
        GenePanel.from_dict({"genes": ["a"]})


def test_union_and_intersection_of_slides_keep_the_first_order():
    one, two = slide_of(ONES, ["b", "a", "c"], "1"), slide_of(ONES, ["d", "c", "b"], "2")
    assert GenePanel.from_slides([one, two]).symbols == ("b", "a", "c", "d")
    assert GenePanel.from_slides([one, two], "intersection").symbols == ("b", "c")
    with pytest.raises(ValueError, match="measured in every slide"):
        GenePanel.from_slides([one, two, slide_of(ONES, ["a", "d", "z"], "3")], "intersection")


def test_union_knows_a_renamed_gene_by_its_id():
    one = slide_of(ONES[:, :1], ["OLD"], gene_ids=["ENSG00000000001"])
    two = slide_of(ONES[:, :1], ["NEW"], "2", gene_ids=["ENSG00000000001.4"])
    panel = GenePanel.from_slides([one, two])
    assert (panel.symbols, panel.gene_ids) == (("OLD",), ("ENSG00000000001",))


def test_rare_genes_are_left_out():
    counts = np.array([[1, 0, 9], [1, 0, 0], [1, 1, 0], [1, 1, 0]])
    slide = slide_of(counts, ["a", "b", "c"])
    assert GenePanel.from_slides([slide], min_cells=2).symbols == ("a", "b")
    assert GenePanel.from_slides([slide, slide_of(counts, ["a", "b", "c"], "2")]).symbols == (
        "a",
        "b",
    )
    with pytest.raises(ValueError, match="at least 5 cells"):
        GenePanel.from_slides([slide], min_cells=5)


def test_most_variable_genes_are_the_planted_markers():
    slides = [make_tissue(1500, num_genes=100, image=None, seed=s, slide_id=str(s)) for s in (0, 1)]
    for cohort in (slides[:1], slides):
        panel = GenePanel.from_slides(cohort, num_genes=20)
        marker = slides[0].adata.var["marker_of"].notna() & (
            slides[0].adata.var["marker_of"].astype(str) != ""
        )
        assert len(panel) == 20
        assert marker[list(panel.symbols)].mean() > 0.9


def test_most_variable_genes_do_not_depend_on_the_gene_order():
    slide = make_tissue(400, num_genes=60, image=None)
    turned = Slide(slide.adata[:, ::-1].copy(), slide_id="turned")
    panels = [GenePanel.from_slides([s], num_genes=15) for s in (slide, turned)]
    assert set(panels[0].symbols) == set(panels[1].symbols)


def test_coverage_table_has_a_row_per_slide():
    panel = GenePanel(["a", "b", "C"])
    slides = [slide_of(ONES, ["a", "b", "c"], "1"), slide_of(ONES, ["x", "y", "z"], "2")]
    table = panel.coverage(slides)
    assert table["slide_id"].tolist() == ["1", "2"]
    np.testing.assert_allclose(table["coverage"], [2 / 3, 0])
    assert table["case_only"].tolist() == [1, 0]
    assert table["unused"].tolist() == [1, 3]


def test_real_slides_share_a_panel(real_data):
    slides = [slide_of_file(real_data / f"her2st/{name}.h5ad", name) for name in ("A1", "C1", "D1")]
    panel = GenePanel.from_slides(slides, num_genes=2000)
    assert len(panel) == 2000
    table = panel.coverage(slides)
    assert table["coverage"].min() > 0.8
    counts, measured = panel.counts(slides[1])
    symbol = panel.symbols[np.flatnonzero(measured)[7]]
    column = slides[1].symbols.index(symbol)
    np.testing.assert_array_equal(
        counts[:, panel.symbols.index(symbol)].toarray(), slides[1].counts[:, [column]].toarray()
    )


def slide_of_file(path, name):
    return Slide(anndata.read_h5ad(path), slide_id=name, check=False)


IDS = [f"ENSG{i:011d}" for i in range(3)]


@pytest.mark.parametrize(
    "column",
    [
        *("feature_name", "gene_symbols", "gene_name", "Gene Symbol"),
        *("GeneName", "symbols", "hgnc", "gene_symbols_unique"),
    ],
)
@pytest.mark.parametrize("version", ["", ".7"])
def test_symbols_are_found_beside_ensembl_ids(column, version):
    slide = slide_of(ONES, [i + version for i in IDS], **{column: ["ACTB", "KRT8", "CD4"]})
    assert slide.symbols == ["ACTB", "KRT8", "CD4"]
    panel = GenePanel.from_slides([slide_of(ONES, ["ACTB", "KRT8", "CD4"]), slide], min_cells=1)
    assert len(panel) == 3


@pytest.mark.parametrize("name", ["GRCh38_ACTB", "hg19______ACTB", " ACTB ", "human_ACTB"])
def test_genomes_and_blanks_around_a_symbol_are_no_part_of_it(name):
    assert slide_of(ONES, [name, "KRT8", "CD4"]).symbols == ["ACTB", "KRT8", "CD4"]
    slide = slide_of(ONES, IDS, feature_name=[name, "KRT8", "CD4"])
    assert slide.symbols == ["ACTB", "KRT8", "CD4"]


def test_other_columns_of_genes_are_no_symbols():
    slide = slide_of(ONES, IDS, genome=["a", "b", "c"], description=["one gene", "b c", "d e"])
    assert slide.symbols == IDS


@pytest.mark.parametrize("missing", [np.nan, None, "", "nan", "None", "NA"])
@pytest.mark.parametrize("kind", ["object", "category"])
def test_genes_without_a_symbol_go_by_their_ids(missing, kind):
    symbols = pd.Series(["ACTB", missing, missing], index=IDS).astype(kind)
    slide = slide_of(ONES, [i + ".2" for i in IDS], gene_symbols=symbols.to_numpy())
    assert slide.symbols == ["ACTB", IDS[1], IDS[2]]
    assert len(GenePanel.from_slides([slide], min_cells=1)) == 3


def test_nan_is_a_gene_of_the_fly():
    slide = slide_of(
        ONES, ["FBgn0036414", "FBgn0003463", "FBgn0000490"], symbol=["nan", "sog", "dpp"]
    )
    assert slide.symbols == ["nan", "sog", "dpp"]


def test_a_column_of_symbols_does_not_rename_what_is_named_already():
    assert slide_of(ONES, ["A", "B", "C"], gene_name=["X", "Y", "Z"]).symbols == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (["Actb", "Krt8", "Cd4"], "3 differ in case only: two species"),
        (IDS, "One has Ensembl ids, the other symbols"),
        (["Myc", "Sox2", "Nes"], "another panel"),
    ],
)
def test_slides_that_share_no_gene_are_refused(theirs, message):
    ours = slide_of(ONES, ["ACTB", "KRT8", "CD4"], "ours")
    with pytest.raises(ValueError, match=f"'ours'.*'theirs'.*{message}"):
        GenePanel.from_slides([ours, slide_of(ONES, theirs, "theirs")], min_cells=1)


def test_a_few_names_that_two_species_share_do_not_join_them():
    human, mouse = ["C3", "ACTB", "KRT8"], ["C3", "Actb", "Krt8"]
    with pytest.raises(ValueError, match="two species"):
        GenePanel.from_slides([slide_of(ONES, human, "h"), slide_of(ONES, mouse, "m")])


def test_slides_may_share_genes_by_way_of_a_third():
    slides = [slide_of(ONES, n, n) for n in ("abc", "xyz", "czk")]
    assert len(GenePanel.from_slides(slides, min_cells=1)) == 7


def test_slides_are_looked_at_once_and_one_at_a_time():
    def slide(seed):
        return make_tissue(120, num_genes=30 + 5 * seed, image=None, seed=seed, slide_id=str(seed))

    alive = []

    def each():
        for seed in range(3):
            gc.collect()
            assert all(ref() is None for ref in alive)
            made = slide(seed)
            alive.append(weakref.ref(made))
            yield made
            del made

    given = [slide(seed) for seed in range(3)]
    panel = GenePanel.from_slides(each(), num_genes=12)
    assert len(alive) == 3
    assert panel == GenePanel.from_slides(given, num_genes=12)
    recipe = default_recipe(iter(given), num_genes=12, image="auto")
    assert (recipe.panel, recipe.crops) == (panel, ())
