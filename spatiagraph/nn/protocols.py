"""Signatures of the exchangeable parts: a module that has one can take the place of ours."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Pooled(NamedTuple):
    """Groups made by a pooling.

    Attributes:
        h: Group features, ``[M, D]``.
        assignment: Group of each member, ``[N]``; -1 where a member has none. ``None`` where
            members belong to several.
        loss: Auxiliary loss of a learned pooling, or ``None``.
        batch: Slide of each group, ``[M]``, from a pooling that assigns; ``None`` from others.
    """

    h: Tensor
    assignment: Tensor | None
    loss: Tensor | None = None
    batch: Tensor | None = None


@runtime_checkable
class Pooling(Protocol):
    """Members → groups. One that ``assigns`` makes groups of its own, each inside one slide."""

    assigns: bool

    def __call__(
        self,
        h: Tensor,
        index: Tensor,
        num_groups: int | None = None,
        *,
        edge_index: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Pooled:
        """Pool ``h [N, D]`` by ``index``, or by ``edge_index`` within the slides of ``batch``."""
        ...
