"""Morphology: a network learns to measure nuclei."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spatiagraph.losses.mean import masked_mean
from spatiagraph.nn.morphology_profile import MorphologyProfile
from spatiagraph.tasks.base import LossOutput, Task


class MorphologyRegression(Task):
    """Learn the measured features of each crop, each in units of its deviation.

    A batch maps ``image`` to crops ``[N, C, H, W]`` in [0, 1] and ``morphology`` to ``[N, F]``, see
    :func:`~spatiagraph.data.measure_morphology`; cells that could not be measured (NaN) teach
    nothing. The mean predictor has a loss of 1.

    Args:
        model: The network, initialized with mean and deviation of the features
            (:meth:`~spatiagraph.nn.MorphologyProfile.initialize`).
    """

    model: MorphologyProfile

    def __init__(self, model: MorphologyProfile):
        super().__init__()
        self.model = model

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> LossOutput:
        target = self.model.standardize(batch["morphology"])
        scored = target.isfinite().all(1)
        error = (self.model(batch["image"]) - target.nan_to_num()).square().mean(1)
        loss = masked_mean(error, scored)
        return LossOutput(loss, {"squared_error": loss.detach()}, int(scored.sum()))
