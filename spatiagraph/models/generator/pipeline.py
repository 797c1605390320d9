"""A generator of cell images as a pipeline of diffusers'."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from spatiagraph.flow.randomness import Randomness
from spatiagraph.flow.sampling import Sampling
from spatiagraph.models.generator import ImageGenerator
from spatiagraph.nn.condition import Condition


class CellImageOutput(NamedTuple):
    """Output of a pipeline.

    Attributes:
        images: In [0, 1]: a tensor ``[B, C, H, W]``, an array ``[B, H, W, C]``, or pictures.
    """

    images: Any


class CellImagePipeline(DiffusionPipeline):
    """Images of cells in another state, by the conventions of diffusers.

    Args:
        image_generator: The generator.

    Examples:
        >>> from spatiagraph.data.recipe import Crop
        >>> from spatiagraph.models import GeneratorSize, ImageGenerator
        >>> size = GeneratorSize(channels=8, num_blocks=1, condition_channels=8)
        >>> parts = size.unet(image_channels=1), size.conditioner(context_channels=[4])
        >>> model = ImageGenerator(*parts, crop=Crop(size_px=16), context={"X": 4})
        >>> pipeline = CellImagePipeline(model)
        >>> pipeline.set_progress_bar_config(disable=True)
        >>> pipeline(torch.rand(2, 1, 16, 16), context=torch.rand(2, 4)).images.shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(self, image_generator: ImageGenerator):
        super().__init__()
        self.register_modules(image_generator=image_generator)

    @torch.no_grad()
    def __call__(
        self,
        image: "Tensor | Sequence[Image.Image] | None" = None,
        *,
        context: ArrayLike | Tensor | None = None,
        genes: ArrayLike | Tensor | None = None,
        transition: str | Sequence[str] | None = None,
        sampling: Sampling = Sampling(),
        generator: Randomness = None,
        output_type: Literal["pt", "np", "pil"] = "pt",
        return_dict: bool = True,
    ) -> CellImageOutput | tuple[Any, ...]:
        """Generate an image of each cell.

        Args:
            image: Control cells, ``[B, C, H, W]`` in [0, 1] or pictures of one size; not needed
                by generators that start at noise.
            context: Their embeddings side by side, ``[B, E]``.
            genes: Their expression as in training, ``[B, G]``.
            transition: Tag of the change, one for all or one per cell.
            sampling: Steps (``num_inference_steps`` of other pipelines), guidance
                (``guidance_scale`` of theirs, less 1), rule and seed.
            generator: Source of the noise, or one for each cell, in place of the seed.
            output_type: ``"pt"`` tensor, ``"np"`` array or ``"pil"`` pictures.
            return_dict: Whether to return a named result or a plain tuple.

        Raises:
            ValueError: Inputs do not fit each other or the generator.
        """
        if output_type not in ("pt", "np", "pil"):
            raise ValueError(f"Expected output_type pt, np or pil, got {output_type!r}")
        model: ImageGenerator = self.image_generator
        device = model.device
        start = None if image is None else _as_tensor(image).to(device)
        vectors = [_as_vectors(value, device) for value in (context, genes)]
        sizes = {len(value) for value in (start, *vectors) if value is not None} or {1}
        if len(sizes) > 1:
            raise ValueError(f"Expected inputs of as many cells, got those of {sorted(sizes)}")
        num = sizes.pop()
        condition = Condition(vectors[0], vectors[1], self._numbers(transition, num))
        with self.progress_bar(total=sampling.num_steps) as bar:
            images = model.generate(
                start,
                condition,
                sampling,
                generator=generator,
                progress=lambda done, total: bar.update(),
            )
        result: Any = images
        if output_type != "pt":
            result = images.permute(0, 2, 3, 1).float().cpu().numpy()
        if output_type == "pil":
            result = VaeImageProcessor.numpy_to_pil(result)
        return CellImageOutput(result) if return_dict else (result,)

    def save_pretrained(  # type: ignore[override]  # one format, not diffusers' many
        self, save_directory: str | os.PathLike[str], **kwargs: Any
    ) -> Path:
        """Write the generator: ``config.json`` and ``model.safetensors``."""
        return self.image_generator.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Self:
        """Read what :meth:`save_pretrained` wrote, from a folder or the hub."""
        return cls(ImageGenerator.from_pretrained(pretrained_model_name_or_path))

    def _numbers(self, transition: str | Sequence[str] | None, num: int) -> Tensor | None:
        if transition is None:
            return None
        tags = [transition] * num if isinstance(transition, str) else list(transition)
        if len(tags) != num:
            raise ValueError(f"Expected a transition for each of {num} cells, got {len(tags)}")
        numbers = [self.image_generator.number_of(tag) for tag in tags]
        return torch.tensor(numbers, device=self.image_generator.device)


def _as_vectors(values: ArrayLike | Tensor | None, device: torch.device) -> Tensor | None:
    if values is None:
        return None
    values = values if isinstance(values, Tensor) else np.asarray(values)
    return torch.as_tensor(values, dtype=torch.float32, device=device)


def _as_tensor(image: "Tensor | Sequence[Image.Image]") -> Tensor:
    """Images ``[B, C, H, W]`` in [0, 1]."""
    if isinstance(image, Tensor):
        return image
    sizes = sorted({picture.size for picture in image})
    modes = sorted({picture.mode for picture in image})
    if len(sizes) != 1 or len(modes) != 1:
        raise ValueError(f"Expected images of one size and kind, got {sizes} and {modes}")
    pixels = np.stack([np.asarray(picture) for picture in image]).astype(np.float32) / 255
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
