"""Arguments that every score looks at first."""

import numpy as np
import pytest

from spatiagraph import evaluate

Z = np.random.default_rng(0).normal(size=(12, 3))
FOLD = np.arange(12) % 3
CALLS = {
    "score_probe": lambda: evaluate.score_probe(Z, FOLD, FOLD),
    "score_domains": lambda: evaluate.score_domains(Z, FOLD),
    "score_clusters": lambda: evaluate.score_clusters(Z, FOLD),
    "score_few_shot": lambda: evaluate.score_few_shot(Z, FOLD),
    "score_image_to_genes": lambda: evaluate.score_image_to_genes(Z, abs(Z), FOLD),
    "score_retrieval": lambda: evaluate.score_retrieval(Z),
    "score_imputation": lambda: evaluate.score_imputation(Z, abs(Z), Z[:, :2]),
    "score_entry_imputation": lambda: evaluate.score_entry_imputation(Z, abs(Z), Z[:, :2]),
    "score_transfer": lambda: evaluate.score_transfer(Z, abs(Z), Z[:, :2], FOLD, donor=FOLD),
    "score_biomarker": lambda: evaluate.score_biomarker(Z, FOLD, {0: "a", 1: "b"}),
    "score_biomarker labels": lambda: evaluate.score_biomarker({"z": Z}, FOLD, FOLD),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_array_in_place_of_names_is_named(name):
    with pytest.raises(TypeError, match=r"Expected '\w+' as name → .*, got ndarray\. Pass \{'mine"):
        CALLS[name]()
