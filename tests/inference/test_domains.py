"""Domains of slides: found, written, and how far they can be trusted."""

import anndata
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import spatiagraph as sg
from spatiagraph.clustering import Clusters, KMeans
from spatiagraph.data.h5ad_file import write_h5ad
from spatiagraph.inference.domains import (
    AveragedPCA,
    Clustered,
    Consensus,
    Genes,
    Level,
    Sections,
    Slot,
)

SMALL = Consensus(num_members=8)
PLAIN = {"method": "kmeans", "embedding": "averaged_pca"}


def tissue(seed=0, num_cells=400, **options):
    return sg.make_tissue(num_cells=num_cells, num_genes=60, seed=seed, **options)


@pytest.mark.parametrize("method", [SMALL, "kmeans", "gmm", "leiden", KMeans(3)])
def test_planted_niches_are_found_and_written(method):
    slide = tissue()
    truth = slide.adata.obs["niche"].astype("category").cat.codes
    found = sg.domains(slide, truth.nunique(), method=method, embedding="averaged_pca")
    obs = slide.adata.obs
    assert adjusted_rand_score(truth, found.labels) > 0.5
    assert list(obs["domain"].cat.categories) == [str(n + 1) for n in range(truth.nunique())]
    assert (obs["domain"].cat.codes == found.labels).all()
    size = obs["domain"].value_counts(sort=False)
    assert (np.diff(size) <= 0).all()  # "1" is the largest
    assert obs["domain_confidence"].between(0, 1).all()
    assert 0 < found.stability <= 1


def test_a_consensus_is_sure_where_it_is_right():
    slide = tissue(num_cells=600)
    truth = slide.adata.obs["niche"].astype("category").cat.codes.to_numpy()
    found = sg.domains(slide, len(set(truth)), method=Consensus(num_members=16, smoothing=0))
    table = np.array(
        [
            np.bincount(truth[found.labels == d], minlength=found.labels.max() + 1)
            for d in set(truth)
        ]
    )
    right = table.argmax(axis=1)[found.labels] == truth
    assert right.mean() > 0.7
    assert found.confidence[right].mean() > found.confidence[~right].mean() + 0.05


def test_a_vote_agrees_with_the_niches_better_than_its_members():
    slide = tissue(num_cells=600)
    truth = slide.adata.obs["niche"].astype("category").cat.codes.to_numpy()
    one = [
        adjusted_rand_score(
            truth,
            sg.domains(
                slide,
                len(set(truth)),
                method=Consensus(num_members=2, kept=0.5, smoothing=0),
                seed=seed,
            ).labels,
        )
        for seed in range(4)
    ]
    many = sg.domains(slide, len(set(truth)), method=Consensus(num_members=20, smoothing=0))
    assert adjusted_rand_score(truth, many.labels) > np.mean(one)


@pytest.mark.parametrize("method", [SMALL, "kmeans"])
def test_the_same_seed_gives_the_same_domains(method):
    first, second = (
        sg.domains(tissue(), 4, method=method, embedding="averaged_pca", seed=3) for _ in range(2)
    )
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.confidence, second.confidence)
    assert first.stability == second.stability


def test_members_learned_on_a_sample_assign_all_cells():
    slide = tissue(num_cells=600)
    truth = slide.adata.obs["niche"].astype("category").cat.codes
    found = sg.domains(slide, truth.nunique(), method=Consensus(num_members=8, max_cells=200))
    assert (found.labels >= 0).all()
    assert adjusted_rand_score(truth, found.labels) > 0.5


@pytest.mark.parametrize("method", [SMALL, "kmeans"])
def test_a_domain_has_one_name_on_all_slides(method):
    slides = [tissue(seed=0, slide_id="a"), tissue(seed=0, slide_id="b")]
    found = sg.domains(slides, 4, method=method, embedding="averaged_pca")
    first, second = (slide.adata.obs["domain"] for slide in slides)
    assert (first.to_numpy() == second.to_numpy()).mean() > 0.95
    assert len(found.labels) == 800
    note = slides[1].adata.uns["spatiagraph"]["domains"]["domain"]
    assert list(note["slides"]) == ["a", "b"]


def test_the_mean_of_a_slide_is_taken_out_unless_told_otherwise():
    slides = [tissue(seed=0, slide_id="a"), tissue(seed=0, slide_id="b")]
    for slide, shift in zip(slides, (0.0, 100.0), strict=True):
        slide.adata.obsm["X_own"] = np.asarray(slide.pos[:, :1] > slide.pos[:, 0].mean()) + shift
    halves = np.concatenate([slide.pos[:, 0] > slide.pos[:, 0].mean() for slide in slides])
    for center, expected in ((True, halves), (False, np.repeat([0, 1], 400))):
        found = sg.domains(slides, 2, method="kmeans", embedding="X_own", center_slides=center)
        assert adjusted_rand_score(found.labels, expected) == 1


def test_depth_is_taken_out_when_asked():
    slide = tissue()
    depth = np.log1p(slide.depth.astype(np.float64))
    right = slide.pos[:, 0] > np.median(slide.pos[:, 0])
    slide.adata.obsm["X_own"] = np.stack([40 * (depth - depth.mean()), 2.0 * right], axis=1)
    plain = sg.domains(slide, 2, method="kmeans", embedding="X_own")
    without = sg.domains(
        slide, 2, method="kmeans", embedding="X_own", regress_depth=True, key="other"
    )
    assert adjusted_rand_score(plain.labels, right) < 0.2
    assert adjusted_rand_score(without.labels, right) == 1


def test_cells_without_an_embedding_have_no_domain():
    slide = tissue()
    z = AveragedPCA()(Sections([slide]))
    z[:5] = np.nan
    slide.adata.obsm["X_own"] = z
    consensus = Consensus(views=(Slot("X_own"),), num_members=4, share=1.0, smoothing=0)
    for method in ("kmeans", consensus):
        found = sg.domains(slide, 3, method=method, embedding="X_own")
        assert (found.labels[:5] == -1).all()
        assert (found.labels[5:] >= 0).all()
        assert slide.adata.obs["domain"].isna().sum() == 5
        assert np.isnan(found.confidence[:5]).all()


def test_any_function_is_an_embedder_or_a_clusterer():
    slide = tissue()

    def left_and_right(sections):
        return sections.pos[:, :1]

    def halves(z, num_clusters, seed):
        right = (z[:, 0] > np.median(z)).astype(np.int64)
        return Clusters(right, np.ones(len(z)))

    found = sg.domains(slide, 2, method=halves, embedding=left_and_right)
    right = slide.pos[:, 0] > np.median(slide.pos[:, 0])
    assert adjusted_rand_score(found.labels, right) == 1
    assert found.stability > 0.8


def test_results_and_notes_survive_a_file(tmp_path):
    slide = tissue()
    sg.domains(slide, 3, key="mine", **PLAIN)
    sg.domains(slide, 4, key="others", **PLAIN)
    write_h5ad(slide.adata, tmp_path / "slide.h5ad")
    adata = anndata.read_h5ad(tmp_path / "slide.h5ad")
    assert adata.obs["mine"].tolist() == slide.adata.obs["mine"].tolist()
    notes = adata.uns["spatiagraph"]["domains"]
    assert set(notes) == {"mine", "others"}
    assert notes["mine"]["num_domains"] == 3
    assert "KMeans(num_starts=10" in notes["mine"]["method"]
    assert 0 < notes["mine"]["stability"] <= 1
    sg.domains(adata, 5, key="mine", **PLAIN)  # an AnnData of one's own, and again
    assert adata.obs["mine"].nunique() == 5


def test_a_column_of_somebody_else_is_not_written_over():
    slide = tissue()
    slide.adata.obs["domain"] = "drawn by an expert"
    with pytest.raises(ValueError, match="new column .* got 'domain'.*Pass another key"):
        sg.domains(slide, 3, **PLAIN)
    assert (slide.adata.obs["domain"] == "drawn by an expert").all()


def test_the_curve_counts_what_domains_finds_and_writes_nothing():
    slide = tissue()
    before = set(slide.adata.obs)
    curve = sg.domain_curve(slide, [4, 2, 3], **PLAIN)
    assert curve.index.tolist() == [2, 3, 4]
    assert set(slide.adata.obs) == before
    found = sg.domains(slide, 3, **PLAIN)
    assert curve.loc[3, "stability"] == found.stability
    assert curve.loc[3, "confidence"] == pytest.approx(found.confidence.mean())
    assert curve.loc[3, "smallest"] == np.bincount(found.labels).min() / 400
    assert not curve["peak"].iloc[[0, -1]].any()


def test_members_of_a_consensus_are_the_same_for_every_number():
    slide = tissue()
    one = SMALL.find_domains(Sections([slide]), [3], 0)[0]
    several = SMALL.find_domains(Sections([slide]), [2, 3], 0)[1]
    np.testing.assert_array_equal(one.labels, several.labels)


def test_genes_are_on_the_scale_they_say():
    slide = tissue()
    sections = Sections([slide])
    log, root, scaled = (Genes(t)(sections).toarray() for t in ("log", "sqrt", "logz"))
    np.testing.assert_allclose(root, np.sqrt(np.expm1(log)), rtol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=0.02)
    assert Genes("log", num_genes=7)(sections).shape == (400, 7)


def test_a_consensus_looks_at_niches_where_there_are_any():
    slide = tissue()
    sg.domains(slide, 3, key="genes", method="consensus")
    z = AveragedPCA()(Sections([slide]))
    slide.adata.uns["spatiagraph"]["name"] = "context"
    for level in ("niche", "tissue"):
        slide.adata.obsm[f"X_context_{level}"] = z
    sg.domains(slide, 3, key="both")
    notes = slide.adata.uns["spatiagraph"]["domains"]
    assert "logz" in notes["genes"]["method"]
    assert "Level" not in notes["genes"]["method"]
    assert "Genes(transform='sqrt', num_genes=1000), Level(level=None)" in notes["both"]["method"]


def test_unusable_requests_are_refused():
    slide = tissue()
    with pytest.raises(ValueError, match='"consensus", "kmeans", "gmm", "leiden"'):
        sg.domains(slide, 3, method="ward")
    with pytest.raises(ValueError, match="that `spatiagraph embed` has embedded"):
        sg.domains(slide, 3, method="kmeans")
    with pytest.raises(ValueError, match="that `spatiagraph embed` has embedded"):
        sg.domains(slide, 3, embedding="niche")
    with pytest.raises(ValueError, match=r"obsm\['X_none'\] in slide"):
        sg.domains(slide, 3, method="kmeans", embedding="X_none")
    with pytest.raises(ValueError, match="between 1 and the 400 cells, got 401"):
        sg.domains(slide, 401, method=SMALL)
    with pytest.raises(ValueError, match="different ids"):
        sg.domains([slide, slide], 3)
    with pytest.raises(ValueError, match="'transform' among log, sqrt, logz"):
        Genes("tanh")
    with pytest.raises(ValueError, match="a view and two members"):
        Consensus(num_members=1)
    assert Clustered(Level("cell"), KMeans()) == Clustered(Level("cell"), KMeans())
