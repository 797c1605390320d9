"""``fit_morphology``: a network that measures nuclei, for losses that need a gradient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from spatiagraph.nn.morphology_profile import MorphologyProfile
from spatiagraph.nn.weights import tensors_hash
from spatiagraph.tasks.morphology_regression import MorphologyRegression
from spatiagraph.training.crop_batches import as_crops, held_out_rows, tensor_batches
from spatiagraph.training.record import model_record
from spatiagraph.training.run import Run, run_of
from spatiagraph.training.trainer import check_patience, train

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
    batch_size: int = 128,
    held_out: float = 0.1,
    run: Run | None = None,
    **options: Any,
) -> MorphologyFit:
    """Teach a new network to measure crops, those of training donors.

    Args:
        images: Crops in [0, 1], ``[N, C, H, W]``.
        features: :func:`~spatiagraph.data.measure_morphology` of them; rows with NaN are left out.
        batch_size: Crops of a mini-batch.
        held_out: Share of the crops to test on.
        run: How to train, see :class:`~spatiagraph.training.Run`; 50 epochs when not given.
        **options: Fields of ``run`` by name.

    Returns:
        :class:`MorphologyFit`.

    Raises:
        ValueError: Images and features differ in number, there are too few that are valid, or the
            folder holds another run.
    """
    run = run_of(run, options, default=Run(max_epochs=50), taken_by=fit_morphology)
    check_patience(run, False)
    seed = run.seed
    image = as_crops(images)
    target = torch.from_numpy(features.to_numpy(np.float64))
    if len(image) != len(target):
        raise ValueError(
            f"Expected crops [N, C, H, W] with a row of features each, got {list(image.shape)} and "
            f"{len(target)} rows"
        )
    test, rows = held_out_rows(target.isfinite().all(1), held_out, seed)
    if len(test) < 2 or len(rows) < 2:
        raise ValueError(
            f"Expected at least 2 measured crops to learn from and 2 to test on, got {len(rows)} "
            f"and {len(test)} of {len(image)}: give more crops, or another 'held_out'"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MorphologyProfile(image.size(1), target.size(1))
    model.initialize(target[rows])

    batches = tensor_batches(
        {"image": image, "morphology": target}, rows, batch_size, seed, run.num_workers
    )
    record = {
        **model_record(model),
        "crops": tensors_hash({"image": image, "morphology": target}),
        "batch_size": batch_size,
        "held_out": held_out,
        **run.record,
    }
    fitted = train(MorphologyRegression(model), batches, record=record, run=run)
    model.freeze()
    guess = torch.cat(
        [model(image[part].float().to(model.mean.device)) for part in test.split(_BLOCK)]
    )
    truth = model.standardize(target[test].to(guess.device))
    left = (guess - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0)
    return MorphologyFit(model, pd.Series((1 - left).cpu(), features.columns), fitted.history)
