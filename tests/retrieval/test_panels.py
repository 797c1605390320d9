"""Slides that measured different genes are searched together, by a model on the union of them."""

import numpy as np
import pytest
from scipy import sparse

from spatiagraph.data import GenePanel, Slide, make_tissue
from spatiagraph.evaluate import pca
from spatiagraph.inference import embed
from spatiagraph.models import ContextModel
from spatiagraph.retrieval import NicheIndex
from spatiagraph.training import fit

NUM_GENES, SHARED = 150, 12


@pytest.fixture(scope="module")
def slides():
    """Two sections of one tissue; each measures half the genes, and few are measured in both."""
    order = np.random.default_rng(0).permutation(NUM_GENES)
    halves = order[: (NUM_GENES + SHARED) // 2], order[(NUM_GENES - SHARED) // 2 :]
    found = []
    for i, genes in enumerate(halves):
        whole = make_tissue(1200, num_genes=NUM_GENES, image=None, seed=i).adata
        found.append(Slide(whole[:, np.sort(genes)].copy(), slide_id=f"s{i}", check=False))
    return found


def _agreement(adatas, key):
    """Share of hits on the second slide in the planted niche of their query on the first."""
    first, second = adatas
    index = NicheIndex.from_slides({"s1": second}, key)
    hits = index.search(first.obsm[key], k=10)
    planted = first.obs["niche"].to_numpy()[hits["query"]]
    return float((hits["niche"].to_numpy() == planted).mean())


def test_the_same_niche_is_found_on_a_slide_with_another_panel(slides):
    panel = GenePanel.from_slides(slides)
    shared = [g for g in slides[0].symbols if g in slides[1].symbols]
    assert len(panel) == NUM_GENES
    assert len(shared) == SHARED

    model = ContextModel.for_slides(slides, channels=16, seed=0)
    fit(model, slides, max_epochs=8, tile_size=512, seed=0, progress=False)
    adatas = [embed(model, slide, progress=False) for slide in slides]

    counts = sparse.vstack([s.counts[:, [s.symbols.index(g) for g in shared]] for s in slides])
    components = np.split(pca(counts, num_components=8, seed=0), [slides[0].num_cells])
    for adata, of_slide in zip(adatas, components, strict=True):
        adata.obsm["X_pca"] = of_slide

    niches = [a.obs["niche"].astype(str).to_numpy() for a in adatas]
    chance = float(np.mean([(niches[1] == n).mean() for n in niches[0]]))
    ours = _agreement(adatas, "X_context_niche")
    assert ours > chance + 0.2
    assert ours > _agreement(adatas, "X_pca") + 0.1
