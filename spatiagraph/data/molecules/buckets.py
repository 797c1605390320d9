"""Rows that are split among files on disk, each small enough to be sorted in memory."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_MOST = 200  # files that are open at once


def bucket_of(sizes: NDArray[np.integer], at_once: int) -> NDArray[np.int64]:
    """Bucket of each of some groups of rows, in order, so that none holds many more than its size.

    Args:
        sizes: Rows of each group, ``[K]``.
        at_once: Rows of a bucket; more where there would be over 200 buckets.
    """
    before = np.cumsum(sizes) - sizes
    return before // max(at_once, int(np.sum(sizes)) // _MOST + 1)


class Buckets:
    """Rows of tables by bucket, on disk.

    Rows of a bucket stay in the order they came in. Leaving the context closes and deletes all.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writers: dict[int, pa.RecordBatchFileWriter] = {}

    def __enter__(self) -> "Buckets":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, columns: dict[str, NDArray], bucket: NDArray[np.int64]) -> None:
        """Write rows to their buckets.

        Args:
            columns: The same columns each time, ``[M]`` each.
            bucket: Bucket of each row, ``[M]``.
        """
        if not len(bucket):
            return
        order = np.argsort(bucket, kind="stable")
        numbers, start = np.unique(bucket[order], return_index=True)
        for number, rows in zip(numbers.tolist(), np.split(order, start[1:]), strict=True):
            batch = pa.RecordBatch.from_pydict({k: pa.array(v[rows]) for k, v in columns.items()})
            if number not in self._writers:
                path = str(self._folder / f"{number}.arrow")
                self._writers[number] = pa.ipc.new_file(path, batch.schema)
            self._writers[number].write_batch(batch)

    def drain(self) -> Iterator[tuple[int, dict[str, NDArray]]]:
        """Each bucket with its rows, in order; its file is deleted once it was read."""
        for writer in self._writers.values():
            writer.close()
        numbers, self._writers = sorted(self._writers), {}
        for number in numbers:
            path = self._folder / f"{number}.arrow"
            with pa.ipc.open_file(str(path)) as file:
                table = file.read_all()
            yield number, {name: table[name].to_numpy() for name in table.column_names}
            path.unlink()
