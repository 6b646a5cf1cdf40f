"""`funcnet train`: from options, or from a run that was stopped, to weights, metrics and plots in one folder."""

import contextlib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from funcnet import checkpoints, logs, metrics, optimizers, parallel, training, trees
from funcnet.checkpoints.folder import good_manifest, path_of
from funcnet.checkpoints.locking import held
from funcnet.cli import options
from funcnet.cli.ending import is_finished, save_results
from funcnet.cli.folders import (
    BOARD,
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    WEIGHTS,
    check_unchanged,
    facts_of,
    fingerprint,
    is_first,
    new_folder,
    restore_run,
)  # fmt: skip
from funcnet.cli.history import History
from funcnet.cli.launch import be_silent, stop_with_launcher
from funcnet.cli.networks import LOSS, build_model, build_optimizer, build_schedule, classes_of, run_rows
from funcnet.cli.sessions import SESSIONS, timed
from funcnet.cli.tables import MOST_CLASSES, new_table
from funcnet.data.batching import count_steps
from funcnet.errors import ConfigError, MissingExtraError
from funcnet.made import leading
from funcnet.reading import shown
from funcnet.training.interruption import HANG_UP, Stop
from funcnet.types import Layer, Optimizer, Report, Schedule

__all__ = ["final_results", "train"]


def train(chosen: options.Train) -> int:
    """Train, and write weights, options, metrics and plots into one folder."""
    _check_packages(chosen)
    if chosen.debug_nans:
        jax.config.update("jax_debug_nans", True)  # before anything is compiled: later it has no effect
    stop_with_launcher()
    parallel.start(chosen.coordinator, chosen.num_processes, chosen.process_id, devices=chosen.devices)
    with contextlib.ExitStack() as stack, training.stop_on_signals() as stop:
        if jax.process_index() > 0:  # the same steps as process 0, which alone prints and writes
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        try:
            return _train(chosen, stop)
        except OSError:
            if stop.signal is None or stop.signal != HANG_UP:
                raise
            be_silent()  # a terminal that is closed takes no text
            return 128 + stop.signal


class _Job(NamedTuple):
    """Everything that is made from the options and the data."""

    training_rows: Any
    watched: Any  #: the rows that validate each report: held out, or with --patience a part of the training rows
    held_out: Any
    shape: tuple[int, ...]
    classes: int
    model: Layer
    optimizer: Optimizer
    schedule: Schedule
    like: Any  #: the shapes of the training state
    epoch_steps: int
    steps: int


def _job(chosen: options.Train) -> _Job:
    training_rows, watched, held_out = run_rows(chosen)
    x, target = training_rows
    shape, classes = x.shape[1:], classes_of(target, watched[1], held_out[1])
    with leading("funcnet train: --batch-size"):
        epoch_steps = count_steps(len(x), chosen.batch_size, drop_last=False)
    steps = chosen.epochs * epoch_steps
    model, optimizer = build_model(chosen, shape, classes), optimizers.guarded(build_optimizer(chosen, steps))
    schedule = build_schedule(chosen, steps)
    like = jax.eval_shape(lambda: training.create_state(model, optimizer, chosen.seed, x))
    return _Job(
        training_rows, watched, held_out, shape, classes, model, optimizer, schedule, like, epoch_steps,
        steps,
    )  # fmt: skip


def _train(chosen: options.Train, stop: Stop) -> int:
    if chosen.resume is not None:
        check_unchanged(chosen.resume, facts_of(chosen.resume))
    job = _job(chosen)
    sha256 = fingerprint(*job.training_rows)
    facts = {"classes": job.classes, "shape": job.shape, "data_sha256": sha256, "options": options.kept(chosen)}
    if _any(stop.signal is not None):
        print(f"stopped by {_name(stop)} before the first step")
        return 128 + (stop.signal or signal.SIGTERM)
    folder = new_folder(chosen) if chosen.resume is None else chosen.resume
    with held(str(folder), folder) if is_first() else contextlib.nullcontext():
        return _train_in(folder, chosen, job, facts, stop)


def _name(stop: Stop) -> str:
    return "a signal to another process" if stop.signal is None else stop.signal.name


def _train_in(folder: Path, chosen: options.Train, job: _Job, facts: dict[str, Any], stop: Stop) -> int:
    start, known = (None, {}) if chosen.resume is None else restore_run(folder, job.like, facts["data_sha256"])
    history = History(folder / HISTORY, job.schedule)
    if chosen.resume is not None and (start is None or start.step >= job.steps):
        _check_unfinished(folder, job)
    past = _past(history, start, known.get("metrics", ""))
    if chosen.patience is not None:
        past = _judged(past, folder / CHECKPOINTS)
    if chosen.resume is not None and start is None:
        print("no checkpoint yet: starting from the beginning")
    if is_first():
        options.write_config(chosen, folder / CONFIG)
        if (arrays := len(jax.tree.leaves(job.like.optimizer.params))) > 200:
            print(f"compiling a network with {arrays} arrays of parameters, which may take minutes", flush=True)
    started = time.perf_counter()
    last = None
    trained = _reports(chosen, job, folder, history, facts, start, stop)
    reports = _after(past, _logged(trained, chosen, job, folder, started) if is_first() else trained)
    if chosen.patience is not None:
        reports = training.early_stopping(reports, patience=chosen.patience)
    for last in _with_progress(reports, chosen.epochs, 0 if start is None else start.step):
        if last.step < job.steps and _any(stop.signal is not None):
            trained.close()  # after this the checkpoint is on the disk
            print(f"stopped by {_name(stop)} at step {last.step}, epoch {last.epoch}; go on with")
            print(f"funcnet train --resume {shown(folder)}")
            return 0
    assert last is not None  # fit yields at least one report, or raises
    final = last.state
    if final is None:  # the best report is older than the restart
        final = checkpoints.restore(folder / CHECKPOINTS, job.like, step=last.step)[0].state
    params, state = trees.on_host((final.optimizer.params, final.model))
    if is_first():
        rows = {"training": job.training_rows, "held out": job.held_out}
        batch_size = min(1024, len(job.held_out[0]))  # one size for both, so that they share a compiled program
        results = {
            name: final_results(job.model, params, state, data, job.classes, batch_size) for name, data in rows.items()
        }
        facts |= {"steps": job.steps, "metrics": history.text}
        plots = save_results(folder, params, state, history.rows, results["held out"], facts)
        _show_results(chosen, rows, results)
        steps, seconds = last.step - (0 if start is None else start.step), time.perf_counter() - started
        print(f"{trees.total_size(params):,} parameters, {steps:,} steps in {seconds:.1f} s")
        print("\nplots   ", *map(shown, plots), sep="  ")
        print(f"weights  {shown(folder / WEIGHTS)}")
        print(f"metrics  {shown(folder / HISTORY)}")
    return 0


def _any(here: bool) -> bool:
    """Whether it is true in any process. All processes must call this together."""
    return here if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(here)).any())


def _reports(chosen, job, folder, history, facts, start, stop) -> Generator[Report]:
    """Train from the beginning or from `start`, with a checkpoint per epoch. A finished run gives no reports."""
    if start is not None and start.step >= job.steps:
        return (report for report in ())
    reports = training.fit(
        job.model, LOSS, job.optimizer, job.training_rows, engine=chosen.engine, epochs=chosen.epochs,
        batch_size=chosen.batch_size, accumulate=chosen.accumulate, key=chosen.seed,
        state=None if start is None else start.state,
        validation=job.watched, metrics={"accuracy": metrics.accuracy()}, layout=_layout(chosen), stop=stop,
        watchdog=chosen.watchdog,
    )  # fmt: skip
    # A row is written before its checkpoint, which holds all rows so far.
    return checkpoints.saving(
        history.recorded(reports), folder / CHECKPOINTS, keep=chosen.keep_checkpoints,
        metadata=lambda report: {**facts, "metrics": history.text},
        monitor=None if chosen.patience is None else "validation_loss",
    )  # fmt: skip


def _logged(reports, chosen, job, folder, started) -> Iterator[Report]:
    """The reports. Their times are written down, and with --tensorboard the files of TensorBoard too."""
    reports = timed(reports, folder / SESSIONS, started)
    return logs.write_tensorboard(reports, folder / BOARD, schedule=job.schedule) if chosen.tensorboard else reports


def _layout(chosen):
    """How the run is placed on the devices of all processes; `None` for one device."""
    if jax.device_count() == 1:
        return None
    partition = parallel.replicate() if chosen.sharding == "replicate" else parallel.fsdp(min_bytes=2**16)
    return parallel.layout(parallel.mesh(), [(".*", partition)])


def _check_packages(chosen):
    """Check before training that the packages for saving are installed, so that no run is lost."""
    for package in ("matplotlib", "safetensors", "filelock"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"funcnet train needs the package {package}; pip install 'funcnet[cli]'.")
    if chosen.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise MissingExtraError("--tensorboard needs the package tensorboardX; pip install 'funcnet[tensorboard]'.")


def _check_unfinished(folder: Path, job: _Job) -> None:
    if is_finished(folder, job.steps, job.classes):
        raise ConfigError(f"{folder}: expected a run that was stopped, got one that is finished; give more --epochs.")


def _past(history: History, start: Report | None, recorded: str) -> list[Report]:
    """The reports of the epochs that a run has already done. The last one has its state."""
    if start is None:
        return []
    history.read(start.step, recorded)
    past = history.reports()
    if past and past[-1].step == start.step:
        past[-1] = start
    print(f"going on from step {start.step}, epoch {start.epoch}")
    return past


def _judged(past: list[Report], folder: Path) -> list[Report]:
    """The past reports that may be the best: the end must find its checkpoint, or its state is here already."""
    judged, lost = past, None
    while judged:
        *_, best = training.early_stopping(iter(judged), patience=len(judged))
        there = best.step in checkpoints.steps(folder)
        if best.state is not None or (there and good_manifest(path_of(folder, best.step))):
            break
        lost, judged = lost or best, [report for report in judged if report is not best]
    if lost is not None and is_first():
        said = "the best so far, is missing or damaged; the best is chosen from the others"
        print(f"funcnet: {path_of(folder, lost.step)}, {said}.", file=sys.stderr)
    return judged


def _after(past: Iterable[Report], reports: Iterable[Report]) -> Iterator[Report]:
    yield from past
    yield from reports


def _with_progress(reports: Iterable[Report], epochs: int, known: int) -> Iterator[Report]:
    """The reports. A progress bar shows them on a terminal; elsewhere a line is printed every tenth of the run.

    An earlier call has shown those up to the step `known`, so no lines are printed for them.
    """
    console = Console()
    if not console.is_terminal:
        for report in reports:
            if report.step > known and (report.epoch % max(1, epochs // 10) == 0 or report.epoch == epochs):
                print(_line(report, epochs), flush=True)
            yield report
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        console.show_cursor()  # a signal may end the process at any time, and the terminal would stay without one
        task = progress.add_task(f"epoch 0/{epochs}", total=epochs)
        for report in reports:
            loss, accuracy = (float(report.metrics[name]) for name in ("loss", "validation_accuracy"))
            description = f"epoch {report.epoch}/{epochs}  loss {loss:.4f}  validation {accuracy:.2%}"
            progress.update(task, completed=report.epoch, description=description)
            yield report


def _line(report, epochs):
    m = report.metrics
    return (
        f"epoch {report.epoch}/{epochs}  loss {float(m['loss']):.4f}  accuracy {float(m['accuracy']):.2%}  "
        f"validation loss {float(m['validation_loss']):.4f}  accuracy {float(m['validation_accuracy']):.2%}"
    )


def final_results(model: Any, params: Any, state: Any, data: Any, classes: int, batch_size: int) -> dict[str, Any]:
    """Loss and accuracy on some rows, and the confusion matrix unless it is too large."""
    chosen = {"accuracy": metrics.accuracy()}
    if classes <= MOST_CLASSES:
        chosen["confusion"] = metrics.confusion_matrix(classes)
    return training.evaluate(model, LOSS, params, state, data, batch_size=batch_size, metrics=chosen)


def _show_results(chosen, rows, results):
    table = new_table(f"{chosen.data}, engine {chosen.engine}, {chosen.optimizer}", "", "rows", "loss", "accuracy")
    for name, result in results.items():
        table.add_row(name, str(len(rows[name][0])), f"{float(result['loss']):.4f}", f"{float(result['accuracy']):.2%}")
    Console().print(table)
