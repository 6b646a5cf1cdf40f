"""Logs of a training run: functions that take the iterator of reports and pass each report on.

    for report in fn.logs.write_jsonl(fn.training.fit(...), "metrics.jsonl"):
        ...

Whenever a report comes out, the log is complete up to this report. If a resumed run writes to the same log, the rows
before its first report stay and the later ones are replaced.
"""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from funcnet.errors import DataError, MissingExtraError, translated
from funcnet.reading import plain_file
from funcnet.types import Report, Schedule

__all__ = ["as_json", "scalars", "write_csv", "write_jsonl", "write_tensorboard"]


def write_csv(
    reports: Iterable[Report], path: str | os.PathLike[str], *, schedule: Schedule | None = None
) -> Iterator[Report]:
    """Pass the reports on, and write each one as a row of a CSV file with one column per scalar.

    Args:
        reports: from `training.fit`, or from another function over them.
        path: the file.
        schedule: the learning rate. It becomes a column too: `learning_rate`, the rate of the next update.

    Raises:
        DataError: the file exists and is not such a log, or a report has other scalars than the first one.

    >>> import tempfile, pathlib, jax.numpy as jnp, funcnet as fn
    >>> x, model, loss = jnp.ones((4, 1)), fn.layers.dense(1), fn.losses.mean_squared_error
    >>> reports = fn.training.fit(model, loss, fn.optimizers.sgd(0.1), (x, x), epochs=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "metrics.csv")
    ...     _ = list(fn.logs.write_csv(reports, path))
    ...     print(path.read_text().splitlines()[0])
    epoch,step,loss
    """
    return _written("write_csv", reports, Path(path), schedule, _CSV)


def write_jsonl(
    reports: Iterable[Report], path: str | os.PathLike[str], *, schedule: Schedule | None = None
) -> Iterator[Report]:
    """Pass the reports on, and write each one as a line of JSON: `{"epoch": 1, "step": 45, "loss": 1.9}`.

    NaN and infinity become null.

    Args:
        reports: from `training.fit`, or from another function over them.
        path: the file.
        schedule: the learning rate. It is written too: `learning_rate`, the rate of the next update.

    Raises:
        DataError: the file exists and is not such a log.

    >>> import json, tempfile, pathlib, jax.numpy as jnp, funcnet as fn
    >>> x, model, loss = jnp.ones((4, 1)), fn.layers.dense(1), fn.losses.mean_squared_error
    >>> reports = fn.training.fit(model, loss, fn.optimizers.sgd(0.1), (x, x), epochs=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "metrics.jsonl")
    ...     _ = list(fn.logs.write_jsonl(reports, path))
    ...     [json.loads(line)["step"] for line in path.read_text().splitlines()]
    [1, 2]
    """
    return _written("write_jsonl", reports, Path(path), schedule, _JSONL)


def write_tensorboard(
    reports: Iterable[Report], folder: str | os.PathLike[str], *, schedule: Schedule | None = None
) -> Iterator[Report]:
    """Pass the reports on, and write each scalar to a folder for `tensorboard --logdir`, one panel per quantity.

    `loss` appears as `loss/training`, and `validation_loss` as `loss/validation`.

    Args:
        reports: from `training.fit`, or from another function over them.
        folder: where TensorBoard looks. Each run needs its own folder.
        schedule: the learning rate, which is written too.

    Raises:
        MissingExtraError: without `pip install 'funcnet[tensorboard]'`.

    >>> import tempfile, pathlib, funcnet as fn
    >>> reports = [fn.Report(1, 45, {"loss": 0.5}, None)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = list(fn.logs.write_tensorboard(reports, folder))
    ...     len(list(pathlib.Path(folder).glob("events.*")))
    1
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "write_tensorboard: expected the package tensorboardX, which is not installed; "
            "pip install 'funcnet[tensorboard]'."
        ) from error
    return _boarded(SummaryWriter, reports, folder, schedule)


def scalars(report: Report, schedule: Schedule | None = None) -> dict[str, int | float]:
    """Epoch, step, and all metrics that are one number.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.logs.scalars(fn.Report(1, 45, {"loss": jnp.array(0.5), "confusion": jnp.ones((2, 2))}, None))
    {'epoch': 1, 'step': 45, 'loss': 0.5}
    """
    row: dict[str, int | float] = {"epoch": report.epoch, "step": report.step}
    row |= {name: float(value) for name, value in report.metrics.items() if np.ndim(value) == 0}
    return row if schedule is None else row | {"learning_rate": float(schedule(jnp.int32(report.step)))}


def as_json(value: Any) -> str:
    """A line of JSON. NaN and infinity, which JSON does not have, become null, and arrays become lists.

    >>> as_json({"step": 1, "loss": float("nan"), "counts": np.array([1, 2])})
    '{"step": 1, "loss": null, "counts": [1, 2]}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # of NumPy or JAX
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | None) else str(value)


class _Format(NamedTuple):
    """How rows become lines of a file, and lines become rows."""

    line: Callable[[dict[str, Any]], str]
    parse: Callable[[list[str]], list[Any]]


def _csv_line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


_CSV = _Format(lambda row: _csv_line(row.values()), lambda lines: list(csv.DictReader(lines)))
_JSONL = _Format(lambda row: as_json(row) + "\n", lambda lines: [json.loads(line) for line in lines])


def _written(name, reports, path, schedule, form):
    """The generator behind the files: the old rows before the first report's step, then one row per report."""
    with contextlib.ExitStack() as stack:
        file, columns = None, []
        for report in reports:
            row = scalars(report, schedule)
            if file is None:
                kept = [old for old in _read(name, path, form) if int(old["step"]) < report.step]
                columns = list(kept[0] if kept else row)
                head = _csv_line(columns) if form is _CSV else ""
                with translated(OSError, DataError, f"{name}: {path} cannot be written"):
                    _replace(path, (head + "".join(map(form.line, kept))).encode())
                    file = stack.enter_context(path.open("ab", buffering=0))
            if form is _CSV and list(row) != columns:
                raise DataError(
                    f"{name}: expected the scalars {', '.join(columns)}, got {', '.join(row)}; take another file."
                )
            with translated(OSError, DataError, f"{name}: {path} cannot be written"):
                _append(file, form.line(row).encode())
            yield report


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a kill or a full disk leaves the old one or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _append(file: io.FileIO, line: bytes) -> None:
    """Append a line, or nothing if the disk is full."""
    size = os.fstat(file.fileno()).st_size
    try:
        while line:
            line = line[file.write(line) :]
    except OSError:
        file.truncate(size)
        raise


def _read(name: str, path: Path, form: _Format) -> list[dict[str, Any]]:
    """The rows of a file. Half a line, which a killed process may have left, does not count as a row."""
    try:
        with plain_file(path, links=True) as file:
            lines = file.read().decode().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: expected {path} to be a readable file: {error}.") from error
    with contextlib.suppress(ValueError, csv.Error, RecursionError):
        rows = form.parse([line for line in lines if line.endswith("\n")])
        if all(isinstance(row, dict) and None not in row and str(row.get("step")).isdecimal() for row in rows):
            return [row for row in rows if int(row["step"]) >= 0]  # or a ValueError for too many digits
    raise DataError(f"{name}: expected {path} to be a log with a step in each row, got other text; take another file.")


def _boarded(writer_class, reports, folder, schedule):
    """The generator behind `write_tensorboard`. Later steps that TensorBoard already has are purged."""
    writer = None
    try:
        for report in reports:
            writer = writer or writer_class(os.fspath(folder), purge_step=report.step)
            row = scalars(report, schedule)
            for metric, value in row.items():
                if metric != "step":
                    writer.add_scalar(_tag(metric), value, report.step)
            writer.flush()
            yield report
    finally:
        if writer is not None:
            writer.close()


def _tag(metric: str) -> str:
    if metric in ("epoch", "learning_rate"):
        return metric
    return f"{metric.removeprefix('validation_')}/{'validation' if metric.startswith('validation_') else 'training'}"
