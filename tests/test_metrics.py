"""Metrics: values against NumPy, and the laws that all of them obey."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import Padded, losses, metrics
from funcnet.errors import ConfigError, DataError, DtypeError, ShapeError, StructureError
from funcnet.metrics import (
    ClassScores,
    accuracy,
    binary_accuracy,
    confusion_matrix,
    ctc_labels,
    edit_distance,
    mean_iou,
    mean_loss,
    perplexity,
    precision_recall_f1,
    r_squared,
    top_k_accuracy,
)

N = 60
rng = np.random.default_rng(0)
SCORES = rng.normal(size=(N, 4)).astype(np.float32)
LABELS = rng.integers(0, 4, N).astype(np.int32)
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]
VALUES = rng.normal(size=(N, 3)).astype(np.float32)
TARGETS = (VALUES + rng.normal(size=(N, 3))).astype(np.float32)


SPOKEN = rng.normal(size=(N, 6, 3)).astype(np.float32)
WORDS = rng.integers(1, 3, (N, 3)).astype(np.int32)


def softmax(p):
    return np.exp(p.astype(np.float64)) / np.exp(p.astype(np.float64)).sum(-1, keepdims=True)


def spoken(p):
    """What each row says, label by label, with the blank 0."""
    return [[k for k, _ in itertools.groupby(row) if k != 0] for row in p.argmax(-1)]


def levenshtein(a, b):
    """By its recursion: the last label of one or of the other, or of both, is dealt with last."""
    if len(a) == 0 or len(b) == 0:
        return len(a) + len(b)
    last = levenshtein(a[:-1], b[:-1]) + (a[-1] != b[-1])
    return min(levenshtein(a[:-1], b) + 1, levenshtein(a, b[:-1]) + 1, last)


def squared_error(prediction, target, *, reduction, where=None, weights=None):
    assert reduction == "none"
    values = jnp.square(prediction - target)
    return values if weights is None else values * weights.astype(values.dtype)[:, None]


def mean_square(prediction, target, where=None, weights=None):
    """A scalar that is a mean over rows."""
    counts = jnp.ones(len(prediction), prediction.dtype)
    for x in (where, weights):
        counts = counts if x is None else counts * x.astype(counts.dtype)
    square = jnp.where(counts > 0, jnp.square(prediction[:, 0] - target[:, 0]), 0)
    return (counts * square).sum() / jnp.maximum(counts.sum(), 1)


def numpy_confusion(p, t):
    matrix = np.zeros((4, 4), int)
    for true, predicted in zip(t, p.argmax(1), strict=True):
        matrix[true, predicted] += 1
    return matrix


def numpy_scores(p, t):
    predicted = p.argmax(1)
    rows = []
    for k in range(4):
        right = np.sum((predicted == k) & (t == k))
        precision = right / np.sum(predicted == k) if np.any(predicted == k) else 0.0
        recall = right / np.sum(t == k) if np.any(t == k) else 0.0
        rows.append((precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0))
    return ClassScores(*np.array(rows).T)


def numpy_iou(p, t):
    areas = [(p.argmax(1) == k, t == k) for k in range(4)]
    return np.mean([(a & b).sum() / (a | b).sum() for a, b in areas if (a | b).any()])


def numpy_r_squared(p, t):
    p, t = p.reshape(len(p), -1).astype(np.float64), t.reshape(len(t), -1).astype(np.float64)
    return np.mean(1 - ((p - t) ** 2).sum(0) / ((t - t.mean(0)) ** 2).sum(0))


# call -> metric, prediction, target, the same in NumPy
CASES = {
    "accuracy": (accuracy(), SCORES, LABELS, lambda p, t: np.mean(p.argmax(1) == t)),
    "accuracy one-hot": (accuracy(), SCORES, ONE_HOT, lambda p, t: np.mean(p.argmax(1) == t.argmax(1))),
    "accuracy uint8": (accuracy(), SCORES, LABELS.astype(np.uint8), lambda p, t: np.mean(p.argmax(1) == t)),
    "accuracy per time": (
        accuracy(), SCORES.reshape(12, 5, 4), LABELS.reshape(12, 5), lambda p, t: np.mean(p.argmax(2) == t),
    ),
    "binary_accuracy": (
        binary_accuracy(), 1 / (1 + np.exp(-SCORES[:, :1])), LABELS[:, None] % 2,
        lambda p, t: np.mean((p >= 0.5) == (t == 1)),
    ),
    "binary_accuracy of logits": (
        binary_accuracy(threshold=0.0), SCORES[:, 0], LABELS % 2 == 1, lambda p, t: np.mean((p >= 0) == t),
    ),
    "top_k_accuracy": (
        top_k_accuracy(2), SCORES, LABELS, lambda p, t: np.mean((np.argsort(-p, 1)[:, :2] == t[:, None]).any(1)),
    ),
    "confusion_matrix": (confusion_matrix(4), SCORES, LABELS, numpy_confusion),
    "precision_recall_f1": (precision_recall_f1(4), SCORES, LABELS, numpy_scores),
    "mean_iou": (mean_iou(4), SCORES, LABELS, numpy_iou),
    "r_squared": (r_squared(), VALUES[:, 0], TARGETS[:, 0], numpy_r_squared),
    "r_squared of three": (r_squared(3), VALUES, TARGETS, numpy_r_squared),
    "mean_loss": (mean_loss(squared_error), VALUES, TARGETS, lambda p, t: np.mean((p - t) ** 2)),
    "mean_loss of a loss": (
        mean_loss(losses.mean_squared_error), VALUES, TARGETS, lambda p, t: np.mean((p - t) ** 2),
    ),
    "mean_loss of a scalar": (mean_loss(mean_square), VALUES, TARGETS, lambda p, t: np.mean((p - t)[:, 0] ** 2)),
    "mean_loss with class weights": (
        mean_loss(losses.partial(losses.negative_log_likelihood, class_weights=(1.0, 3.0, 0.5, 2.0))), -SCORES, LABELS,
        lambda p, t: -np.sum(np.take([1, 3, 0.5, 2], t) * p[range(len(t)), t]) / np.take([1, 3, 0.5, 2], t).sum(),
    ),
    "mean_loss of a sum": (
        mean_loss(losses.weighted_sum(a=(0.5, losses.mean_squared_error), b=(2.0, losses.half_squared_error))),
        VALUES, TARGETS, lambda p, t: 0.5 * np.mean((p - t) ** 2) + 2.0 * np.mean(((p - t) ** 2).sum(1)) / 2,
    ),
    "perplexity": (
        perplexity(losses.softmax_cross_entropy), SCORES, LABELS,
        lambda p, t: 1 / np.prod(softmax(p)[range(len(t)), t] ** (1 / len(t))),
    ),
    "edit_distance": (
        edit_distance(read=ctc_labels), SPOKEN, WORDS, lambda p, t: np.mean([*map(levenshtein, spoken(p), t)]),
    ),
    "edit_distance normalized": (
        edit_distance(normalized=True, read=ctc_labels), SPOKEN, WORDS,
        lambda p, t: np.sum([*map(levenshtein, spoken(p), t)]) / t.size,
    ),
}  # fmt: skip
every_case = pytest.mark.parametrize("metric, prediction, target, expected", CASES.values(), ids=CASES.keys())


def test_every_public_metric_has_a_row():
    assert {call.split()[0] for call in CASES} == {*metrics.__all__} - {"Metric", "ClassScores", "ctc_labels"}


def assert_close(got, expected, tolerance=1e-5):
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=tolerance, atol=tolerance), got, expected)


def run(metric, *batches):
    """The value after some batches, compiled as in training."""
    state = metric.init()
    for batch in batches:
        state = jax.jit(metric.update)(state, *batch)
    return jax.jit(metric.compute)(state)


@every_case
def test_value(metric, prediction, target, expected):
    assert_close(run(metric, (prediction, target)), expected(prediction, target))


@every_case
def test_batches_add_up(metric, prediction, target, expected):
    cut = len(target) // 3
    batches = (prediction[:cut], target[:cut]), (prediction[cut:], target[cut:])
    assert_close(run(metric, *batches), expected(prediction, target))


@every_case
def test_weights_are_repeated_rows(metric, prediction, target, expected):
    """Whole weights count a row so many times; batches without weights stand beside them."""
    weights = np.arange(len(target)) % 4
    repeated = np.repeat(np.arange(len(target)), weights)
    cut = len(target) // 3
    want = expected(*(np.concatenate([x[:cut], x[repeated[repeated >= cut]]]) for x in (prediction, target)))
    batches = (prediction[:cut], target[:cut]), (prediction[cut:], target[cut:], None, weights[cut:])
    assert_close(run(metric, *batches), want)
    masked = prediction, target, weights > 0, np.where(weights > 0, weights, np.nan)
    assert_close(run(metric, masked), expected(prediction[repeated], target[repeated]))


@pytest.mark.parametrize(
    "name",
    ["accuracy", "accuracy one-hot", "top_k_accuracy", "confusion_matrix", "precision_recall_f1", "mean_iou",
     "r_squared of three", "mean_loss of a loss", "mean_loss with class weights"],
)  # fmt: skip
def test_padding_does_not_count(name):
    """Of sequences, as a mask over positions, whatever stands there."""
    metric, *arrays, _ = CASES[name]
    p, t = (np.reshape(x, (15, 4, *x.shape[1:]))[:, :3].copy() for x in arrays)
    there, weights = np.arange(45).reshape(15, 3) % 4 != 3, np.linspace(1, 2, 15)
    want = run(metric, (p, t, there, weights))
    p[~there] = np.nan
    assert_same(run(metric, (Padded(p, there), t, None, weights)), want)
    assert_same(run(metric, (Padded(p, there), Padded(t, there), np.ones(15, bool), weights)), want)


def assert_same(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


@every_case
def test_masked_rows_do_not_count(metric, prediction, target, expected):
    """A scan over batches of one shape; the row that fills up the last one holds NaN."""
    n = len(target) - 1
    where = np.arange(len(target)) < n
    filled_p, filled_t = prediction.copy(), target.copy()
    filled_p[n] = np.nan
    if np.issubdtype(target.dtype, np.floating):
        filled_t[n] = np.nan
    batches = [a.reshape(12, -1, *a.shape[1:]) for a in (filled_p, filled_t, where)]

    @jax.jit
    def scan(batches):
        state, _ = jax.lax.scan(lambda state, batch: (metric.update(state, *batch), None), metric.init(), batches)
        return metric.compute(state)

    assert_close(scan(batches), expected(prediction[:n], target[:n]))


@every_case
def test_state_keeps_its_types(metric, prediction, target, expected):
    state = metric.init()
    updated = jax.jit(metric.update)(state, prediction, target)
    assert jax.tree.structure(state) == jax.tree.structure(updated)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(updated), strict=True):
        assert (before.shape, before.dtype, before.weak_type) == (after.shape, after.dtype, after.weak_type)
        assert before.dtype in (jnp.int32, jnp.float32)
    jax.block_until_ready(jax.jit(metric.update, donate_argnums=0)(metric.init(), prediction, target))


@every_case
def test_nothing_counted_is_nan(metric, prediction, target, expected):
    value = run(metric, (prediction, target, np.zeros(len(target), bool)))
    if isinstance(value, ClassScores) or value.ndim:  # counts, and shares of a class that does not occur
        assert all(not leaf.any() for leaf in jax.tree.leaves(value))
    else:
        assert jnp.isnan(value)


@every_case
def test_low_precision_predictions(metric, prediction, target, expected):
    p = jnp.asarray(prediction, jnp.bfloat16)
    t = jnp.asarray(target, jnp.bfloat16) if np.issubdtype(target.dtype, np.floating) else target
    value = run(metric, (p, t))
    assert_close(value, expected(np.float32(p), np.float32(t) if t is not target else t), 1e-2)
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(value))


@every_case
def test_float64(metric, prediction, target, expected, x64):
    p = prediction.astype(np.float64)
    t = target.astype(np.float64) if np.issubdtype(target.dtype, np.floating) else target
    assert_close(run(metric, (p, t)), expected(p, t), 1e-14)


# Values by hand.


def value(metric, *batch):
    return run(metric, batch)


def test_ties_go_to_the_first():
    prediction = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    assert value(accuracy(), prediction, jnp.array([1, 1])) == 0.5
    assert value(top_k_accuracy(2), jnp.zeros((3, 3)), jnp.array([0, 1, 2])) == jnp.float32(2 / 3)


def test_the_threshold_itself_is_class_1():
    assert value(binary_accuracy(), jnp.array([0.5, 0.5]), jnp.array([1, 0])) == 0.5


def test_several_labels_at_once():
    prediction = jnp.array([[0.9, 0.1], [0.6, 0.7]])
    assert value(binary_accuracy(), prediction, jnp.array([[1.0, 0.0], [0.0, 1.0]])) == 0.75
    assert value(binary_accuracy(), prediction, jnp.array([[1, 0], [0, 1]]), jnp.array([True, False])) == 1


def test_counts_are_exact_beyond_float32():
    metric = accuracy()
    state = metric.init()
    state = state._replace(hits=state.hits._replace(exact=jnp.int32(2**24)))
    state = metric.update(state, jnp.array([[1.0, 0.0]]), jnp.array([0]))
    assert int(state.hits.exact) == 2**24 + 1


def test_rows_are_true_and_columns_predicted():
    prediction = jnp.eye(3)[jnp.array([0, 0, 2])]
    assert value(confusion_matrix(3), prediction, jnp.array([0, 1, 1])).tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]


def test_labels_out_of_range_are_not_counted():
    assert value(confusion_matrix(2), jnp.zeros((4, 2)), jnp.array([-1, 2, 0, 300])).tolist() == [[1, 0], [0, 0]]


def test_a_class_never_predicted_scores_zero():
    scores = value(precision_recall_f1(3), jnp.eye(3)[jnp.array([0, 0, 0])], jnp.array([0, 0, 1]))
    assert_close(scores, ClassScores([2 / 3, 0, 0], [1, 0, 0], [0.8, 0, 0]))


def test_intersection_over_union_by_hand():
    """Of two images of four pixels each. Class 2 is nowhere."""
    predicted, labels = jnp.array([[[0, 1], [1, 0]], [[1, 0], [0, 0]]]), jnp.array([[[0, 1], [1, 1]], [[0, 0], [0, 1]]])
    # Both of class 0: 3 pixels; either: 6. Both of class 1: 2; either: 5.
    assert_close(value(mean_iou(3), jnp.eye(3)[predicted], labels), (3 / 6 + 2 / 5) / 2)
    where = jnp.array([[[True, True], [True, True]], [[True, True], [True, False]]])
    assert_close(value(mean_iou(3), jnp.eye(3)[predicted], labels, where), (3 / 5 + 2 / 4) / 2)
    assert value(mean_iou(2), jnp.eye(2)[labels], labels) == 1


@pytest.mark.parametrize("outputs", [1, 3])
def test_r_squared_of_numbers_far_from_zero(outputs):
    """Mean 1e4, standard deviation 1, float32: E[t²] − E[t]² would have no digit left."""
    t = (1e4 + np.random.default_rng(1).normal(size=(4000, outputs))).astype(np.float32)
    p = (t + np.random.default_rng(2).normal(size=t.shape) / 2).astype(np.float32)
    metric = r_squared(outputs)
    batches = (jnp.asarray(p.reshape(80, 50, outputs)), jnp.asarray(t.reshape(80, 50, outputs)))
    state, _ = jax.lax.scan(lambda state, batch: (metric.update(state, *batch), None), metric.init(), batches)
    np.testing.assert_allclose(metric.compute(state), numpy_r_squared(p, t), rtol=1e-6)


def test_r_squared_of_a_constant_target():
    target = jnp.full(7, 1e4 / 3)
    assert value(r_squared(), target, target) == 1
    assert value(r_squared(), target + 1, target) == 0


def test_r_squared_of_the_mean_is_zero():
    assert value(r_squared(), jnp.full(4, 2.5), jnp.array([1.0, 2.0, 3.0, 4.0])) == 0


def test_mean_loss_counts_marked_values():
    metric = mean_loss(squared_error)
    state = metric.update(metric.init(), jnp.ones((2, 2)), jnp.zeros((2, 2)))
    state = metric.update(state, jnp.full((2, 2), 3.0), jnp.zeros((2, 2)), jnp.array([True, False]))
    assert metric.compute(state) == (4 * 1 + 2 * 9) / 6  # the mean of the batches' means would be 5


def test_mean_loss_of_padding_without_a_label():
    """One of the library's losses, which looks at labels where it can."""
    metric = mean_loss(losses.softmax_cross_entropy)
    batch = jnp.zeros((3, 4)), np.array([0, 3, -1]), np.array([True, True, False])
    for update in (metric.update, jax.jit(metric.update)):
        np.testing.assert_allclose(metric.compute(update(metric.init(), *batch)), np.log(4), rtol=1e-6)


def test_metrics_print_as_their_calls():
    assert str(binary_accuracy(threshold=0.0)) == "binary_accuracy(threshold=0.0)"
    assert str(mean_loss(losses.huber)) == "mean_loss(huber)"
    assert accuracy() == accuracy()
    assert confusion_matrix(3).made is confusion_matrix(3).made
    assert precision_recall_f1(3).update != confusion_matrix(3).update


def test_where_over_positions():
    where = np.array([[True, False], [True, True]])
    prediction = jnp.eye(3)[jnp.array([[0, 1], [2, 2]])]
    assert value(accuracy(), prediction, jnp.array([[0, 0], [2, 1]]), where) == jnp.float32(2 / 3)


def test_the_rows_of_a_loss_of_its_own_are_those_of_the_target():
    """The prediction may hold numbers that are no rows, such as a divergence from the prior."""
    metric, state = mean_loss(total_of), mean_loss(total_of).init()
    for rows, number in ((3, 1.0), (1, 5.0)):
        state = metric.update(state, {"a": jnp.float32(number), "b": jnp.zeros(rows)}, jnp.zeros(rows))
    assert metric.compute(state) == (3 * 1 + 1 * 5) / 4


# What is refused.


def total_of(prediction, target, where=None):
    return sum(leaf.sum() for leaf in jax.tree.leaves(prediction))


ROWS = np.ones(N, bool)
ONE = VALUES[:, :1]


@pytest.mark.parametrize(
    "error, metric, batch, message",
    [
        (ShapeError, accuracy(), (SCORES, LABELS[:, None]), r"target of labels .*got \(60, 1\);.*; target\[:, 0\]"),
        (ShapeError, accuracy(), (SCORES, LABELS[1:]), r"target of labels of shape \(60,\), got \(59,\)"),
        (ShapeError, accuracy(), (ONE, LABELS), r"prediction of shape.*got \(60, 1\).*binary_accuracy"),
        (ShapeError, accuracy(), (SCORES[:, 0], LABELS), r"prediction of shape \(batch, classes\).*got \(60,\)"),
        (DtypeError, accuracy(), (SCORES, TARGETS[:, 0]), "target to be integers, got dtype float32"),
        (ShapeError, accuracy(), (SCORES, LABELS, ROWS[1:]), r"where of shape \(60,\), got \(59,\)"),
        (DtypeError, accuracy(), (SCORES, LABELS, LABELS), "where of dtype bool, got int32"),
        (ShapeError, accuracy(), (SCORES, LABELS, None, ROWS[1:] * 1.0), r"weights of shape \(60,\), got \(59,\)"),
        (DtypeError, r_squared(), (ONE, ONE, None, ROWS), "weights of numbers, got dtype bool; pass"),
        (ShapeError, binary_accuracy(), (ONE, LABELS), r"target of the shape of prediction, \(60, 1\), got \(60,\)"),
        (ShapeError, top_k_accuracy(5), (SCORES, LABELS), r"at least 5 classes, got prediction of shape \(60, 4\)"),
        (ShapeError, confusion_matrix(3), (SCORES, LABELS), r"prediction of shape \(…, 3\), got \(60, 4\)"),
        (ShapeError, precision_recall_f1(5), (SCORES, LABELS), r"prediction of shape \(…, 5\), got \(60, 4\)"),
        (ShapeError, r_squared(), (ONE, TARGETS[:, 0]), r"target of the shape of prediction, \(60, 1\), got \(60,\)"),
        (ShapeError, r_squared(), (VALUES, TARGETS), r"prediction and target.*got \(60, 3\); use r_squared\(3\)"),
        (StructureError, accuracy(), (SCORES, None), "target to be an array, got None; give one"),
        (StructureError, r_squared(), (ONE, {"y": ONE}), r"target to be one array, got the tree .*; put the metric"),
        (StructureError, confusion_matrix(4), ((SCORES, ONE), LABELS), r"prediction to be one array, got the tree "),
        (ShapeError, mean_loss(squared_error), (VALUES, TARGETS, ROWS[1:]), r"where of shape .*, got \(59,\); mark"),
        (ShapeError, mean_loss(total_of), (VALUES, TARGETS, ROWS[1:]), r"where of shape \(60,\), got \(59,\); mark"),
        (ShapeError, mean_loss(total_of), ((VALUES, VALUES[1:]), None), "the same number .*, got 60 at 0 and 59 at 1"),
    ],
)  # fmt: skip
def test_batches_that_do_not_fit(error, metric, batch, message):
    with pytest.raises(error, match=r"^[a-z0-9_]+\(.*\): expected " + message):
        metric.update(metric.init(), *batch)


def test_impossible_weights():
    metric = accuracy()
    with pytest.raises(
        DataError, match=r"accuracy\(\): expected weights to be finite numbers >= 0, got -1.0 at row 0; use where to"
    ):
        metric.update(metric.init(), SCORES, LABELS, None, -np.ones(N))


@pytest.mark.parametrize(
    "message, call",
    [
        (r"top_k_accuracy\(0\): expected k to be a positive integer, got 0", lambda: top_k_accuracy(0)),
        (r"confusion_matrix\(1\): expected num_classes to be an integer >= 2, got 1", lambda: confusion_matrix(1)),
        (r"mean_iou\(1\): expected num_classes to be an integer >= 2, got 1", lambda: mean_iou(1)),
        (r"precision_recall_f1\(2.0\): expected num_classes .* got 2.0", lambda: precision_recall_f1(2.0)),
        (r"r_squared\(outputs=0\): expected outputs to be a positive integer, got 0", lambda: r_squared(0)),
        (r"binary_accuracy\(threshold=nan\): expected threshold .* got nan", lambda: binary_accuracy(float("nan"))),
    ],
)
def test_impossible_hyperparameters(message, call):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize("masked", [False, True])
def test_nan_predictions_have_no_class(masked):
    """argmax would name one. What is not marked does not count."""
    prediction, labels = jnp.array([[0.1, 0.9], [jnp.nan, 0.5]]), jnp.array([1, 1])
    where = jnp.array([True, False]) if masked else None
    for metric in (accuracy(), top_k_accuracy(1), confusion_matrix(2), mean_iou(2)):
        value = jax.jit(lambda state, metric=metric: metric.update(state, prediction, labels, where))(metric.init())
        assert np.isnan(metric.compute(value)).all() == (not masked), metric
    binary = binary_accuracy()
    found = binary.compute(binary.update(binary.init(), prediction, jnp.array([[0, 1], [1, 1]]), where))
    assert np.isnan(found) == (not masked)
