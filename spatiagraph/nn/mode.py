"""Evaluation of a network without changing how it learns."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluate within, and leave every part in the mode it was in, frozen parts included.

    Args:
        network: The network to evaluate.

    Examples:
        >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluating(network):
        ...     network.training
        False
        >>> [part.training for part in network]
        [True, False]
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
