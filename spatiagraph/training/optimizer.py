"""``AdamWTowardStart``: AdamW whose weight decay may pull towards the start."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class AdamWTowardStart(torch.optim.AdamW):
    r"""AdamW with groups of parameters that decay towards where they started, not towards zero.

    .. math::
        \mathbf{w} \leftarrow \mathbf{w} - \eta \, \mathrm{Adam}(\nabla) - \eta \lambda
        (\mathbf{w} - \mathbf{w}_0),

    as `"Explicit Inductive Bias for Transfer Learning with Convolutional Networks"
    <https://arxiv.org/abs/1802.01483>`_ proposes for weights that are worth something at the start:
    few cells then leave them where they are. :math:`\mathbf{w}_0` is part of the state, so that a
    run that goes on pulls to where it began.

    Args:
        groups: Parameters as for AdamW. Of a group with ``toward_start=True``, ``weight_decay``
            must be 0, and ``pull`` is :math:`\lambda`.
        lr: Learning rate, :math:`\eta`.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float):
        super().__init__(groups, lr=lr)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take a step.

        Args:
            closure: Computes the loss again, as for AdamW.
        """
        pulled = [
            (p, group) for group in self.param_groups if group.get("toward_start")
            for p in group["params"]
        ]  # fmt: skip
        starts = [self._start_of(p) for p, _ in pulled]
        loss = super().step(closure)
        for (parameter, group), start in zip(pulled, starts, strict=True):
            if not self.state[parameter]:
                continue  # it had no gradient, and is where it was
            self.state[parameter]["start"] = start
            parameter.lerp_(start, min(1.0, group["lr"] * group["pull"]))
        return loss

    def _start_of(self, parameter: Tensor) -> Tensor:
        """Where a parameter started: where it is, before its first step."""
        state = self.state[parameter]
        return state["start"] if "start" in state else parameter.detach().clone()
