"""The folder of a run: its options, checkpoints, metrics, weights and plots."""

import csv
import hashlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard, cast

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checkpoints, logs
from funcnet.cli import options
from funcnet.cli.networks import build_model
from funcnet.errors import CheckpointError, ConfigError, DataError
from funcnet.reading import plain_file, shown
from funcnet.types import Report, Schedule, TrainState

__all__ = [
    "BOARD", "CHECKPOINTS", "CONFIG", "CONFUSION", "CURVES", "HISTORY", "WEIGHTS", "History", "are_facts",
    "check_place", "fingerprint", "is_first", "load_run", "new_folder", "read_history", "restore_run",
]  # fmt: skip

BOARD, CHECKPOINTS, CONFIG, HISTORY = "tensorboard", "checkpoints", "config.toml", "metrics.csv"
WEIGHTS, CURVES, CONFUSION = "weights.safetensors", "curves.png", "confusion.png"


def new_folder(chosen: options.Train) -> Path:
    """The folder that the options name, or the next free one. Results of another run are never overwritten."""
    if not is_first():  # process 0 checks it and makes it
        return chosen.output or _needs_output()
    folder = chosen.output
    if folder is None:
        if jax.process_count() > 1:
            _needs_output()
    elif (folder / WEIGHTS).exists():
        raise ConfigError(f"{folder} already holds {WEIGHTS}; choose another --output, nothing is overwritten.")
    elif checkpoints.steps(folder / CHECKPOINTS):
        raise ConfigError(
            f"{folder} holds a run that was stopped; go on with funcnet train --resume {folder}, or choose another "
            "--output."
        )
    try:
        if folder is None:
            return _made_next(Path("runs"))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = folder or "runs"
        raise ConfigError(f"{place}: the folder for the results cannot be made: {error.strerror}.") from error
    return folder


def _made_next(runs: Path) -> Path:
    """The folder after the last number in `runs`. It is made here, so that no other run takes it too."""
    runs.mkdir(exist_ok=True)
    number = max((int(path.name) for path in runs.iterdir() if re.fullmatch("[0-9]+", path.name)), default=0)
    while True:
        number += 1
        try:
            (runs / f"{number:03d}").mkdir()
        except FileExistsError:  # another run has taken it since
            continue
        return runs / f"{number:03d}"


def check_place(option: str, path: Path, name: str) -> None:
    """Check, before the work is done, that a file can be written to `path`. Errors suggest `name` as its name."""
    if path.is_dir():
        raise ConfigError(f"{option} {path}: expected a file, got a folder; add a name, {path / name}.")
    if not path.resolve().parent.is_dir():
        raise ConfigError(f"{option} {path}: expected a folder that exists; make {path.parent} first.")


def _needs_output():
    raise ConfigError("funcnet train: expected --output for a run of several processes; give the same folder to each.")


def is_first() -> bool:
    """Whether this is process 0, which alone writes."""
    return jax.process_index() == 0


def fingerprint(x: np.ndarray, target: np.ndarray) -> str:
    """The SHA-256 of the training data. A run must continue with the data that it began with."""
    digest = hashlib.sha256()
    for array in (x, target):
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def are_facts(metadata: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is what `train` writes about the data: the number of classes and the shape of an example."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get("shape"), list):
        return False
    return all(type(count) is int and 0 < count < 2**31 for count in [metadata.get("classes"), *metadata["shape"]])


def restore_run(folder: Path, like: Any, data_sha256: str) -> Report | None:
    """The last good checkpoint of a run; `None` if it was stopped before its first."""
    if not checkpoints.steps(folder / CHECKPOINTS):
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report, metadata = checkpoints.restore(folder / CHECKPOINTS, like)
    for warning in caught:
        print(f"funcnet: {shown(warning.message)}", file=sys.stderr)
    if not are_facts(metadata):
        raise CheckpointError(f"{folder}: expected checkpoints that funcnet train wrote; start a new run.")
    if metadata.get("data_sha256") != data_sha256:
        raise DataError(f"{folder}: expected the training data that the run began with, got other data.")
    return report


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.csv; an empty list if the file does not exist yet."""
    try:
        with plain_file(path, links=True) as file:
            lines = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
            rows = [{name: float(value) for name, value in row.items()} for row in lines]
        return [{**row, "epoch": int(row["epoch"]), "step": int(row["step"])} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, OverflowError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: expected the metrics of a run, one row per epoch: {error!r}.") from error


class History:
    """One row of scalars per epoch, written to metrics.csv and metrics.jsonl as soon as it is known."""

    def __init__(self, path: Path, schedule: Schedule):
        self.path, self.schedule = path, schedule
        self.rows: list[dict[str, Any]] = []

    def read(self, step: int) -> None:
        """Read the rows up to a step. Later rows will be computed again."""
        self.rows = [row for row in read_history(self.path) if row["step"] <= step]

    def reports(self) -> list[Report]:
        """The rows as reports without a state."""
        extra, nothing = {"epoch", "step", "learning_rate"}, cast(TrainState, None)
        return [
            Report(row["epoch"], row["step"], {k: v for k, v in row.items() if k not in extra}, state=nothing)
            for row in self.rows
        ]

    def recorded(self, reports: Iterable[Report]) -> Iterator[Report]:
        """The reports. Each end of an epoch writes a row. A run stopped within an epoch writes it after it resumes."""
        for report in reports:
            if not report.partial:
                scalars = {name: float(value) for name, value in report.metrics.items()}
                rate = float(self.schedule(jnp.int32(report.step)))
                self.rows.append({"epoch": report.epoch, "step": report.step, **scalars, "learning_rate": rate})
                if is_first():
                    self._write()
            yield report

    def _write(self) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        _replace(self.path, table.getvalue())
        _replace(self.path.with_suffix(".jsonl"), "".join(logs.as_json(row) + "\n" for row in self.rows))


def _replace(path: Path, text: str) -> None:
    """Write a file so that a killed process leaves the old or the new one whole. Only checkpoints are flushed too."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8", newline="\n")
    os.replace(new, path)


def load_run(folder: Path) -> Any:
    """`(options, model, params, state, shape, classes)` of a folder that `train` wrote."""
    if not (folder / WEIGHTS).exists() and (folder / CONFIG).exists() and not checkpoints.steps(folder / CHECKPOINTS):
        raise CheckpointError(f"{folder}: the run was stopped before its first checkpoint; train again.")
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder}: expected a folder that funcnet train wrote, with {CONFIG} in it.")
    if not (folder / WEIGHTS).exists() and checkpoints.steps(folder / CHECKPOINTS):
        raise CheckpointError(f"{folder}: the run was stopped; finish it with funcnet train --resume {folder}.")
    trained = options.Train(**options.read_config(folder / CONFIG))
    *_, metadata = checkpoints.load_weights(folder / WEIGHTS)
    if not are_facts(metadata):
        raise CheckpointError(f"{folder / WEIGHTS}: expected weights that funcnet train wrote; train again.")
    shape, classes = tuple(metadata["shape"]), metadata["classes"]
    model = build_model(trained, shape, classes)
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    like = jax.eval_shape(lambda key: model.init(key, example), jax.random.key(0))
    params, state, _ = checkpoints.load_weights(folder / WEIGHTS, like=like)
    return trained, model, params, state, shape, classes
