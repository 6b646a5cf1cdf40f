"""Going back after a divergence: a training is started again from its best report."""

import math
from collections.abc import Callable, Iterator

from funcnet.checks import check_count
from funcnet.errors import DivergenceError
from funcnet.made import leading
from funcnet.types import Report

__all__ = ["retrying"]


def retrying(start: Callable[[Report | None, int], Iterator[Report]], *, retries: int = 3) -> Iterator[Report]:
    """Pass on the reports of a training. After a divergence, start it again from the best report, in another way.

    A loss grows for a while before it is no longer finite. The loss of a report was measured while training from the
    state of the report before it. So the best report is the one before the report with the smallest loss. If the first
    report of all has the smallest loss, there is no best report.

    Args:
        start: `(best report or None, how often the training has diverged) -> reports`. It starts the training again,
            for example with a smaller learning rate. A training that starts as before diverges as before.
        retries: how many divergences lead to a new start. The next one is raised.

    Raises:
        DivergenceError: that of the last training.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> data = jnp.ones((8, 1)), jnp.ones((8, 1))
    >>> def start(best, diverged):
    ...     optimizer = fn.optimizers.sgd(100.0 * 0.03**diverged)
    ...     return fn.training.fit(
    ...         fn.layers.dense(1), fn.losses.mean_squared_error, optimizer, data, epochs=60,
    ...         state=None if best is None else best.state)
    >>> *_, last = fn.training.retrying(start)
    >>> last.epoch, round(float(last.metrics["loss"]), 3)
    (60, 0.0)
    """
    with leading("retrying"):
        retries = check_count("retries", retries, 0)
    return _retrying(start, retries)


def _retrying(start, retries):
    best, least, before = None, math.inf, None
    for diverged in range(retries + 1):
        reports, before = start(best, diverged), best
        try:
            for report in reports:
                yield report
                loss = float(report.metrics["loss"])
                if loss < least:  # no comparison with NaN is ever true
                    best, least = before, loss
                before = report
            return
        except DivergenceError:
            if diverged == retries:
                raise
        finally:
            if hasattr(reports, "close"):
                reports.close()
