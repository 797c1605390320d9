"""Sizes of SpatialFormer."""

from typing import Any

TINY: dict[str, Any] = {"channels": 64, "num_layers": 2, "heads": 8}
"""For tests and laptops without GPU."""
BASE: dict[str, Any] = {"channels": 512, "num_layers": 10, "heads": 64}
"""The published configuration."""
SIZES = {"tiny": TINY, "base": BASE}
"""Sizes by name."""
