import re
import warnings

import numpy as np
import pandas as pd
import pytest

import spatiagraph as sg
from spatiagraph.data import Slide, make_tissue
from spatiagraph.inference.transition_scores import TransitionScores
from spatiagraph.report import Generation, Report, slide_page
from spatiagraph.report.generation import add_generation, as_generations
from spatiagraph.report.niches import central_cells, distinct_hits, niche_window_um
from spatiagraph.report.scores import verdict
from spatiagraph.retrieval import NicheIndex

pytestmark = pytest.mark.usefixtures("without_umap")  # pages with it: test_projection.py

SLIDE = make_tissue(600, num_genes=30, image="he", seed=0)
EMBEDDING = np.eye(5, dtype=np.float32)[SLIDE.adata.obs["niche"].cat.codes]
EMBEDDING = EMBEDDING + 0.01 * np.random.default_rng(0).standard_normal(EMBEDDING.shape)
SLIDE.adata.obsm["X_context_niche"] = EMBEDDING.astype(np.float32)
INDEX = NicheIndex.from_slides({"synthetic": SLIDE.adata}, "X_context_niche")
HISTORY = pd.DataFrame({"epoch": [0, 1], "loss": [2.0, 1.5], "cell": [1.0, 0.8]})

IMAGES = np.full((9, 3, 8, 8), 0.5, np.float32)


def write(path, **arguments):
    return slide_page(SLIDE, **arguments).write(path).read_text(encoding="utf-8")


def test_only_what_is_given_is_shown(tmp_path):
    html = write(tmp_path / "page.html")
    assert "What was run" in html
    for part in (
        "Scores", "Training", "Domains on the slide", "Niches like these", "Generation",
        "Gene panel",
    ):  # fmt: skip
        assert f"<h2>{part}</h2>" not in html


def test_a_full_report_has_every_part_and_stays_small(tmp_path):
    scores = pd.DataFrame({"ARI": [0.9, 0.4], "ARI_std": [0.0, 0.1]}, index=["ours", "pca30"])
    html = write(
        tmp_path / "page.html",
        run={"model": "ContextModel", "max_epochs": 2, "seed": 0, "slides": {"synthetic": {}}},
        history=HISTORY,
        domains={"niche level": SLIDE.adata.obs["niche"]},
        labels="niche",
        scores=scores,
        highlight="ours",
        index=INDEX,
        coverage=pd.DataFrame({"coverage": [0.5]}, index=["synthetic"]),
        missing=["GENE1", "GENE2"],
        warnings=["Something to know"],
        generation=[Generation(IMAGES, IMAGES, title="a to b")],
    )
    at = 0
    for part in (  # in this order
        "Warnings", "Domains on the slide", "Scores", "Explore the cells", "Niches like these",
        "Generation: a to b", "What was run", "Training", "Gene panel",
    ):  # fmt: skip
        assert f"<h2>{part}</h2>" in html[at:], part
        at = html.index(f"<h2>{part}</h2>", at)
    assert html.count("<details><summary><h2>") == 3
    assert "Not measured: GENE1, GENE2." in html
    assert "A UMAP stands here after pip install" in html
    assert "Something to know" in html
    assert len(re.findall(r"\d of \d hits are of it too", html)) == 3
    assert len(html) < 10e6


def test_a_slide_without_image_gets_maps_all_the_same(tmp_path):
    slide = make_tissue(300, num_genes=30, image=None)
    html = slide_page(slide, domains={"region": slide.adata.obs["region"]}).html()
    assert "Map of the cells coloured by region" in html


def test_a_section_that_is_added_later_comes_before_what_is_folded_away():
    page = slide_page(SLIDE, run={"model": "ContextModel"}, max_interactive=0)
    add_generation(page, Generation(IMAGES, IMAGES, title="late"))
    assert page.html().index("Generation: late") < page.html().index("What was run")


def test_domains_are_described_by_what_they_are():
    slide = make_tissue(400, num_genes=30, image=None, seed=0)
    options = {"domains": {"found": slide.adata.obs["niche"]}, "max_interactive": 0}
    html = slide_page(slide, **options).html()
    for alt in ("Dot plot of the marker genes", "shares of cell_type in each domain",
                "Boxes of the amounts", "Heat map of which domains",
                "Heat map of which cell_type"):  # fmt: skip
        assert alt in html
    assert "UMAP" not in html
    slide.adata.obsm["X_umap"] = slide.pos
    html = slide_page(slide, **options).html()
    assert "UMAP of the cells coloured by domains and cell_type" in html
    assert "as given with the slide" in html


def test_what_is_unlabelled_is_grey_and_no_label():
    html = slide_page(SLIDE, labels="niche", unlabelled=["niche1"], max_interactive=600).html()
    number = int((SLIDE.adata.obs["niche"] == "niche1").sum())
    assert f"none ({number})" in html
    assert "niche1 (" not in html
    slide = make_tissue(len(SLIDE.pos), num_genes=30, image=None)
    names = slide.adata.obs["niche"].astype(str)
    slide.adata.obs["niche"] = names.where(names != "niche1", "NA")
    assert "NA (" not in slide_page(slide, labels="niche", max_interactive=600).html()


def test_spots_are_called_spots():
    y, x = np.mgrid[:20, :20]
    slide = make_tissue(400, num_genes=30, image=None)
    slide.adata.obsm["spatial"] = np.stack([x.ravel() * 100.0, y.ravel() * 100.0], 1)
    slide = Slide(slide.adata, slide_id="array")
    html = slide_page(slide, labels="niche").html()
    text = re.sub(r"<style>.*?</style>|<script.*?</script>", "", html, flags=re.DOTALL)
    assert "Explore the spots" in text
    assert not re.search(r"\bcells?\b", text), re.findall(r".{40}\bcells?\b.{20}", text)


def test_no_object_of_python_is_shown_as_its_code(tmp_path):
    html = write(tmp_path / "page.html", index=INDEX, labels="niche", max_interactive=0)
    assert not re.search(
        r"\w+\((\w+=|\d+ )", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    )


@pytest.mark.parametrize(
    ("ours", "other", "std", "words"),
    [
        (0.80, 0.50, 0.01, "Spatiagraph is better here by 0.30"),
        (0.50, 0.53, 0.01, "Averaged PCA is better here by 0.03"),
        (0.50, 0.53, 0.03, "are alike here"),
    ],
)
def test_who_found_the_domains_best_is_said_in_a_sentence(ours, other, std, words):
    scores = pd.DataFrame(
        {"ARI": [ours, other, 0.1], "ARI_std": std},
        index=["spatiagraph", "pca30_nbr15", "pca30"],
    )
    assert words in verdict(scores, "spatiagraph")
    assert (
        words
        in slide_page(
            SLIDE, labels="niche", scores=scores, highlight="spatiagraph", max_interactive=0
        ).html()
    )
    assert verdict(scores[:1], "spatiagraph") == ""


@pytest.mark.parametrize(
    ("pca", "averaged", "said"),
    [(0.45, 0.2, True), (0.45, 0.4, False), (0.15, 0.02, False), (0.45, np.nan, False)],
)
def test_labels_that_surroundings_blur_are_said_to_be_types(pca, averaged, said):
    names = ["spatiagraph", "pca30", "pca30_nbr15"]
    scores = pd.DataFrame({"ARI": [0.2, pca, averaged]}, index=names)
    assert ("look like types of cells" in verdict(scores, "spatiagraph")) == said


def test_names_may_look_like_formulas_or_begin_with_a_line():
    slide = make_tissue(200, num_genes=30, image=None, seed=0)
    slide.adata.obs["label"] = np.resize(["$\\frac{$", "_a", "_b"], 200)
    slide.adata.var_names = [f"$\\sqrt{i}$" for i in range(30)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        html = slide_page(slide, labels="label", domains={"_d": slide.adata.obs["niche"]}).html()
    assert "_a (" in html


def test_parts_of_the_slide_that_a_rule_cut_are_not_offered_as_biology():
    slide = make_tissue(300, num_genes=30, image=None)
    model = sg.models.ContextModel.for_slides([slide], channels=8)
    sg.embed(model, slide, progress=False)
    assert slide.adata.obs["context_tissue"].nunique() > 1
    html = slide_page(slide, labels="niche").html()
    assert ">niche</option>" in html
    assert "context_tissue" not in html


def test_the_map_to_move_about_in_can_be_left_out(tmp_path):
    assert "Explore" not in write(tmp_path / "page.html", max_interactive=0)
    assert "20 of 600 cells, drawn at random" in write(tmp_path / "a.html", max_interactive=20)


def test_a_collapse_is_told_beside_the_curve(tmp_path):
    collapsed = HISTORY.assign(effective_rank=[9.0, 1.1])
    told = "The embeddings collapsed: they use 1.1 dimensions"
    assert told in write(tmp_path / "page.html", history=collapsed, max_interactive=0)
    assert told not in write(tmp_path / "page.html", history=HISTORY, max_interactive=0)


def test_a_run_is_judged_by_the_score_it_kept_its_weights_by(tmp_path):
    columns = {"val_loss": [3.0, 4.0], "start_val_loss": 2.0}
    history = HISTORY.assign(**columns, **{"val_recall@10": [0.2, 0.6], "start_val_recall@10": 0.1})
    run = {"watched": {"name": "recall@10", "highest": True}}
    kept = "the start was kept"
    assert kept not in write(tmp_path / "page.html", history=history, run=run, max_interactive=0)
    old = write(tmp_path / "old.html", history=history, max_interactive=0)  # names no score
    assert f"validation loss of the start, 2 (lowest after it 3): {kept}" in old
    worse = history.assign(**{"start_val_recall@10": 0.7})
    page = write(tmp_path / "page.html", history=worse, run=run, max_interactive=0)
    assert f"recall@10 of the start, 0.7 (highest after it 0.6): {kept}" in page


@pytest.mark.parametrize(
    ("generated", "kernel", "words"),
    [
        (0.54, 1.0, "Generated cells are closer to real ones than the cells unchanged. Nuclei"),
        (0.54, 9.0, "not in all of them together: take the images for no result."),
        (0.54, np.nan, "not in all of them together: take the images for no result."),
        (0.40, 1.0, "no closer to real ones than the cells unchanged: take the images for no"),
        (0.10, 9.0, "no closer to real ones"),
    ],
)
def test_generated_cells_are_judged_beside_the_cells_unchanged(generated, kernel, words):
    index = [(who, "a to b") for who in ("generated", "identity", "random_target")]
    table = pd.DataFrame(
        {"ks": [generated, 0.4, 0.72], "kernel_morphology": [kernel, 3.0, -0.1]},
        index=pd.MultiIndex.from_tuples(index, names=["generator", "transition"]),
    )
    pairs = pd.DataFrame({"transition": ["a to b"] * len(IMAGES)})
    (made,) = as_generations(TransitionScores(table, pairs, IMAGES, IMAGES, IMAGES, window_um=20.0))
    page = Report("title")
    add_generation(page, made)
    assert words in page.html()
    assert f"generated {generated:.2f}, unchanged 0.40, other real cells 0.72;" in page.html()
    table["ks"] = np.nan
    (made,) = as_generations(TransitionScores(table, pairs, IMAGES, IMAGES, IMAGES, window_um=20.0))
    assert made.verdict == ""


def test_generated_images_are_counted(tmp_path):
    made = Generation(IMAGES, IMAGES, IMAGES, labels=[f"cell{i}" for i in range(9)])
    html = write(tmp_path / "page.html", generation=[made], max_interactive=0)
    assert "8 of 9 cells" in html
    assert "real cells they were matched with" in html
    assert "µm wide" not in html


def test_the_scale_of_generated_and_real_cells_is_said(tmp_path):
    made = Generation(IMAGES, IMAGES, IMAGES, caption="Two states.", window_um=19.2)
    html = write(tmp_path / "page.html", generation=[made], max_interactive=0)
    assert "Two states. Squares are 19.2 µm wide" in html


def test_an_index_says_which_embeddings_it_was_built_from(tmp_path):
    slide = SLIDE[:]
    del slide.adata.obsm["X_context_niche"]
    slide.adata.obsm["X_peer"] = SLIDE.adata.obsm["X_context_niche"]
    options = {"labels": "niche", "max_interactive": 0}
    index = NicheIndex.from_slides({"synthetic": slide.adata}, "X_peer")
    assert "Niches like these" in slide_page(slide, index=index, **options).html()


def test_domains_of_another_slide_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got 2 for 600 cells"):
        write(tmp_path / "page.html", domains={"level": [0, 1]})
    with pytest.raises(ValueError, match=r"Expected obs\['layer'\]"):
        write(tmp_path / "page.html", labels="layer")
    with pytest.raises(ValueError, match="'adata' with the 600 cells of slide 'synthetic'"):
        write(tmp_path / "page.html", adata=SLIDE.adata[::-1], labels="niche")
    other = make_tissue(50, num_genes=30)
    other.adata.obsm["X_context_niche"] = np.ones((50, 5), np.float32)
    index = NicheIndex.from_slides({"other": other.adata}, "X_context_niche")
    with pytest.raises(ValueError, match="cells of slide 'synthetic' in the index, found 0"):
        write(tmp_path / "page.html", index=index)
    assert not (tmp_path / "page.html").exists()


def test_hits_are_of_the_same_niche_and_share_no_cells():
    apart = niche_window_um(SLIDE)
    row = int(central_cells(EMBEDDING, SLIDE.adata.obs["niche"])[0])
    hits = distinct_hits(INDEX, row, SLIDE, num=4, apart_um=apart)
    niche = SLIDE.adata.obs["niche"].to_numpy()
    assert (niche[hits.row] == niche[row]).all()
    pos = SLIDE.pos[[row, *hits.row]]
    away = np.linalg.norm(pos[:, None] - pos[None], axis=2)[np.triu_indices(len(pos), 1)]
    assert (away >= apart).all()
    assert (np.diff(hits.distance) >= 0).all()


def test_hits_are_found_beyond_a_crowd_of_cells_in_one_niche():
    """100 cells of one niche, all within reach of the query, are as like it as can be."""
    slide, index, apart = crowd_of(100)
    hits = distinct_hits(index, 0, slide, num=2, apart_um=apart)
    assert len(hits.row)
    assert (hits.away_um >= apart).all()


def test_no_place_is_shown_that_is_less_like_a_cell_than_a_quarter_of_all_are():
    """The 300 cells most like the query share its place, so what is left is unlike it."""
    slide, index, apart = crowd_of(300)
    assert len(distinct_hits(index, 0, slide, num=2, apart_um=apart).row) == 0
    options = {"index": index, "queries": [0], "window_um": apart, "max_interactive": 0}
    html = slide_page(slide, **options).html()
    assert "no other place is like it" in html
    assert "hits are of it too" not in html


def crowd_of(num):
    """A slide whose cells nearest to the first are of one niche, its index, and their reach."""
    slide = make_tissue(600, num_genes=30, image=None, seed=0)
    away = np.linalg.norm(slide.pos - slide.pos[0], axis=1)
    near = away.argsort()
    z = np.eye(2, dtype=np.float32)[(np.arange(600) >= num).astype(int)]
    slide.adata.obsm["X_context_niche"] = z[near.argsort()]
    index = NicheIndex.from_slides({"synthetic": slide.adata}, "X_context_niche")
    return slide, index, away[near[num + 10]]


def test_cells_without_a_niche_are_no_hits():
    adata = SLIDE.adata.copy()
    row = int(central_cells(EMBEDDING, adata.obs["niche"])[0])
    first = distinct_hits(INDEX, row, SLIDE, num=3, apart_um=20).row
    adata.obsm["X_context_niche"][first[0]] = np.nan
    index = NicheIndex.from_slides({"synthetic": adata}, "X_context_niche")
    again = distinct_hits(index, row, SLIDE, num=3, apart_um=20)
    assert first[0] not in again.row
    away = np.linalg.norm(EMBEDDING[again.row] - EMBEDDING[row], axis=1)
    assert (away < 0.2).all()


def test_a_calibrated_index_shows_hits_too(tmp_path):
    index = NicheIndex.from_slides({"synthetic": SLIDE.adata}, "X_context_niche", calibrate="slide")
    assert "Niches like these" in write(tmp_path / "page.html", index=index, max_interactive=0)


def test_the_central_cell_is_nearest_to_the_mean_of_its_group():
    z = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
    groups = pd.Series(["a", "a", "a", "b", "b"])
    assert central_cells(z, groups).tolist() == [1, 3]
    preferred = np.array([True, False, False, False, True])
    assert central_cells(z, groups, preferred).tolist() == [0, 4]
