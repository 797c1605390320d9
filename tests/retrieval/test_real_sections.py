"""Niches of one patient looked for in others: do hits share the pathologist's label?

``pytest -m slow -s tests/retrieval/test_real_sections.py`` prints the share of the ten nearest
spots of other patients with the label of the query, beside chance and principal components.
"""

import numpy as np
import pytest
from scipy import sparse

import spatiagraph as sg
from spatiagraph.evaluate import neighbor_mean, pca
from spatiagraph.inference import embed
from spatiagraph.models import ContextModel
from spatiagraph.retrieval import NicheIndex
from spatiagraph.training import fit

KEYS = ("X_context_niche", "X_context", "X_pca", "X_pca_nbr")


def _embedded(folder, names, seed):
    """Sections with the embeddings of a model and of baselines on the genes they share."""
    slides = [sg.read(folder / f"{n}.h5ad", image=False, pitch_um=200) for n in names]
    model = ContextModel.for_slides(slides, seed=seed)
    fit(model, slides, max_epochs=30, tile_size=512, seed=seed, progress=False)
    adatas = {s.slide_id: embed(model, s, progress=False) for s in slides}
    shared = sorted(set.intersection(*(set(s.symbols) for s in slides)))
    counts = sparse.vstack([a[:, shared].X for a in adatas.values()])
    section = np.repeat(names, [s.num_cells for s in slides])
    components = pca(counts, seed=seed)
    pos = np.concatenate([s.pos for s in slides])
    averaged = neighbor_mean(components, pos, k=8, slide=section)
    for name, adata in adatas.items():
        adata.obsm["X_pca"] = components[section == name]
        adata.obsm["X_pca_nbr"] = averaged[section == name]
    return adatas


def _agreement(index):
    """Share of the ten nearest spots of other patients with the label of the query."""
    obs = index.obs
    known = (obs["label"] != "undetermined").to_numpy()
    slide, label = obs["slide_id"].astype(str).to_numpy(), obs["label"].astype(str).to_numpy()
    same, chance = [], []
    for name in np.unique(slide):
        rows = np.flatnonzero(known & (slide == name))
        others = known & (slide != name)
        hits = index.search_like(rows[:, None], k=10, where=others)
        query = rows[hits["query"]]
        same.append(label[hits["row"]] == label[query])
        chance.append([(label[others] == label[row]).mean() for row in rows])
    return np.concatenate(same).mean(), np.concatenate(chance).mean()


@pytest.mark.slow
@pytest.mark.parametrize("names", [("D1", "E1"), ("A1", "C1", "D1", "E1")], ids="-".join)
def test_niches_of_other_patients_share_the_label_more_often_than_chance(real_data, names):
    found = {}
    for seed in range(3):
        adatas = _embedded(real_data / "her2st", names, seed)
        for key in KEYS:
            for calibrate in (None, "slide"):
                index = NicheIndex.from_slides(adatas, key, calibrate=calibrate)
                same, chance = _agreement(index)
                found.setdefault((key, calibrate), []).append(same)
    for (key, calibrate), values in found.items():
        shown = " ".join(f"{v:.3f}" for v in values)
        print(f"{'-'.join(names)} {key:16} {calibrate or 'plain':6} {shown}  chance {chance:.3f}")
    ours = np.mean(found["X_context_niche", None])
    assert ours > chance + 0.05
    assert ours > np.mean(found["X_pca", None])
