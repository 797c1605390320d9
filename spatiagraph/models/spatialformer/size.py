"""Sizes of SpatialFormer."""

from typing import Any

TINY: dict[str, Any] = {"channels": 64, "num_layers": 2, "heads": 8, "dropout": 0.0}
"""For tests and laptops without GPU. At this size dropout hides which cells go together."""
BASE: dict[str, Any] = {"channels": 512, "num_layers": 10, "heads": 64}
"""The published configuration."""
SIZES = {"tiny": TINY, "base": BASE}
"""Sizes by name."""
