"""Features of crops without training: colours, textures, random networks."""

import numpy as np
import torch
from numpy.typing import NDArray

from spatiagraph.nn.image_statistics import color_texture as statistics

_BLOCK = 32  # crops at a time


def color_texture(crops: NDArray[np.floating]) -> NDArray[np.float32]:
    """Colour and texture statistics of each crop: a baseline with nothing to learn.

    See :func:`spatiagraph.nn.color_texture`, which this is, a few crops at a time.

    Args:
        crops: ``[N, C, H, W]`` in [0, 1], with a side of 32 pixels or more; one channel is taken
            as grey, and of more than three the first three are looked at.

    Returns:
        ``[N, 39]``.

    Raises:
        ValueError: Not ``[N, C, H, W]``, or a side is too small.

    Examples:
        >>> color_texture(np.full((2, 3, 32, 32), 0.5)).shape
        (2, 39)
    """
    blocks = (crops[i : i + _BLOCK] for i in range(0, max(len(crops), 1), _BLOCK))
    parts = [statistics(torch.from_numpy(np.array(x, dtype=np.float64))) for x in blocks]
    return torch.cat(parts).numpy().astype(np.float32)


def network_features(
    crops: NDArray[np.floating], name: str = "resnet18", *, seed: int = 0
) -> NDArray[np.float32]:
    """Pooled features of a network with random weights: the share of its architecture.

    Args:
        crops: ``[N, C, H, W]`` in [0, 1]; one channel is taken as grey.
        name: Name of a timm model.
        seed: Of the weights. The global random state is left as it was.

    Returns:
        ``[N, F]``.
    """
    import timm  # slow to import, and only needed here

    x = _as_rgb(crops)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(name, pretrained=False, num_classes=0).eval()
    with torch.no_grad():
        parts = [
            network((torch.from_numpy(x[i : i + _BLOCK]).float() - 0.5) / 0.5)
            for i in range(0, len(x), _BLOCK)
        ]
    return torch.cat(parts).numpy()


def image_baselines(crops: NDArray[np.floating], *, seed: int = 0) -> dict[str, NDArray]:
    """Image features to put beside yours wherever genes are predicted from images.

    Args:
        crops: ``[N, C, H, W]`` in [0, 1].
        seed: Of the random weights.

    Returns:
        Name → features: ``color_texture`` and ``resnet18_random``.
    """
    return {
        "color_texture": color_texture(crops),
        "resnet18_random": network_features(crops, seed=seed),
    }


def _as_rgb(crops: NDArray[np.floating]) -> NDArray[np.floating]:
    x = np.asarray(crops)
    if x.ndim != 4 or not x.shape[1]:
        raise ValueError(f"Expected 'crops' of shape [N, C, H, W], got {list(x.shape)}")
    if x.shape[1] < 3:
        return np.repeat(x[:, :1], 3, axis=1)
    return x[:, :3]
