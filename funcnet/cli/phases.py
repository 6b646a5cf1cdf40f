"""What a command is doing, with a clock, while it does it."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["phase"]

_SHOWN: list[Any] = []  # the display on the screen, if there is one: a phase within another is a line below it


@contextlib.contextmanager
def phase(words: str) -> Iterator[None]:
    """Show on a terminal what is being done and for how long. It is gone afterwards.

    It is written to stderr, because the output of a command may be for other programs. Nothing may be printed to stdout
    meanwhile.
    """
    if not sys.stderr.isatty():
        yield
        return
    with contextlib.ExitStack() as stack:
        if not _SHOWN:
            _SHOWN.append(stack.enter_context(_display()))
            stack.callback(_SHOWN.clear)
        (display,) = _SHOWN
        task = display.add_task(words, total=None)
        stack.callback(display.remove_task, task)
        yield


def _display() -> Any:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    class Display(Progress):
        def __enter__(self):
            super().__enter__()
            self.console.show_cursor()  # a signal may end the process at any time, and the terminal would stay without
            return self

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    # What is written to stderr goes above. Output goes where it would without this.
    return Display(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
