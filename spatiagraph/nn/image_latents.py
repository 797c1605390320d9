"""Autoencoder of images, for flows between latents in place of pixels."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor

from spatiagraph._json import read_json
from spatiagraph.nn.hub import PretrainedModel

_READ = {  # what a published configuration may say, and by which name it is taken here
    "in_channels": "image_channels",
    "latent_channels": "latent_channels",
    "block_out_channels": "channels",
    "layers_per_block": "num_blocks",
}
_ONLY = {  # of the rest, what is built here
    "act_fn": "silu",
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
    "latents_mean": None,
    "latents_std": None,
}
_AT_ONCE = 64  # images that are encoded at a time


class Reconstruction(NamedTuple):
    """Images and where they came from.

    Attributes:
        image: Images again, ``[B, C, H, W]``.
        kl: Kullback–Leibler divergence of the latents of each from a standard normal, ``[B]``.
    """

    image: Tensor
    kl: Tensor


class ImageLatents(PretrainedModel):
    r"""Variational autoencoder of images: diffusers' :class:`~diffusers.AutoencoderKL`.

    Latents have mean 0 and deviation 1 in each channel over the images of :meth:`initialize`, so
    that a flow between them needs no scale of its own. Train one with
    :func:`~spatiagraph.training.fit_latents`, or read a published one with :meth:`from_diffusers`.
    After `latent diffusion <https://arxiv.org/abs/2112.10752>`_.

    Args:
        image_channels: Channels of the images, :math:`C`.
        latent_channels: Channels of the latents, :math:`L`.
        channels: Channels at each resolution; each but the last halves the sides.
        num_blocks: Residual blocks at each resolution.

    Shapes:
        - **image**: in [-1, 1], ``[B, C, H, W]``
        - **latents**: ``[B, L, H / stride, W / stride]``

    Raises:
        ValueError: No resolution is given.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_channels: int,
        latent_channels: int = 4,
        *,
        channels: Sequence[int] = (32, 64),
        num_blocks: int = 1,
    ):
        super().__init__()
        if not channels:
            raise ValueError("Expected 'channels' of one resolution or more, got none")
        self.image_channels, self.latent_channels = image_channels, latent_channels
        self.stride = 2 ** (len(channels) - 1)
        self.net = AutoencoderKL(
            in_channels=image_channels,
            out_channels=image_channels,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=tuple(channels),
            layers_per_block=num_blocks,
            latent_channels=latent_channels,
            norm_num_groups=math.gcd(32, *channels),
        )
        self.register_buffer("mean", torch.zeros(latent_channels))
        self.register_buffer("std", torch.ones(latent_channels))

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Reconstruction:
        """Encode images, sample latents, and decode them."""
        self.check(image)
        found = self.net.encode(image, return_dict=False)[0]
        noise = torch.randn(found.mean.shape, generator=generator, device=image.device)
        again = self.net.decode(found.mean + found.std * noise, return_dict=False)[0]
        return Reconstruction(again, found.kl())

    def encode(self, image: Tensor) -> Tensor:
        """Standardised mode of the latents of images, ``[B, L, h, w]``."""
        self.check(image)
        found = self.net.encode(image.to(self.mean.dtype), return_dict=False)[0].mode()
        return (found - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of standardised latents, about in [-1, 1], ``[B, C, H, W]``."""
        x = latents.to(self.mean.dtype) * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1)
        return self.net.decode(x, return_dict=False)[0]

    @torch.no_grad()
    def initialize(self, image: Tensor) -> None:
        """Take the scale of the latents from images.

        Args:
            image: In [-1, 1], ``[N, C, H, W]``.
        """
        self.mean.zero_()
        self.std.fill_(1.0)
        parts = [self.encode(part) for part in image.split(_AT_ONCE)]
        found = torch.cat(parts).transpose(0, 1).flatten(1)
        self.mean.copy_(found.mean(1))
        self.std.copy_(found.std(1).clamp(min=1e-4))

    @classmethod
    def from_diffusers(cls, folder: str | os.PathLike[str]) -> Self:
        """Read an autoencoder that diffusers saved, from a folder of this machine.

        Args:
            folder: With ``config.json`` and ``diffusion_pytorch_model.safetensors``.

        Raises:
            FileNotFoundError: The folder or one of its files is missing.
            ValueError: It is built otherwise than :class:`ImageLatents` are, or its weights are
                of another network.
        """
        path = Path(folder)
        config = read_json(path / "config.json")
        if not isinstance(config, dict) or config.get("_class_name") != "AutoencoderKL":
            raise ValueError(f"Expected the configuration of an AutoencoderKL in {path}")
        missing = [name for name in _READ if name not in config]
        blocks = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
        other = [n for n, wanted in _ONLY.items() if config.get(n, wanted) != wanted]
        other += [n for n, wanted in blocks.items() if set(config.get(n, [wanted])) != {wanted}]
        groups = math.gcd(32, *config.get("block_out_channels", ()))
        if config.get("norm_num_groups", 32) != groups:
            other.append("norm_num_groups")
        if config.get("out_channels", config.get("in_channels")) != config.get("in_channels"):
            other.append("out_channels")
        if missing or other:
            raise ValueError(
                f"Expected an AutoencoderKL of plain blocks in {path}, got one without {missing} "
                f"and with another {other}"
            )
        model = cls(**{ours: config[theirs] for theirs, ours in _READ.items()})
        file = path / "diffusion_pytorch_model.safetensors"
        if not file.is_file():
            raise FileNotFoundError(f"No weights at {file}")
        weights = load_file(file)
        wanted = {name: list(x.shape) for name, x in model.net.state_dict().items()}
        if {name: list(x.shape) for name, x in weights.items()} != wanted:
            raise ValueError(f"Expected weights of the network in {path}/config.json, got others")
        model.net.load_state_dict(weights)
        model.std.fill_(1 / float(config.get("scaling_factor") or 0.18215))
        model.mean.fill_(float(config.get("shift_factor") or 0.0))
        return model

    def check(self, image: Tensor) -> None:
        """Refuse images that do not fit.

        Raises:
            ValueError: Channels differ, or a side is not divisible by ``stride``.
        """
        if image.dim() != 4 or image.size(1) != self.image_channels:
            raise ValueError(
                f"Expected images [B, {self.image_channels}, H, W], got {list(image.shape)}"
            )
        if any(side % self.stride for side in image.shape[2:]):
            raise ValueError(
                f"Expected image sides divisible by {self.stride}, got {list(image.shape[2:])}"
            )
