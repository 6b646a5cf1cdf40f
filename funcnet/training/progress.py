"""A progress bar: a function over `fit`'s reports."""

import math
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from funcnet.checks import check_count, nonnegative
from funcnet.errors import extra
from funcnet.made import leading
from funcnet.training.reports import Reports
from funcnet.types import Report

__all__ = ["progress"]

_MOST = 4  # numbers in a line


def progress(
    reports: Iterable[Report], *, epochs: int | None = None, every: float = 30.0, file: Any = None
) -> Iterator[Report]:
    """Pass on reports unchanged, and show how far the training is and its loss and first metrics.

    In a terminal and in a notebook (with ipywidgets) this is a bar, which also runs while the first step compiles.
    Elsewhere, as in a log file, it is a line for the first and the last report, and now and then one between them. To
    show a number it waits until that is computed.

    Args:
        reports: `fit(...)`, or another function over it.
        epochs: how many there will be. This is known if `reports` comes from `fit` itself.
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
        total = reports.epochs if epochs is None and isinstance(reports, Reports) else epochs
        total = None if total is None else check_count("epochs", total)
        every = nonnegative("every", every)
        with extra("cli", "rich"):
            from rich.console import Console
    console = Console(file=file)
    live = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    shown = _with_bar(reports, total, console) if live else _with_lines(reports, total, every, console.file)
    return _closing(reports, shown)


def _closing(reports, shown):
    try:
        yield from shown
    finally:
        if hasattr(reports, "close"):
            reports.close()


def _with_bar(reports, total, console):
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn()]
    columns += [TextColumn("remaining"), TimeRemainingColumn()] if total else []
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling", total=total)
        for report in reports:
            bar.update(task, completed=report.epoch, description=_line(report, total))
            yield report


def _with_lines(reports, total, every, file):
    last, printed, due = None, None, -math.inf
    for last in reports:
        if time.monotonic() >= due:
            print(_line(last, total), file=file, flush=True)
            printed, due = last, time.monotonic() + every
        yield last
    if last is not printed:
        print(_line(last, total), file=file, flush=True)


def _line(report, total):
    scalars = {name: float(value) for name, value in report.metrics.items() if np.ndim(value) == 0}
    words = [f"{name} {value:.4g}" for name, value in list(scalars.items())[:_MOST]]
    return "  ".join([f"epoch {report.epoch}{f'/{total}' if total else ''}", f"step {report.step}", *words])
