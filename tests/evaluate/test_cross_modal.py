import numpy as np
import pandas as pd
import pytest

from spatiagraph.evaluate import ridge_map, score_retrieval


def paired(num_cells=120, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num_cells, 6))
    return z, z + spread * rng.normal(size=z.shape), np.arange(num_cells) % 3


def of(table, name, direction):
    return table[table["direction"] == direction].loc[name]


def test_equal_embeddings_find_themselves():
    z, _, fold = paired()
    table = score_retrieval({"same": (z, 5 * z)}, fold)  # length does not count
    assert (table.loc["same", ["recall@1", "recall@5", "recall@10", "median_rank"]] == 1).all(
        axis=None
    )
    assert table.index.tolist() == ["same", "same", "random", "random"]


def test_ranks_equal_those_of_sorting():
    image, gene, fold = paired(spread=1.5)
    table = score_retrieval({"z": (image, gene)}, fold, k=[3])
    for direction, (a, b) in {
        "image_to_gene": (image, gene),
        "gene_to_image": (gene, image),
    }.items():
        recall, middle = [], []
        for f in range(3):
            p, q = a[fold == f], b[fold == f]
            p, q = p / np.linalg.norm(p, axis=1)[:, None], q / np.linalg.norm(q, axis=1)[:, None]
            order = np.argsort(-(p @ q.T), axis=1)
            rank = 1 + np.argmax(order == np.arange(len(p))[:, None], axis=1)
            recall.append((rank <= 3).mean())
            middle.append(np.median(rank))
        row = of(table, "z", direction)
        assert row["recall@3"] == pytest.approx(np.mean(recall))
        assert row["recall@3_std"] == pytest.approx(np.std(recall, ddof=1))
        assert row["median_rank"] == pytest.approx(np.mean(middle))
        assert row["num_candidates"] == 40


def test_noise_scores_as_the_random_row_says():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3000, 4))
    table = score_retrieval({"noise": (a, b)}, np.arange(3000) % 30)
    for metric in ("recall@5", "recall@10", "median_rank_share"):
        noise, chance = table.loc["noise", metric], table.loc["random", metric]
        np.testing.assert_allclose(noise, chance, rtol=0.2)
    assert table.loc["random", "recall@10"].tolist() == pytest.approx([0.1, 0.1])


def test_recall_of_no_more_candidates_than_it_looks_at_says_nothing():
    z, _, _ = paired(28)
    table = score_retrieval({"z": (z, z[::-1])}, np.repeat([0, 1], [8, 20]), k=[1, 8, 10, 20])
    large = score_retrieval({"z": (z, z[::-1])}, np.repeat([-1, 1], [8, 20]), k=[1, 8, 10, 20])
    for metric in ("recall@8", "recall@10"):
        assert table[metric].tolist() == large[metric].tolist()
        assert table[metric].max() < 1
    assert table["recall@20"].isna().all()
    assert table["recall@1"].notna().all()
    assert table.loc["random", "recall@1"].tolist() == pytest.approx([(1 / 8 + 1 / 20) / 2] * 2)


def test_an_embedding_that_collapsed_finds_nothing():
    one = np.ones((50, 3))
    row = of(score_retrieval({"one": (one, one), "none": (0 * one, one)}), "one", "image_to_gene")
    assert row["recall@10"] == 0
    assert row["median_rank"] == 25.5


def test_more_queries_than_a_block_change_nothing():
    z = np.random.default_rng(0).normal(size=(1500, 8))
    assert (score_retrieval({"z": (z, z)}, k=[1]).loc["z", "recall@1"] == 1).all()


def test_the_order_of_cells_does_not_matter():
    image, gene, fold = paired(spread=1.0)
    perm = np.random.default_rng(1).permutation(len(image))
    pd.testing.assert_frame_equal(
        score_retrieval({"z": (image, gene)}, fold),
        score_retrieval({"z": (image[perm], gene[perm])}, fold[perm]),
    )


def test_ridge_brings_features_into_one_space_without_seeing_the_cell():
    z, _, fold = paired(300)
    rng = np.random.default_rng(2)
    target = z @ rng.normal(size=(6, 4)) + 7
    table = score_retrieval({"ridge": (ridge_map(z, target, fold), target - target.mean(0))}, fold)
    assert (table.loc["ridge", "recall@10"] > 0.8).all()
    own = np.eye(300)
    assert np.abs(ridge_map(own, target, fold)).max() < 1e-6  # of an unseen cell it knows nothing


def test_cells_that_take_no_part_may_be_of_no_number():
    image, gene, fold = paired(spread=1.0)
    fold[5::10] = -1
    expected = score_retrieval({"z": (image, gene)}, fold)
    image[fold < 0] = np.nan
    pd.testing.assert_frame_equal(score_retrieval({"z": (image, gene)}, fold), expected)
    image[7] = np.nan
    with pytest.raises(ValueError, match=r"finite 'z, image', got NaN .* 1 of 120 rows .*\[7\]"):
        score_retrieval({"z": (image, gene)}, fold)


def test_bad_input_is_refused():
    z, other, fold = paired()
    for arguments, words in (
        (({"z": (z, other[:, :3])},), "ridge_map"),
        (({"random": (z, other)},), "other names than 'random'"),
        (({"z": (z, other)}, np.arange(120)), "two cells at least"),
        (({"z": (z, other), "y": (z[:9], z[:9])},), r"the same cells, got \[9, 120\]"),
    ):
        with pytest.raises(ValueError, match=words):
            score_retrieval(*arguments)
    with pytest.raises(ValueError, match="'k' of at least 1"):
        score_retrieval({"z": (z, other)}, k=[0])
    with pytest.raises(ValueError, match="three folds or more"):
        ridge_map(z, other, fold % 2)
    with pytest.raises(ValueError, match="got 120 and 9 rows"):
        ridge_map(z, other[:9], fold)
