"""Feature extractors of images: measured statistics, or an installed network."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from spatiagraph._optional import require
from spatiagraph._reasons import reason
from spatiagraph.data.morphology import measure_morphology
from spatiagraph.evaluate.image_features import color_texture
from spatiagraph.nn.image import TimmEncoder
from spatiagraph.nn.mode import evaluating

Extractor = str | Callable[[Tensor], Tensor]
_BLOCK = 64  # images at a time


def extract_features(
    images: ArrayLike | Tensor,
    extractor: Extractor,
    *,
    weights: str | Path | None = None,
    mpp: float | None = None,
    foreground: Literal["bright", "dark"] = "bright",
    component: Literal["largest", "center"] = "largest",
    progress: bool = False,
) -> NDArray[np.float64]:
    """Features of images by any extractor. Nothing is ever downloaded.

    Args:
        images: ``[N, C, H, W]`` in [0, 1].
        extractor: ``"morphology"`` (:func:`~spatiagraph.data.measure_morphology`, needs ``mpp``),
            ``"color_texture"``, ``"inception"`` (the one of FID, by torch-fidelity, needs
            ``weights``), the name of a timm model (needs ``weights``), or any module or function
            that makes ``[B, F]`` of ``[B, C, H, W]`` in [0, 1].
        weights: Local weight file of the network.
        mpp: µm per pixel.
        foreground: What is measured, for ``"morphology"``.
        component: Which object is measured, for ``"morphology"``.
        progress: Whether to show a progress bar.

    Returns:
        ``[N, F]``; a row of NaN where there is no nucleus to measure.

    Raises:
        ValueError: Weights or ``mpp`` are missing, no file is there, or images are no such.
        ImportError: ``"inception"`` without torch-fidelity; says how to install it.

    Examples:
        >>> extract_features(np.zeros((2, 1, 8, 8)), lambda x: x.mean((2, 3))).tolist()
        [[0.0], [0.0]]
    """
    x = images.detach() if isinstance(images, Tensor) else torch.from_numpy(np.asarray(images))
    x = x.float()
    if x.dim() != 4 or not x.numel():
        raise ValueError(f"Expected 'images' of shape [N, C, H, W], got {list(x.shape)}")
    if isinstance(extractor, str):
        if extractor == "morphology":
            if mpp is None:
                raise ValueError("Expected 'mpp' (µm per pixel) to measure morphology, got None")
            return measure_morphology(
                x, mpp=mpp, foreground=foreground, component=component, progress=progress
            ).to_numpy()
        if extractor == "color_texture":
            return color_texture(x.cpu().numpy()).astype(np.float64)
        if weights is None or not Path(weights).is_file():
            raise ValueError(
                f"Expected a local file with the weights of {extractor!r}, got "
                f"{None if weights is None else str(weights)!r}; nothing is downloaded. "
                'extractor="morphology" needs none'
            )
        if extractor == "inception":
            return _by_blocks(_inception(weights), x, progress)
        return _by_blocks(_timm(extractor, weights, x.size(1)), x, progress)
    return _by_blocks(extractor, x, progress)


@torch.no_grad()
def _by_blocks(
    network: Callable[[Tensor], Tensor], x: Tensor, progress: bool
) -> NDArray[np.float64]:
    """Features of a few images at a time, as the network gives them when it does not train."""
    device = x.device
    mode: AbstractContextManager[None] = nullcontext()
    if isinstance(network, nn.Module):
        device, mode = next((p.device for p in network.parameters()), device), evaluating(network)
    blocks = tqdm(x.split(_BLOCK), desc="features", disable=not progress)
    with mode:
        parts = [network(part.to(device)).double().cpu() for part in blocks]
    found = torch.cat(parts)
    if found.dim() != 2:
        raise ValueError(
            f"Expected an extractor that gives features [B, F], got {list(parts[0].shape)}"
        )
    return found.numpy()


def _timm(name: str, weights: str | Path, in_channels: int) -> Callable[[Tensor], Tensor]:
    encoder = TimmEncoder(name, in_channels=in_channels, checkpoint=str(weights)).eval()
    return lambda x: encoder.backbone(encoder.normalize(x))


def _inception(weights: str | Path) -> Callable[[Tensor], Tensor]:
    """The 2048 features that FID is defined by."""
    fidelity = require(
        "torch_fidelity.feature_extractor_inceptionv3",
        extra="fidelity",
        purpose='extractor="inception"',
    )
    try:
        torch.load(weights, weights_only=True)  # torch-fidelity would unpickle anything
    except UnpicklingError as err:
        raise ValueError(
            f"Expected {str(weights)!r} to hold nothing but tensors: {reason(err)}"
        ) from err
    network: Any = fidelity.FeatureExtractorInceptionV3("inception", ["2048"], str(weights))

    def features(x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1) if x.size(1) == 1 else x[:, :3]
        return network((255 * x).round().to(torch.uint8))[0]

    return features
