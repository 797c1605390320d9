import numpy as np
import pandas as pd
import pytest

from spatiagraph.data import make_tissue
from spatiagraph.data.cohort.crops import StoredCrops
from spatiagraph.data.splits import Folds, neighbor_distance_um, spatial_blocks
from spatiagraph.evaluate import (
    ridge_entries_on,
    ridge_on,
    run_protocols,
    score_domains,
    score_entry_imputation,
    score_image_to_genes,
    score_imputation,
    score_retrieval,
)
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
    mine = PERFECT + np.random.default_rng(0).normal(size=PERFECT.shape)
    table = run({"mine": mine}, domains=OBS["region"])
    alone = score_domains({"mine": mine}, OBS["region"], num_seeds=2)
    assert len({0.0, *alone.loc["mine", ["NMI", "NMI_std", "NMI_noise"]]}) == 4
    row = table.query("protocol == 'domains_kmeans' and embedding == 'mine' and metric == 'NMI'")
    assert row["value"].item() == pytest.approx(alone.loc["mine", "NMI"])
    assert row["std"].item() == pytest.approx(alone.loc["mine", "NMI_std"])
    assert row["noise"].item() == pytest.approx(alone.loc["mine", "NMI_noise"])


def test_annotation_names_the_majority_once():
    table = run({"mine": PERFECT}, types=OBS["cell_type"])
    assert set(table["protocol"]) == {"annotation_blocks"}
    assert (table["embedding"] == "majority").sum() == 2  # macro F1 and accuracy
    scores = table[table["metric"] == "accuracy"].set_index("embedding")["value"]
    assert scores["expression"] > scores["majority"] + 0.2


def test_what_cells_of_both_sides_share_helps_without_a_margin_only():
    """Labels of patches that blocks cut in two: a cell's patch says its label on both sides."""
    rng = np.random.default_rng(0)
    pos = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0)), -1).reshape(-1, 2) * 10
    patch = ((pos + 20) // 40).astype(int)  # 4 × 4 cells
    types = rng.integers(0, 4, (11, 11))[patch[:, 0], patch[:, 1]]  # no law to learn
    place = np.eye(121)[patch[:, 0] * 11 + patch[:, 1]]  # names the patch, and nothing else
    counts = rng.poisson(2.0, (len(pos), 12)).astype(np.float32)
    found = {}
    for margin_um in (0.0, 40.0 * 2**0.5):
        table = run_protocols({"mine": place}, counts, pos, types=types, margin_um=margin_um)
        scores = table[table["metric"] == "accuracy"].set_index("embedding")["value"]
        found[margin_um] = scores["mine"] - scores["majority"]
    assert found[0.0] > 0.15
    assert abs(found[40.0 * 2**0.5]) < 0.05


def test_a_margin_that_leaves_no_cell_is_refused():
    with pytest.raises(ValueError, match="more than 1000 µm from fold 0, got none of 400"):
        run({"mine": PERFECT}, types=OBS["cell_type"], margin_um=1000)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="'domains' or 'types'"):
        run({"mine": PERFECT})
    with pytest.raises(ValueError, match="names than those of baselines, got pca30"):
        run({"pca30": PERFECT}, domains=OBS["niche"])


def test_genes_are_imputed_beside_their_baselines_without_labels():
    run_on = {"genes": ridge_on(lambda split: split.log)}
    table = run({"mine": PERFECT}, protocols=["imputation"], imputers=run_on)
    assert set(table["metric"]) == {"pearson_mean", "pearson_median", "rmse"}
    folds = Folds(spatial_blocks(SLIDE.pos), SLIDE.pos, neighbor_distance_um(SLIDE.pos))
    alone = score_imputation(run_on, SLIDE.counts, SLIDE.pos, folds=folds)
    scores = table[table["metric"] == "pearson_mean"].set_index("embedding")
    assert scores.index.tolist() == alone.index.tolist()  # embeddings have seen what is hidden
    np.testing.assert_allclose(scores["value"], alone["pearson_mean"])
    np.testing.assert_allclose(scores["std"], alone["pearson_mean_std"])
    entries = run({"mine": PERFECT}, protocols=["imputation_entries"])
    assert set(entries["embedding"]) == {"gene_mean", "knn_smooth", "low_rank"}


def test_models_that_fill_in_single_values_stand_in_the_table():
    types = np.eye(8)[OBS["cell_type"].cat.codes]
    method = ridge_entries_on(lambda split: types)
    table = run({}, protocols=["imputation_entries"], entry_imputers={"mine": method})
    alone = score_entry_imputation({"mine": method}, SLIDE.counts, SLIDE.pos, baselines=[])
    row = table.query("embedding == 'mine' and metric == 'pearson_mean'")["value"].item()
    assert row == pytest.approx(alone.loc["mine", "pearson_mean"])
    with pytest.raises(ValueError, match="than those of baselines, got low_rank"):
        run({}, protocols=["imputation_entries"], entry_imputers={"low_rank": method})


def test_projections_of_a_model_are_searched_as_they_are():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(400, 5))
    gene = image + rng.normal(size=(400, 5))
    mask = np.arange(400) % 7 > 0
    table = run({}, protocols=["retrieval"], projections={"mine": (image, gene)}, image_mask=mask)
    assert set(table["embedding"]) == {"mine", "random"}
    alone = score_retrieval({"mine": (image[mask], gene[mask])}, spatial_blocks(SLIDE.pos)[mask])
    known = alone.loc["mine"].set_index("direction")["recall@5"]
    for direction, value in known.to_dict().items():
        metric = f"{direction}_recall@5"
        row = table[(table["embedding"] == "mine") & (table["metric"] == metric)]
        assert row["value"].item() == pytest.approx(value)
    with pytest.raises(ValueError, match="than those of baselines, got random"):
        run({}, protocols=["retrieval"], projections={"random": (image, gene)})
    with pytest.raises(ValueError, match="for image_to_genes, got none"):
        run({}, protocols=["image_to_genes"], projections={"mine": (image, gene)})


def test_images_are_scored_beside_depth_and_chance():
    slide = make_tissue(150, num_genes=20, image=None, seed=0)  # a network looks at every crop
    colors = np.random.default_rng(0).normal(size=(150, 4)) + slide.counts.toarray()[:, :4]
    crops = np.random.default_rng(1).uniform(0, 1, (150, 3, 32, 32)).astype(np.float32)

    def run(protocols, **arguments):
        return run_protocols(
            {}, slide.counts, slide.pos, protocols=protocols, margin_um=12, **arguments
        )

    table = run(["image_to_genes", "retrieval"], image_features={"mine": colors}, crops=crops)
    names = {p: part["embedding"].unique().tolist() for p, part in table.groupby("protocol")}
    ours = ["mine", "color_texture", "resnet18_random"]
    assert sorted(names["image_to_genes"]) == sorted([*ours, "train_mean", "depth_oracle"])
    assert sorted(names["retrieval"]) == sorted([*ours, "random"])
    assert not table.duplicated(["protocol", "embedding", "metric"]).any()
    folds = Folds(spatial_blocks(slide.pos), slide.pos, margin_um=12)
    alone = score_image_to_genes({"mine": colors}, slide.counts, folds, genes="all", target=None)
    row = table.query("embedding == 'mine' and metric == 'pearson_given_depth'")
    kept = StoredCrops(np.rint(255 * crops).astype(np.uint8), np.ones(150, dtype=bool))
    read, whole = (run(["image_to_genes"], crops=x) for x in (kept, kept.read()[0].numpy()))
    pd.testing.assert_series_equal(read["value"], whole["value"])
    mask = np.arange(150) % 9 > 0
    broken = np.where(mask[:, None], colors, 1e6)  # what a cell without image holds does not matter
    masked = [
        run(["retrieval"], image_features={"mine": z}, image_mask=mask)["value"]
        for z in (colors, broken)
    ]
    np.testing.assert_array_equal(*masked)
    assert row["value"].item() == pytest.approx(alone.loc["mine", "pearson_given_depth"])
    metrics = set(table.loc[table["protocol"] == "retrieval", "metric"])
    assert {"image_to_gene_recall@10", "gene_to_image_median_rank"} <= metrics


def test_types_are_probed_and_clustered_in_other_ways_when_asked():
    pytest.importorskip("leidenalg", reason="Leiden clusters need the extra [cluster]")
    slide = make_tissue(200, num_types=3, num_genes=40, image=None, seed=0)
    types = slide.adata.obs["cell_type"]
    few = run_protocols(
        {"mine": np.eye(3)[types.cat.codes]},
        slide.counts,
        slide.pos,
        types=types,
        protocols=["annotation_mlp", "types_leiden"],
        num_seeds=1,
    )
    assert few["protocol"].unique().tolist() == ["types_leiden", "annotation_mlp"]
    scores = few.set_index(["protocol", "embedding", "metric"])["value"]
    assert scores["annotation_mlp", "mine", "accuracy"] == 1
    assert scores["types_leiden", "mine", "ARI_best"] >= scores["types_leiden", "mine", "ARI_one"]


def test_a_protocol_that_lacks_what_it_needs_is_refused():
    for arguments, words in (
        ({"protocols": ["types_leiden"]}, "'types' for types_leiden, got none"),
        ({"protocols": ["retrieval"]}, "'image_features' or 'crops' for retrieval"),
        ({"protocols": ["leiden"]}, "protocols among domains_kmeans, .* got leiden"),
        ({"protocols": ["imputation"], "image_mask": [True]}, "'image_mask' of 400 booleans"),
        ({"protocols": []}, "at least one of the protocols"),
        ({}, "ask for 'protocols' among imputation, imputation_entries"),
        ({"protocols": ["imputation"], "imputers": {"ridge": None}}, "baselines, got ridge"),
    ):
        with pytest.raises(ValueError, match=words):
            run({"mine": PERFECT}, **arguments)
    with pytest.raises(TypeError, match="list of names"):
        run({"mine": PERFECT}, protocols="imputation")
