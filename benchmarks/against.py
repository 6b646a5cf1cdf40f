"""`python -m benchmarks --against REF`: this tree's funcnet beside that of another commit, in turn.

Both run the benchmarks of this tree. Each round runs both once, in changing order, so what disturbs the machine for
longer than a round disturbs both. The ratio of a way is the geometric mean of the rounds' ratios.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import compare, report
from benchmarks.worker import Worker

__all__ = ["Change", "against", "change", "checked_out", "table"]

#: A change by less than this is nothing: the order of two loops in memory makes as much.
LEAST = 1.02
_DRAWS = 2000


class Change(NamedTuple):
    """How long one way takes now, beside another commit."""

    workload: str
    column: str
    before: float  #: median seconds of a step
    now: float
    ratio: float  #: now / before; less than 1 is faster
    low: float  #: the ends of its interval, which holds the true ratio in 95 of 100 measurements
    high: float

    @property
    def verdict(self) -> str:
        return "slower" if self.low > LEAST else "faster" if self.high < 1 / LEAST else "same"


def against(ref: str, workloads: Sequence, rounds: int) -> list[Change]:
    """Measure every way of funcnet in each workload."""
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        checked_out(ref, root, Path(folder))
        before, now = Worker("funcnet", folder), Worker("funcnet", str(root))
        assert before.source() != now.source(), "expected two trees, got one"
        changes = []
        for workload in workloads:
            found = measured(workload, before, now, rounds)
            print(f"{table(found)}\n", flush=True)
            changes += found
        for worker in (before, now):
            worker.stop()
    return changes


def measured(workload, before: Worker, now: Worker, rounds: int) -> list[Change]:
    """The ways of one workload, round by round."""
    checks = compare.prepared(workload, (before, now))
    for name in checks[1]:
        np.testing.assert_allclose(checks[0][name], checks[1][name], rtol=workload.tolerance, err_msg=workload.title)
    taken: dict[str, list[list[float]]] = {name: [[], []] for name in checks[1]}
    for i in range(rounds):
        for name, pair in taken.items():
            for which in (0, 1) if i % 2 else (1, 0):
                time.sleep(compare.PAUSE)
                seconds, count = (before, now)[which].run(name)
                pair[which].append(seconds / count)
    return [change(workload.title, name, *pair) for name, pair in taken.items()]


def change(workload: str, column: str, before: Sequence[float], now: Sequence[float]) -> Change:
    """The change that the times of the same rounds show, with an interval by the bootstrap over rounds."""
    logs = np.log(np.asarray(now) / np.asarray(before))
    drawn = np.random.default_rng(0).choice(logs, (_DRAWS, len(logs))).mean(1)
    low, high = np.exp(np.quantile(drawn, [0.025, 0.975]))
    medians = float(np.median(before)), float(np.median(now))
    return Change(workload, column, *medians, float(np.exp(logs.mean())), float(low), float(high))


def table(changes: Sequence[Change]) -> str:
    """All ways with their intervals."""
    headings = ["workload", "way", "before", "now", "now / before", "95 % interval", ""]
    rows = [
        [c.workload, c.column, report.duration(c.before), report.duration(c.now), f"{c.ratio:.3f}",
         f"{c.low:.3f} to {c.high:.3f}", c.verdict]
        for c in changes
    ]  # fmt: skip
    return report.table(headings, rows)


def checked_out(ref: str, root: Path, folder: Path) -> None:
    """Write the package of another commit into a folder."""
    made = subprocess.run(["git", "archive", ref, "funcnet"], cwd=root, capture_output=True)
    if made.returncode:
        sys.exit(f"--against {ref}: expected a commit of this repository: {made.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
