"""Cases drawn from a seed."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from fuzzing.vendors import VENDORS

WEIGHTS = {
    ("slide", "slide.h5ad"): 22,
    ("prepare", "slide.h5ad"): 4,
    ("search", "embedded.h5ad"): 5,
    ("evaluate", "embedded.h5ad"): 1,
    ("folder", "slide.zarr"): 9,
    ("slide", "slide.zarr"): 2,
    **{("folder", name): 7 for name in VENDORS},
    ("molecules", "xenium"): 4,
    ("image", "image.png"): 3,
    ("image", "image.jpg"): 3,
    ("image", "image.tif"): 3,
    ("image", "image.ome.tif"): 4,
    ("model", "model"): 8,
    ("generator", "generator"): 6,
    ("run", "run"): 2,
    ("resume", "stopped"): 3,
    ("index", "index"): 7,
    ("region", "region.geojson"): 5,
    ("region", "region.csv"): 3,
    ("panel", "panel.json"): 2,
    ("options", "every"): 24,
}
"""How often each door is tried with each base, of every 140 cases or so."""
SLOW = {("run", "run"), ("evaluate", "embedded.h5ad"), ("slide", "slide.zarr")}
"""Left out of the cases of the normal run."""


class Case(NamedTuple):
    """One try: a door, what comes in by it, and the seed of the damage."""

    door: str
    base: str
    seed: int


def draw(seed, number, quick=False):
    """Cases of a seed, each door in its share and in an order of chance."""
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in WEIGHTS if not (quick and pair in SLOW)]
    weights = np.array([WEIGHTS[pair] for pair in pairs], dtype=float)
    share = weights / weights.sum() * number
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share)[: number - counts.sum()]] += 1
    cases = [
        Case(*pair, int(rng.integers(2**31)))
        for pair, count in zip(pairs, counts, strict=True)
        for _ in range(count)
    ]
    return [cases[i] for i in rng.permutation(len(cases))]


def table(outcomes):
    """Number of outcomes of each class, by what came in."""
    counted = Counter((case.base, outcome.kind) for case, outcome in outcomes)
    bases = sorted({base for base, _ in counted})
    kinds = ["clean", "traceback", "silent", "crash", "hang", "partial", "vague"]
    lines = [" ".join([f"{'':16}", *(f"{kind:>9}" for kind in kinds), f"{'all':>7}"])]
    for base in [*bases, "all"]:
        row = [
            sum(n for (b, k), n in counted.items() if base in (b, "all") and k == kind)
            for kind in kinds
        ]
        lines.append(" ".join([f"{base:16}", *(f"{n:9}" for n in row), f"{sum(row):7}"]))
    return "\n".join(lines)
