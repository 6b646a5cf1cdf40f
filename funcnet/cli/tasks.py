"""What is learnt: the loss, the score, the numbers at the end and what they are compared with."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import losses, metrics, training
from funcnet.checks import listed
from funcnet.cli.tables import MOST_CLASSES
from funcnet.data.preparation import Preparation
from funcnet.errors import ConfigError
from funcnet.metrics.metric import Metric
from funcnet.types import Layer, LossFn

__all__ = ["Task", "judged", "outputs_of", "task_of", "verdict"]

ROWS_AT_A_TIME = 1024


class Task(NamedTuple):
    """What the preparation of a run says about its training."""

    loss: LossFn
    score: str  #: the metric that is shown beside the loss
    metrics: dict[str, Metric]
    words: str  #: the score in words


def task_of(preparation: Preparation, class_weights: str | None = None) -> Task:
    """The loss and the score for a target."""
    if class_weights is not None and preparation.task != "classes":
        raise ConfigError(f"--class-weights: expected a target of classes, got {preparation.task}; leave it out.")
    if preparation.task == "classes":
        loss = losses.softmax_cross_entropy
        if class_weights is not None:
            loss = losses.partial(loss, class_weights=_balanced(preparation))
        return Task(loss, "accuracy", {"accuracy": metrics.accuracy()}, "accuracy")
    if preparation.task == "labels":
        loss, metric = losses.binary_cross_entropy_with_logits, metrics.binary_accuracy(threshold=0.0)
        return Task(loss, "accuracy", {"accuracy": metric}, "accuracy")
    return Task(losses.mean_squared_error, "r_squared", {"r_squared": metrics.r_squared(preparation.outputs)}, "R²")


def _balanced(preparation):
    """n / (classes · rows of the class), so that each class counts the same in all."""
    (column,) = preparation.targets
    absent = [str(name) for name, count in column.rows_of.items() if not count]
    if absent:
        raise ConfigError(f"--class-weights: expected training rows of every class, got none of {listed(absent)}.")
    counts = np.array(column.counts)
    return tuple(float(weight) for weight in counts.sum() / (len(counts) * counts))


def judged(
    preparation: Preparation, task: Task, model: Layer, params: Any, state: Any, rows: tuple[Any, Any], size: int
) -> dict[str, Any]:
    """Loss and score on some rows, the score of the `baseline`, and numbers for each class or output.

    The baseline is the commonest class or label of the training rows, or their mean.

    Args:
        size: rows at a time. Calls with the same one share a compiled program.
    """
    chosen = dict(task.metrics)
    if preparation.task == "classes" and preparation.outputs <= MOST_CLASSES:
        chosen["confusion"] = metrics.confusion_matrix(preparation.outputs)
    if preparation.task == "labels":
        chosen["labels"] = _counts(preparation.outputs)
    if preparation.task == "regression":
        chosen["errors"] = _errors(preparation.outputs)
    results = training.evaluate(model, task.loss, params, state, rows, batch_size=size, metrics=chosen)
    found: dict[str, Any] = {name: np.asarray(value) for name, value in results.items()}
    target = np.asarray(rows[1])
    if preparation.task == "classes":
        return {**found, "baseline": float(np.mean(target == np.argmax(preparation.targets[0].counts)))}
    if preparation.task == "labels":
        usual = np.array([column.mean >= 0.5 for column in preparation.targets])
        return {**found, **_scores(preparation, found["labels"]), "baseline": float(np.mean(target == usual))}
    scale = np.array([column.scale for column in preparation.targets])
    del found["errors"]
    squares, sizes = np.moveaxis(np.asarray(results["errors"]), -1, 0)
    lines = {
        column.name: {"root_mean_squared_error": error, "mean_absolute_error": size, "baseline": usual}
        for column, error, size, usual in zip(
            preparation.targets, np.sqrt(squares) * scale, sizes * scale, np.sqrt((target**2).mean(0)) * scale,
            strict=True,
        )
    }  # fmt: skip
    spread = ((target - target.mean(0)) ** 2).sum(0)
    of_mean = np.where(spread > 0, 1 - (target**2).sum(0) / np.where(spread > 0, spread, 1), 0)
    return {**found, "outputs": lines, "baseline": float(of_mean.mean())}


def verdict(preparation: Preparation, task: Task, results: dict[str, Any]) -> str | None:
    """A sentence if the network is not better than the baseline."""
    if results[task.score] > results["baseline"]:
        return None
    (column, *_) = preparation.targets
    answers = {
        "classes": lambda: f"always {column.categories[np.argmax(column.counts)]}",
        "labels": lambda: "always the commoner value of each label",
        "regression": lambda: "always the mean of the training rows",
    }
    return f"This is not better than one answer for all rows, {answers[preparation.task]()}."


def outputs_of(model: Layer, params: Any, state: Any, x: np.ndarray) -> np.ndarray:
    """The network's outputs for rows, in batches of one size, so that one program is compiled."""
    size = min(ROWS_AT_A_TIME, len(x))
    apply = jax.jit(lambda params, state, x: model.apply(params, state, x)[0])
    parts = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
        parts.append(np.asarray(apply(params, state, filled))[: len(part)])
    return np.concatenate(parts)


# Metrics of each output


def _counts(outputs: int) -> Metric:
    """(labels, 3): how often a label was right to be given, wrongly given, and wrongly left out."""

    def seen(prediction, target):
        given, true = prediction >= 0, target > 0.5
        return jnp.stack([given & true, given & ~true, ~given & true], -1)

    return _total(seen, (outputs, 3))


def _errors(outputs: int) -> Metric:
    """(outputs, 2): the means of (p − t)² and |p − t|."""

    def seen(prediction, target):
        return jnp.stack([jnp.square(prediction - target), jnp.abs(prediction - target)], -1)

    total = _total(seen, (outputs, 2))

    def update(state, prediction, target, where=None, weights=None):
        count, sums = state
        n = len(target) if where is None else jnp.sum(where)
        return count + n, total.update(sums, prediction, target, where)

    def compute(state):
        count, sums = state
        return sums / jnp.maximum(count, 1).astype(sums.dtype)

    return Metric(lambda: (jnp.zeros((), jnp.int32), total.init()), update, compute)


def _total(seen, shape) -> Metric:
    """The sum of what is seen in each row."""

    def update(state, prediction, target, where=None, weights=None):
        values = seen(prediction, target).astype(state.dtype)
        return state + (values if where is None else jnp.where(jnp.asarray(where)[:, None, None], values, 0)).sum(0)

    return Metric(lambda: jnp.zeros(shape), update, lambda state: state)


def _scores(preparation, counts):
    """Precision, recall and F1 of each label."""
    right, wrong, missed = counts.T

    def share(a, b):
        return np.where(b > 0, a / np.where(b > 0, b, 1), 0.0)

    columns = share(right, right + wrong), share(right, right + missed), share(2 * right, 2 * right + wrong + missed)
    names = ("precision", "recall", "f1")
    return {
        "labels": {
            column.name: dict(zip(names, map(float, values), strict=True))
            for column, *values in zip(preparation.targets, *columns, strict=True)
        }
    }
