"""Checkpoints while training: a function over `fit`'s reports."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from funcnet.checkpoints.folder import clear, discard, path_of, problem_of, read_manifest, steps
from funcnet.checkpoints.run import ELSEWHERE, Snapshot, take, write
from funcnet.checkpoints.tensors import safetensors_module
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
) -> Iterator[Report]:
    """Hand reports on, and write each of them, or each `every`-th and the last, as a checkpoint.

    A report is copied to the host before it is handed on, and written while training goes on; the next save waits for
    the one before. When the reports end, or whoever reads them closes this iterator, the last report is saved and on
    the disk. A report whose loss is not finite is no state to go back to and is not saved.

    In a run of several processes all call this alike. Process 0 alone writes, except for arrays that no process has
    the whole of: of those each writes its parts, while training waits.

    Args:
        reports: `fit(...)`, or another function over it.
        folder: where the checkpoints of this run lie; it is made if need be, and what a killed process left half
            written in it is taken away.
        every: reports between two checkpoints.
        keep: how many of the newest to keep. Older ones are deleted when a newer one is on the disk; damaged ones
            never.
        monitor: a metric whose best checkpoint is kept too, for example `"validation_loss"`.
        mode: whether the best is the `"min"` or the `"max"`.
        metadata: as for `save`.

    Raises:
        CheckpointError: at once if the folder cannot be written; a checkpoint that cannot be written, with the next
            report; the folder holds good checkpoints of later steps, which are another run's.
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
    if leader:
        with translated(OSError, CheckpointError, f"{name}: the folder cannot be written"):
            clear(Path(folder))
    sign = 1 if mode == "min" else -1

    def store(snapshot: Snapshot) -> None:
        if leader or snapshot.spread:
            write(name, Path(folder), snapshot)
        if leader:
            _prune(Path(folder), keep, monitor, sign)

    return _saving(name, reports, Path(folder) if leader else None, every, monitor, metadata, store)


def _saving(name, reports, folder, every, monitor, metadata, store):
    with ThreadPoolExecutor(1, "checkpoint") as thread:
        writing: Future[None] | None = None
        unsaved = None

        def save(report):
            nonlocal writing, unsaved
            finish()
            snapshot = take(name, report, metadata)
            if snapshot.spread:  # the processes write together, in the order of all else that they do together
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
                unsaved = report if math.isfinite(float(report.metrics.get("loss", 0.0))) else None
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
    later = [other for other in steps(folder) if other >= step and problem_of(path_of(folder, other)) is None]
    if later:
        got = f"step {later[-1]}; {ELSEWHERE}"
        raise CheckpointError(f"{name}: expected no checkpoint of step {step} or later at the start, got {got}.")


def _prune(folder, keep, monitor, sign):
    """Delete good checkpoints but the newest `keep` and the best."""
    found = steps(folder)
    kept = {*found[-keep:], *([] if monitor is None else _best(folder, found, monitor, sign))}
    for step in found:
        path = path_of(folder, step)
        if step not in kept and problem_of(path) is None:
            discard(path)


def _best(folder, found, monitor, sign):
    """The first step whose metric is the best, in a list; `[]` if none can be read."""
    values = {}
    for step in found:
        try:
            value = sign * read_manifest(path_of(folder, step)).metrics.get(monitor, math.nan)
        except CheckpointError:
            continue
        values[step] = math.inf if math.isnan(value) else value
    return sorted(values, key=lambda step: (values[step], step))[:1]
