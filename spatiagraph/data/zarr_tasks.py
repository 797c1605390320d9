"""Writers of zarr that go on in threads of their own, ended with the call that began them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from zarr.core.sync import sync


@contextmanager
def zarr_writers_ended() -> Iterator[None]:
    """End all that zarr still writes when a block fails or is interrupted.

    Zarr writes the chunks of an array as tasks of an event loop. The first that fails ends the
    call; the others would go on to write into a folder that is about to be removed.
    """
    try:
        yield
    except BaseException:  # also on Ctrl-C: the threads would outlive the call
        sync(_cancel_others())
        raise


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
