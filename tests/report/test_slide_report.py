import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.data import make_tissue

pytestmark = pytest.mark.usefixtures("without_umap", "few_members")  # UMAPs: test_projection.py


def test_a_slide_with_cells_without_a_niche_is_shown(tmp_path):
    slide = make_tissue(200, num_genes=20, image=None, seed=0)
    obs, rng = slide.adata.obs, np.random.default_rng(0)
    for column, level in {"niche": "niche", "region": "tissue"}.items():
        z = np.eye(len(obs[column].cat.categories))[obs[column].cat.codes]
        z = z + 0.01 * rng.normal(size=z.shape)
        z[[3, 7]] = np.nan
        slide.adata.obsm[f"X_context_{level}"] = z.astype(np.float32)
    slide.adata.uns["spatiagraph"] = {"name": "context"}
    found = sg.report_slide(slide, tmp_path / "page.html", labels="niche")
    assert list(found.domains) == ["domains"]
    for values in found.domains.values():
        assert np.flatnonzero(values.isna()).tolist() == [3, 7]
    assert found.scores.loc["context, niche", "ARI"] == 1
    assert found.scores.loc["spatiagraph", "ARI"] > 0.5
    assert found.note is None
    assert len(found.index) == 198
    assert "none (2)" in found.path.read_text(encoding="utf-8")


def embedded(num_cells=150):
    slide = make_tissue(num_cells, num_genes=20, image=None, seed=0)
    model = sg.models.ContextModel.for_slides([slide], channels=8)
    return model, slide, sg.embed(model, slide, progress=False)


def test_an_anndata_is_reported_as_its_slide_is(tmp_path):
    model, slide, adata = embedded()
    pages = []
    for number, given in enumerate((slide, adata.copy())):
        done = sg.report_slide(given, tmp_path / f"{number}.html", labels="niche", model=model)
        pages.append(done)
        obs = (given.adata if number == 0 else given).obs
        assert obs["context_domain"].tolist() == done.domains["domains"].tolist()
        assert obs["context_domain_confidence"].notna().all()
    first, second = pages
    assert first.scores.equals(second.scores)


def test_a_number_of_domains_that_nobody_chose_is_said(tmp_path):
    _, slide, _ = embedded()
    done = sg.report_slide(slide, tmp_path / "page.html")
    assert done.domains["domains"].nunique() == 7
    assert "Nobody chose the number of domains" in (tmp_path / "page.html").read_text()
    done = sg.report_slide(slide, tmp_path / "page.html", num_domains=3)
    assert done.note is None
    assert done.domains["domains"].nunique() == 3
    assert "Nobody chose" not in (tmp_path / "page.html").read_text()


def test_what_cannot_be_reported_is_refused_before_a_page_is_made(tmp_path):
    _, slide, adata = embedded()
    with pytest.raises(ValueError, match=r"column of obs with known labels, got 'nich'.*niche"):
        sg.report_slide(slide, tmp_path / "page.html", labels="nich")
    with pytest.raises(ValueError, match="no embeddings in obsm"):
        sg.report_slide(make_tissue(50, num_genes=20, image=None), tmp_path / "page.html")
    with pytest.raises(ValueError, match="run"):
        sg.report_slide(slide, tmp_path / "page.html", run=tmp_path / "nowhere")
    assert not (tmp_path / "page.html").exists()
