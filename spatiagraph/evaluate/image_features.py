"""Features of crops without training: colours, textures, random networks."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from spatiagraph.data.crops import Crops
from spatiagraph.nn.image_statistics import color_texture as statistics

_READ = 1024  # crops that are read at a time: 154 MB of [3, 112, 112]
_BLOCK = 32  # crops that are computed on at a time

Features = Callable[[NDArray[np.floating]], NDArray[np.float32]]
"""Function of crops ``[B, C, H, W]`` to their features, ``[B, F]``."""


def color_texture(crops: NDArray[np.floating] | Crops) -> NDArray[np.float32]:
    """Colour and texture statistics of each crop: a baseline with nothing to learn.

    See :func:`spatiagraph.nn.color_texture`, which this is, a few crops at a time.

    Args:
        crops: ``[N, C, H, W]`` in [0, 1], with a side of 32 pixels or more; one channel is taken
            as grey, and of more than three the first three are looked at. Or where to read them,
            such as a :class:`~spatiagraph.data.CropSource`, a block of rows at a time.

    Returns:
        ``[N, 39]``.

    Raises:
        ValueError: Not ``[N, C, H, W]``, or a side is too small.

    Examples:
        >>> color_texture(np.full((2, 3, 32, 32), 0.5)).shape
        (2, 39)
    """
    return _of_blocks(crops, {"color_texture": _statistics})["color_texture"]


def network_features(
    crops: NDArray[np.floating] | Crops, name: str = "resnet18", *, seed: int = 0
) -> NDArray[np.float32]:
    """Pooled features of a network with random weights: the share of its architecture.

    Args:
        crops: ``[N, C, H, W]`` in [0, 1], or where to read them; one channel is taken as grey.
        name: Name of a timm model.
        seed: Of the weights. The global random state is left as it was.

    Returns:
        ``[N, F]``.
    """
    return _of_blocks(crops, {name: _random_network(name, seed)})[name]


def image_baselines(
    crops: NDArray[np.floating] | Crops, *, seed: int = 0, progress: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Image features to put beside yours wherever genes are predicted from images.

    Args:
        crops: ``[N, C, H, W]`` in [0, 1], or where to read them; each crop is read once.
        seed: Of the random weights.
        progress: Show a progress bar.

    Returns:
        Name → features: ``color_texture`` and ``resnet18_random``.
    """
    features = {"color_texture": _statistics, "resnet18_random": _random_network("resnet18", seed)}
    return _of_blocks(crops, features, progress)


def _of_blocks(
    crops: NDArray[np.floating] | Crops, features: dict[str, Features], progress: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Features of all crops, of which a block is in memory at a time."""
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in features}
    num = max(len(crops), 1)  # of none, one empty block says the size of the features
    for start in tqdm(range(0, num, _READ), desc="image features", disable=not progress):
        rows = np.arange(start, min(start + _READ, len(crops)))
        block = crops.read(rows)[0].numpy() if isinstance(crops, Crops) else crops[rows]
        for i in range(0, max(len(block), 1), _BLOCK):
            for name, compute in features.items():
                parts[name].append(compute(block[i : i + _BLOCK]))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _statistics(crops: NDArray[np.floating]) -> NDArray[np.float32]:
    x = torch.from_numpy(np.array(crops, dtype=np.float64))
    return statistics(x).numpy().astype(np.float32)


def _random_network(name: str, seed: int) -> Features:
    import timm  # slow to import, and only needed here

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(name, pretrained=False, num_classes=0).eval()

    @torch.no_grad()
    def features(crops: NDArray[np.floating]) -> NDArray[np.float32]:
        return network((torch.from_numpy(_as_rgb(crops)).float() - 0.5) / 0.5).numpy()

    return features


def _as_rgb(crops: NDArray[np.floating]) -> NDArray[np.floating]:
    x = np.asarray(crops)
    if x.ndim != 4 or not x.shape[1]:
        raise ValueError(f"Expected 'crops' of shape [N, C, H, W], got {list(x.shape)}")
    if x.shape[1] < 3:
        return np.repeat(x[:, :1], 3, axis=1)
    return x[:, :3]
