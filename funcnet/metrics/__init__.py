"""Metrics: three pure functions that count, batch by batch, inside `jit` and `scan`. They are never differentiated.

    state = metric.init()
    state = metric.update(state, prediction, target, where, weights)        # for each batch
    value = metric.compute(state)

`where` is a boolean mask over the leading axes, usually over the rows, (batch,). Only what it marks counts, so the rows
that fill up a last batch do not count. `weights` say by how much: numbers >= 0, also over leading axes. In a `Padded`
prediction or target the padding does not count. Batches of any size add up to the value for all rows at once. Some may
have weights and some not. Counts of batches without weights are int32 and exact (float32 would stop at 2²⁴). A metric
of no rows at all is NaN.
"""

from funcnet.metrics.classes import (
    ClassScores, accuracy, binary_accuracy, confusion_matrix, mean_iou, precision_recall_f1, top_k_accuracy,
)  # fmt: skip
from funcnet.metrics.mean import mean_loss, perplexity
from funcnet.metrics.metric import Metric
from funcnet.metrics.numbers import r_squared
from funcnet.metrics.sequences import ctc_labels, edit_distance

__all__ = [
    "ClassScores", "Metric", "accuracy", "binary_accuracy", "confusion_matrix", "ctc_labels", "edit_distance",
    "mean_iou", "mean_loss", "perplexity", "precision_recall_f1", "r_squared", "top_k_accuracy",
]  # fmt: skip
