"""Few-shot probes and zero-shot domains, on embeddings of which the answer is known."""

import numpy as np
import pytest

from spatiagraph.evaluate import score_few_shot, score_zero_shot_domains


def strips(num=240, noise=0.3, seed=0):
    """Three strips of tissue: labels, positions, and counts that say which."""
    rng = np.random.default_rng(seed)
    pos = rng.uniform(0, 1000, (num, 2))
    label = (pos[:, 0] // 334).astype(int)
    mean = np.ones((3, 30))
    for i in range(3):
        mean[i, 10 * i : 10 * i + 10] = 6
    return (
        label,
        pos,
        rng.poisson(mean[label]).astype(float),
        label[:, None] + noise * (rng.standard_normal((num, 4))),
    )


def test_more_labels_help_and_noise_stays_at_chance():
    label, _, _, z = strips(noise=0.5)
    noise = np.random.default_rng(1).standard_normal((len(label), 4))
    table = score_few_shot({"mine": z, "noise": noise}, label, num_labelled=(1, 20))["accuracy"]
    assert table[20, "mine"] > table[1, "mine"] + 0.05
    assert table[20, "mine"] > 0.9
    assert table[20, "noise"] == pytest.approx(1 / 3, abs=0.08)
    assert table[20, "chance"] == pytest.approx(1 / 3, abs=0.05)


def test_labelled_spots_are_not_scored():
    label = np.repeat([0, 1], 6)
    z = np.random.default_rng(0).standard_normal((12, 40))  # what was seen is known by heart
    table = score_few_shot({"mine": z}, label, num_labelled=[5], num_draws=30)
    assert table["num_cells"].tolist() == [2, 2]
    assert table.loc[(5, "mine"), "accuracy"] < 0.8


def test_candidates_of_another_section_are_the_only_ones_drawn():
    label, _, _, z = strips()
    first = np.arange(len(label)) < 120
    wrong = np.where(first, 2 - label, label)  # its labels say the opposite
    table = score_few_shot({"mine": z}, wrong, num_labelled=[10], candidates=first)
    assert table["num_cells"].iloc[0] == 120
    assert table.loc[(10, "mine"), "accuracy"] < 0.5  # the middle strip alone is right


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labelled": [200]}, "over 200 labelled spots each"),
        ({"num_labelled": []}, "'num_labelled' and 'num_draws' of at least 1"),
        ({"candidates": [True]}, r"'candidates' as bool \[240\], got bool \[1\]"),
    ],
)
def test_draws_that_cannot_be_are_refused(options, message):
    label, _, _, z = strips()
    with pytest.raises(ValueError, match=message):
        score_few_shot({"mine": z}, label, **options)
    with pytest.raises(ValueError, match="no embedding named 'chance'"):
        score_few_shot({"chance": z}, label)


def test_zero_shot_domains_stand_beside_genes_and_their_mean_over_the_niche():
    label, pos, counts, z = strips()
    scaled = z * [1, 1e3, 1, 1]  # columns are standardised: no unit decides
    table = score_zero_shot_domains(
        {"mine": scaled}, label, counts, pos, methods=["kmeans", "leiden"], num_seeds=2
    )
    assert set(table.index) == {
        (method, name) for method in ("kmeans", "leiden") for name in ("mine", "pca", "pca_niche")
    }
    assert table.loc[("kmeans", "mine"), "ARI"] > 0.9
    assert table.loc[("kmeans", "pca_niche"), "ARI"] > 0.6
    with pytest.raises(ValueError, match="other names than those of baselines, got pca"):
        score_zero_shot_domains({"pca": z}, label, counts, pos)
