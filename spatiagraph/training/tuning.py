"""``tune_neighbors``: fit the answer of SpatialFormer on neighbours to slides."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from spatiagraph._optional import require
from spatiagraph.data.slide import Slide
from spatiagraph.models.spatialformer import SpatialFormer
from spatiagraph.tasks.neighbor_tuning import NeighborTuning
from spatiagraph.training.fitting import fit
from spatiagraph.training.run import Run
from spatiagraph.training.start import remove_start
from spatiagraph.training.trainer import MODEL, FitResult

TuningMode = Literal["probe", "lora", "full"]


def tune_neighbors(
    model: SpatialFormer,
    slides: Slide | Sequence[Slide],
    mode: TuningMode = "lora",
    *,
    rank: int = 8,
    alpha: float = 16.0,
    validation: Slide | Sequence[Slide] | float | None = None,
    run: Run | None = None,
    **options: Any,
) -> FitResult:
    """Fine-tune which cells a model takes for neighbours; the model is changed in place.

    To train a model further on slides with all objectives, call
    :func:`~spatiagraph.training.fit` on it.

    Args:
        model: A trained model.
        slides: A slide, or some whose ids differ.
        mode: ``"probe"``, the head of cells alone; ``"lora"``, the head and a change of low rank of
            what attention asks, of `"LoRA" <https://arxiv.org/abs/2106.09685>`_, which is added to
            the weights in the end; ``"full"``, all weights.
        rank: Rank of the change. The folder of such a run keeps no model of before training, which
            is the one that was given.
        alpha: Its factor is ``alpha / rank``.
        validation: See :func:`~spatiagraph.training.fit`.
        run: How to train.
        **options: Fields of ``run`` by name.

    Raises:
        ValueError: If there is no such mode, or as :func:`~spatiagraph.training.fit` does.
        ImportError: If ``"lora"`` is asked for and peft is not installed.
    """
    if mode not in ("probe", "lora", "full"):
        raise ValueError(f"Expected 'mode' probe, lora or full, got {mode!r}")
    if rank < 1 or not alpha > 0:
        raise ValueError(f"Expected a positive rank and alpha, got {rank} and {alpha}")
    task = NeighborTuning(model, probe=mode == "probe")
    given: dict[str, Any] = {"task": task, "validation": validation, "run": run, **options}
    if mode != "lora":
        return fit(model, slides, **given)
    seed = options.get("seed", 0 if run is None else run.seed)
    with _low_rank(model, rank, alpha, seed):
        result = fit(model, slides, **given)
    if result.out is not None:
        remove_start(result.out)  # it has the adapters, and does not open without
        model.save_pretrained(result.out / MODEL)  # as one that opens without adapters
    return result


@contextmanager
def _low_rank(model: SpatialFormer, rank: int, alpha: float, seed: int) -> Iterator[None]:
    """Train changes of low rank of attention and the head of cells; both are kept in the end."""
    peft = require("peft", extra="lora", purpose="fine-tuning by changes of low rank")
    trained = [p for p in model.parameters() if p.requires_grad]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["qkv"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model)
    for head in (model.cell_head, model.similarity):
        if head is not None:
            head.requires_grad_(True)
    try:
        yield
    finally:
        _merge(model, peft.tuners.lora.LoraLayer)
        for parameter in trained:
            parameter.requires_grad_(True)


def _merge(model: nn.Module, adapter: type) -> None:
    """Add changes to the weights they are of, and leave the layers as they were."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, adapter):
                layer.merge(safe_merge=True)  # type: ignore[operator]
                setattr(parent, name, layer.get_base_layer())  # type: ignore[operator]
