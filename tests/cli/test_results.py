import numpy as np

from spatiagraph.cli.results import find_domains, known_labels, write_page
from spatiagraph.data import make_tissue


def test_a_slide_with_cells_without_a_niche_is_shown(tmp_path):
    slide = make_tissue(200, num_genes=20, image=None, seed=0)
    obs, rng = slide.adata.obs, np.random.default_rng(0)
    for column, level in {"niche": "niche", "region": "tissue"}.items():
        z = np.eye(len(obs[column].cat.categories))[obs[column].cat.codes]
        z = z + 0.01 * rng.normal(size=z.shape)
        z[[3, 7]] = np.nan
        slide.adata.obsm[f"X_context_{level}"] = z.astype(np.float32)
    slide.adata.uns["spatiagraph"] = {"name": "context"}
    found = find_domains(slide, known_labels(slide, "niche", ()))
    assert list(found.domains) == ["domains at niche level", "domains at tissue level"]
    for values in found.domains.values():
        assert np.flatnonzero(values.isna()).tolist() == [3, 7]
    assert found.scores.loc["spatiagraph", "ARI"] == 1
    assert len(found.index) == 198
    page = write_page(tmp_path / "page.html", slide, found, labels="niche")
    assert "none (2)" in page.read_text(encoding="utf-8")
