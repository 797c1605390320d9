"""``fit_latents``: an autoencoder of the images of cells, for flows between latents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from spatiagraph.nn.image_latents import ImageLatents
from spatiagraph.nn.weights import tensors_hash
from spatiagraph.tasks.image_reconstruction import ImageReconstruction
from spatiagraph.training.crop_batches import as_crops, held_out_rows, tensor_batches
from spatiagraph.training.folder import MODEL
from spatiagraph.training.record import model_record
from spatiagraph.training.run import Run, run_of
from spatiagraph.training.trainer import check_patience, train

_BLOCK = 256  # crops at a time


@dataclass(frozen=True)
class LatentsFit:
    """An autoencoder, and how well it gives images back.

    Attributes:
        model: The autoencoder, its latents standardised on the training crops.
        mean_squared_error: Of crops that it has not seen, in [0, 1]² of their values.
        baseline: The same of their mean colours, which know no structure.
        history: One row per epoch.
    """

    model: ImageLatents
    mean_squared_error: float
    baseline: float
    history: pd.DataFrame


def fit_latents(
    images: ArrayLike | Tensor,
    model: ImageLatents | None = None,
    *,
    batch_size: int = 64,
    held_out: float = 0.1,
    run: Run | None = None,
    **options: Any,
) -> LatentsFit:
    """Train an autoencoder on crops, those of training donors.

    Args:
        images: Crops in [0, 1], ``[N, C, H, W]``.
        model: The autoencoder, changed in place; a small new one when not given.
        batch_size: Crops of a mini-batch.
        held_out: Share of the crops to test on.
        run: How to train, see :class:`~spatiagraph.training.Run`; 50 epochs when not given.
        **options: Fields of ``run`` by name.

    Raises:
        ValueError: Crops do not fit the autoencoder, there are fewer than four, or the folder holds
            another run.
    """
    run = run_of(run, options, default=Run(max_epochs=50), taken_by=fit_latents)
    check_patience(run, False)
    image = as_crops(images)
    test, rows = held_out_rows(torch.ones(len(image), dtype=torch.bool), held_out, run.seed)
    if len(test) < 2 or len(rows) < 2:
        raise ValueError(
            f"Expected at least 2 crops to learn from and 2 to test on, got {len(rows)} and "
            f"{len(test)} of {len(image)}: give more crops, or another 'held_out'"
        )
    if model is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            model = ImageLatents(image.size(1))
    model.check(image[:1].float())
    model.requires_grad_(True)  # one that was frozen may learn more
    record = {
        **model_record(model),
        "crops": tensors_hash({"image": image}),
        "batch_size": batch_size,
        "held_out": held_out,
        **run.record,
    }
    batches = tensor_batches({"image": image}, rows, batch_size, run.seed, run.num_workers)
    fitted = train(ImageReconstruction(model), batches, record=record, run=run)
    model.requires_grad_(False).eval()
    device = model.mean.device
    model.initialize(2 * image[rows[: 8 * _BLOCK]].float().to(device) - 1)
    if run.out is not None:  # the scale belongs to what was saved
        model.save_pretrained(Path(run.out) / MODEL)
    errors, flat = 0.0, 0.0
    for part in test.split(_BLOCK):
        truth = image[part].float().to(device)
        with torch.no_grad():
            again = 0.5 * model.decode(model.encode(2 * truth - 1)) + 0.5
        errors += float((again - truth).square().sum())
        flat += float((truth - truth.mean((2, 3), keepdim=True)).square().sum())
    num = image[0].numel() * len(test)
    return LatentsFit(model, errors / num, flat / num, fitted.history)
