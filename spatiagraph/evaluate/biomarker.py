"""Labels of patients from what their niches look like, on patients held out."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from spatiagraph.evaluate.inputs import as_embeddings, check_named
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
    labels: Mapping[Any, Any] | pd.Series,
    *,
    region: ArrayLike | pd.Series | None = None,
    num_folds: int = 4,
    num_repeats: int = 5,
    training: BagTraining = BagTraining(),
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    r"""Score how well the label of a patient is known from the niches of the tissue.

    A patient is a bag of niches, or with ``region`` each region of a patient is. Two classifiers
    read each embedding: ``"attention"`` (:class:`~spatiagraph.heads.BagHead`: attention pooling and
    an MLP of three layers), and the floor, ``"mean"``: logistic regression on the mean niche of the
    bag. With shares of cell types as the embedding, the floor is the composition of the tissue.
    Patients are held out whole, in stratified folds, several times over.

    Args:
        embeddings: Name → vector of each niche, ``[M, D]``.
        patient: Patient of each niche, ``[M]``.
        labels: Patient → label, two kinds of them; patients without one, or with a missing
            one, are left out. With ``region``: region → label.
        region: Region of each niche, ``[M]``, no two patients having one of the same name, where
            the regions of a patient have labels of their own.
        num_folds: Folds of patients.
        num_repeats: Times that patients are divided into folds anew.
        training: How attention heads are trained.
        seed: Of folds and heads.
        progress: Show a bar.

    Returns:
        A row per embedding and classifier: ``auc`` and ``balanced_accuracy``, means over repeats of
        the scores of all held-out bags together, ``…_std`` over repeats, ``train_auc``,
        ``num_patients``, ``num_bags`` and ``num_niches``.

    Raises:
        ValueError: Shapes do not fit, labels are of others or not two, a region is in two patients,
            or fewer patients have one of the labels than there are folds.

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
    owner = patient if region is None else np.asarray(region)
    if owner.shape != patient.shape:
        raise ValueError(
            f"Expected 'region' of each of {len(patient)} niches, got shape {list(owner.shape)}"
        )
    names, truth = _labelled(owner, labels, "patients" if region is None else "regions")
    bag = pd.Index(names).get_indexer(pd.Index(owner))
    rows = np.flatnonzero(bag >= 0)
    bag = bag[rows]
    group = _patients(bag, patient[rows], names)
    rarest = min(len(np.unique(group[truth == kind])) for kind in (0, 1))
    if not 2 <= num_folds <= rarest:
        raise ValueError(
            f"Expected 'num_folds' between 2 and the {rarest} patients of the rarer label, got "
            f"{num_folds}"
        )
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tqdm(
        total=num_repeats * num_folds * len(arrays), desc="biomarker", disable=not progress
    ) as bar:
        for repeat in range(num_repeats):
            folds = _folds(truth, None if region is None else group, num_folds, seed + repeat)
            for name, z in arrays.items():
                bags = Bags(z[rows].astype(np.float64), bag, truth)
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
    sizes = {"num_patients": int(group.max()) + 1, "num_bags": len(truth), "num_niches": len(rows)}
    return _table(found, sizes)


def _labelled(
    owner: NDArray, labels: Mapping[Any, Any] | pd.Series, what: str
) -> tuple[list[Hashable], NDArray[np.int64]]:
    """Names of the bags that have a label, and which of the two it is, ``[B]``."""
    if isinstance(labels, pd.Series):
        if not labels.index.is_unique:
            twice = labels.index[labels.index.duplicated()].tolist()
            raise ValueError(f"Expected one label of each of the {what}, got two of {twice[0]!r}")
        labels = dict(zip(labels.index.tolist(), labels.tolist(), strict=True))
    check_named(labels, "labels", values="label")
    given = {name: label for name, label in labels.items() if not pd.isna(label)}
    there = list(dict.fromkeys(owner.tolist()))
    names = [name for name in given if name in set(there)]
    if given and not names:
        raise ValueError(
            f"Expected labels of the {what} of the niches ({_some(there)}), got those of others "
            f"({_some(list(given))}). Both must be of one type"
        )
    kinds = sorted({given[name] for name in names}, key=str)
    if len(kinds) != 2:
        raise ValueError(f"Expected two labels of {what}, got {len(kinds)}: {kinds}")
    return names, np.array([kinds.index(given[name]) for name in names])


def _some(names: list[Any]) -> str:
    """Up to three names."""
    return ", ".join(map(repr, names[:3])) + (", …" if len(names) > 3 else "")


def _patients(bag: NDArray[np.int64], patient: NDArray, names: list[Hashable]) -> NDArray[np.int64]:
    """Number of the patient of each bag, ``[B]``."""
    pairs = pd.DataFrame({"bag": bag, "patient": pd.factorize(patient)[0]}).drop_duplicates()
    pairs = pairs.sort_values("bag")
    shared = pairs["bag"].duplicated()
    if shared.any():
        raise ValueError(
            "Expected each region in one patient, got several of "
            f"{names[pairs['bag'][shared].iloc[0]]!r}. Name regions by their patients as well"
        )
    return pairs["patient"].to_numpy(np.int64)


def _folds(
    truth: NDArray[np.int64], group: NDArray[np.int64] | None, num_folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of bags to train on and to test on, those of a patient on one side."""
    if group is None:
        plain = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
        return list(plain.split(truth, truth))
    grouped = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    folds = list(grouped.split(truth, truth, group))
    if any(len(np.unique(truth[train])) < 2 for train, _ in folds):
        raise ValueError(
            f"Expected both labels among the patients of each training fold, got one in one of "
            f"{num_folds}. Take another number of folds"
        )
    return folds


class Bags:
    """Niches of the bags that have a label, for classifiers of some of them.

    Args:
        z: Vector of each niche, ``[M, D]``.
        bag: Bag of each niche, ``[M]``.
        truth: Which of two labels each bag has, ``[B]``.
    """

    def __init__(self, z: NDArray[np.float64], bag: NDArray[np.int64], truth: NDArray[np.int64]):
        self.z, self.bag, self.truth = z, bag, truth

    def mean(self, train: NDArray[np.int64]) -> NDArray[np.float64]:
        """Chance of the second label of every bag, by the mean niche of those to train on."""
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
    found: Mapping[tuple[str, str], list[dict[str, float]]], sizes: Mapping[str, int]
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
            **sizes,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["embedding", "classifier"])
    return table
