"""Values of genes that a map can be coloured by, packed into a page."""

import base64
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spatiagraph.data.slide import Slide
from spatiagraph.data.variability import gene_variability

_BUDGET = 3_000_000  # values of a byte each; a third more as text


class GeneValues(NamedTuple):
    """Values of a gene, one byte per cell.

    Attributes:
        data: Base64 of ``uint8``: 0 is ``low``, 255 is ``high``.
        low: Least value.
        high: Largest value.
    """

    data: str
    low: float
    high: float


def gene_values(
    slide: Slide, rows: NDArray[np.int64], *, budget: int = _BUDGET
) -> dict[str, GeneValues]:
    """Values of the genes of a slide at some cells: log(1 + count) of counts.

    Args:
        slide: The slide.
        rows: The cells, ``[N']``.
        budget: Values at most; of more genes than that, the most variable ones are taken.

    Returns:
        Gene → values, in order of names.
    """
    num = min(slide.num_genes, budget // max(len(rows), 1))
    chosen = np.arange(slide.num_genes)
    if num < slide.num_genes:
        order = np.argsort(-gene_variability(slide.counts, slide.expression), kind="stable")
        chosen = order[:num]
    values = slide.counts[rows][:, chosen].tocsc()
    packed, symbols = {}, slide.symbols
    for column, gene in enumerate(chosen):
        one = values[:, [column]].toarray().ravel().astype(np.float64)
        one = np.log1p(one) if slide.expression == "counts" else one
        low, high = (float(one.min()), float(one.max())) if len(one) else (0.0, 0.0)
        span = high - low if high > low else 1.0
        code = np.round(255 * (one - low) / span).astype(np.uint8)
        packed[symbols[gene]] = GeneValues(base64.b64encode(code.tobytes()).decode(), low, high)
    return dict(sorted(packed.items(), key=lambda item: item[0].lower()))
