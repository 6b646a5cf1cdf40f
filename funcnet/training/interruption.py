"""Stops from outside: signals that ask a run to stop, and a watchdog for a run that hangs."""

import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

from funcnet.checks import positive

__all__ = ["HANG_UP", "STOPPING", "Stop", "Watchdog", "stop_on_signals"]

HANG_UP = getattr(signal, "SIGHUP", None)  #: of a terminal that is closed; Windows has none
STOPPING = (signal.SIGTERM, signal.SIGINT, *([] if HANG_UP is None else [HANG_UP]))


class Stop:
    """`fit` calls it after each chunk with the number of steps done. It returns whether to end there."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None  #: the signal that arrived

    def __call__(self, step: int) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signals(*signals: signal.Signals) -> Iterator[Stop]:
    """While it is open, SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a closed terminal) end a `fit` with a last report.

    `fit(..., stop=stop)` finishes the steps under way, about one second of work. It then yields a report and ends. So
    `checkpoints.saving` around it leaves a checkpoint of exactly that step. A second SIGTERM or SIGINT has the effect
    that it had before; SIGHUP may come twice when one terminal is closed. Signals that are ignored stay ignored, as
    SIGHUP under nohup. Only the main thread can receive signals. In other threads nothing changes.

    Args:
        signals: those to listen to, all three by default.

    >>> import os, signal, jax.numpy as jnp, funcnet as fn
    >>> data, model, loss = (jnp.ones((4, 1)), jnp.ones((4, 1))), fn.layers.dense(1), fn.losses.mean_squared_error
    >>> with fn.training.stop_on_signals() as stop:
    ...     for report in fn.training.fit(model, loss, fn.optimizers.sgd(0.1), data, epochs=1000, stop=stop):
    ...         if report.step == 3:
    ...             os.kill(os.getpid(), signal.SIGTERM)
    >>> report.step < 1000, stop.signal.name
    (True, 'SIGTERM')
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    found = {number: signal.getsignal(number) for number in signals or STOPPING}
    before = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal = signal.Signals(number)
        if number != HANG_UP:
            signal.signal(number, before[stop.signal])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watchdog:
    """Ends the process after `seconds` without progress, and prints the stacks of all threads to stderr.

    A step that hangs in a collective runs no Python code that could raise. So the process must end, and whoever started
    it must start it again from the last checkpoint.
    """

    # Python has one timer for the whole process. It is set to the earliest of these times, however many runs there are.
    _ends: ClassVar[dict["Watchdog", float]] = {}
    _lock = threading.RLock()  # a run that is collected as garbage may pause its own within

    def __init__(self, seconds: float | None):
        self.seconds = None if seconds is None else positive("watchdog", seconds)

    def progress(self) -> None:
        """The time starts again."""
        self._set(self.seconds)

    def pause(self) -> None:
        """What follows may take any length of time."""
        self._set(None)

    def _set(self, seconds: float | None) -> None:
        if self.seconds is None:
            return
        now = time.monotonic()
        with self._lock:
            self._ends.pop(self, None)
            left = [max(end - now, 1e-3) for end in list(self._ends.values())]  # for a time that is past
            if seconds is not None:
                self._ends[self] = now + seconds
                left.append(seconds)
            if left:
                faulthandler.dump_traceback_later(min(left), exit=True, file=sys.__stderr__ or sys.stderr)
            else:
                faulthandler.cancel_dump_traceback_later()
