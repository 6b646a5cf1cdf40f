"""Batches that a thread reads ahead, while training uses the ones before."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from funcnet.checks import check_count
from funcnet.data.passes import Pass, check_source
from funcnet.made import leading

__all__ = ["prefetch"]


def prefetch(batches: Iterable[Any] | Callable[[], Any], size: int = 2) -> Iterable[Any]:
    """The same batches. A thread holds up to `size` of them ready.

    This helps if reading takes long and waits, for example for a disk. Each pass has its own thread, which ends with
    the pass. An error of `batches` is raised when its batch is due. Arrays are copied as they are read, so `batches`
    may fill one buffer again and again.

    Args:
        batches: an iterable, or a function that gives one; each `iter` or call of it is a pass. If it, or its iterator,
            has `get_state` and `set_state`, the iterator of the result has them too. Their state is the one after the
            batch that was handed out last, not after those that were read ahead.
        size: batches to hold ready, 1 or more.

    Raises:
        ConfigError: `size` is not a positive integer.
        DataError: `batches` is neither.

    >>> import funcnet as fn
    >>> list(fn.data.prefetch(range(5)))
    [0, 1, 2, 3, 4]
    """
    with leading("prefetch"):
        size = check_count("size", size)
        check_source("batches to be an iterable, or a function that gives one", batches)
    return _Prefetched(batches, size)


class _Prefetched:
    def __init__(self, batches: Any, size: int):
        self._batches, self._size = batches, size

    def __iter__(self) -> Iterator[Any]:
        reading = Pass(self._batches)
        return (_PositionedReader if reading.has_position else _Reader)(self._batches, self._size, reading)


class _Reader:
    """One pass. The thread starts with the first batch. It holds no reference to this object, so it can end with it."""

    def __init__(self, batches: Any, size: int, reading: Pass):
        self._batches, self._reading = batches, reading
        self._ready: queue.Queue[Any] = queue.Queue(size)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._position = reading.position()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._stop.is_set():
            raise StopIteration
        if self._thread is None:
            arguments = (self._reading, self._ready, self._stop)
            self._thread = threading.Thread(target=_read, args=arguments, name="prefetch", daemon=True)
            self._thread.start()
        batch, position, error = self._ready.get()
        if error is not None:
            self.close()
            raise error
        self._position = position
        return batch

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __del__(self) -> None:
        self._stop.set()


class _PositionedReader(_Reader):
    def get_state(self) -> Any:
        return self._position

    def set_state(self, position: Any) -> None:
        self.close()
        with leading("prefetch"):
            reading = Pass(self._batches, position)
        self.__init__(self._batches, self._ready.maxsize, reading)


def _read(reading: Pass, ready: queue.Queue[Any], stop: threading.Event) -> None:
    """Fill `ready` with `(batch, position after it, None)`, and at the end with the error that ended the pass."""
    ended: BaseException | None = None
    while ended is None and not stop.is_set():
        try:
            item = next(reading), reading.position(), None
        except BaseException as error:  # every kind is for the reader, because this thread cannot raise it
            ended = error
            item = None, None, error
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                break
            except queue.Full:
                continue
