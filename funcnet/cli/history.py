"""`metrics.csv` and `metrics.jsonl` of a run: one row per epoch, which its checkpoints and weights record too."""

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from funcnet import logs
from funcnet.cli.folders import is_first
from funcnet.errors import DataError
from funcnet.reading import plain_file
from funcnet.types import Report, Schedule, TrainState

__all__ = ["History", "read_history"]


def read_history(path: Path, recorded: str = "") -> list[dict[str, Any]]:
    """The rows of metrics.csv, which are none if it does not exist yet.

    Args:
        path: the file. metrics.jsonl is beside it.
        recorded: the text of the file as a checkpoint or the weights have it. What the file lacks of it comes back.

    Raises:
        DataError: a file does not hold the rows of a run, or others than the recorded ones.
    """
    try:
        rows = _parsed(_completed(path, recorded))
        if recorded:
            _completed(path.with_suffix(".jsonl"), _as_lines(_parsed(recorded)))
        return rows
    except DataError:
        raise
    except (OSError, ValueError, OverflowError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: expected the metrics of a run, one row per epoch: {error!r}.") from error


def _completed(path: Path, recorded: str) -> str:
    """The text of a file, or the recorded text if it goes on where the file ends."""
    text = ""
    with contextlib.suppress(FileNotFoundError), plain_file(path, links=True) as file:
        text = file.read().decode()
    if text.startswith(recorded):
        return text
    if recorded.startswith(text):
        return recorded
    fix = "delete it, the checkpoints and the weights hold them too"
    raise DataError(f"{path}: expected the rows that the run recorded, got others; {fix}.")


def _parsed(text: str) -> list[dict[str, Any]]:
    rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]
    return [{**row, "epoch": int(row["epoch"]), "step": int(row["step"])} for row in rows]


def _as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(logs.as_json(row) + "\n" for row in rows)


class History:
    """One row of scalars per epoch, written to metrics.csv and metrics.jsonl as soon as it is known."""

    def __init__(self, path: Path, schedule: Schedule):
        self.path, self.schedule = path, jax.jit(schedule)
        self.rows: list[dict[str, Any]] = []

    def read(self, step: int, recorded: str = "") -> None:
        """Read the rows up to a step, and write those that the files lack. Later rows will be computed again."""
        self.rows = [row for row in read_history(self.path, recorded) if row["step"] <= step]
        self._write()

    @property
    def text(self) -> str:
        """What metrics.csv holds."""
        table = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(table, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return table.getvalue()

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
                self._write()
            yield report

    def _write(self) -> None:
        if is_first() and self.rows:
            _replace(self.path, self.text)
            _replace(self.path.with_suffix(".jsonl"), _as_lines(self.rows))


def _replace(path: Path, text: str) -> None:
    """Write a file so that a killed process leaves the old or the new one whole. Only checkpoints are flushed too."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8", newline="\n")
    os.replace(new, path)
