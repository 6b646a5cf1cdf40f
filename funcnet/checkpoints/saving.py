"""Checkpoints during training: a function over `fit`'s reports."""

import atexit
import math
import os
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from weakref import WeakSet

import jax
import numpy as np

from funcnet.checkpoints.folder import clear, good_manifest, path_of, steps
from funcnet.checkpoints.locking import held
from funcnet.checkpoints.manifest import plain_metrics
from funcnet.checkpoints.pruning import pruning
from funcnet.checkpoints.run import ELSEWHERE, Snapshot, take, write
from funcnet.checkpoints.tensors import safetensors_module
from funcnet.checkpoints.threads import Threads
from funcnet.checks import check_choice, check_count
from funcnet.errors import CheckpointError, ConfigError, translated
from funcnet.made import leading
from funcnet.types import Report

__all__ = ["saving"]


def saving(
    reports: Iterator[Report],
    folder: str | os.PathLike[str],
    *,
    every: int = 1,
    keep: int = 3,
    monitor: str | None = None,
    mode: str = "min",
    metadata: Any = None,
) -> Generator[Report]:
    """Pass the reports on, and write each of them, or every `every`-th and the last, as a checkpoint.

    A report is copied to the host before it is passed on, and written while training continues. The next save waits for
    the one before. When the reports end, the reader closes this iterator, or the program ends, the last report is saved
    and on the disk.
    A report whose loss is not finite is not saved, because a run should not go back to it. One whose loss is still
    finite and whose state is not, is saved. Its manifest says so, and `restore` prefers an older one whose state is.

    In a run of several processes all of them call this in the same way. Process 0 alone writes, except for arrays that
    no process has completely. Each process writes its own parts of those, while training waits.

    Args:
        reports: `fit(...)`, or another function over it.
        folder: where the checkpoints of this run are. It is made if necessary, and what a killed process left half
            written in it is deleted. No other process can write there until this iterator ends.
        every: reports between two checkpoints.
        keep: how many of the newest good ones to keep. Older ones are deleted when a newer one is on the disk. Damaged
            ones and what others put into the folder do not count and are never deleted. If some of the newest are not
            finite, as many of the newest finite ones are kept too.
        monitor: a metric whose best checkpoint is kept too, for example `"validation_loss"`.
        mode: whether the best is the `"min"` or the `"max"`.
        metadata: as for `save`, or a function of the report that returns it.

    Raises:
        CheckpointError: the folder cannot be written or another process holds it (raised at once), a checkpoint cannot
            be written (raised with the next report), or the folder holds good and finite checkpoints of the first step
            or later, which belong to another run.
        ConfigError: impossible arguments, or a `monitor` that the reports do not have.
        MissingExtraError: without `pip install 'funcnet[checkpoint]'`.

    >>> import tempfile, jax.numpy as jnp, funcnet as fn
    >>> losses = [3.0, 1.0, 2.0, 2.5, 2.2]
    >>> reports = (fn.Report(i, 10 * i, {"loss": loss}, {"kernel": jnp.ones(2)}) for i, loss in enumerate(losses))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     *_, last = fn.checkpoints.saving(reports, folder, keep=2, monitor="loss")
    ...     last.step, fn.checkpoints.steps(folder)
    (40, [10, 30, 40])
    """
    name = f"checkpoints.saving({os.fspath(folder)!r})"
    with leading(name):
        every, keep = check_count("every", every), check_count("keep", keep)
        check_choice("mode", mode, ("min", "max"))
    safetensors_module(name)
    leader = jax.process_index() == 0
    with ExitStack() as stack:
        if leader:
            stack.enter_context(held(name, Path(folder)))
            with translated(OSError, CheckpointError, f"{name}: the folder cannot be written"):
                clear(Path(folder))
        hold = stack.pop_all()
    prune = pruning(name, Path(folder), keep, monitor, mode)

    def store(snapshot: Snapshot) -> None:
        if leader or snapshot.spread:
            write(name, Path(folder), snapshot)
        if leader:
            prune()

    passed = _saving(name, reports, Path(folder) if leader else None, every, monitor, metadata, store, hold)
    _OPEN.add(passed)
    return passed


_OPEN: WeakSet[Generator[Report]] = WeakSet()


@atexit.register
def _close() -> None:
    """Save the last reports while jax still works. Generators that are left open end after that, in no order."""
    with ExitStack() as stack:
        for reports in _OPEN:
            stack.callback(reports.close)


def _saving(name, reports, folder, every, monitor, metadata, store, hold):
    with hold, Threads(1, "checkpoint") as thread:
        writing: Future[None] | None = None
        unsaved = None

        def save(report):
            nonlocal writing, unsaved
            finish()
            snapshot = take(name, report, metadata(report) if callable(metadata) else metadata)
            if snapshot.spread:  # all processes write together, in the same order as their other joint work
                store(snapshot)
            else:
                writing = thread.submit(store, snapshot)
            unsaved = None

        def finish():
            nonlocal writing
            before, writing = writing, None
            if before is not None:
                before.result()

        try:
            for count, report in enumerate(reports, 1):
                if count == 1 and folder is not None:
                    _check_later(name, folder, report.step)
                _check_monitor(name, monitor, report.metrics)
                loss = plain_metrics(name, {"loss": report.metrics.get("loss", 0.0)})["loss"]
                unsaved = report if math.isfinite(loss) else None
                if unsaved is not None and count % every == 0:
                    save(report)
                yield report
        finally:
            if hasattr(reports, "close"):
                reports.close()
            if unsaved is not None:
                save(unsaved)
            finish()


def _check_monitor(name, monitor, metrics):
    scalars = sorted(metric for metric, value in metrics.items() if np.ndim(value) == 0)
    if monitor is not None and monitor not in scalars:
        raise ConfigError(f"{name}: expected monitor to be one of {scalars}, got {monitor!r}.")


def _check_later(name, folder, step):
    later = {other: good_manifest(path_of(folder, other)) for other in steps(folder) if other >= step}
    good = [other for other, manifest in later.items() if manifest is not None and not manifest.not_finite]
    if good:
        got = f"step {good[-1]}; {ELSEWHERE}"
        raise CheckpointError(f"{name}: expected no checkpoint of step {step} or later at the start, got {got}.")
