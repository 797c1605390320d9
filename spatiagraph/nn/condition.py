"""Conditioner of image generation: context of the cell, its genes, and a transition."""

import torch
from torch import Tensor, nn

from spatiagraph.data.condition import Condition
from spatiagraph.nn.config import Configurable


class TransitionConditioner(Configurable):
    r"""Context and change of a cell, as one vector or as tokens.

    The change is what a transition is by name, and what it does to genes and to morphology on
    average:

    .. math::
        \mathbf{z}_\mathrm{change} = \mathrm{MLP}(\mathbf{z}_\tau \,\Vert\, f(\Delta g_\tau)
        \,\Vert\, f(\Delta m_\tau)), \qquad
        \mathbf{z} = \mathrm{MLP}(\mathbf{z}_\mathrm{context} \,\Vert\, \mathbf{z}_\mathrm{change})

    as in `SPATIA <https://arxiv.org/abs/2507.04704>`_. Any of them may be left out. Nothing of a
    target cell enters.

    Args:
        context_channels: Width of each embedding of the context; standardised here, see
            :meth:`initialize`.
        num_genes: Genes of an expression vector; 0 for none.
        num_transitions: Transitions, :math:`T`; 0 for none.
        num_delta_genes: Genes of the signatures :math:`\Delta g`; 0 for none.
        num_delta_morphology: Features of the signatures :math:`\Delta m`; 0 for none.
        channels: Size of the result, :math:`D`.
        dropout: Of hidden channels.

    Shapes:
        - **condition**: :class:`Condition`
        - **output**: ``[B, D]``; with ``tokens=True`` ``[B, S, D]``, one token per source

    Raises:
        ValueError: There is nothing to condition on, or a condition is missing or of another width.
    """

    mean: Tensor
    std: Tensor
    delta_genes: Tensor
    delta_morphology: Tensor

    def __init__(
        self,
        *,
        context_channels: tuple[int, ...] = (),
        num_genes: int = 0,
        num_transitions: int = 0,
        num_delta_genes: int = 0,
        num_delta_morphology: int = 0,
        channels: int = 512,
        dropout: float = 0.1,
    ):
        super().__init__()
        if not (context_channels or num_genes or num_transitions):
            raise ValueError("Expected something to condition on: context, genes or transitions")
        if (num_delta_genes or num_delta_morphology) and not num_transitions:
            raise ValueError("Expected signatures of transitions, got no transition")
        self.context_channels = tuple(context_channels)
        self.num_genes, self.num_transitions = num_genes, num_transitions
        self.channels = channels
        width = sum(self.context_channels) + num_genes
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("delta_genes", torch.zeros(num_transitions, num_delta_genes))
        self.register_buffer("delta_morphology", torch.zeros(num_transitions, num_delta_morphology))
        self.widths = [size for size in (*context_channels, num_genes) if size]
        self.context = nn.ModuleList(nn.Linear(size, channels) for size in self.widths)
        self.transition: nn.Embedding | None = None
        self.delta = nn.ModuleList()
        self.change: nn.Sequential | None = None
        if num_transitions:
            self.transition = nn.Embedding(num_transitions, channels)
            self.delta.extend(
                nn.Sequential(
                    nn.Linear(size, channels),
                    nn.LayerNorm(channels),
                    nn.SiLU(),
                    nn.Dropout(dropout),
                )
                for size in (num_delta_genes, num_delta_morphology)
                if size
            )
            num_parts = 1 + len(self.delta)
            self.change = nn.Sequential(
                *_mlp(num_parts * channels, channels, dropout), nn.LayerNorm(channels)
            )
        num_parts = len(self.widths) + bool(num_transitions)
        self.together = nn.Sequential(*_mlp(num_parts * channels, channels, dropout))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if self.transition is not None:
            nn.init.normal_(self.transition.weight, std=0.02)

    def forward(self, condition: Condition, *, tokens: bool = False) -> Tensor:
        context = [
            layer(part) for layer, part in zip(self.context, self._sources(condition), strict=True)
        ]
        change = self._change(condition)
        if tokens:
            return torch.stack([*context, *change], dim=1)
        if self.change is not None:
            context.append(self.change(torch.cat(change, dim=1)))
        return self.together(torch.cat(context, dim=1))

    @torch.no_grad()
    def initialize(
        self,
        condition: Condition,
        *,
        delta_genes: Tensor | None = None,
        delta_morphology: Tensor | None = None,
    ) -> None:
        """Take the scale of context and genes from training cells, and keep the signatures.

        Args:
            condition: Of training cells.
            delta_genes: Features of the gene signatures, ``[T, G]``.
            delta_morphology: Features of the morphology signatures, ``[T, F]``.
        """
        known = [part for part in (condition.context, condition.genes) if part is not None]
        if known:
            values = torch.cat(known, dim=1)
            mean = values.nanmean(0)
            std = (values - mean).square().nanmean(0).sqrt()
            self.mean.copy_(mean.nan_to_num())
            self.std.copy_(torch.where(std > 1e-6, std, 1))  # one that never varied has no unit
        for name, value in (("delta_genes", delta_genes), ("delta_morphology", delta_morphology)):
            buffer = getattr(self, name)
            if value is not None and value.shape != buffer.shape:
                raise ValueError(
                    f"Expected {name!r} of shape {list(buffer.shape)}, got {list(value.shape)}"
                )
            if value is not None:
                buffer.copy_(value)

    def _sources(self, condition: Condition) -> list[Tensor]:
        """Standardised embeddings and expression, one by one."""
        widths = {"context": sum(self.context_channels), "genes": self.num_genes}
        parts = []
        for name, width in widths.items():
            value = getattr(condition, name)
            if (value is None) != (width == 0) or (value is not None and value.size(-1) != width):
                raise ValueError(
                    f"Expected {name!r} of width {width or 'none'}, got "
                    f"{'none' if value is None else list(value.shape)}"
                )
            if value is not None:
                parts.append(value)
        if not parts:
            return []
        values = ((torch.cat(parts, dim=1) - self.mean) / self.std).to(self.mean.dtype)
        sources = list(values.split(self.widths, dim=1))
        if self.num_genes:
            sources[-1] = sources[-1].nan_to_num()
        return sources

    def _change(self, condition: Condition) -> list[Tensor]:
        """Name and signatures of the transition of each cell, ``[B, D]`` each."""
        index = condition.transition
        if self.transition is None:
            if index is not None:
                raise ValueError("Expected no 'transition': the conditioner was built without")
            return []
        if index is None:
            raise ValueError("Expected a 'transition' for each cell, got none")
        signatures = [s for s in (self.delta_genes, self.delta_morphology) if s.size(1)]
        return [
            self.transition(index),
            *(layer(s[index]) for layer, s in zip(self.delta, signatures, strict=True)),
        ]


def _mlp(width: int, channels: int, dropout: float) -> list[nn.Module]:
    return [
        nn.Linear(width, 2 * channels),
        nn.LayerNorm(2 * channels),
        nn.SiLU(),
        nn.Dropout(dropout),
        nn.Linear(2 * channels, channels),
    ]
