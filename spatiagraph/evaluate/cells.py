"""``Cells``: expression and positions of the cells of one slide or several."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


class Cells(NamedTuple):
    """Expression and positions of cells, slides one after the other.

    Attributes:
        counts: ``[N, G]``.
        pos: In µm, ``[N, 2]``.
        slide: Section of each, ``[N]``; ``None`` for one section.
        expression: Kind of values of ``counts``.
    """

    counts: csr_matrix
    pos: NDArray[np.float64]
    slide: NDArray[Any] | None
    expression: str
