"""Memory that a slide will take, from what smaller ones took."""

from typing import NamedTuple


class Memory(NamedTuple):
    """Plane through measured peaks, in cells and genes.

    Attributes:
        base: Python, torch and the model, in GB.
        of_tile: MB per gene: counts of one tile are dense, however many cells there are.
        of_cell: kB per cell, whatever the genes.
        of_count: Bytes per cell and gene.
    """

    base: float
    of_tile: float
    of_cell: float
    of_count: float

    def gigabytes(self, cells: int, genes: int) -> float:
        """Peak memory of a slide in GB (10⁹ bytes)."""
        of_cells = cells * (self.of_cell / 1e6 + self.of_count * genes / 1e9)
        return self.base + self.of_tile * genes / 1e3 + of_cells


# Peaks of ContextModel without image, a process for each run: 5,000 and 20,000 synthetic cells ×
# 250, 500 and 1,000 genes, 100 to 160 of them seen in a cell; and, for fit, the 50,000 × 500 of
# docs/benchmarks.md. Non-negative least squares; the worst point is off by 0.05 GB.
FIT = Memory(base=1.235, of_tile=0.534, of_cell=13.1, of_count=0.0)
EMBED = Memory(base=1.206, of_tile=0.155, of_cell=11.4, of_count=1.6)
