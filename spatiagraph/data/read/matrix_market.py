"""Matrix Market files of counts, possibly gzipped, checked before compiled code reads them."""

import gzip
import re
import warnings
from io import BufferedReader
from pathlib import Path

from scipy.io import mmread
from scipy.sparse import csr_matrix

from spatiagraph._reasons import reason
from spatiagraph.data.read.tables import DAMAGED, check_text

_BANNER = b"%%MatrixMarket matrix coordinate integer general"
_FIELDS = (b"integer", b"real", b"unsigned-integer")
_SIZES = re.compile(rb"\s*(\d{1,10})\s+(\d{1,10})\s+(\d{1,18})\s*")
_LARGEST = 2**31  # of an axis: indices are of 32 bits
_LINE = 10_000  # bytes; comments are shorter


def read_matrix_market(path: Path) -> csr_matrix:
    """Read a sparse matrix of real numbers, ``[rows, columns]``.

    The reader of scipy trusts the sizes in the header and ends the process on a NUL byte, so both
    are looked at first.

    Args:
        path: The file.

    Raises:
        ValueError: It is damaged, incomplete, or holds another kind of matrix; names it.
    """
    try:
        breaks = check_text(path)
        with _opened(path) as stream:
            _check_header(stream, breaks)
        with _opened(path) as stream, warnings.catch_warnings():
            # scipy 1.18 announces another class of matrix
            warnings.filterwarnings("ignore", message=".*default value for `spmatrix`")
            return csr_matrix(mmread(stream))
    except DAMAGED as err:
        raise ValueError(
            f"Expected a Matrix Market file, got {path.name}: {reason(err)}. The file is "
            "damaged or incomplete: copy it again"
        ) from err


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _check_header(stream: gzip.GzipFile | BufferedReader, breaks: int) -> None:
    """Refuse a header that is none, or promises more than follows; ``breaks`` counts the lines."""
    banner = stream.readline(_LINE)
    words = banner.lower().split()
    if words[:3] + words[4:] != _BANNER.lower().split()[:3] + [b"general"] or (
        words[3] not in _FIELDS
    ):
        raise ValueError(f"no line {_BANNER.decode()!r} but {_shown(banner)}")
    line = b"%"
    while line.startswith(b"%") or (line and not line.strip()):
        line = stream.readline(_LINE)
    found = _SIZES.fullmatch(line)
    if found is None:
        raise ValueError(f"no sizes but {_shown(line)}")
    rows, columns, entries = map(int, found.groups())
    if max(rows, columns) >= _LARGEST or entries > breaks:
        raise ValueError(f"{entries:,} entries of {rows:,} × {columns:,} in {breaks:,} lines")


def _shown(line: bytes) -> str:
    return repr(line[:60].decode("ascii", "replace").strip())
