"""Labels of patients from what their niches look like, on patients held out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from spatiagraph.evaluate.inputs import as_embeddings
from spatiagraph.heads.bag import BagHead
from spatiagraph.nn.mode import evaluating


@dataclass(frozen=True)
class BagTraining:
    """Options of training an attention head on bags.

    Attributes:
        num_steps: Steps, each on all training bags.
        lr: Learning rate of AdamW.
        weight_decay: Of AdamW.
        hidden_channels: Width of the head.
        dropout: Dropout of the head.
        max_niches: Niches drawn from a bag in a step; all in testing.
    """

    num_steps: int = 150
    lr: float = 1e-3
    weight_decay: float = 1e-2
    hidden_channels: int = 64
    dropout: float = 0.25
    max_niches: int = 256


def score_biomarker(
    embeddings: Mapping[str, ArrayLike | Tensor],
    patient: ArrayLike | pd.Series,
    labels: Mapping[object, object],
    *,
    num_folds: int = 4,
    num_repeats: int = 5,
    training: BagTraining = BagTraining(),
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    r"""Score how well the label of a patient is known from the niches of the tissue.

    A patient is a bag of niches. Two classifiers read each embedding: ``"attention"``
    (:class:`~spatiagraph.heads.BagHead`: attention pooling and an MLP of three layers), and the
    floor, ``"mean"``: logistic regression on the mean niche of the patient. With shares of cell
    types as the embedding, the floor is the composition of the tissue. Patients are held out whole,
    in stratified folds, several times over.

    Args:
        embeddings: Name → vector of each niche, ``[M, D]``.
        patient: Patient of each niche, ``[M]``.
        labels: Patient → label, two kinds of them; patients without one, or with a missing
            one, are left out.
        num_folds: Folds of patients.
        num_repeats: Times that patients are divided into folds anew.
        training: How attention heads are trained.
        seed: Of folds and heads.
        progress: Show a bar.

    Returns:
        A row per embedding and classifier: ``auc`` and ``balanced_accuracy``, means over repeats of
        the scores of all held-out patients together, ``…_std`` over repeats, ``train_auc``,
        ``num_patients`` and ``num_niches``.

    Raises:
        ValueError: Shapes do not fit, there are not two labels, or fewer patients of one than
            folds.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> patient = np.repeat(np.arange(12), 5)
        >>> z = rng.normal(size=(60, 3)) + 3 * (patient % 2)[:, None]
        >>> labels = {i: "ab"[i % 2] for i in range(12)}
        >>> table = score_biomarker({"z": z}, patient, labels, num_repeats=1)
        >>> table["auc"].tolist()
        [1.0, 1.0]
    """
    patient = np.asarray(patient)
    arrays = as_embeddings(embeddings, len(patient))
    there = set(patient.tolist())
    known = pd.Series(list(labels.values()), dtype=object).notna()
    names = [name for name, given in zip(labels, known, strict=True) if given and name in there]
    kinds = sorted({labels[name] for name in names}, key=str)
    if len(kinds) != 2:
        raise ValueError(f"Expected two labels of patients, got {len(kinds)}: {kinds}")
    truth = np.array([kinds.index(labels[name]) for name in names])
    rarest = int(np.bincount(truth).min())
    if not 2 <= num_folds <= rarest:
        raise ValueError(
            f"Expected 'num_folds' between 2 and the {rarest} patients of the rarer label, got "
            f"{num_folds}"
        )
    bag = pd.Index(names).get_indexer(pd.Index(patient))
    rows = np.flatnonzero(bag >= 0)
    bag = bag[rows]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tqdm(
        total=num_repeats * num_folds * len(arrays), desc="biomarker", disable=not progress
    ) as bar:
        for repeat in range(num_repeats):
            splits = StratifiedKFold(num_folds, shuffle=True, random_state=seed + repeat)
            folds = list(splits.split(truth, truth))
            for name, z in arrays.items():
                bags = _Bags(z[rows].astype(np.float64), bag, truth)
                chance = {kind: np.empty(len(truth)) for kind in ("attention", "mean")}
                seen: dict[str, list[float]] = {kind: [] for kind in chance}
                for number, (train, test) in enumerate(folds):
                    own = seed + 100 * repeat + number
                    guesses = {
                        "attention": bags.attention(train, training, own),
                        "mean": bags.mean(train),
                    }
                    for kind, guess in guesses.items():
                        chance[kind][test] = guess[test]
                        seen[kind].append(roc_auc_score(truth[train], guess[train]))
                    bar.update()
                for kind, guess in chance.items():
                    found.setdefault((name, kind), []).append(
                        {
                            "auc": roc_auc_score(truth, guess),
                            "balanced_accuracy": balanced_accuracy_score(truth, guess > 0.5),
                            "train_auc": float(np.mean(seen[kind])),
                        }
                    )
    return _table(found, len(truth), len(rows))


class _Bags:
    """Niches of the patients that have a label, for classifiers of some of them."""

    def __init__(self, z: NDArray[np.float64], bag: NDArray[np.int64], truth: NDArray[np.int64]):
        self.z, self.bag, self.truth = z, bag, truth

    def mean(self, train: NDArray[np.int64]) -> NDArray[np.float64]:
        """Chance of the second label of every patient, by the mean niche of training patients."""
        size = np.bincount(self.bag, minlength=len(self.truth))
        total = np.zeros((len(size), self.z.shape[1]))
        np.add.at(total, self.bag, self.z)
        middle = total / size[:, None]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
        model.fit(middle[train], self.truth[train])
        return np.asarray(model.predict_proba(middle)[:, 1])

    def attention(
        self, train: NDArray[np.int64], training: BagTraining, seed: int
    ) -> NDArray[np.float64]:
        """The same by an attention head."""
        known = np.isin(self.bag, train)
        centre, scale = self.z[known].mean(0), self.z[known].std(0)
        h = torch.from_numpy((self.z - centre) / np.where(scale > 0, scale, 1)).float()
        bag, truth = torch.from_numpy(self.bag), torch.from_numpy(self.truth)
        own = [torch.from_numpy(np.flatnonzero(self.bag == patient)) for patient in train]
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = BagHead(h.size(1), 2, training.hidden_channels, training.dropout)
            optimizer = torch.optim.AdamW(
                head.parameters(), training.lr, weight_decay=training.weight_decay
            )
            for _ in range(training.num_steps):
                drawn = [
                    rows[torch.randperm(len(rows), generator=generator)[: training.max_niches]]
                    for rows in own
                ]
                number = torch.repeat_interleave(torch.tensor([len(rows) for rows in drawn]))
                logits = head(h[torch.cat(drawn)], number, len(own))
                loss = cross_entropy(logits, truth[train])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad(), evaluating(head):
            return head(h, bag, len(truth)).softmax(1)[:, 1].double().numpy()


def _table(
    found: Mapping[tuple[str, str], list[dict[str, float]]], num_patients: int, num_niches: int
) -> pd.DataFrame:
    rows = {}
    for key, repeats in found.items():
        each = pd.DataFrame(repeats)
        deviation = each.std(ddof=1) if len(each) > 1 else each.iloc[0] * np.nan
        rows[key] = {
            "auc": each["auc"].mean(),
            "auc_std": deviation["auc"],
            "balanced_accuracy": each["balanced_accuracy"].mean(),
            "balanced_accuracy_std": deviation["balanced_accuracy"],
            "train_auc": each["train_auc"].mean(),
            "num_patients": num_patients,
            "num_niches": num_niches,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["embedding", "classifier"])
    return table
