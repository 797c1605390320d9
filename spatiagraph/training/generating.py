"""``fit_generator`` and ``generate``: train a generator of images on pairs, and ask it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from spatiagraph.data.loader import PairLoader, read_crops
from spatiagraph.data.selection import rows_of
from spatiagraph.data.slide import Slide
from spatiagraph.flow.randomness import named_generator
from spatiagraph.flow.solve import Method
from spatiagraph.heads.image import ImageGenerator
from spatiagraph.heads.image.inputs import embedded
from spatiagraph.heads.pair.transitions import column, in_state
from spatiagraph.heads.pipeline import CellImagePipeline
from spatiagraph.tasks.base import Task
from spatiagraph.tasks.image_flow import ImageFlow
from spatiagraph.training.devices import as_device
from spatiagraph.training.generated import GeneratedImages
from spatiagraph.training.record import (
    content_hash,
    model_record,
    task_record,
    tensors_hash,
    weights_hash,
)
from spatiagraph.training.trainer import FitResult, train


def fit_generator(
    generator: ImageGenerator,
    slides: Sequence[Slide],
    pairs: pd.DataFrame,
    *,
    profile: nn.Module | None = None,
    task: Task | None = None,
    max_epochs: int = 100,
    lr: float = 1e-3,
    batch_size: int = 64,
    average: float | None = 0.999,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **trainer: Any,
) -> FitResult:
    """Train a generator on pairs of cells; it is changed in place.

    Args:
        generator: The generator.
        slides: Cohort with images and embeddings.
        pairs: Result of :func:`~spatiagraph.heads.pair_states`, or of
            :func:`~spatiagraph.data.pairs_of_cells` for one without transitions.
        profile: Network of morphology to align images by, see
            :class:`~spatiagraph.tasks.ImageFlow`.
        task: What to learn of the batches of a :class:`~spatiagraph.data.PairLoader`, if not an
            :class:`~spatiagraph.tasks.ImageFlow` with its defaults.
        max_epochs: Passes over the pairs.
        lr: Peak learning rate.
        batch_size: Pairs of a mini-batch.
        average: Decay of a moving average of the weights, which the generator ends with.
        seed: Seed of order, times, dropout and flips.
        out: Folder of the run, which a repeated call resumes; nothing is written without it.
        progress: Show a progress bar.
        **trainer: More arguments of :func:`~spatiagraph.training.train`.

    Raises:
        ValueError: Slides, pairs, generator and task do not fit together, or the folder holds a run
            on other pairs, embeddings or signatures.
    """
    if task is not None and (profile is not None or task.model is not generator):
        raise ValueError(
            "Expected a 'task' of this generator that has its own profile, got "
            + ("a task of another one" if profile is None else "'profile' beside the task")
        )
    _check_channels(generator, slides)
    batches = PairLoader(
        slides,
        pairs,
        window_um=generator.window_um,
        size_px=generator.size_px,
        transitions=[transition.tag for transition in generator.transitions],
        known=lambda slide, rows: generator.known(slide, rows)._asdict(),
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    if task is None:
        task = ImageFlow(generator, profile, mean_confidence=float(batches.confidence.mean()))
    looks = task.profile if isinstance(task, ImageFlow) else None
    return train(
        task,
        batches,
        record={
            **model_record(generator),
            "task": task_record(task),
            "slides": {slide.slide_id: content_hash(slide) for slide in slides},
            "pairs": {"number": len(pairs), "hash": _pairs_hash(batches)},
            "conditions": tensors_hash(dict(generator.named_buffers())),
            "profile": None if looks is None else weights_hash(looks),
            "max_epochs": max_epochs,
            "lr": lr,
            "batch_size": batch_size,
            "average": average,
            "precision": str(trainer.get("precision", "32-true")),
            "seed": seed,
        },
        max_epochs=max_epochs,
        lr=lr,
        average=average,
        seed=seed,
        out=out,
        progress=progress,
        **trainer,
    )


def _pairs_hash(batches: PairLoader) -> str:
    """Short hash of what is paired, and of what is known of it."""
    rows = torch.from_numpy(np.stack([batches.slide, batches.control, batches.target]))
    named = {} if batches.transition is None else {"transition": batches.transition}
    tensors = {"rows": rows, "confidence": batches.confidence, **named}
    return tensors_hash({**tensors, **{f"known.{k}": v for k, v in batches.known.items()}})


def generate(
    generator: ImageGenerator | CellImagePipeline,
    slide: Slide,
    *,
    transition: str | None = None,
    cells: Sequence[str] | NDArray[Any] | None = None,
    context: Mapping[str, NDArray[np.floating]] | None = None,
    num_samples: int = 1,
    num_steps: int = 25,
    guidance: float = 0.2,
    method: Method = "midpoint",
    batch_size: int = 256,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> GeneratedImages:
    """Generate images of cells of a slide: in another state, or as their embedding has them.

    Only the image of a cell, what is known of it and the transition are used; no target cell is
    looked at.

    Args:
        generator: A trained generator.
        slide: The slide, with the embeddings the generator was trained on.
        transition: Tag of the change; ``None`` for generators without transitions.
        cells: Ids, rows or a mask of the cells; those in the control state of the transition when
            not given, or all where there is no transition; of these, those that are embedded.
        context: Key of ``obsm`` → embeddings of these cells to take instead, ``[N, D]``, such as
            :func:`~spatiagraph.training.transplant` returns.
        num_samples: Images of each cell: they differ only where a flow starts with noise.
        num_steps: Steps of the integration.
        guidance: How much the condition is exaggerated, see :func:`~spatiagraph.flow.guided`.
        method: Rule of a step.
        batch_size: Cells at once: the memory it takes.
        seed: Seed of the noise, at least 0. That of an image depends on nothing else but the names
            of slide and cell, the number of the sample, and how often the cell came before; on no
            other cell, batch or device.
        device: Where the generator runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Raises:
        ValueError: The transition is not one of the generator's, cells are unknown or none, or the
            slide does not fit the generator.

    Examples:
        >>> from spatiagraph.data import make_tissue
        >>> slide = make_tissue(50, num_genes=20)
        >>> net = {"channels": 8, "condition_channels": 8, "num_blocks": 1}
        >>> model = ImageGenerator.for_slides([slide], use_genes=True, size_px=16, **net)
        >>> generate(model, slide, cells=[0, 1], progress=False).images.shape
        (2, 1, 3, 16, 16)
    """
    if isinstance(generator, CellImagePipeline):
        pipeline = generator
    else:
        pipeline = CellImagePipeline(generator)
    model: ImageGenerator = pipeline.image_generator
    device = as_device(device)
    model.to(device)
    pipeline.set_progress_bar_config(disable=True)
    _check_channels(model, [slide])
    rows = _chosen(model, slide, transition, cells, model.context if context is None else ())
    control = read_crops(slide, rows, model.window_um, model.size_px)
    given = None if context is None else _given(model, context, len(rows))
    known = model.known(slide, rows, given)
    names = slide.adata.obs_names[rows].tolist()
    before = pd.Series(rows).groupby(rows).cumcount().tolist()  # a cell in several places
    shape = (len(rows), num_samples, *control.shape[1:])
    images = np.empty(shape, dtype=np.float32)
    starts = range(0, len(rows), batch_size)
    for start in tqdm(starts, desc="generate", unit="batch", disable=not progress):
        part = slice(start, start + batch_size)
        for sample in range(num_samples):
            made = pipeline(
                control[part],
                context=None if known.context is None else known.context[part],
                genes=None if known.genes is None else known.genes[part],
                transition=transition,
                num_inference_steps=num_steps,
                guidance_scale=guidance,
                method=method,
                generator=[
                    named_generator(seed, slide.slide_id, name, times, sample)
                    for name, times in zip(names[part], before[part], strict=True)
                ],
                return_dict=False,
            )
            images[part, sample] = made[0].float().cpu().numpy()
    table = pd.DataFrame(
        {
            "slide": slide.slide_id,
            "cell": names,
            "row": rows,
            "transition": "" if transition is None else transition,
        }
    )
    return GeneratedImages(images, control.numpy(), table, model.window_um / model.size_px)


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
    """Rows of the cells that are asked for, or of all that are embedded."""
    if transition is None and model.transitions:
        tags = [known.tag for known in model.transitions]
        raise ValueError(f"Expected 'transition' to be one of {tags}, got None")
    if cells is not None:
        rows = rows_of(slide, cells)
    elif transition is None:
        rows = np.flatnonzero(embedded(slide, context))
    else:
        control = model.transitions[model.number_of(transition)].control
        if model.states_key is None:
            raise ValueError("Expected 'cells': the generator does not know the column of states")
        state = column(slide, model.states_key)
        rows = np.flatnonzero(in_state(state, control) & embedded(slide, context))
    if not len(rows):
        raise ValueError(f"Expected cells of slide {slide.slide_id!r} to generate from, got none")
    return rows.astype(np.int64)


def _check_channels(model: ImageGenerator, slides: Sequence[Slide]) -> None:
    for slide in slides:
        if slide.image is not None and slide.image.num_channels != model.image_channels:
            raise ValueError(
                f"Expected images of {model.image_channels} channels as the generator makes, got "
                f"{slide.image.num_channels} in slide {slide.slide_id!r}"
            )
