"""Autoencoding of images, for flows between latents."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spatiagraph.tasks.base import LossOutput, Task

if TYPE_CHECKING:  # diffusers takes seconds, and every training looks at all tasks
    from spatiagraph.nn.image_latents import ImageLatents


class ImageReconstruction(Task):
    r"""Images from their latents, which hardly leave a standard normal.

    .. math::
        L = \lvert \mathbf{x} - \hat{\mathbf{x}} \rvert + \beta \, \mathrm{KL}

    Both as means over the values of an image. A batch maps ``image`` to crops ``[N, C, H, W]`` in
    [0, 1].

    Args:
        model: The autoencoder.
        kl_weight: :math:`\beta`, small as in latent diffusion.
    """

    model: "ImageLatents"

    def __init__(self, model: "ImageLatents", *, kl_weight: float = 1e-6):
        super().__init__()
        self.model, self.kl_weight = model, kl_weight

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> LossOutput:
        image = 2 * batch["image"] - 1
        found = self.model(image, generator)
        error, kl = (found.image - image).abs().mean(), found.kl.mean() / image[0].numel()
        parts = {"reconstruction": error.detach(), "kl": kl.detach()}
        return LossOutput(error + self.kl_weight * kl, parts, len(image))
