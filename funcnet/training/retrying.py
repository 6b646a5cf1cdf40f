"""Going back after a divergence: a function that starts a training, made into one that starts it again."""

import math
from collections.abc import Callable, Iterator

from funcnet.checks import check_count
from funcnet.errors import DivergenceError
from funcnet.made import leading
from funcnet.types import Report

__all__ = ["retrying"]


def retrying(start: Callable[[Report | None, int], Iterator[Report]], *, retries: int = 3) -> Iterator[Report]:
    """Hand on the reports of a training; when it diverges, go on from the best one, otherwise than before.

    A loss grows for a while before it leaves the finite numbers. So the best report is the one before that of the
    smallest loss, which was measured on the way from its state; and none, if that was the first one.

    Args:
        start: `(best report or None, how often the training has diverged) -> reports`. It makes the training anew, for
            example with a smaller learning rate. What is started as before diverges as before.
        retries: after how many divergences the next one is raised.

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
