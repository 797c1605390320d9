"""``write_h5ad``: an AnnData as a file that is whole or not there, also when the disk is full."""

import io
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import anndata
import h5py

from spatiagraph._files import replaced_file
from spatiagraph.data.writable import make_names_writable, make_values_writable


def write_h5ad(adata: anndata.AnnData, path: str | os.PathLike[str]) -> Path:
    """Write an AnnData; a failed write leaves the old file.

    Args:
        adata: What to write. Columns of repeated strings become categorical, as AnnData does it;
            values and names that a file cannot hold become such as it can, with a warning.
        path: The file; its folder is made.

    Raises:
        ValueError: It holds what is neither numbers nor text; nothing is written.
        OSError: If the place cannot be written to or is full.
    """
    said = make_values_writable(adata) + make_names_writable(adata, strict=False)
    adata.strings_to_categoricals()
    with replaced_file(path) as new, _Sink(new) as sink, _interrupts_held(sink):
        try:
            with h5py.File(sink, "w") as file:
                anndata.io.write_elem(file, "/", adata)
        except (OSError, RuntimeError, KeyError) as err:  # HDF5 missed what was not written
            raise sink.error or err from err
        if sink.error is not None:
            raise sink.error
    if said:
        warnings.warn(f"Written to {Path(path).name}: {'; '.join(said)}", stacklevel=2)
    return Path(path)


@contextmanager
def _interrupts_held(sink: "_Sink") -> Iterator[None]:
    """Let HDF5 finish with nothing more to write before Ctrl-C, or what ends a command, is heard.

    An exception in the middle of its calls would end the process as a full disk would.
    """
    received: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        received.append(number)
        sink.error = sink.error or InterruptedError("Interrupted")

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        before = {n: handler for n, handler in handlers.items() if callable(handler)}
    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


class _Sink(io.RawIOBase):
    """A file that takes everything, and remembers the first error instead of raising it.

    HDF5 cannot close a file that it failed to write to: handles stay behind, and the process ends
    in a segmentation fault. So it never hears of the error; we raise it once HDF5 is done.
    """

    def __init__(self, path: Path):
        self.error: OSError | None = None  # set: nothing more is written
        self._file = path.open("w+b", buffering=0)

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = self._file.readinto(view) or 0
        if self.error is not None and size < len(view):  # never written: zeros
            view[size:] = bytes(len(view) - size)
            size = len(view)
        return size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += self._file.write(view[done:]) or 0
            except OSError as err:
                self.error = err
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return self._file.truncate(size)
            except OSError as err:
                self.error = err
        return size or 0

    def close(self) -> None:
        self._file.close()
        super().close()
