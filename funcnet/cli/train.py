"""`funcnet train`: from options, or from a run that was stopped, to weights, metrics and plots in one folder."""

import contextlib
import dataclasses
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from funcnet import checkpoints, logs, optimizers, parallel, plotting, training, trees
from funcnet.checkpoints.folder import good_manifest, path_of
from funcnet.checkpoints.locking import held
from funcnet.cli import config_file, options
from funcnet.cli.answering import answering
from funcnet.cli.beginning import first_state, found_rate, frozen_part
from funcnet.cli.ending import draw, is_finished, save_results
from funcnet.cli.failing import begun
from funcnet.cli.folders import (
    BOARD,
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    RATES,
    WEIGHTS,
    check_unchanged,
    facts_of,
    is_first,
    restore_run,
)  # fmt: skip
from funcnet.cli.folds import check_folds, train_folds
from funcnet.cli.forecasting import partition_of
from funcnet.cli.history import History
from funcnet.cli.launch import be_silent, stop_with_launcher
from funcnet.cli.networks import build_model, build_optimizer, build_schedule
from funcnet.cli.own_model import keep_file, model_sha256
from funcnet.cli.phases import phase
from funcnet.cli.results import judge, show_results
from funcnet.cli.rows import Parts, Rows, count_of, prepared, read_parts
from funcnet.cli.sessions import SESSIONS, timed
from funcnet.cli.tables import print_lines
from funcnet.cli.tasks import Task, task_of
from funcnet.data.batching import count_steps
from funcnet.data.preparation import Preparation
from funcnet.errors import ConfigError, MissingExtraError
from funcnet.made import leading
from funcnet.reading import shown
from funcnet.training.interruption import HANG_UP, Stop
from funcnet.training.reports import Reports
from funcnet.types import Layer, Optimizer, Report, Schedule

__all__ = ["train"]


def train(chosen: options.Train) -> int:
    """Train, and write weights, options, metrics and plots into one folder."""
    _check_packages(chosen)
    check_folds(chosen)
    if chosen.debug_nans:
        jax.config.update("jax_debug_nans", True)  # before anything is compiled: later it has no effect
    stop_with_launcher()
    with phase("starting"):  # the device, and with several processes the others
        parallel.start(chosen.coordinator, chosen.num_processes, chosen.process_id, devices=chosen.devices)
    with contextlib.ExitStack() as stack, answering(), training.stop_on_signals() as stop:
        if jax.process_index() > 0:  # the same steps as process 0, which alone prints and writes
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        try:
            if chosen.folds is not None and chosen.fold is None:
                return train_folds(chosen, lambda one: _train(one, stop), lambda: stop.signal is not None)
            return _train(chosen, stop)
        except OSError:
            if stop.signal is None or stop.signal != HANG_UP:
                raise
            be_silent()  # a terminal that is closed takes no text
            return 128 + stop.signal


class _Job(NamedTuple):
    """Everything that is made from the options and the data."""

    parts: Parts
    preparation: Preparation
    rows: Rows
    task: Task
    model: Layer
    optimizer: Optimizer
    schedule: Schedule
    frozen: str  #: what is said of parameters that stay as they are
    like: Any  #: the shapes of the training state
    epoch_steps: int
    steps: int


def _job(chosen: options.Train, parts: Parts) -> _Job:
    assert chosen.epochs is not None  # both are settled
    assert chosen.batch_size is not None
    preparation = parts.preparation()
    rows, task = prepared(parts, preparation), task_of(preparation, chosen.class_weights)
    x, _ = rows.training
    with leading("funcnet train: --batch-size"):
        epoch_steps = count_steps(len(x), chosen.batch_size, drop_last=False)
    steps = chosen.epochs * epoch_steps
    model = build_model(chosen, preparation, chosen.resume)
    frozen = frozen_part(chosen, model, x)
    optimizer = optimizers.guarded(build_optimizer(chosen, steps))
    schedule = build_schedule(chosen, steps)
    like = jax.eval_shape(lambda: training.create_state(model, optimizer, chosen.seed, x))
    return _Job(parts, preparation, rows, task, model, optimizer, schedule, frozen, like, epoch_steps, steps)


def _train(chosen: options.Train, stop: Stop) -> int:
    if chosen.resume is not None:
        check_unchanged(chosen.resume, facts_of(chosen.resume))
    parts = read_parts(chosen)
    chosen = options.settled(chosen, count_of(parts.training))
    with phase("preparing the rows and the network"):
        job, search = _job(chosen, parts), None
    if chosen.find_rate and chosen.resume is None:
        with phase("looking for a learning rate"):
            search = found_rate(chosen, job.model, job.task, job.rows.training)
        print(search.sentence)
        chosen = dataclasses.replace(chosen, learning_rate=float(f"{search.rate:.3g}"))
        job = _job(chosen, parts)
    facts = {
        "preparation": job.preparation.to_json(), "data_sha256": parts.sha256, "options": config_file.kept(chosen),
        "model_sha256": model_sha256(chosen.model, chosen.resume),
    }  # fmt: skip
    if _any(stop.signal is not None):
        print(f"stopped by {_name(stop)} before the first step")
        return 128 + (stop.signal or signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        run, said = None, ""
        if chosen.resume is None:  # what is wrong with a new run is found before its folder is made
            state, said = first_state(chosen, job.model, job.optimizer, job.rows.training[0])
            run = stack.enter_context(contextlib.closing(_reports(chosen, job, state, stop)))
        if chosen.resume is None:
            folder = stack.enter_context(begun(chosen))
            if is_first() and search is not None:
                draw(plotting.rate_search(search), folder / RATES)
        else:
            folder = chosen.resume
            if is_first():
                stack.enter_context(held(str(folder), folder))
        return _train_in(folder, chosen, job, facts, stop, run, said)


def _name(stop: Stop) -> str:
    return "a signal to another process" if stop.signal is None else stop.signal.name


def _train_in(
    folder: Path, chosen: options.Train, job: _Job, facts: dict[str, Any], stop: Stop, run: Reports | None, said: str
) -> int:
    """Train a run that is made, or the one in the folder, which `run` is `None` for."""
    start, known = (None, {}) if chosen.resume is None else restore_run(folder, job.like, facts["data_sha256"])
    history = History(folder / HISTORY, job.schedule)
    if chosen.resume is not None and (start is None or start.step >= job.steps):
        _check_unfinished(folder, job)
    past = _past(history, start, known.get("metrics", ""))
    if chosen.patience is not None:
        past = _judged(past, folder / CHECKPOINTS)
    if chosen.resume is not None and start is None:
        print("no checkpoint yet: starting from the beginning")
    if start is None:
        for lines in filter(None, (str(job.parts), str(job.preparation), shown(said), shown(job.frozen))):
            print_lines(lines)
    if is_first():
        config_file.write_config(chosen, folder / CONFIG)
        keep_file(chosen.model, folder)
    started = time.perf_counter()
    last = None
    if run is None and (start is None or start.step < job.steps):  # a finished run gives no reports
        state = first_state(chosen, job.model, job.optimizer, job.rows.training[0])[0] if start is None else start.state
        run = _reports(chosen, job, state, stop)
    reports = trained = _saved(run, chosen, folder, history, facts)
    if is_first():
        reports = training.progress(_logged(trained, chosen, job, folder, started), of=run)
    reports = _after(past, reports)
    if chosen.patience is not None:
        reports = training.early_stopping(reports, patience=chosen.patience)
    for last in reports:
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
        with phase("evaluating"):
            results = judge(job.preparation, job.task, job.model, params, state, job.rows.named)
        facts |= {"steps": job.steps, "metrics": history.text, "epoch": last.epoch}
        with phase("drawing"):
            plots = save_results(folder, params, state, history.rows, last.epoch, job.preparation, results, facts)
        show_results(job.preparation, job.task, results, chosen)
        steps, seconds = last.step - (0 if start is None else start.step), time.perf_counter() - started
        print(f"{trees.total_size(params):,} parameters, {steps:,} steps in {seconds:.1f} s")
        print("\nplots   ", *map(shown, plots), sep="  ")
        print(f"weights  {shown(folder / WEIGHTS)}")
        print(f"metrics  {shown(folder / HISTORY)}")
    return 0


def _any(here: bool) -> bool:
    """Whether it is true in any process. All processes must call this together."""
    return here if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(here)).any())


def _reports(chosen, job, state, stop) -> Reports:
    """Train from the beginning, or from a state."""
    with phase("preparing the first step"):
        run = training.fit(
            job.model, job.task.loss, job.optimizer, job.rows.training, engine=chosen.engine, epochs=chosen.epochs,
            batch_size=chosen.batch_size, accumulate=chosen.accumulate, key=chosen.seed, state=state,
            validation=job.rows.watched, metrics=job.task.metrics, layout=_layout(chosen), stop=stop,
            watchdog=chosen.watchdog,
        )  # fmt: skip
    return cast(Reports, run)


def _saved(run, chosen, folder, history, facts) -> Generator[Report]:
    """The reports, with a checkpoint per epoch."""
    if run is None:
        return (report for report in ())
    # A row is written before its checkpoint, which holds all rows so far.
    return checkpoints.saving(
        history.recorded(run), folder / CHECKPOINTS, keep=chosen.keep_checkpoints,
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
    return parallel.layout(parallel.mesh(), [(".*", partition_of(chosen.sharding))])


def _check_packages(chosen):
    """Check before training that the packages for saving are installed, so that no run is lost."""
    for package in ("matplotlib", "safetensors", "filelock"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"funcnet train needs the package {package}; pip install 'funcnet[cli]'.")
    if chosen.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise MissingExtraError("--tensorboard needs the package tensorboardX; pip install 'funcnet[tensorboard]'.")


def _check_unfinished(folder: Path, job: _Job) -> None:
    if is_finished(folder, job.steps, job.preparation):
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
