"""A progress bar: a function over `fit`'s reports."""

import math
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from funcnet.checks import check_count, check_kind, nonnegative
from funcnet.errors import extra
from funcnet.made import leading
from funcnet.training.reports import Position, Reports
from funcnet.types import Report

__all__ = ["progress"]

_MOST = 4  # numbers in a line
_WIDE = 80  # characters, so that there is room for the time remaining
_WORDS = 44  # those of the epoch, a loss and a score
_BAR = 18  # those of a short bar and the clock
_MANY = 200  # arrays of parameters: 300 layers with kernels and biases compile for minutes


def progress(
    reports: Iterable[Report],
    *,
    of: Any = None,
    epochs: int | None = None,
    every: float = 30.0,
    file: Any = None,
) -> Iterator[Report]:
    """Pass on reports unchanged, and show how far the training is and its loss and first metrics.

    In a terminal and in a notebook (with ipywidgets) this is a bar, whose clock also runs while the first step
    compiles, and which moves with the steps of `fit`. Elsewhere, as in a log file, it is a line for the first and the
    last report, and now and then one between them. If a network of `fit` has more than 200 arrays of parameters, it is
    said first that compiling it may take minutes. To show a number this function waits until that is computed.

    Args:
        reports: `fit(...)`, or another function over it.
        of: what `fit(...)` returned, if `reports` come from another function over it. Without it the bar moves with
            the reports.
        epochs: how many there will be. This is known if it is known what `fit` returned.
        every: how many seconds lie between two lines, if lines are printed and no bar is drawn.
        file: where to write; by default to stdout.

    Raises:
        ConfigError: for impossible arguments.
        MissingExtraError: without `pip install 'funcnet[cli]'`.

    >>> import sys, jax.numpy as jnp, funcnet as fn
    >>> reports = (fn.Report(i + 1, 10 * i + 10, {"loss": jnp.array(1 / (i + 1))}, None) for i in range(3))
    >>> for report in fn.training.progress(reports, epochs=3, every=1000.0, file=sys.stdout):
    ...     pass
    epoch 1/3  step 10  loss 1
    epoch 3/3  step 30  loss 0.3333
    """
    with leading("progress"):
        run: Any = reports if of is None else of
        if of is not None:
            check_kind("of", of, Reports, "what fit returned", "write run = fit(…) first")
        total = run.epochs if epochs is None and isinstance(run, Reports) else epochs
        total = None if total is None else check_count("epochs", total)
        every = nonnegative("every", every)
        with extra("cli", "rich"):
            from rich.console import Console
    console = Console(file=file)
    live = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    position = run.position if isinstance(run, Reports) else Position()
    large = f" a network with {position.arrays} arrays of parameters, which may take minutes"
    doing = "compiling" + large * (position.arrays > _MANY)
    shown = (
        _with_bar(reports, position, total, console, doing)
        if live
        else _with_lines(reports, total, every, console.file, doing)
    )
    return _closing(reports, shown)


def _closing(reports, shown):
    try:
        yield from shown
    finally:
        if hasattr(reports, "close"):
            reports.close()


def _with_bar(reports, position, epochs, console, doing):
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    steps, start, epoch, words = position.steps, position.step, 0, ""
    total = epochs if steps is None else steps

    class Bar(Progress):
        def get_renderables(self):
            """What is drawn ten times a second, from a thread of its own: here the bar moves between two reports."""
            for task in self.task_ids:
                done = epoch if steps is None else position.step
                self.update(task, completed=done, description=words or _before_a_report(position, start, epochs, doing))
            return super().get_renderables()

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn()]
    columns += [TextColumn("remaining"), TimeRemainingColumn()] if total and console.width >= _WIDE else []
    with Bar(*columns, console=console) as bar:
        console.show_cursor()  # a signal may end the process at any time, and the terminal would stay without one
        bar.add_task(doing, total=total, completed=0 if steps is None else start)
        for report in reports:
            epoch, words = report.epoch, _line(report, epochs, console.width)
            yield report


def _before_a_report(position, start, epochs, doing):
    """What is done before the first report. The first step must be compiled."""
    if position.step == start:
        return doing
    if position.steps is None or not epochs:
        return f"step {position.step}"
    return f"epoch {(position.step - 1) * epochs // position.steps + 1}/{epochs}"


def _with_lines(reports, total, every, file, doing):
    if doing != "compiling":
        print(doing, file=file, flush=True)
    last, printed, due = None, None, -math.inf
    for last in reports:
        if time.monotonic() >= due:
            print(_line(last, total), file=file, flush=True)
            printed, due = last, time.monotonic() + every
        yield last
    if last is not printed:
        print(_line(last, total), file=file, flush=True)


def _line(report, total, screen=None):
    """The numbers of a report, as many as fit beside the bar of a screen. A narrow one has shorter numbers."""
    scalars = {name: float(value) for name, value in report.metrics.items() if np.ndim(value) == 0}
    digits = 4 if screen is None or screen >= _WIDE else 3
    width = None if screen is None else max(screen // 2, _WORDS) if screen >= _WIDE else screen - _BAR
    words = [f"{name} {value:.{digits}g}" for name, value in list(scalars.items())[:_MOST]]
    words = [f"epoch {report.epoch}{f'/{total}' if total else ''}", f"step {report.step}", *words]
    while width is not None and len(words) > 1 and len("  ".join(words)) > width:
        words.pop(1 if words[1].startswith("step") else -1)
    return "  ".join(words)
