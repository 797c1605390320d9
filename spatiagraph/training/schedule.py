"""Schedules of learning rate and weight decay that differ from those of every run."""

import math
from dataclasses import dataclass


def scaled_lr(batch_size: int, num_devices: int = 1, *, lr: float = 5e-4) -> float:
    """Learning rate for batches of some size, of the rate for 256 at once.

    The rule of `ST-Align <https://arxiv.org/abs/2411.16793>`_, after `Goyal et al. (2017)
    <https://arxiv.org/abs/1706.02677>`_.

    Args:
        batch_size: Spots of a batch on each device.
        num_devices: Devices.
        lr: Rate for 256 spots a step.

    Raises:
        ValueError: If a number is below 1.

    Examples:
        >>> scaled_lr(64)
        0.000125
    """
    if min(batch_size, num_devices) < 1:
        raise ValueError(
            f"Expected 'batch_size' and 'num_devices' of at least 1, got {batch_size} and "
            f"{num_devices}"
        )
    return lr * batch_size * num_devices / 256


@dataclass(frozen=True)
class CosineSchedule:
    r"""Warm-up from 0, then a cosine; weight decay on a cosine of its own.

    Of step :math:`i` of :math:`N` with :math:`W` steps of warm-up, the learning rate is
    :math:`\eta \, i / (W - 1)` for :math:`i < W`, and then :math:`e + \tfrac{1}{2} (\eta - e)
    (1 + \cos \pi \tfrac{i - W}{N - W})`, as `ST-Align <https://arxiv.org/abs/2411.16793>`_ was
    trained.

    Attributes:
        warmup: Share of the steps in which the rate rises.
        end_lr: Learning rate at the end, :math:`e`.
        end_weight_decay: Weight decay at the end; that of the start when ``None``.

    Raises:
        ValueError: If a value is out of range.
    """

    warmup: float = 0.02
    end_lr: float = 1e-6
    end_weight_decay: float | None = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"Expected 'warmup' as a share of the steps, got {self.warmup}")
        for name in ("end_lr", "end_weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"Expected {name!r} of 0 or more, got {value}")

    def lr(self, step: int, num_steps: int, peak: float) -> float:
        """Learning rate of a step.

        Args:
            step: Number of the step, from 0.
            num_steps: Steps of the run.
            peak: Rate after the warm-up.

        Examples:
            >>> schedule = CosineSchedule()
            >>> [round(schedule.lr(i, 1000, 1.25e-4), 10) for i in (0, 19, 20)]
            [0.0, 0.000125, 0.000125]
        """
        warm = round(self.warmup * num_steps)
        if step < warm:
            return peak * step / max(1, warm - 1)
        return _cosine(peak, self.end_lr, (step - warm) / max(1, num_steps - warm))

    def weight_decay(self, step: int, num_steps: int, start: float) -> float:
        """Weight decay of a step; arguments as in :meth:`lr`, ``start`` being that of step 0.

        Args:
            step: Number of the step, from 0.
            num_steps: Steps of the run.
            start: Weight decay of step 0.
        """
        if self.end_weight_decay is None:
            return start
        return _cosine(start, self.end_weight_decay, step / max(1, num_steps))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(1.0, progress)))
