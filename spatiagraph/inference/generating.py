"""``generate``: images of the cells of a slide, sampled from a trained generator."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.data.loader import read_crops
from spatiagraph.data.selection import rows_of
from spatiagraph.data.slide import Slide
from spatiagraph.flow.randomness import named_generator
from spatiagraph.flow.sampling import Sampling
from spatiagraph.inference.generated import GeneratedImages
from spatiagraph.models.generator import ImageGenerator
from spatiagraph.models.generator.inputs import check_channels, embedded
from spatiagraph.models.generator.pipeline import CellImagePipeline
from spatiagraph.nn.condition import Condition
from spatiagraph.pairing.transitions import column, in_state
from spatiagraph.training.devices import as_device


def generate(
    generator: ImageGenerator | CellImagePipeline,
    slide: Slide,
    *,
    transition: str | None = None,
    cells: Sequence[str] | NDArray[Any] | None = None,
    context: Mapping[str, NDArray[np.floating]] | None = None,
    num_samples: int = 1,
    sampling: Sampling = Sampling(),
    batch_size: int = 256,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> GeneratedImages:
    """Generate images of cells of a slide: in another state, or as their embedding has them.

    Only the image of a cell, what is known of it and the transition are used; no target cell is
    looked at. The crops of all these cells are read first, as part of the result: a cell beside the
    image is refused before anything is generated.

    Args:
        generator: A trained generator.
        slide: The slide, with the embeddings the generator was trained on.
        transition: Tag of the change; ``None`` for generators without transitions.
        cells: Ids, rows or a mask of the cells; those in the control state of the transition when
            not given, or all where there is no transition; of these, those that are embedded.
        context: Key of ``obsm`` → embeddings of these cells to take instead, ``[N, D]``, such as
            :func:`~spatiagraph.inference.transplant` returns.
        num_samples: Images of each cell: they differ only where a flow starts with noise.
        sampling: Steps, rule, guidance and seed of the noise. The noise of an image depends on
            nothing else but the names of slide and cell, the number of the sample, and how often
            the cell came before; on no other cell, batch or device.
        batch_size: Cells at once: the memory it takes.
        device: Where the generator runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Raises:
        ValueError: The transition is not one of the generator's, cells are unknown or none, or the
            slide does not fit the generator.

    Examples:
        >>> from spatiagraph.data import GenePanel, make_tissue
        >>> from spatiagraph.data.recipe import Crop
        >>> from spatiagraph.models import GeneratorSize
        >>> slide = make_tissue(50, num_genes=20, image="he")
        >>> size = GeneratorSize(channels=8, num_blocks=1, condition_channels=8)
        >>> panel = GenePanel.from_slides([slide])
        >>> model = ImageGenerator.for_slides([slide], size, panel=panel, crop=Crop(size_px=16))
        >>> generate(model, slide, cells=[0, 1], progress=False).images.shape
        (2, 1, 3, 16, 16)
    """
    model: ImageGenerator
    if isinstance(generator, CellImagePipeline):
        model = generator.image_generator
    else:
        model = generator
    device = as_device(device)
    model.to(device)
    check_channels(model.image_channels, [slide])
    rows = _chosen(model, slide, transition, cells, model.context if context is None else ())
    control = read_crops(slide, rows, model.crop)
    given = None if context is None else _given(model, context, len(rows))
    number = None if transition is None else model.number_of(transition)
    condition = model.known(slide, rows, given)
    if number is not None:
        condition = condition._replace(transition=torch.full((len(rows),), number))
    names = slide.adata.obs_names[rows].tolist()
    before = pd.Series(rows).groupby(rows).cumcount().tolist()  # a cell in several places
    shape = (len(rows), num_samples, *control.shape[1:])
    images = np.empty(shape, dtype=np.float32)
    starts = range(0, len(rows), batch_size)
    for start in tqdm(starts, desc="generate", unit="batch", disable=not progress):
        part = slice(start, start + batch_size)
        at = torch.arange(len(rows))[part]
        known = Condition(*(x if x is None else x.to(device) for x in condition.take(at)))
        for sample in range(num_samples):
            noise = [
                named_generator(sampling.seed, slide.slide_id, name, times, sample)
                for name, times in zip(names[part], before[part], strict=True)
            ]
            made = model.generate(control[part].to(device), known, sampling, generator=noise)
            images[part, sample] = made.float().cpu().numpy()
    table = pd.DataFrame(
        {
            "slide": slide.slide_id,
            "cell": names,
            "row": rows,
            "transition": "" if transition is None else transition,
        }
    )
    return GeneratedImages(images, control.numpy(), table, model.window_um / model.size_px)


def control_cells(
    generator: ImageGenerator,
    slide: Slide,
    transition: str,
    *,
    max_cells: int | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Rows of the embedded cells in the control state of a transition, sorted; perhaps none.

    Args:
        generator: A generator that knows the transition and the column of its states.
        slide: An embedded slide.
        transition: Tag of the transition.
        max_cells: A random sample of so many at most; ``None`` for all.
        seed: Seed of the sample.

    Raises:
        ValueError: The generator does not know the transition, or the column of its states.
    """
    rows = _in_control(generator, slide, transition, generator.context)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:max_cells])


def _in_control(
    model: ImageGenerator, slide: Slide, transition: str, context: Iterable[str]
) -> NDArray[np.int64]:
    """Rows of the cells in the control state that have all of some embeddings."""
    control = model.transitions[model.number_of(transition)].control
    if model.states_key is None:
        raise ValueError("Expected 'cells': the generator does not know the column of states")
    state = column(slide, model.states_key)
    return np.flatnonzero(in_state(state, control) & embedded(slide, context))


def _given(model: ImageGenerator, context: Mapping[str, NDArray[np.floating]], num: int) -> Tensor:
    """Embeddings that are given, side by side as the generator wants them."""
    for key, width in model.context.items():
        shape = np.shape(context[key]) if key in context else None
        if shape != (num, width):
            raise ValueError(
                f"Expected 'context' with {key!r} of shape {[num, width]}, got "
                f"{'none' if shape is None else list(shape)}"
            )
    parts = [torch.from_numpy(np.asarray(context[key], dtype=np.float32)) for key in model.context]
    return torch.cat(parts, dim=1)


def _chosen(
    model: ImageGenerator,
    slide: Slide,
    transition: str | None,
    cells: Sequence[str] | NDArray[Any] | None,
    context: Iterable[str],
) -> NDArray[np.int64]:
    """Rows of the selected cells, or of all that are embedded."""
    if transition is None and model.transitions:
        tags = [known.tag for known in model.transitions]
        raise ValueError(f"Expected 'transition' to be one of {tags}, got None")
    if cells is not None:
        rows = rows_of(slide, cells)
    elif transition is None:
        rows = np.flatnonzero(embedded(slide, context))
    else:
        rows = _in_control(model, slide, transition, context)
    if not len(rows):
        raise ValueError(f"Expected cells of slide {slide.slide_id!r} to generate from, got none")
    return rows.astype(np.int64)
