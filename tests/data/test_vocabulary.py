import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from spatiagraph._config import from_config, to_config
from spatiagraph.data import GenePanel, GeneVocabulary, Recipe, Slide, make_tissue
from spatiagraph.data.recipe import KNN, Ranks
from spatiagraph.data.tokens import fit_medians

HUMAN = ["ACTB", "KRT8", "CD3E", "EPCAM"]
IDS = [f"ENSG0000000000{i}" for i in range(1, 5)]


def slide_of(counts, symbols, slide_id="s", expression="counts", **var):
    counts = np.asarray(counts, np.float32)
    adata = anndata.AnnData(csr_matrix(counts), var=pd.DataFrame(var, index=list(symbols)))
    adata.obs_names = [f"c{i}" for i in range(len(counts))]
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 50, (len(counts), 2))
    return Slide(adata, slide_id=slide_id, expression=expression, check=False)


def tokens_of(vocabulary, slide, **options):
    data = Recipe(vocabulary, graph=KNN(1), levels=(), tokens=Ranks(**options))(slide).dense()
    return data.gene_ids.values().tolist(), data.gene_ids.crow_indices().tolist()


def test_ids_are_contiguous_ranges():
    own = GeneVocabulary(HUMAN, special=("[PAD]", "[MASK]", "[CLS]"), meta=("brain",), last=())
    assert own.ranges == {
        "special": range(0, 3), "meta": range(3, 4), "gene": range(4, 8), "last": range(8, 8),
    }  # fmt: skip
    assert (own.token("[CLS]"), own.token("brain"), own.num_tokens) == (2, 3, 8)
    with pytest.raises(ValueError, match=r"among .*brain.*got '<cls>'"):
        own.token("<cls>")
    with pytest.raises(ValueError, match="different names"):
        GeneVocabulary(HUMAN, meta=("<pad>",))


def test_the_published_layout_of_ids():
    """SToFM fact A7."""
    vocabulary = GeneVocabulary([f"G{i}" for i in range(25_424)])
    assert vocabulary.ranges["gene"] == range(2, 25_426)
    assert vocabulary.token("<pad>") == 0
    assert vocabulary.token("<mask>") == 1
    assert vocabulary.token("<cls>") == 25_426
    assert vocabulary.num_tokens == 25_427


def test_tokens_of_a_batch_follow_the_vocabulary():
    """SToFM fact A7: order by count over median, ties by the vocabulary, absent genes left out."""
    vocabulary = GeneVocabulary(HUMAN, medians=[2, 1, 1, 5])
    slide = slide_of([[4, 0, 6, 10], [0, 7, 0, 0]], HUMAN)
    ids, ptr = tokens_of(vocabulary, slide, start="<cls>")
    assert ids == [6, 4, 2, 5, 6, 3]
    assert ptr == [0, 4, 6]
    assert tokens_of(vocabulary, slide, start="<cls>", max_len=2)[0] == [6, 4, 6, 3]


def test_two_mouse_genes_of_one_human_gene_are_one():
    """SToFM fact A7."""
    table = {
        "Actb": "ACTB",
        "ENSMUSG00000000001": "KRT8",
        "Krt8b": "ENSG00000000002",
        "Cd3e": "CD3E",
    }
    vocabulary = GeneVocabulary(HUMAN, IDS, medians=[2, 1, 1, 5], orthologs=table)
    mouse = slide_of(
        [[4, 1, 2, 2, 9], [4, 0, 3, 2, 9]],
        ["Actb", "Krt8", "Krt8b", "Cd3e", "Xist"],
        gene_ids=["", "ENSMUSG00000000001", "", "", ""],
    )
    counts, measured = vocabulary.counts(mouse)
    np.testing.assert_array_equal(counts.toarray(), [[4, 3, 2, 0], [4, 3, 2, 0]])
    np.testing.assert_array_equal(measured, [True, True, True, False])
    ids, ptr = tokens_of(vocabulary, mouse)
    assert ids[: ptr[1]] == ids[ptr[1] :] == [3, 2, 4]
    report = vocabulary.coverage([mouse]).iloc[0]
    assert (report["by"], report["unused"]) == ("orthologs", 1)
    assert report["unused_share"] == pytest.approx(18 / 36)


def test_a_slide_of_another_species_needs_a_table():
    mouse = slide_of(np.ones((2, 3)), ["Actb", "Krt8", "Cd3e"])
    with pytest.raises(
        ValueError, match=r"0 of 3 by symbols .*no table of orthologues.*orthologs="
    ):
        GeneVocabulary(HUMAN).counts(mouse)
    human = slide_of(np.ones((2, 3)), HUMAN[:3], "h")
    table = dict(zip(["Actb", "Krt8", "Cd3e"], HUMAN, strict=False))
    both = GeneVocabulary(HUMAN, orthologs=table)
    assert tokens_of(both, mouse) == tokens_of(both, human)


def test_a_small_panel_is_a_small_share_of_a_large_vocabulary():
    slide = slide_of(np.ones((2, 3)), HUMAN[:3])
    large = GeneVocabulary([*(f"G{i}" for i in range(5000)), *HUMAN])
    assert large.align(slide).coverage == pytest.approx(3 / 5004)
    with pytest.raises(ValueError, match="at least 10%.*got 1 of 20"):
        large.align(slide_of(np.ones((2, 20)), [*"abcdefghijklmnopqrs", "ACTB"]))


def test_medians_are_those_of_all_slides_together():
    slides = [make_tissue(150, num_genes=20, image=None, seed=i) for i in range(2)]
    vocabulary = GeneVocabulary(slides[0].symbols).fitted(slides)
    counts = np.concatenate([s.counts.toarray() for s in slides])
    np.testing.assert_allclose(vocabulary.medians, fit_medians(csr_matrix(counts)), rtol=5e-3)
    with pytest.raises(ValueError, match="normalised values"):
        vocabulary.fitted([slide_of([[0.5, 1]], ["a", "b"], expression="normalized")])
    with pytest.raises(ValueError, match="each of 4 genes, got 3"):
        GeneVocabulary(HUMAN, medians=[1, 2, 3])


def test_fractional_values_are_refused_before_any_batch():
    slide = slide_of([[0.5, 1.5], [1.0, 0.25]], HUMAN[:2], expression="normalized")
    with pytest.raises(ValueError, match=r"raw counts in slide 's'.*force=True"):
        tokens_of(GeneVocabulary(HUMAN), slide)
    assert tokens_of(GeneVocabulary(HUMAN), slide, force=True)[0] == [3, 2, 2, 3]


def test_a_start_token_needs_a_vocabulary():
    slide = make_tissue(20, num_genes=20, image=None)
    with pytest.raises(ValueError, match="GeneVocabulary as panel"):
        Recipe(GenePanel(slide.symbols), graph=KNN(1), levels=(), tokens=Ranks(start="<cls>"))(
            slide
        )


def test_it_is_saved_with_all_it_has():
    own = GeneVocabulary(
        HUMAN, IDS, medians=[1, 2, 3, 4.5], orthologs={"a": "ACTB"}, meta=("brain",), last=()
    )
    recipe = Recipe(own, levels=(), tokens=Ranks(5, start="<mask>", ties="count"))
    again = from_config(to_config(recipe))
    assert again == recipe
    assert hash(again.panel) == hash(own)
    assert again.panel.orthologs == {"a": "ACTB"}
    assert own != GeneVocabulary(HUMAN, IDS)
    assert "4 genes, 7 tokens" in repr(own)
