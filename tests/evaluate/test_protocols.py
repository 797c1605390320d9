import numpy as np
import pytest

from spatiagraph.data import make_tissue
from spatiagraph.evaluate import run_protocols, score_domains
from spatiagraph.evaluate.protocols import COLUMNS

SLIDE = make_tissue(400, num_genes=40, seed=0)
OBS = SLIDE.adata.obs
PERFECT = np.eye(5)[OBS["niche"].cat.codes]


def run(embeddings, **arguments):
    return run_protocols(embeddings, SLIDE.counts, SLIDE.pos, num_seeds=2, **arguments)


def test_a_perfect_embedding_scores_one_and_baselines_stand_beside_it():
    table = run({"mine": PERFECT}, domains=OBS["niche"])
    assert list(table.columns) == list(COLUMNS)
    scores = table[table["metric"] == "ARI"].set_index(["protocol", "embedding"])["value"]
    assert scores["domains_kmeans", "mine"] == pytest.approx(1.0)
    for name in ("pca30", "pca30_nbr15", "depth_nbr15", "xy_only"):
        assert scores["domains_kmeans", name] < 0.95
        assert ("domains_gmm", name) in scores


def test_the_table_says_what_a_protocol_says_alone():
    table = run({"mine": PERFECT + 0.3}, domains=OBS["region"])
    alone = score_domains({"mine": PERFECT + 0.3}, OBS["region"], num_seeds=2)
    row = table.query("protocol == 'domains_kmeans' and embedding == 'mine' and metric == 'NMI'")
    assert row["value"].item() == pytest.approx(alone.loc["mine", "NMI"])
    assert row["std"].item() == pytest.approx(alone.loc["mine", "NMI_std"])


def test_annotation_names_the_majority_once():
    table = run({"mine": PERFECT}, types=OBS["cell_type"])
    assert set(table["protocol"]) == {"annotation_blocks"}
    assert (table["embedding"] == "majority").sum() == 2  # macro F1 and accuracy
    scores = table[table["metric"] == "accuracy"].set_index("embedding")["value"]
    assert scores["expression"] > scores["majority"] + 0.2


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="'domains' or 'types'"):
        run({"mine": PERFECT})
    with pytest.raises(ValueError, match="names than those of baselines, got pca30"):
        run({"pca30": PERFECT}, domains=OBS["niche"])
