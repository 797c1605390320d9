"""What can be read from crops without training anything: colours, textures, random networks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Haematoxylin, eosin and DAB in optical density of red, green and blue."""
_SCALES = (1, 4, 16)  # pixels that are averaged before gradients are taken
_BLOCK = 32  # crops at a time


def color_texture(crops: NDArray[np.floating]) -> NDArray[np.float32]:
    """Colour and texture statistics of each crop: a baseline with nothing to learn.

    Mean, standard deviation and the 10, 50 and 90 % quantiles of each colour; mean, deviation and
    the 10 and 90 % quantiles of each stain (haematoxylin, eosin, DAB), by the colour deconvolution
    of `"Quantification of histochemical staining by color deconvolution"
    <https://pubmed.ncbi.nlm.nih.gov/11531144/>`_; and the gradients of the grey image at 1, 4 and
    16 pixels (mean, deviation, 90 % quantile, and the deviation of the grey itself).

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
    x = _as_rgb(crops)
    if min(x.shape[2:]) < 2 * max(_SCALES):
        raise ValueError(
            f"Expected crops with sides of {2 * max(_SCALES)} pixels or more, got "
            f"{list(x.shape[2:])}"
        )
    parts = [_statistics(x[i : i + _BLOCK]) for i in range(0, len(x), _BLOCK)]
    return np.concatenate([*parts, np.empty((0, 39))]).astype(np.float32)


def network_features(
    crops: NDArray[np.floating], name: str = "resnet18", *, seed: int = 0
) -> NDArray[np.float32]:
    """Pooled features of a network with random weights: what its architecture alone is worth.

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


def _statistics(crops: NDArray[np.floating]) -> NDArray[np.float64]:
    """Features of a few crops, [n, 39]."""
    x = crops.astype(np.float64)
    flat = x.reshape(*x.shape[:2], -1)  # [n, 3, P]
    density = -np.log(np.clip(flat, 1 / 255, 1))
    stain = np.einsum("ncp,cs->nsp", density, np.linalg.inv(_STAINS))
    low, middle, high = np.quantile(flat, [0.1, 0.5, 0.9], axis=2)
    parts = [flat.mean(2), flat.std(2), low, middle, high]
    parts += [stain.mean(2), stain.std(2), *np.quantile(stain, [0.1, 0.9], axis=2)]
    grey = torch.from_numpy(x.mean(axis=1, keepdims=True))
    for scale in _SCALES:
        g = avg_pool2d(grey, scale)[:, 0].numpy()
        steep = np.hypot(np.diff(g, axis=2)[:, :-1], np.diff(g, axis=1)[:, :, :-1])
        steep, g = steep.reshape(len(g), -1), g.reshape(len(g), -1)
        parts.append(
            np.stack(
                [steep.mean(1), steep.std(1), np.quantile(steep, 0.9, axis=1), g.std(1)], axis=1
            )
        )
    return np.concatenate(parts, axis=1)
