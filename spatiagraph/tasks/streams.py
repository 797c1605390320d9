"""Independent random streams of one step, so that one objective does not change another."""

import zlib

import torch


class Streams:
    """Random generators by purpose, all from one: ``streams["genes"]``.

    The same purpose gives a generator at the same start each time it is requested.

    Args:
        generator: Source of the step; torch's own when ``None``.
        device: Where the numbers are drawn.
    """

    def __init__(self, generator: torch.Generator | None, device: torch.device):
        source = device if generator is None else generator.device
        self.seed = int(torch.randint(2**62, (), generator=generator, device=source))
        self.device = device

    def __getitem__(self, purpose: str) -> torch.Generator:
        seed = self.seed ^ zlib.crc32(purpose.encode())
        return torch.Generator(self.device).manual_seed(seed)
