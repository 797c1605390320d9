"""Any task as a Lightning module."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule

from spatiagraph.tasks.base import Task
from spatiagraph.training.optimizer import AdamWTowardStart
from spatiagraph.training.schedule import CosineSchedule


class TaskModule(LightningModule):
    """Training of any :class:`~spatiagraph.tasks.Task` with AdamW, warm-up and a cosine schedule.

    All randomness of a step (masks, dropout) is keyed by the seed, the number of the step and the
    process, so a resumed run repeats what an uninterrupted one does, bit for bit on CPU.

    Args:
        task: What to learn.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay of matrices, towards zero or, of those that the task
            has ``anchored``, towards their start; vectors have none.
        warmup: Share of the steps in which the rate rises.
        seed: Seed of all steps.
        schedule: Schedule in place of this one, of the weight decay too.
    """

    def __init__(
        self,
        task: Task,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        seed: int = 0,
        schedule: CosineSchedule | None = None,
    ):
        super().__init__()
        self.schedule = schedule
        self.task = task
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.seed = seed
        self.num_steps = 1

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One batch of training; raises on a loss that is not finite."""
        window = self.trainer.accumulate_grad_batches  # its batches share a step, but no masks
        self.task.at_step(self.trainer.global_step, self.num_steps)
        step = self.trainer.global_step * window + batch_idx % window
        # masks belong to the batch, whichever process takes it
        return self._loss(batch, step * self.trainer.world_size + self.global_rank)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One batch of validation, with the same masks in every epoch and every process."""
        return self._loss(batch, batch_idx + 2**55)

    def _loss(self, batch: Any, step: int) -> dict[str, Any]:
        step_seed = (self.seed * 1_000_003 + step) % 2**63
        generator = torch.Generator(device=self.device).manual_seed(step_seed)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(step_seed)
            output = self.task.loss(batch, generator)
        if not torch.isfinite(output.loss):
            raise ValueError(f"The loss is {output.loss.item()} {self.task.blame(batch)}")
        # Lightning divides what it calls the loss by the batches of a step
        total = output.loss.detach()
        return {"loss": output.loss, "total": total, "parts": output.parts, "n": output.n}

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay to a hundredth, updated per step."""
        trainable = [p for p in self.task.parameters() if p.requires_grad]
        anchored = {id(p) for p in self.task.anchored}
        free = [p for p in trainable if id(p) not in anchored]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in free if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in free if p.dim() <= 1], "weight_decay": 0.0},
        ]
        if pulled := [p for p in trainable if id(p) in anchored]:
            own = {"weight_decay": 0.0, "toward_start": True, "pull": self.weight_decay}
            groups.append({"params": pulled, **own})
        optimizer = AdamWTowardStart(groups, lr=self.lr)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        self.num_steps = total
        warm_up = max(1, int(self.warmup * total))

        def rate(step: int) -> float:
            if self.schedule is not None:
                return self.schedule.lr(step, total, self.lr) / self.lr
            if step < warm_up:
                return (step + 1) / warm_up
            progress = (step - warm_up) / max(1, total - warm_up)
            return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Weight decay of this step, where a schedule says it."""
        if self.schedule is None:
            return
        total = max(1, int(self.trainer.estimated_stepping_batches))
        step = self.trainer.global_step
        decay = self.schedule.weight_decay(step, total, self.weight_decay)
        optimizer.param_groups[0]["weight_decay"] = decay  # of matrices: vectors have none
        for group in optimizer.param_groups:
            if group.get("toward_start"):
                group["pull"] = decay
