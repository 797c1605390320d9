"""Shares of types in spots: known mixtures, and what held-out spots may not tell."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from spatiagraph.data import make_tissue, spots_of_cells
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import score_deconvolution, type_profiles, unmix

PROFILES = pd.DataFrame([[4.0, 0, 1], [0, 2, 1]], index=["B", "T"])


def mixtures(num_spots=60, seed=0):
    rng = np.random.default_rng(seed)
    shares = pd.DataFrame(rng.dirichlet([1, 1], num_spots), columns=["B", "T"])
    return shares, shares.to_numpy() @ PROFILES.to_numpy() * 8, np.arange(num_spots) % 3


def test_a_mixture_of_profiles_is_found_exactly():
    shares, counts, _ = mixtures()
    assert_allclose(unmix(counts, PROFILES), shares, atol=1e-6)
    assert_allclose(unmix(np.zeros((1, 3)), PROFILES), [[0.5, 0.5]])


def test_profiles_are_means_of_the_cells_of_a_type():
    x = np.random.default_rng(0).poisson(3.0, (20, 4))
    types = np.where(np.arange(20) % 3 > 0, "T", "B")
    for name in "TB":
        assert_allclose(type_profiles(x, types).loc[name], x[types == name].mean(0))


def test_scores_have_their_known_values():
    shares, counts, folds = mixtures()
    rng = np.random.default_rng(1)
    logit = np.log(shares["B"] / shares["T"]).to_numpy()[:, None]
    table = score_deconvolution(
        {"logit": logit, "noise": rng.normal(size=(60, 1))},
        shares,
        folds,
        counts=counts,
        profiles=PROFILES,
    )
    assert table.loc["nnls", "pearson"] == pytest.approx(1.0)
    assert table.loc["nnls", ["rmse", "js"]].max() < 1e-3
    assert table.loc["logit", "pearson"] > 0.98 > 0.3 > table.loc["noise", "pearson"]
    mean = [shares[folds != f].mean().to_numpy() for f in range(3)]
    rmse = [np.sqrt(((shares[folds == f] - mean[f]) ** 2).to_numpy().mean()) for f in range(3)]
    assert table.loc["train_mean", "rmse"] == pytest.approx(np.mean(rmse))
    assert table.loc["train_mean", "rmse_std"] == pytest.approx(np.std(rmse, ddof=1))
    assert table.loc["train_mean", "pearson"] == 0


def test_a_jensen_shannon_distance_is_the_root_of_bits():
    shares = pd.DataFrame([[1.0, 0], [0, 1], [1, 0], [0, 1]], columns=["B", "T"])
    # half and half is what the spots of the other fold are on average
    table = score_deconvolution(
        {"z": np.zeros((4, 1))}, shares, [0, 0, 1, 1], baselines=["train_mean"]
    )
    assert table.loc["train_mean", "js"] == pytest.approx(np.sqrt(0.311278), abs=1e-5)


def test_profiles_are_those_of_the_other_folds():
    shares, counts, folds = mixtures()
    seen = []

    def profiles(fold):
        seen.append(fold)
        return PROFILES[::-1]  # in another order of types

    table = score_deconvolution(
        {"z": counts}, shares, folds, counts=counts, profiles=profiles, baselines=["nnls"]
    )
    assert seen == [0, 1, 2]
    assert table.loc["nnls", "rmse"] < 1e-6


def test_spots_of_cells_are_unmixed_better_than_by_the_mean():
    cells = make_tissue(900, num_genes=40, image=None, seed=0)
    spots = spots_of_cells(cells, 40.0, diameter_um=None, shares=("cell_type",))
    table = score_deconvolution(
        {"genes": np.log1p(spots.counts.toarray())},
        spots.adata.obsm["share_cell_type"],
        spatial_blocks(spots.pos, num_folds=3),
        counts=spots.counts,
        profiles=type_profiles(cells.counts, cells.adata.obs["cell_type"]),
    )
    assert table.loc["genes", "js"] < table.loc["train_mean", "js"]
    assert table.loc["nnls", "pearson"] > 0.5
    assert table.loc["nnls", "num_spots"] == spots.num_cells


def test_what_does_not_fit_is_refused():
    shares, counts, folds = mixtures()
    z = {"z": counts}
    with pytest.raises(ValueError, match="sum to 1"):
        score_deconvolution(z, 2 * shares, folds)
    with pytest.raises(ValueError, match="two folds"):
        score_deconvolution(z, shares, 0 * folds)
    with pytest.raises(ValueError, match="'counts' and 'profiles' for nnls"):
        score_deconvolution(z, shares, folds)
    with pytest.raises(ValueError, match=r"a profile of each type, got none of \['T'\]"):
        score_deconvolution(z, shares, folds, counts=counts, profiles=PROFILES.loc[["B"]])
    with pytest.raises(ValueError, match="profiles of 3 genes, got 2"):
        unmix(counts, PROFILES[[0, 1]])
    with pytest.raises(ValueError, match="other names"):
        score_deconvolution({"nnls": counts}, shares, folds, baselines=["train_mean"])
    with pytest.raises(ValueError, match="types of 60 cells, got 2"):
        type_profiles(counts, ["B", "T"])
