"""Any task as a Lightning module."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.tasks.base import Task


class TaskModule(LightningModule):
    """Trains any :class:`~spatiagraph.tasks.Task` with AdamW, warm-up and a cosine schedule.

    All randomness of a step (masks, dropout) is keyed by the seed, the number of the step and the
    process, so a resumed run repeats what an uninterrupted one does, bit for bit on CPU.

    Args:
        task: What to learn.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay of matrices; vectors have none.
        warmup: Share of the steps in which the rate rises.
        seed: Seed of all steps.
    """

    def __init__(
        self,
        task: Task,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        seed: int = 0,
    ):
        super().__init__()
        self.task = task
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.seed = seed

    def training_step(self, batch: Data, batch_idx: int) -> dict[str, Any]:
        """One step; raises on a loss that is not finite."""
        step = self.trainer.global_step + self.global_rank * 2**40
        step_seed = (self.seed * 1_000_003 + step) % 2**63
        generator = torch.Generator(device=batch.pos.device).manual_seed(step_seed)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(step_seed)
            output = self.task.loss(batch, generator)
        if not torch.isfinite(output.loss):
            raise ValueError(f"The loss is {output.loss.item()} {_blame(batch)}")
        return {"loss": output.loss, "parts": output.parts, "n": output.n}

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay to a hundredth, updated per step."""
        trainable = [p for p in self.task.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        rising = max(1, int(self.warmup * total))

        def rate(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            progress = (step - rising) / max(1, total - rising)
            return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _blame(batch: Data) -> str:
    """The cells whose input is not finite, or else the cells of the batch."""
    bad = ~torch.isfinite(batch.pos).all(1)
    for key in ("x", "image"):
        value = batch.get(key)
        if isinstance(value, Tensor) and value.layout is torch.strided:
            bad |= ~torch.isfinite(value.flatten(1)).all(1)
    rows = batch.cell_index[bad] if bool(bad.any()) else batch.cell_index[batch.core]
    cause = "because of the input of" if bool(bad.any()) else "in a batch with"
    return f"{cause} {rows.numel()} cells, first rows {rows[:5].tolist()}: lower the learning rate"
