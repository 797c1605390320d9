"""Order of batches of a run that goes on: that of its epoch from the first batch."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader


class EpochOfOrder(Callback):
    """Epoch of the order of batches as the checkpoint has it that a run goes on from.

    Lightning does so once it has made the iterator; worker processes have by then been handed the
    first batches, of another epoch.

    Args:
        batches: Batches of the run.
    """

    def __init__(self, batches: DataLoader[Any]):
        self.sampler = batches.sampler

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the epoch."""
        if hasattr(self.sampler, "set_epoch"):
            progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
            self.sampler.set_epoch(progress["current"]["processed"])
