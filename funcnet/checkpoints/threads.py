"""Threads for work beside the training, which do it too when the interpreter ends."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["Threads"]


class Threads(ThreadPoolExecutor):
    """A pool that never refuses work.

    Once the main program has ended, Python starts no more threads, though what was begun is still to be finished: a
    checkpoint is written, or a generator that holds a report is closed. Whoever asks for the work then does it.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            done: Future[Any] = Future()
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)
            return done
