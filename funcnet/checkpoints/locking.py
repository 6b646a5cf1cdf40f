"""One process writes into a folder at a time: a lock that is free again when its holder ends in whatever way."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from funcnet.errors import CheckpointError, extra, translated
from funcnet.made import leading
from funcnet.reading import plain_file

__all__ = ["held"]

# The system drops the lock of a process that is gone, also after kill -9. Who holds it is in a file of its own, because
# on some systems nobody else can read a file that is locked.
LOCK, HOLDER = ".lock", ".holder"


@contextmanager
def held(name: str, folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if necessary, against other processes. The same process may hold it several times.

    Raises:
        CheckpointError: another process holds it, or the folder cannot be written.
        MissingExtraError: filelock is not installed.
    """
    with leading(name), extra("checkpoint", "filelock"):
        from filelock import FileLock, Timeout
    with translated((OSError, NotImplementedError), CheckpointError, f"{name}: the folder cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        # One lock for all threads, because a checkpoint is written in another one than the training.
        lock = FileLock(os.path.realpath(folder / LOCK), is_singleton=True, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            got = f"{_holder(folder)}; wait for its end, or choose another folder"
            raise CheckpointError(f"{name}: expected no other process to write there, got {got}.") from error
    try:
        if lock.lock_counter == 1:
            with translated(OSError, CheckpointError, f"{name}: the folder cannot be written"):
                (folder / HOLDER).unlink(missing_ok=True)  # what is there may be a pipe, and never end
                (folder / HOLDER).write_text(json.dumps(_self()))
        yield
    finally:
        if lock.lock_counter == 1:
            (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _self() -> list[object]:
    return [os.getpid(), socket.gethostname(), datetime.now(UTC).isoformat(" ", "seconds")]


def _holder(folder: Path) -> str:
    try:
        with plain_file(folder / HOLDER, links=False) as file:
            process, host, since = json.load(file)
    except (OSError, ValueError, TypeError):
        return "one that has just begun"
    return f"process {process} on {host} since {since}"
