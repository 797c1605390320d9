import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import spatiagraph as sg
from spatiagraph.evaluate import cluster_domains, domain_baselines, score_domains
from spatiagraph.evaluate.clustering import moved_by_noise


def blobs(num_domains=3, per_domain=30, channels=4, spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(num_domains), per_domain)
    center = rng.normal(size=(num_domains, channels)) * 3
    return center[label] + spread * rng.normal(size=(len(label), channels)), label


@pytest.mark.parametrize("channels", [4, 40])
@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_well_separated_domains_are_found(method, channels):
    z, label = blobs(channels=channels)
    found = cluster_domains(z, 3, method=method)
    assert adjusted_rand_score(label, found) == 1
    assert set(found) == {0, 1, 2}


def test_the_mixture_follows_a_shared_shape_where_k_means_cuts_across():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 200)
    z = np.stack([rng.normal(0, 1.5, 400), 2 * label + rng.normal(0, 0.15, 400)], 1)
    for unit in (1e-4, 1.0, 1e4):
        assert adjusted_rand_score(label, cluster_domains(z * unit, 2, method="gmm")) == 1
        assert adjusted_rand_score(label, cluster_domains(z * unit, 2, method="kmeans")) < 0.1


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_domains_do_not_depend_on_units_or_origin_of_the_embedding(method):
    z, _ = blobs(spread=1.0)
    found = cluster_domains(z, 3, method=method)
    moved = cluster_domains(z * 1000 + 7, 3, method=method)
    assert adjusted_rand_score(found, moved) == 1


def test_k_means_weighs_columns_as_they_are():
    z, _ = blobs(spread=2.0)
    z[:, 0] *= 5
    expected = KMeans(3, n_init=10, random_state=4).fit_predict(z)
    np.testing.assert_array_equal(cluster_domains(z, 3, seed=4), expected)


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_the_same_seed_gives_the_same_domains(method):
    z, _ = blobs(spread=3.0)
    first = cluster_domains(z, 5, method=method, seed=3)
    np.testing.assert_array_equal(first, cluster_domains(z, 5, method=method, seed=3))


def test_scores_are_the_means_over_seeds():
    z, label = blobs(spread=3.0)
    found = [cluster_domains(z, 3, seed=s) for s in range(3)]
    ari = [adjusted_rand_score(label, f) for f in found]
    nmi = [normalized_mutual_info_score(label, f) for f in found]
    row = score_domains({"z": z}, label, num_seeds=3).loc["z"]
    assert row["ARI"] == pytest.approx(np.mean(ari))
    assert row["NMI"] == pytest.approx(np.mean(nmi))
    assert row["ARI_std"] == pytest.approx(np.std(ari, ddof=1))
    assert row["NMI_std"] == pytest.approx(np.std(nmi, ddof=1))


def test_the_deviation_over_noise_is_that_of_clusterings_of_moved_embeddings():
    z, label = blobs(spread=3.0)
    found = []
    for seed in range(4):
        noise = np.random.default_rng(seed).standard_normal(z.shape)
        found.append(cluster_domains(z + 0.01 * z.std() * noise, 3, seed=0))
    ari = [adjusted_rand_score(label, f) for f in found]
    nmi = [normalized_mutual_info_score(label, f) for f in found]
    assert np.std(ari) > 0
    table = score_domains({"z": z}, label, num_seeds=4)
    assert table.loc["z", "ARI_noise"] == pytest.approx(np.std(ari, ddof=1))
    assert table.loc["z", "NMI_noise"] == pytest.approx(np.std(nmi, ddof=1))
    without = score_domains({"z": z}, label, num_seeds=4, noise=False)
    pd.testing.assert_frame_equal(without, table.drop(columns=["ARI_noise", "NMI_noise"]))


def test_noise_of_a_sparse_table_is_a_share_of_each_value():
    x = sparse.random(200, 50, 0.2, format="csr", dtype=np.float32, random_state=0)
    before = x.copy()
    moved = moved_by_noise(x, seed=0)
    assert (x != before).nnz == 0
    np.testing.assert_array_equal(moved.indices, x.indices)
    share = moved.data / x.data - 1
    assert moved.dtype == np.float32
    assert share.std() == pytest.approx(0.01, rel=0.05)
    assert abs(share.mean()) < 1e-3


def test_the_table_says_what_was_done():
    z, label = blobs()
    table = score_domains({"a": z, "b": z[:, :2]}, label, num_domains=4, num_seeds=1, method="gmm")
    assert table.index.tolist() == ["a", "b"]
    assert table["num_domains"].tolist() == [4, 4]
    assert table["method"].tolist() == ["gmm", "gmm"]
    assert table[["ARI_std", "ARI_noise"]].isna().all(axis=None)  # one seed has no spread
    assert table.dtypes["ARI"] == np.float64


def test_unlabelled_cells_are_left_out_of_clustering_and_scoring():
    z, label = blobs(spread=2.0)
    far = np.full((20, z.shape[1]), 1e3)  # a cluster of their own, were they clustered
    names = np.array(["tumour", "stroma", "fat"], dtype=object)[label]
    known = score_domains({"z": z}, names)
    missing = pd.Categorical([*names, *[None] * 10, *["undetermined"] * 10])
    with_more = score_domains({"z": np.vstack([z, far])}, missing, ignore=["undetermined"])
    pd.testing.assert_frame_equal(with_more, known)
    assert with_more.loc["z", "num_cells"] == 90
    assert with_more.loc["z", "num_domains"] == 3


def test_scores_do_not_depend_on_the_names_or_the_kind_of_labels():
    z, label = blobs(spread=2.0)
    table = score_domains({"z": z}, label)
    renamed = pd.Series(np.array(["c", "a", "b"])[label], index=[f"cell{i}" for i in label])
    pd.testing.assert_frame_equal(score_domains({"z": z}, renamed), table)
    tensors = score_domains({"z": torch.from_numpy(z)}, torch.from_numpy(label))
    pd.testing.assert_frame_equal(tensors, table)


def test_an_embedding_without_signal_scores_zero():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300)
    table = score_domains({"noise": rng.normal(size=(300, 5))}, label)
    assert abs(table.loc["noise", "ARI"]) < 0.03


def test_unusable_embeddings_are_refused():
    z, label = blobs()
    with pytest.raises(TypeError, match="name → array"):
        score_domains(z, label)
    with pytest.raises(ValueError, match="at least one embedding"):
        score_domains({}, label)
    with pytest.raises(ValueError, match="'short' with a row for each of 90 labels, got 80"):
        score_domains({"good": z, "short": z[:80]}, label)
    with pytest.raises(ValueError, match=r"'bad'.*in 2 of 90 rows \(first: \[3, 7\]\)"):
        score_domains({"bad": np.where(np.isin(np.arange(90), [3, 7])[:, None], np.nan, z)}, label)
    with pytest.raises(ValueError, match=r"shape \[N, D\], got \[90\]"):
        cluster_domains(z[:, 0], 3)


def test_unusable_labels_and_settings_are_refused():
    z, label = blobs()
    with pytest.raises(ValueError, match="at least two different labels"):
        score_domains({"z": z}, np.zeros(90, int))
    with pytest.raises(TypeError, match="list of labels, got 'undetermined'"):
        score_domains({"z": z}, label, ignore="undetermined")
    with pytest.raises(ValueError, match="one label per cell"):
        score_domains({"z": z}, label[:, None])
    with pytest.raises(ValueError, match="between 1 and the 90 cells, got 91"):
        cluster_domains(z, 91)
    with pytest.raises(ValueError, match="'num_seeds' of at least 1"):
        score_domains({"z": z}, label, num_seeds=0)
    for call in (
        lambda: cluster_domains(z, 3, method="ward"),
        lambda: score_domains({"z": z}, label, method="ward"),
    ):
        with pytest.raises(ValueError, match='"kmeans", "gmm", "leiden", or .*, got \'ward\''):
            call()


def test_cortical_layers_score_as_published(real_data):
    """STARmap, manual layers: 0.85 for spatial means of 30 components, 0.37 for position alone."""
    slide = sg.read(real_data / "starmap_by3" / "starmap_by3.h5ad", mpp=0.1)
    slide = slide[(slide.adata.obs["layer"].astype(str) != "NA").to_numpy()]
    table = score_domains(
        domain_baselines(slide.counts, slide.pos), slide.adata.obs["layer"], num_seeds=3
    )
    assert table["num_cells"].unique() == 1207
    ari = table["ARI"]
    assert ari["pca30_nbr15"] == pytest.approx(0.85, abs=0.03)
    assert ari["pca30"] == pytest.approx(0.24, abs=0.05)
    assert ari["xy_only"] == pytest.approx(0.37, abs=0.03)
    assert ari["depth_nbr15"] == pytest.approx(0.08, abs=0.03)


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_no_more_domains_are_found_than_embeddings_differ(method):
    z = np.repeat(np.array([[0.0, 1.0], [3.0, 1.0]], np.float32), 20, axis=0)
    found = cluster_domains(z, 5, method=method)
    assert set(found[:20]) != set(found[20:])
    assert len(set(found)) == 2
