"""Terms of a loss weighted by learned uncertainties, some of which fade."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class UncertaintyWeights(nn.Module):
    r"""Sum of terms with homoscedastic uncertainties, with some that fade over training.

    .. math::
        \sum_t \lambda_t \, (e^{-s_t} L_t + s_t), \qquad s_t \in [-10, 10],

    with learned :math:`s_t = \log \sigma_t^2` of `"Multi-Task Learning Using Uncertainty"
    <https://arxiv.org/abs/1705.07115>`_. The fade stands outside: inside, as
    :math:`e^{-s} \lambda L + s`, the learned weight would undo it, and the sum would fall without
    end as :math:`\lambda \to 0`.

    Args:
        names: Terms.
        faded: Those that fade.
        where: ``"outside"``, or ``"inside"`` for comparison.
        start: Step until which nothing fades.

    Raises:
        ValueError: If a term fades that is none.
    """

    def __init__(
        self,
        names: Sequence[str],
        faded: Sequence[str] = (),
        where: Literal["outside", "inside"] = "outside",
        start: int = 100,
    ):
        super().__init__()
        if unknown := sorted(set(faded) - set(names)):
            raise ValueError(f"Expected terms among {list(names)} to fade, got {unknown}")
        if where not in ("outside", "inside"):
            raise ValueError(f"Expected 'where' outside or inside, got {where!r}")
        self.faded, self.where, self.start = tuple(faded), where, start
        self.log_variance = nn.ParameterDict({n: nn.Parameter(torch.zeros(())) for n in names})

    def forward(self, terms: Mapping[str, Tensor], fade: float = 1.0) -> Tensor:
        """Weighted sum.

        Args:
            terms: Name → scalar; a term that is missing is left out, with its uncertainty.
            fade: Factor of the terms that fade.
        """
        total = []
        for name, value in terms.items():
            s = self.log_variance[name].clamp(-10, 10)
            factor = fade if name in self.faded else 1.0
            if self.where == "inside":
                total.append((-s).exp() * factor * value.float() + s)
            else:
                total.append(factor * ((-s).exp() * value.float() + s))
        return torch.stack(total).sum()

    def fade(self, step: int, num_steps: int) -> float:
        """Factor at a step: 1 until ``start``, then linearly to 0 at the last.

        Args:
            step: Number of the step, from 0.
            num_steps: Steps of the run.
        """
        if step < self.start or num_steps <= self.start:
            return 1.0
        return max(0.0, (num_steps - step) / (num_steps - self.start))
