"""The iterator that `fit` returns."""

import sys
import warnings
import weakref
from collections.abc import Generator
from typing import Any

from funcnet.errors import TrainingWarning
from funcnet.types import Report

__all__ = ["Reports"]


class Reports(Generator[Report, Any, None]):
    """A generator of reports that warns if it is given up before anybody asked for a report.

    `send`, `throw` and `close` are those of the generator. The warning names the line that called the function `name`.
    """

    def __init__(self, reports: Generator[Report, Any, None], name: str, epochs: int):
        self._reports = reports
        self.epochs = epochs  #: how many passes over the data there will be in all
        line = sys._getframe(2)  # that of the call of the function which calls this one
        # A finalizer, and not __del__, because it also runs before the interpreter takes its modules apart.
        self._unused = weakref.finalize(self, _warn_unused, name, line.f_code.co_filename, line.f_lineno)

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
