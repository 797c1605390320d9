"""Child process of :mod:`spatiagraph._walk`: opens every object of an HDF5 file.

A script of its own that imports nothing of the package, so that it starts at once.
"""

import json
import sys
from contextlib import suppress

import h5py

_MOST = 100_000  # objects: of more a reader says that they are no slide


def _serve() -> None:
    """Walk through the files that are named on lines of standard input, and say so of each."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(flush=True)  # begun
    for line in sys.stdin:
        with _go_on():
            _walk_through(json.loads(line))
        print(flush=True)


def _walk_through(path: str) -> None:
    """Open the objects of a file and read their attributes; of datasets, find where chunks lie."""
    with h5py.File(path) as file:
        waiting: list[h5py.HLObject] = [file["/"]]
        seen: set[int] = set()
        while waiting and len(seen) < _MOST:
            item = waiting.pop()
            with _go_on():
                for name in item.attrs:
                    with _go_on():
                        item.attrs[name]
            with _go_on():
                if isinstance(item, h5py.Dataset):
                    item.dtype, item.fillvalue, item.chunks and item.id.get_num_chunks()
                elif isinstance(item, h5py.Group):
                    for name in item:
                        with _go_on():
                            link = item.get(name, getlink=True)
                            if not isinstance(link, h5py.HardLink):
                                continue  # into another file, or to what is walked through anyway
                            child = item[name]
                            address = h5py.h5o.get_info(child.id).addr
                            if address not in seen:
                                seen.add(address)
                                waiting.append(child)


def _go_on() -> suppress:
    """What HDF5 notices by itself ends no walk."""
    return suppress(OSError, ValueError, RuntimeError, LookupError, TypeError, MemoryError)


if __name__ == "__main__":
    _serve()
