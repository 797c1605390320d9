"""Two groups of patients with colorectal cancer, by the cell types of their tissue.

``pytest -m benchmark -s tests/benchmarks/test_bench_biomarker.py`` prints the table; two minutes on
one core.
"""

import numpy as np
import pandas as pd
import pytest

from spatiagraph.evaluate import BagTraining, score_biomarker

pytestmark = pytest.mark.benchmark

MPP = 0.377  # µm per pixel by the set-up of the instrument
NICHE_UM = 54.4


def niches(cells: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of types of square niches ``[M, T]``, the patient of each, and those of its square."""
    square = np.floor(cells[["x", "y"]].to_numpy() * MPP / NICHE_UM).astype(int)
    names = pd.DataFrame(square, columns=["i", "j"], index=cells.index)
    names["region"] = cells["region"].cat.codes
    number, _ = pd.factorize(pd.MultiIndex.from_frame(names))
    types = cells["cell_type"].cat.codes.to_numpy()
    counts = np.zeros((number.max() + 1, types.max() + 1))
    np.add.at(counts, (number, types), 1)
    first = np.unique(number, return_index=True)[1]
    return counts, cells["patient"].to_numpy()[first], number


def test_groups_of_patients_are_told_by_their_niches(real_data, capsys):
    """24 patients, four regions of each; the floor is the composition of the tissue."""
    cells = pd.read_parquet(real_data / "codex_crc_types" / "cells.parquet")
    counts, patient, _ = niches(cells)
    labels = cells.groupby("patient")["group"].first().to_dict()
    total = pd.DataFrame(counts).groupby(patient).sum()
    composition = total.div(total.sum(axis=1), axis=0).loc[patient].to_numpy()
    share = counts / counts.sum(axis=1, keepdims=True)
    pairs = share[:, :, None] * share[:, None, :]  # which types are found together
    rows, columns = np.triu_indices(share.shape[1])
    embeddings = {
        "composition of the patient": composition,
        "composition of niches": share,
        "pairs of types in niches": np.c_[share, pairs[:, rows, columns]],
    }
    quick = BagTraining(num_steps=60, max_niches=64, lr=3e-3)
    table = score_biomarker(embeddings, patient, labels, num_repeats=3, training=quick)
    shuffled = np.random.default_rng(0).permutation(list(labels.values()))
    chance = score_biomarker(
        {"labels shuffled": share},
        patient,
        dict(zip(labels, shuffled, strict=True)),
        num_repeats=3,
        training=quick,
    )
    with capsys.disabled():
        print("\n" + pd.concat([table, chance]).round(3).to_string())
    assert table["num_patients"].eq(24).all()
