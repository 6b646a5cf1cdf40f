"""The iterator that `fit` returns."""

import sys
import warnings
import weakref
from collections.abc import Generator
from typing import Any

from funcnet.errors import TrainingWarning
from funcnet.types import Report

__all__ = ["Position", "Reports"]


class Position:
    """How far a run is, and how large. `fit` moves it on between its reports."""

    def __init__(self, step: int = 0, steps: int | None = None, arrays: int = 0):
        self.step = step  #: the last one that was started
        self.steps = steps  #: how many there will be in all, if that is known
        self.arrays = arrays  #: of parameters, by whose number compiling takes seconds or minutes


class Reports(Generator[Report, Any, None]):
    """A generator of reports that warns if it is given up before anybody asked for a report.

    `send`, `throw` and `close` are those of the generator. The warning names the line that called the function `name`.
    """

    def __init__(self, reports: Generator[Report, Any, None], name: str, epochs: int, position: Position | None = None):
        self._reports = reports
        self._name = name
        self.epochs = epochs  #: how many passes over the data there will be in all
        self.position = Position() if position is None else position  #: for a bar that moves between two reports
        line = sys._getframe(2)  # that of the call of the function which calls this one
        # A finalizer, and not __del__, because it also runs before the interpreter takes its modules apart.
        self._unused = weakref.finalize(self, _warn_unused, name, line.f_code.co_filename, line.f_lineno)

    def __repr__(self) -> str:
        at = self.position
        if at.steps is None:
            return f"<{self._name}: {self.epochs} epochs>"
        fix = "" if at.step else f"; the training runs while its reports are read: for report in {self._name}(…)"
        return f"<{self._name}: {at.step:,} of {at.steps:,} steps done{fix}>"

    def send(self, value: Any) -> Report:
        self._unused.detach()
        return self._reports.send(value)

    def throw(self, *error: Any) -> Report:
        self._unused.detach()
        return self._reports.throw(*error)

    def close(self) -> None:
        self._unused.detach()
        self._reports.close()


def _warn_unused(name: str, filename: str, line: int) -> None:
    got = f"nobody who reads them, so nothing was trained; write: for report in {name}(…)"
    warnings.warn_explicit(f"{name}: expected its reports to be read, got {got}.", TrainingWarning, filename, line)
