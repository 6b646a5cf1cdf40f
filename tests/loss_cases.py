"""The table of losses under test: every public loss has a row, in every form and with every kind of target.

A row gives the loss, its options, a prediction and a target, and its values by a NumPy formula that shares nothing
with the library; with class weights also by how much each value counts in the mean. Predictions keep 0.01 off every
kink, so that finite differences see one branch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from funcnet import losses

rng = np.random.default_rng(0)


class Case(NamedTuple):
    loss: Any
    prediction: np.ndarray
    target: np.ndarray
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]
    options: dict[str, Any] = {}
    reductions: tuple[str, ...] = ("mean", "sum", "none")
    shares: Callable[[np.ndarray], np.ndarray] | None = None


def off_kinks(shape):
    """Multiples of 0.1 plus 0.013 times the column: no element and no difference in a row is a multiple of 0.1."""
    return np.round(rng.normal(size=shape), 1) + 0.013 * (1 + np.arange(shape[-1]))


# Elementwise.
numbers = off_kinks((5, 4))
cubes = off_kinks((3, 2, 4))
floats = np.round(rng.normal(size=(5, 4)), 1)
integers = rng.integers(-2, 3, (5, 4))
booleans = rng.integers(0, 2, (5, 4)).astype(bool)
probabilities = rng.permutation(np.linspace(0.2, 0.8, 20)).reshape(5, 4)
shares = rng.uniform(size=(5, 4))


def squared(p, t):
    return (p - t) ** 2


def half_squared(p, t):
    return ((p - t) ** 2).reshape(len(p), -1).sum(1) / 2


def absolute(p, t):
    return abs(p - t)


def huber(delta):
    return lambda p, t: np.where(abs(p - t) < delta, (p - t) ** 2 / 2, delta * abs(p - t) - delta**2 / 2)


def smooth(beta):
    return lambda p, t: np.where(abs(p - t) < beta, (p - t) ** 2 / (2 * beta), abs(p - t) - beta / 2)


def log_cosh(p, t):
    return np.log(np.cosh(p - t))


def binary(p, y):
    return -(y * np.log(p)) - (~y if y.dtype == bool else 1 - y) * np.log(1 - p)


def weighted_binary(w0, w1):
    return lambda p, y: -w1 * y * np.log(p) - w0 * (1.0 - y) * np.log(1 - p)


def sides(w0, w1):
    return lambda y: np.where(y == 0, w0, np.where(y == 1, w1, w0 + (w1 - w0) * y))


def binary_logits(weight=1.0, smoothing=0.0, w0=1.0, w1=1.0):
    def values(z, y):
        p, y = 1 / (1 + np.exp(-z)), (1 - smoothing) * y + smoothing / 2
        return -weight * w1 * y * np.log(p) - w0 * (1 - y) * np.log(1 - p)

    return values


# By class: rows (5,) and (3, 2) of 4 classes.
logits = off_kinks((5, 4))
sequences = off_kinks((3, 2, 4))
labels = rng.integers(0, 4, 5)
sequence_labels = rng.integers(0, 4, (3, 2)).astype(np.uint8)
one_hot = np.eye(4, dtype=bool)[labels]
weights = rng.uniform(size=(5, 4))  # rows that do not sum to 1
class_weights = (0.5, 2.0, 1.25, 0.8)
W = np.array(class_weights)


def log_softmax(z):
    return np.log(np.exp(z) / np.exp(z).sum(-1, keepdims=True))


def likelihood(log_p, t, smoothing=0.0, w=1.0):
    t = np.eye(log_p.shape[-1])[t] if t.ndim < log_p.ndim else t
    return -(w * ((1 - smoothing) * t + smoothing / log_p.shape[-1]) * log_p).sum(-1)


def cross_entropy(smoothing=0.0, w=1.0):
    return lambda z, t: likelihood(log_softmax(z), t, smoothing, w)


def by_label(y):
    return W[y]


def by_row(t):
    return np.array([sum(w * x for w, x in zip(class_weights, row, strict=True)) for row in t])


def hinge(combine, margin=1.0, w=(1.0,) * 4):
    def row(s, y):
        return w[y] * combine([max(0, s[j] - s[y] + margin) for j in range(len(s)) if j != y])

    def values(s, y):
        return np.array([row(*pair) for pair in zip(s.reshape(-1, 4), y.ravel(), strict=True)]).reshape(y.shape)

    return values


crammer_singer = {"variant": "crammer_singer"}

CASES = {
    "mean_squared_error float": Case(losses.mean_squared_error, numbers, floats, squared),
    "mean_squared_error int": Case(losses.mean_squared_error, numbers, integers, squared),
    "half_squared_error": Case(losses.half_squared_error, numbers, floats, half_squared),
    "half_squared_error 3d bool": Case(losses.half_squared_error, cubes, cubes > 0.5, half_squared),
    "mean_absolute_error": Case(losses.mean_absolute_error, numbers, floats, absolute),
    "mean_absolute_error int": Case(losses.mean_absolute_error, numbers, integers, absolute),
    "root_mean_squared_error": Case(losses.root_mean_squared_error, numbers, floats, squared, {}, ("mean",)),
    "smooth_l1": Case(losses.smooth_l1, numbers, floats, smooth(1)),
    "smooth_l1 beta": Case(losses.smooth_l1, numbers, floats, smooth(0.4), {"beta": 0.4}),
    "huber": Case(losses.huber, numbers, floats, huber(1)),
    "huber delta": Case(losses.huber, numbers, integers, huber(0.6), {"delta": 0.6}),
    "log_cosh": Case(losses.log_cosh, numbers, floats, log_cosh),
    "binary_cross_entropy": Case(losses.binary_cross_entropy, probabilities, booleans, binary),
    "binary_cross_entropy shares": Case(losses.binary_cross_entropy, probabilities, shares, binary),
    "binary_cross_entropy_with_logits": Case(
        losses.binary_cross_entropy_with_logits, numbers, booleans.astype(np.int8), binary_logits()
    ),
    "binary_cross_entropy_with_logits shares": Case(
        losses.binary_cross_entropy_with_logits, numbers, shares, binary_logits(3, 0.2),
        {"pos_weight": 3.0, "label_smoothing": 0.2},
    ),
    "softmax_cross_entropy labels": Case(losses.softmax_cross_entropy, logits, labels, cross_entropy()),
    "softmax_cross_entropy sequences": Case(losses.softmax_cross_entropy, sequences, sequence_labels, cross_entropy()),
    "softmax_cross_entropy one-hot": Case(losses.softmax_cross_entropy, logits, one_hot, cross_entropy()),
    "softmax_cross_entropy weights": Case(losses.softmax_cross_entropy, logits, weights, cross_entropy()),
    "softmax_cross_entropy labels smoothed": Case(
        losses.softmax_cross_entropy, logits, labels, cross_entropy(0.1), {"label_smoothing": 0.1}
    ),
    "softmax_cross_entropy weights smoothed": Case(
        losses.softmax_cross_entropy, logits, weights, cross_entropy(0.3), {"label_smoothing": 0.3}
    ),
    "negative_log_likelihood labels": Case(losses.negative_log_likelihood, log_softmax(logits), labels, likelihood),
    "negative_log_likelihood one-hot": Case(losses.negative_log_likelihood, log_softmax(logits), one_hot, likelihood),
    "negative_log_likelihood weights": Case(losses.negative_log_likelihood, log_softmax(logits), weights, likelihood),
    "multiclass_hinge": Case(losses.multiclass_hinge, logits, labels, hinge(sum)),
    "multiclass_hinge sequences": Case(
        losses.multiclass_hinge, sequences, sequence_labels, hinge(sum, 0.5), {"margin": 0.5}
    ),
    "multiclass_hinge crammer_singer": Case(
        losses.multiclass_hinge, logits, labels, hinge(max, 1.5), {"margin": 1.5} | crammer_singer
    ),
    "binary_cross_entropy class weights": Case(
        losses.binary_cross_entropy, probabilities, booleans, weighted_binary(0.5, 3.0),
        {"class_weights": (0.5, 3.0)}, shares=sides(0.5, 3.0),
    ),
    "binary_cross_entropy shares class weights": Case(
        losses.binary_cross_entropy, probabilities, shares, weighted_binary(0.5, 3.0),
        {"class_weights": (0.5, 3.0)}, shares=sides(0.5, 3.0),
    ),
    "binary_cross_entropy_with_logits class weights": Case(
        losses.binary_cross_entropy_with_logits, numbers, shares, binary_logits(3, 0.2, 0.5, 3.0),
        {"pos_weight": 3.0, "label_smoothing": 0.2, "class_weights": (0.5, 3.0)}, shares=sides(0.5, 3.0),
    ),
    "softmax_cross_entropy labels class weights": Case(
        losses.softmax_cross_entropy, logits, labels, cross_entropy(0, W), {"class_weights": class_weights},
        shares=by_label,
    ),
    "softmax_cross_entropy labels smoothed class weights": Case(
        losses.softmax_cross_entropy, logits, labels, cross_entropy(0.1, W),
        {"label_smoothing": 0.1, "class_weights": class_weights}, shares=by_label,
    ),
    "softmax_cross_entropy one-hot class weights": Case(
        losses.softmax_cross_entropy, logits, one_hot, cross_entropy(0, W), {"class_weights": class_weights},
        shares=lambda _: W[labels],
    ),
    "softmax_cross_entropy weights class weights": Case(
        losses.softmax_cross_entropy, logits, weights, cross_entropy(0, W), {"class_weights": class_weights},
        shares=by_row,
    ),
    "negative_log_likelihood class weights": Case(
        losses.negative_log_likelihood, log_softmax(sequences), sequence_labels,
        lambda p, t: likelihood(p, t, w=W), {"class_weights": class_weights}, shares=by_label,
    ),
    "multiclass_hinge class weights": Case(
        losses.multiclass_hinge, sequences, sequence_labels, hinge(sum, 0.5, class_weights),
        {"margin": 0.5, "class_weights": class_weights}, shares=by_label,
    ),
}  # fmt: skip

COUNTS = ("everything", "rows", "values", "row weights", "value weights", "rows and value weights")


def counts_of(case, kind):
    """`where` and `weights`, over the first axis or over all axes of the values; each mask leaves out something."""
    shape = case.prediction.shape[: case.loss.axes]

    def where(shape):
        return np.arange(np.prod(shape)).reshape(shape) % 3 != 1

    def weights(shape):
        return np.round(0.3 + 0.7 * np.arange(np.prod(shape)).reshape(shape) ** 0.5, 3)

    return {
        "everything": {},
        "rows": {"where": where(shape[:1])},
        "values": {"where": where(shape)},
        "row weights": {"weights": weights(shape[:1])},
        "value weights": {"weights": weights(shape)},
        "rows and value weights": {"where": where(shape[:1]), "weights": weights(shape)},
    }[kind]
