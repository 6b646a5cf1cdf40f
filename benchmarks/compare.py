"""One workload in every library: first a check that the mathematics is equal, then rounds in turn."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from benchmarks.worker import Worker
from benchmarks.workload import Convolution, Workload

#: A column stops running after this many seconds in total.
BUDGET = 5
#: Seconds between runs: threads of the last run that still wait for work must not slow the next one.
PAUSE = 0.02


class Times(NamedTuple):
    """Seconds per step, of one way in one library."""

    library: str
    column: str
    median: float
    low: float  #: the quartiles
    high: float


def prepared(workload: Workload | Convolution, workers: Sequence[Worker]) -> list[dict[str, list[float]]]:
    """What `prepare` of each worker says. As many of them compile at the same time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda worker: worker.prepare(workload), workers))


def compare(workload: Workload | Convolution, workers: Sequence[Worker], rounds: int) -> list[Times]:
    """Times of all columns. The rounds are interleaved, and each starts one column later.

    Raises:
        AssertionError: the mathematics of two columns differ.
    """
    said = zip(workers, prepared(workload, workers), strict=True)
    checks = {(worker, name): check for worker, ways in said for name, check in ways.items()}
    (first, expected), *others = checks.items()
    for (worker, name), check in others:
        assert np.allclose(check, expected[: len(check)], rtol=workload.tolerance, atol=0), (
            f"{workload.title}: expected the same numbers of {worker.library} ({name}) as of "
            f"{first[0].library} ({first[1]}), got {check} and {expected}"
        )
    columns = list(checks)
    each, spent = {column: [] for column in columns}, dict.fromkeys(columns, 0.0)
    for i in range(rounds):
        turn = i % len(columns)
        for worker, name in columns[turn:] + columns[:turn]:
            if spent[worker, name] <= BUDGET:
                time.sleep(PAUSE)
                seconds, count = worker.run(name)
                spent[worker, name] += seconds
                each[worker, name].append(seconds / count)
    return [
        Times(worker.library, name, *(float(np.quantile(taken, q)) for q in (0.5, 0.25, 0.75)))
        for (worker, name), taken in each.items()
    ]
