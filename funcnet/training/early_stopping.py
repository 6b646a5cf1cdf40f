"""Early stopping: a function over `fit`'s reports."""

import math
from collections.abc import Iterator

from funcnet.checks import check_choice, check_count, nonnegative
from funcnet.errors import ConfigError
from funcnet.made import leading
from funcnet.types import Report

__all__ = ["early_stopping"]


def early_stopping(
    reports: Iterator[Report],
    *,
    patience: int,
    monitor: str = "validation_loss",
    min_delta: float = 0.0,
    mode: str = "min",
) -> Iterator[Report]:
    """Pass on reports until `monitor` has not improved for `patience` of them. **The last one passed on is the best.**

    A `partial` report, which a stop within an epoch makes, is passed on and not judged.

    If the last report of a training is not the best one, the best one is passed on once more at the end, whether
    patience ended the training or not. So `*_, best = early_stopping(fit(...), patience=5)` has the best parameters.

    Args:
        reports: `fit(...)`, or another function over it.
        patience: training stops after this many reports in a row without improvement.
        monitor: a name in `report.metrics`.
        min_delta: the smallest improvement that counts, m < best − min_delta.
        mode: `"min"` for a loss, `"max"` for an accuracy.

    Raises:
        ConfigError: for impossible arguments, or a `monitor` that the reports do not have.

    References: Prechelt, "Early Stopping — But When?", 1998.

    >>> import funcnet as fn
    >>> losses = [3.0, 2.0, 2.5, 2.6, 1.0]
    >>> reports = (fn.Report(i, i, {"validation_loss": v}, None) for i, v in enumerate(losses))
    >>> [report.epoch for report in fn.training.early_stopping(reports, patience=2)]
    [0, 1, 2, 3, 1]
    """
    with leading("early_stopping"):
        check_choice("mode", mode, ("min", "max"))
        patience = check_count("patience", patience)
        min_delta = nonnegative("min_delta", min_delta)
    return _until_patience_ends(reports, patience, monitor, min_delta, 1 if mode == "min" else -1)


def _until_patience_ends(reports, patience, monitor, min_delta, sign):
    best, best_value, waited = None, float("inf"), 0
    report = None
    try:
        for report in reports:
            yield report
            if report.partial:
                continue
            if monitor not in report.metrics:
                got = f"{monitor!r}; validation_… names need fit(..., validation=(x, target))"
                raise ConfigError(f"early_stopping: expected monitor to be one of {sorted(report.metrics)}, got {got}.")
            value = sign * float(report.metrics[monitor])
            value = float("inf") if math.isnan(value) else value  # no comparison with NaN is ever an improvement
            if best is None or value < best_value - min_delta:
                best, best_value, waited = report, value, 0
            else:
                waited += 1
            if waited >= patience:
                break
    finally:
        if hasattr(reports, "close"):
            reports.close()
    if best is not None and best is not report:
        yield best
