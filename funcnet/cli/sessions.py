"""`sessions.jsonl` of a run: where and when each call of `train` ran, and how long its epochs took.

Each call appends one line about its environment, then one line per report. So a kill loses at most half a line. Each
line has a checksum of the rest of it, and the checksum of the whole line before it. So a damaged line is seen, and a
missing one by the line after it.
"""

import json
import statistics
import subprocess
import time
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from funcnet.checkpoints.manifest import environment
from funcnet.reading import plain_file
from funcnet.types import Report

__all__ = ["SESSIONS", "Session", "read_sessions", "timed"]

SESSIONS = "sessions.jsonl"


class Session(NamedTuple):
    """One call of `train`."""

    environment: dict[str, Any]
    reports: list[tuple[int, int, float]]  #: (epoch, step, seconds since the start)

    @property
    def first(self) -> float | None:
        """Seconds to the first report, including compilation."""
        return self.reports[0][2] if self.reports else None

    @property
    def steps_per_second(self) -> float | None:
        """The median over the reports after the first."""
        if len(self.reports) < 2:
            return None
        pairs = zip(self.reports, self.reports[1:], strict=False)
        return statistics.median((b[1] - a[1]) / max(b[2] - a[2], 1e-9) for a, b in pairs)


def timed(reports: Iterable[Report], path: Path, started: float) -> Iterator[Report]:
    """The reports. Each is written down with the seconds since `started`, a time of `time.perf_counter`."""
    last = _read(path).last
    last = _append(path, {"started": datetime.now(UTC).isoformat(timespec="seconds"), **_environment()}, last)
    for report in reports:
        seconds = round(time.perf_counter() - started, 3)
        last = _append(path, {"epoch": report.epoch, "step": report.step, "seconds": seconds}, last)
        yield report


def _append(path: Path, row: dict[str, Any], last: int) -> int:
    """Write a line, and return its checksum, which the next line holds."""
    row = {**row, "after": last}
    with path.open("a", encoding="utf-8") as file:
        # A killed process may have left half a line, so each session begins with an empty line.
        file.write("\n" * ("started" in row) + json.dumps({**row, "crc32": _crc32(row)}) + "\n")
    return _crc32(row)


def _crc32(row: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(row).encode())


def _environment() -> dict[str, Any]:
    return {**environment(), "commit": _commit()}


def _commit() -> str | None:
    """The commit of the current folder, with "-dirty" at its end if files differ; `None` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def read_sessions(path: Path) -> tuple[list[Session], list[str]]:
    """The calls of `train` on a run, in order, and what is wrong with lines of the file. Damaged ones are left out."""
    return _read(path)[:2]


class _File(NamedTuple):
    sessions: list[Session]
    problems: list[str]
    last: int  #: the checksum of the last whole line


def _read(path: Path) -> _File:
    sessions: list[Session] = []
    problems: list[str] = []
    last, damaged = 0, False  # the checksum of the last whole line, and whether a damaged one has come after it
    try:
        with plain_file(path, links=True) as file:
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    with_checksums = False  # an older funcnet wrote none, so that the first lines of a run may have none
    for number, line in [(number, line) for number, line in enumerate(lines, 1) if line]:
        row, checksum = _parsed(line)
        with_checksums = with_checksums or checksum is not None
        if row is None or (with_checksums and checksum != _crc32(row)):
            problems.append(f"line {number} is cut or damaged")
            damaged = True
            continue
        if row.pop("after", last) != last and not damaged:
            problems.append(f"lines are missing before line {number}")
        last, damaged = checksum or 0, False
        match row:
            case {"started": str()} as environment:
                sessions.append(Session(environment, []))
            case {"epoch": int(epoch), "step": int(step), "seconds": float(seconds)} if sessions:
                sessions[-1].reports.append((epoch, step, seconds))
    return _File(sessions, problems, last)


def _parsed(line: str) -> tuple[dict[str, Any] | None, Any]:
    """The row in a line and its checksum; `None` for a row that cannot be read."""
    try:
        row = json.loads(line)
        return row, row.pop("crc32", None)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None, None
