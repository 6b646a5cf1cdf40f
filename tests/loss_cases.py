"""The values of every loss by a NumPy formula that shares nothing with the library, for the rows of the catalogue.

A formula takes the options of its loss. With class weights, `SHARES` says by how much each value counts in the mean.
"""

import itertools

import numpy as np

from funcnet import losses


def mean_squared_error(p, t):
    return (p - t) ** 2


def half_squared_error(p, t):
    return ((p - t) ** 2).reshape(len(p), -1).sum(1) / 2


def mean_absolute_error(p, t):
    return abs(p - t)


def smooth_l1(p, t, beta=1.0):
    return np.where(abs(p - t) < beta, (p - t) ** 2 / (2 * beta), abs(p - t) - beta / 2)


def huber(p, t, delta=1.0):
    return np.where(abs(p - t) < delta, (p - t) ** 2 / 2, delta * abs(p - t) - delta**2 / 2)


def log_cosh(p, t):
    return np.log(np.cosh(p - t))


def binary_cross_entropy(p, y, class_weights=(1.0, 1.0), pos_weight=1.0):
    w0, w1 = class_weights
    return -pos_weight * w1 * y * np.log(p) - w0 * (1.0 - y) * np.log(1 - p)


def binary_cross_entropy_with_logits(z, y, label_smoothing=0.0, **weights):
    return binary_cross_entropy(1 / (1 + np.exp(-z)), (1 - label_smoothing) * y + label_smoothing / 2, **weights)


def negative_log_likelihood(log_p, t, class_weights=1.0, label_smoothing=0.0):
    t = np.eye(log_p.shape[-1])[t] if t.ndim < log_p.ndim else t
    smoothed = (1 - label_smoothing) * t + label_smoothing / log_p.shape[-1]
    return -(class_weights * smoothed * log_p).sum(-1)


def cross_entropy(p, t, **options):
    return negative_log_likelihood(np.log(p), t, **options)


def softmax_cross_entropy(z, t, **options):
    return negative_log_likelihood(np.log(np.exp(z) / np.exp(z).sum(-1, keepdims=True)), t, **options)


def multiclass_hinge(s, y, margin=1.0, variant="weston_watkins", class_weights=(1.0,) * 4):
    combine = {"weston_watkins": sum, "crammer_singer": max}[variant]

    def row(s, y):
        return class_weights[y] * combine([max(0, s[j] - s[y] + margin) for j in range(len(s)) if j != y])

    return np.array([row(*pair) for pair in zip(s.reshape(-1, 4), y.ravel(), strict=True)]).reshape(y.shape)


def reads(path, blank=0):
    """What an alignment says: equal neighbours are one, and blanks are none."""
    return [k for k, _ in itertools.groupby(path) if k != blank]


def ctc(z, labels, blank=0):
    """By a sum over all alignments, one after the other."""
    y = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    paths = [(path, reads(path, blank)) for path in itertools.product(range(z.shape[-1]), repeat=z.shape[1])]

    def likelihood(y, labels):
        return sum(y[range(len(path)), path].prod() for path, read in paths if read == [*labels])

    with np.errstate(divide="ignore"):
        return -np.log([likelihood(*row) for row in zip(y, labels, strict=True)])


# Of a loss that is no mean of values, with what counts: the whole loss.


def root_mean_squared_error(p, t, counts):
    return np.sqrt((counts * (p - t) ** 2).sum() / counts.sum())


def dice(p, t, counts, smoothing=1e-5, per_class=True, class_weights=None):
    t = np.eye(p.shape[-1])[t] if t.ndim < p.ndim else t
    counts = counts.ravel()[:, None] / counts.sum()
    both, either = [(counts * x.reshape(-1, p.shape[-1])).sum(0) for x in (p * t, p + t)]
    w = np.ones(p.shape[-1]) if class_weights is None else np.array(class_weights)
    if not per_class:
        return 1 - (2 * w @ both + smoothing) / (w @ either + smoothing)
    return np.average(1 - (2 * both + smoothing) / (either + smoothing), weights=w)


FORMULAS = {
    losses.binary_cross_entropy: binary_cross_entropy,
    losses.binary_cross_entropy_with_logits: binary_cross_entropy_with_logits,
    losses.cross_entropy: cross_entropy,
    losses.ctc: ctc,
    losses.dice: dice,
    losses.half_squared_error: half_squared_error,
    losses.huber: huber,
    losses.log_cosh: log_cosh,
    losses.mean_absolute_error: mean_absolute_error,
    losses.mean_squared_error: mean_squared_error,
    losses.multiclass_hinge: multiclass_hinge,
    losses.negative_log_likelihood: negative_log_likelihood,
    losses.root_mean_squared_error: root_mean_squared_error,
    losses.smooth_l1: smooth_l1,
    losses.softmax_cross_entropy: softmax_cross_entropy,
}


def of_two(y, w):
    """Of a share y of class 1."""
    return w[0] + (w[1] - w[0]) * y


def of_several(t, w):
    """Of labels, or of rows with a share for each class."""
    if t.dtype.kind in "iu":
        return np.array(w)[t]
    return np.array([sum(w * x for w, x in zip(w, row, strict=True)) for row in t])


SHARES = {
    losses.binary_cross_entropy: of_two,
    losses.binary_cross_entropy_with_logits: of_two,
    losses.cross_entropy: of_several,
    losses.multiclass_hinge: of_several,
    losses.negative_log_likelihood: of_several,
    losses.softmax_cross_entropy: of_several,
}


def expected(case, where=None, weights=None):
    """The loss of a row by its formula, with each reduction, and what the mean divides by."""
    shape = case.prediction.shape[: case.loss.axes]
    counts = np.ones(shape)
    for x in (where, weights):
        counts = counts if x is None else counts * x.reshape(x.shape + (1,) * (len(shape) - x.ndim))
    if case.loss.counted is None:
        return {"mean": FORMULAS[case.loss](case.prediction, case.target, counts, **case.options)}
    values = np.asarray(FORMULAS[case.loss](case.prediction, case.target, **case.options), np.float64)
    weighted = "class_weights" in case.options
    shares = counts * SHARES[case.loss](case.target, case.options["class_weights"]) if weighted else counts
    total = (counts * values).sum()
    return {"mean": total / shares.sum(), "sum": total, "none": counts * values, "counted": shares.sum()}


def reductions_of(case):
    """What is no mean of values has no other reduction."""
    return ("mean", "sum", "none") if case.loss.counted else ("mean",)


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
