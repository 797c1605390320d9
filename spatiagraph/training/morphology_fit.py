"""``fit_morphology``: a network that measures nuclei, for losses that need a gradient."""

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import DataLoader

from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader.sampling import EpochSampler
from spatiagraph.nn.morphology_profile import MorphologyProfile
from spatiagraph.tasks.morphology_regression import MorphologyRegression
from spatiagraph.training.record import model_record, tensors_hash
from spatiagraph.training.trainer import train

_BLOCK = 256  # crops at a time


@dataclass(frozen=True)
class MorphologyFit:
    """A network that measures, and how well it does.

    Attributes:
        model: Frozen network.
        r2: Share of the variance of each feature explained on crops it has not seen, ``[F]``.
        history: One row per epoch.
    """

    model: MorphologyProfile
    r2: pd.Series
    history: pd.DataFrame


def fit_morphology(
    images: ArrayLike | Tensor,
    features: pd.DataFrame,
    *,
    max_epochs: int = 50,
    batch_size: int = 128,
    lr: float = 1e-3,
    held_out: float = 0.1,
    accelerator: str = "auto",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool = True,
) -> MorphologyFit:
    """Teach a new network to measure crops, those of training donors.

    Args:
        images: Crops in [0, 1], ``[N, C, H, W]``.
        features: :func:`~spatiagraph.data.measure_morphology` of them; rows with NaN are left out.
        max_epochs: Passes over the crops.
        batch_size: Crops of a mini-batch.
        lr: Peak learning rate.
        held_out: Share of the crops to test on.
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"``, … as in Lightning.
        seed: Of weights, order and test crops.
        out: Folder of the run, with the network under ``out/model``; see
            :func:`~spatiagraph.training.train`.
        resume: Go on from the folder's last checkpoint; ``False`` refuses a folder with a run.
        progress: Show a progress bar.

    Returns:
        :class:`MorphologyFit`.

    Raises:
        ValueError: Images and features differ in number, there are too few that are valid, or the
            folder holds another run.
    """
    image = torch.as_tensor(np.asarray(images) if not isinstance(images, Tensor) else images)
    target = torch.from_numpy(features.to_numpy(np.float64))
    if image.dim() != 4 or len(image) != len(target):
        raise ValueError(
            f"Expected crops [N, C, H, W] with a row of features each, got {list(image.shape)} and "
            f"{len(target)} rows"
        )
    if not image.is_floating_point():
        raise ValueError(f"Expected crops as numbers in [0, 1], got {image.dtype}: divide by 255")
    if not 0 < held_out < 1:
        raise ValueError(f"Expected 'held_out' between 0 and 1, got {held_out}")
    valid = target.isfinite().all(1).nonzero().squeeze(1)
    order = valid[torch.randperm(len(valid), generator=torch.Generator().manual_seed(seed))]
    num_test = round(held_out * len(order))
    test, rows = order[:num_test], order[num_test:]
    if num_test < 2 or len(rows) < 2:
        raise ValueError(
            f"Expected at least 2 measured crops to learn from and 2 to test on, got {len(rows)} "
            f"and {num_test} of {len(image)}: give more crops, or another 'held_out'"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MorphologyProfile(image.size(1), target.size(1))
    model.initialize(target[rows])

    def batch(chosen: list[int]) -> TissueData:
        index = rows[chosen]
        return TissueData(
            image=image[index].float(),
            morphology=target[index],
            pos=torch.zeros(len(index), 2),
            core=torch.ones(len(index), dtype=torch.bool),
            cell_index=index,
        )

    batches: DataLoader[TissueData] = DataLoader(
        range(len(rows)),  # type: ignore[arg-type]
        batch_size,
        sampler=EpochSampler(len(rows), seed),
        collate_fn=batch,
        generator=torch.Generator().manual_seed(seed),  # else it draws from torch's own
    )
    record = {
        **model_record(model),
        "crops": tensors_hash({"image": image, "morphology": target}),
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "lr": lr,
        "held_out": held_out,
        "seed": seed,
    }
    fitted = train(
        MorphologyRegression(model),
        batches,
        record=record,
        max_epochs=max_epochs,
        lr=lr,
        accelerator=accelerator,
        seed=seed,
        out=out,
        resume=resume,
        progress=progress,
    )
    model.freeze()
    guess = torch.cat(
        [model(image[part].float().to(model.mean.device)) for part in test.split(_BLOCK)]
    )
    truth = model.standardize(target[test].to(guess.device))
    left = (guess - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0)
    return MorphologyFit(model, pd.Series((1 - left).cpu(), features.columns), fitted.history)
