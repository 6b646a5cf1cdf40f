"""Losses against numbers worked out by hand, at kinks, ties and extremes, and where labels cannot be looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import layers, losses
from funcnet.errors import LabelWarning

EPSILON = float(jnp.finfo(jnp.float64).eps)


def both_gradients(loss, p, t, **options):
    """By hand and by autodiff, of the sum of the values."""
    options = {"reduction": "sum"} | options
    p, t = jnp.asarray(p), jnp.asarray(t)
    return loss.gradient(p, t, **options), jax.grad(lambda p: loss(p, t, **options))(p)


def values(loss, p, t, **options):
    return loss(jnp.asarray(p), jnp.asarray(t), reduction="none", **options)


# log cosh and tanh of 1 and 2.
LOG_COSH, TANH = [0.433780830483027, 1.325002747357864], [0.761594155955765, 0.964027580075817]


@pytest.mark.parametrize(
    ("loss", "options", "residuals", "want", "slopes"),
    [
        (losses.mean_squared_error, {}, [0.5, -2.0, 0.0, 1e4], [0.25, 4.0, 0.0, 1e8], [1.0, -4.0, 0.0, 2e4]),
        (losses.half_squared_error, {}, [0.5, -2.0, 0.0, 1e4], [0.125, 2.0, 0.0, 5e7], [0.5, -2.0, 0.0, 1e4]),
        (losses.mean_absolute_error, {}, [0.5, 0.0, -0.0, -2.0], [0.5, 0.0, 0.0, 2.0], [1.0, 0.0, 0.0, -1.0]),
        (losses.huber, {"delta": 0.5}, [0.3, 2.0, -2.0, 0.5], [0.045, 0.875, 0.875, 0.125], [0.3, 0.5, -0.5, 0.5]),
        (losses.smooth_l1, {"beta": 0.5}, [0.3, 2.0, -2.0, 0.5], [0.09, 1.75, 1.75, 0.25], [0.6, 1.0, -1.0, 1.0]),
        (losses.huber, {}, [0.3, 2.0, 1.0, -1.0], [0.045, 1.5, 0.5, 0.5], [0.3, 1.0, 1.0, -1.0]),
        (losses.smooth_l1, {}, [0.3, 2.0, 1.0, -1.0], [0.045, 1.5, 0.5, 0.5], [0.3, 1.0, 1.0, -1.0]),
        (losses.log_cosh, {}, [1.0, -1.0, 2.0, -2.0], np.repeat(LOG_COSH, 2), np.kron(TANH, [1, -1])),
        (losses.huber, {}, [0.0, -0.0, 1e4, -1e4], [0, 0, 9999.5, 9999.5], [0, 0, 1, -1]),
        (losses.smooth_l1, {}, [0.0, -0.0, 1e4, -1e4], [0, 0, 9999.5, 9999.5], [0, 0, 1, -1]),
        (losses.log_cosh, {}, [0.0, -0.0, 1e4, -1e4], [0, 0, 1e4 - np.log(2), 1e4 - np.log(2)], [0, 0, 1, -1]),
        (losses.log_cosh, {}, [1e-8, -1e-8, 1e-4, -1e-4], np.repeat([5e-17, 5e-9 - 1e-16 / 12], 2),
         np.kron([1e-8, 1e-4 - 1e-12 / 3], [1, -1])),
    ],
)  # fmt: skip
def test_regression_by_hand(loss, options, residuals, want, slopes, x64):
    targets = np.full(len(residuals), 0.0)
    np.testing.assert_allclose(values(loss, residuals, targets, **options), want, rtol=1e-14)
    for gradient in both_gradients(loss, residuals, targets, **options):
        np.testing.assert_allclose(gradient, slopes, rtol=1e-14, atol=1e-300)


def test_reductions_by_hand(x64):
    p, t = np.array([[1.0, 5.0], [4.0, 2.0], [0.0, 0.0]]), np.array([[0, 2], [4, 0], [0, 6]])
    # Squares 1 9 | 0 4 | 0 36.
    assert losses.mean_squared_error(p, t) == 50 / 6
    assert losses.mean_squared_error(p, t, where=np.array([True, True, False])) == 14 / 4
    assert losses.mean_squared_error(p, t, where=np.array([[True, False], [False, True], [False, True]])) == 41 / 3
    np.testing.assert_array_equal(losses.half_squared_error(p, t, reduction="none"), [5, 2, 18])
    assert losses.half_squared_error(p, t) == 25 / 3
    assert losses.half_squared_error(p, t, where=np.array([True, True, False])) == 7 / 2
    gradient = losses.half_squared_error.gradient(p, t, where=np.array([True, False, True]))
    np.testing.assert_array_equal(gradient, [[0.5, 1.5], [0, 0], [0, -3]])
    assert losses.root_mean_squared_error(p, t, where=np.array([True, True, False])) == np.sqrt(3.5)


def test_the_mean_of_nothing_is_zero():
    empty = jnp.zeros((0, 3))
    assert losses.mean_squared_error(empty, empty) == 0
    assert losses.softmax_cross_entropy.gradient(empty, np.zeros(0, int)).shape == (0, 3)


def test_root_mean_squared_error_without_error(x64):
    """√ has no derivative at 0: the gradient is 0, not NaN, in both engines."""
    p = jnp.array([3.0, -1.0])
    assert losses.root_mean_squared_error(p, p) == 0
    for gradient in both_gradients(losses.root_mean_squared_error, p, p, reduction="mean"):
        np.testing.assert_array_equal(gradient, [0, 0])


def test_root_mean_squared_error_by_hand(x64):
    p, t = [3.0, 4.0, np.nan], [0, 0, 0]
    where = np.array([True, True, False])
    assert losses.root_mean_squared_error(jnp.array(p), jnp.array(t), where=where) == np.sqrt(12.5)
    for gradient in both_gradients(losses.root_mean_squared_error, p, t, reduction="mean", where=where):
        np.testing.assert_allclose(gradient, [3 / 2 / np.sqrt(12.5), 4 / 2 / np.sqrt(12.5), 0], rtol=1e-15)


@pytest.mark.parametrize(
    ("p", "y", "value", "slope"),
    [
        (0.0, 0.0, 0.0, 1.0),
        (1.0, 1.0, 0.0, -1.0),
        (0.0, 1.0, -np.log(EPSILON), -1 / EPSILON),
        (1.0, 0.0, -np.log(EPSILON), 1 / EPSILON),
        (0.0, 0.5, -np.log(EPSILON) / 2, (1 - 1 / EPSILON) / 2),
        (0.25, 1.0, np.log(4), -4.0),
        (0.25, 0.0, np.log(4 / 3), 4 / 3),
    ],
)
def test_binary_cross_entropy_by_hand(p, y, value, slope, x64):
    np.testing.assert_allclose(values(losses.binary_cross_entropy, p, y), value, rtol=1e-15)
    for gradient in both_gradients(losses.binary_cross_entropy, p, y):
        np.testing.assert_allclose(gradient, slope, rtol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_binary_cross_entropy_is_finite_in_its_own_precision(dtype):
    p, y = jnp.array([0.0, 1.0], dtype), jnp.array([1, 0])
    eps = float(jnp.finfo(dtype).eps)
    for gradient in both_gradients(losses.binary_cross_entropy, p, y):
        np.testing.assert_array_equal(gradient.astype(jnp.float32), [-1 / eps, 1 / eps])


@pytest.mark.parametrize(
    ("p", "t", "value", "slopes"),
    [
        ([0.5, 0.25, 0.25], 1, np.log(4), [0, -4, 0]),
        ([1.0, 0.0, 0.0], 0, 0.0, [-1, 0, 0]),  # 0 log 0 = 0
        ([1.0, 0.0, 0.0], 2, -np.log(EPSILON), [0, 0, -1 / EPSILON]),
        ([0.5, 0.25, 0.25], [0.0, 0.5, 0.5], np.log(4), [0, -2, -2]),
        ([0.5, 0.5, 0.0], [0.5, 0.25, 0.25], 0.75 * np.log(2) - np.log(EPSILON) / 4, [-1, -0.5, -0.25 / EPSILON]),
    ],
)
def test_cross_entropy_by_hand(p, t, value, slopes, x64):
    np.testing.assert_allclose(values(losses.cross_entropy, [p], [t]), [value], rtol=1e-15)
    for gradient in both_gradients(losses.cross_entropy, [p], [t]):
        np.testing.assert_allclose(gradient, [slopes], rtol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_cross_entropy_is_finite_in_its_own_precision(dtype):
    p, eps = jnp.array([[0.0, 1.0]], dtype), float(jnp.finfo(dtype).eps)
    for gradient in both_gradients(losses.cross_entropy, p, np.array([0])):
        np.testing.assert_array_equal(gradient.astype(jnp.float32), [[-1 / eps, 0]])


def test_cross_entropy_of_a_softmax_is_that_of_its_logits(x64):
    """Backwards through the softmax too."""
    z, y = np.array([[0.3, -1.2, 2.0], [0.0, 0.0, 5.0]]), np.array([2, 0])
    p, _, kept = layers.softmax().forward((), (), z)
    np.testing.assert_allclose(losses.cross_entropy(p, y), losses.softmax_cross_entropy(z, y), rtol=1e-14)
    _, dz = layers.softmax().backward((), kept, losses.cross_entropy.gradient(p, y))
    np.testing.assert_allclose(dz, losses.softmax_cross_entropy.gradient(z, y), rtol=1e-14)


def test_dice_by_hand(x64):
    """Four positions, two classes: class 0 has ⟨p t⟩ = 1/4, ⟨p⟩ + ⟨t⟩ = 3/4; class 1 has 3/8, 1/2 + 3/4."""
    p, t = np.array([[1.0, 0.5], [0.0, 1.0], [0.0, 0.5], [1.0, 0.0]]), np.array([[1, 1], [0, 1], [0, 0], [0, 0]])
    by_class = 1 - np.array([(2 / 4 + 0.01) / (3 / 4 + 0.01), (2 * 3 / 8 + 0.01) / (1 + 0.01)])
    np.testing.assert_allclose(losses.dice(p, t, smoothing=0.01), by_class.mean(), rtol=1e-14)
    overall = 1 - (2 * (1 / 4 + 3 / 8) + 0.01) / (3 / 4 + 1 + 0.01)
    np.testing.assert_allclose(losses.dice(p, t, smoothing=0.01, per_class=False), overall, rtol=1e-14)
    slopes = (1 - 2 * t - by_class) / (np.array([3 / 4, 1]) + 0.01) / 4 / 2
    for gradient in both_gradients(losses.dice, p, t, reduction="mean", smoothing=0.01):
        np.testing.assert_allclose(gradient, slopes, rtol=1e-14)
    slopes = (1 - 2 * t - overall) / (7 / 4 + 0.01) / 4
    for gradient in both_gradients(losses.dice, p, t, reduction="mean", smoothing=0.01, per_class=False):
        np.testing.assert_allclose(gradient, slopes, rtol=1e-14)


def test_dice_with_class_weights_by_hand(x64):
    """The classes of `test_dice_by_hand` with the weights 1 and 3."""
    p, t = np.array([[1.0, 0.5], [0.0, 1.0], [0.0, 0.5], [1.0, 0.0]]), np.array([[1, 1], [0, 1], [0, 0], [0, 0]])
    options = {"smoothing": 0.01, "class_weights": (1.0, 3.0), "reduction": "mean"}
    by_class = 1 - np.array([(2 / 4 + 0.01) / (3 / 4 + 0.01), (2 * 3 / 8 + 0.01) / (1 + 0.01)])
    np.testing.assert_allclose(losses.dice(p, t, **options), (by_class[0] + 3 * by_class[1]) / 4, rtol=1e-14)
    slopes = np.array([1, 3]) / 4 * (1 - 2 * t - by_class) / (np.array([3 / 4, 1]) + 0.01) / 4
    for gradient in both_gradients(losses.dice, p, t, **options):
        np.testing.assert_allclose(gradient, slopes, rtol=1e-14)
    overall = 1 - (2 * (1 / 4 + 3 * 3 / 8) + 0.01) / (3 / 4 + 3 * 1 + 0.01)
    np.testing.assert_allclose(losses.dice(p, t, per_class=False, **options), overall, rtol=1e-14)
    slopes = np.array([1, 3]) * (1 - 2 * t - overall) / (15 / 4 + 0.01) / 4
    for gradient in both_gradients(losses.dice, p, t, per_class=False, **options):
        np.testing.assert_allclose(gradient, slopes, rtol=1e-14)
    only_second = losses.dice(p, t, smoothing=0.01, class_weights=[0, 2])
    np.testing.assert_allclose(only_second, losses.dice(p[:, 1:], t[:, 1:], smoothing=0.01), rtol=1e-14)
    assert losses.dice(p, t, class_weights=[0, 0]) == 0


def test_dice_of_what_is_not_there(x64):
    """A class that is nowhere adds 0; labels are their one-hot rows; the size of the image does not matter."""
    p, labels = np.array([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]), np.array([0, 1])
    value = losses.dice(p, labels)
    np.testing.assert_allclose(value, losses.dice(p[:, :2], labels) * 2 / 3, rtol=1e-14)
    assert value == losses.dice(p, np.eye(3)[labels])
    np.testing.assert_allclose(losses.dice(np.tile(p, (50, 1)), np.tile(labels, 50)), value, rtol=1e-13)
    nothing = jnp.zeros((4, 1))
    assert losses.dice(nothing, nothing) == 0
    assert np.isfinite(losses.dice.gradient(nothing, nothing)).all()


def test_dice_is_nan_where_jit_hides_impossible_numbers():
    both = jax.jit(lambda p, t: (losses.dice(p, t), losses.dice.gradient(p, t)))
    fine = jnp.full((2, 3), 0.5)
    for p, t in ((fine.at[0].set(1.5), np.zeros(2, int)), (fine, np.array([0, 3])), (fine, -fine)):
        value, gradient = both(p, t)
        assert np.isnan(value)
        assert np.isnan(gradient).all()


def softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-abs(z)))


@pytest.mark.parametrize("y", [0.0, 0.5, 1.0])
def test_binary_cross_entropy_with_logits_by_hand(y, x64):
    loss, z = losses.binary_cross_entropy_with_logits, np.array([-1e4, -200, -1, -0.0, 0, 1, 200, 1e4])
    y = np.full(z.shape, y)
    np.testing.assert_allclose(values(loss, z, y), (1 - y) * softplus(z) + y * softplus(-z), rtol=1e-15)
    sigmoid = np.exp(-softplus(-z))  # σ(z)
    for gradient in both_gradients(loss, z, y):
        np.testing.assert_allclose(gradient, sigmoid - y, rtol=1e-14, atol=1e-16)


def test_binary_cross_entropy_with_logits_weights_the_positives(x64):
    """At z = 0 each softplus is log 2 and σ = ½; smoothing by 0.2 takes y = 1 to 0.9."""
    options = {"pos_weight": 3.0, "label_smoothing": 0.2}
    value = values(losses.binary_cross_entropy_with_logits, [0.0, 0.0], [1, 0], **options)
    np.testing.assert_allclose(value, [(3 * 0.9 + 0.1) * np.log(2), (3 * 0.1 + 0.9) * np.log(2)], rtol=1e-15)
    for gradient in both_gradients(losses.binary_cross_entropy_with_logits, [0.0, 0.0], [1, 0], **options):
        np.testing.assert_allclose(gradient, [(0.1 - 2.7) / 2, (0.9 - 0.3) / 2], rtol=1e-14)


@pytest.mark.parametrize(
    ("z", "t", "value", "slopes"),
    [
        ([0.0, 0.0], 0, np.log(2), [-0.5, 0.5]),
        ([-0.0, 0.0], 1, np.log(2), [0.5, -0.5]),
        ([0.0, 200.0], 0, 200.0, [-1.0, 1.0]),
        ([1e4, -1e4], 1, 2e4, [1.0, -1.0]),
        ([1e4, -1e4], 0, 0.0, [0.0, 0.0]),
        ([0.0, np.log(3)], 1, np.log(4 / 3), [0.25, -0.25]),
        ([0.0, -np.inf], 0, 0.0, [0.0, 0.0]),  # an impossible class of weight 0 adds 0
        ([7.0, 7.0, 7.0], [1.0, 0.0, 0.0], np.log(3), [-2 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_softmax_cross_entropy_by_hand(z, t, value, slopes, x64):
    np.testing.assert_allclose(values(losses.softmax_cross_entropy, z, t), value, rtol=1e-15, atol=1e-16)
    for gradient in both_gradients(losses.softmax_cross_entropy, z, t):
        np.testing.assert_allclose(gradient, slopes, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(
    ("t", "value", "slopes"),
    [([2.0, 1.0], 3 * np.log(2), [-0.5, 0.5]), ([0.0, 0.0], 0.0, [0.0, 0.0])],  # 3 · ½ − t
)
def test_a_row_that_is_no_distribution_is_warned_of(t, value, slopes, x64):
    loss, z, t = losses.softmax_cross_entropy, np.zeros((1, 2)), np.array([t])
    with pytest.warns(LabelWarning, match=r"expected each row of target to sum to 1, got \[.*\] at row 0; divide each"):
        np.testing.assert_allclose(loss(z, t), value, rtol=1e-15)
    with pytest.warns(LabelWarning, match="expected each row of target to sum to 1"):
        np.testing.assert_allclose(loss.gradient(z, t)[0], slopes, rtol=1e-15)


def test_label_smoothing_by_hand(x64):
    """Half a label over four classes: 0.625 for the label, 0.125 for each other class."""
    z, y = np.log([[0.4, 0.3, 0.2, 0.1]]), np.array([0])
    smooth = np.array([0.625, 0.125, 0.125, 0.125])
    value = values(losses.softmax_cross_entropy, z, y, label_smoothing=0.5)
    np.testing.assert_allclose(value, [-(smooth * z[0]).sum()], rtol=1e-15)
    for gradient in both_gradients(losses.softmax_cross_entropy, z, y, label_smoothing=0.5):
        np.testing.assert_allclose(gradient, [np.exp(z[0]) - smooth], rtol=1e-14)


def test_softmax_cross_entropy_is_the_likelihood_of_log_softmax(x64):
    z, y = jnp.array([[1.0, -2.0, 0.5], [3.0, 3.0, -1.0]]), jnp.array([2, 0])
    chained = losses.negative_log_likelihood(jax.nn.log_softmax(z), y)
    np.testing.assert_allclose(losses.softmax_cross_entropy(z, y), chained, rtol=1e-15)
    np.testing.assert_array_equal(losses.negative_log_likelihood.gradient(z, y), [[0, 0, -0.5], [-0.5, 0, 0]])


@pytest.mark.parametrize(
    ("scores", "label", "variant", "value", "slopes"),
    [
        ([2.0, 1.5, 3.0, 0.0], 0, "weston_watkins", 2.5, [-2, 1, 1, 0]),
        ([2.0, 1.5, 3.0, 0.0], 0, "crammer_singer", 2.0, [-1, 0, 1, 0]),
        ([1.0, 0.0], 0, "weston_watkins", 0.0, [0, 0]),  # on the margin: derivative 0
        ([1.0, 0.0], 0, "crammer_singer", 0.0, [0, 0]),
        ([0.0, 0.0, 0.0], 1, "weston_watkins", 2.0, [1, -2, 1]),
        ([0.0, 0.0, 0.0], 1, "crammer_singer", 1.0, [0.5, -1, 0.5]),  # a tie is shared
        ([1e4, -1e4], 0, "weston_watkins", 0.0, [0, 0]),
        ([1e4, -1e4], 1, "crammer_singer", 20001.0, [1, -1]),
        ([-np.inf, -np.inf, 0.0], 0, "weston_watkins", np.inf, [-1, 0, 1]),  # of two infinities none is more
        ([-np.inf, -np.inf, 0.0], 0, "crammer_singer", np.inf, [-1, 0, 1]),
        ([0.0, -np.inf, -np.inf], 0, "crammer_singer", 0.0, [0, 0, 0]),
    ],
)
def test_multiclass_hinge_by_hand(scores, label, variant, value, slopes, x64):
    assert values(losses.multiclass_hinge, scores, label, variant=variant) == value
    for gradient in both_gradients(losses.multiclass_hinge, scores, label, variant=variant):
        np.testing.assert_array_equal(gradient, slopes)


# Class weights, as torch counts them: cross_entropy, nll_loss and binary_cross_entropy with weight=.

Z = np.log([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
Y, W = np.array([2, 0, 1]), (1.0, 2.0, 4.0)
LOGS = np.log([0.7, 0.5, 0.2])  # of the label's probability


def test_class_weights_by_hand(x64):
    """Σ w_y v / Σ w_y, with w_y = 4, 1, 2."""
    want = -(4 * LOGS[0] + LOGS[1] + 2 * LOGS[2]) / 7
    for loss in (losses.softmax_cross_entropy, losses.negative_log_likelihood):
        np.testing.assert_allclose(loss(Z, Y, class_weights=W), want, rtol=1e-14)
        np.testing.assert_allclose(loss(Z, np.eye(3)[Y], class_weights=W), want, rtol=1e-14)
        assert loss(Z, Y, class_weights=W) == loss(Z, np.eye(3)[Y], class_weights=W)
        assert loss.counted(Z, Y, class_weights=W) == 7
        np.testing.assert_allclose(values(loss, Z, Y, class_weights=W), [4, 1, 2] * -LOGS, rtol=1e-14)
    np.testing.assert_allclose(losses.cross_entropy(np.exp(Z), Y, class_weights=W), want, rtol=1e-14)
    weighted = losses.softmax_cross_entropy(Z, Y, class_weights=W, weights=[1.0, 0.5, 0.0])
    np.testing.assert_allclose(weighted, -(4 * LOGS[0] + 0.5 * LOGS[1]) / 4.5, rtol=1e-14)
    masked = losses.softmax_cross_entropy(Z, [2, 0, -1], class_weights=W, where=np.array([True, True, False]))
    np.testing.assert_allclose(masked, -(4 * LOGS[0] + LOGS[1]) / 5, rtol=1e-14)


def test_class_weights_with_label_smoothing_by_hand(x64):
    """(1 − e) Σ w_y v_y + (e/C) Σ_k w_k v_k, over Σ w_y."""
    smooth = -sum(w * Z[:, k].sum() for k, w in enumerate(W)) / 3
    want = (0.7 * -(4 * LOGS[0] + LOGS[1] + 2 * LOGS[2]) + 0.3 * smooth) / 7
    got = losses.softmax_cross_entropy(Z, Y, class_weights=W, label_smoothing=0.3)
    np.testing.assert_allclose(got, want, rtol=1e-14)


def test_binary_class_weights_by_hand(x64):
    p, y = np.array([0.25, 0.5, 0.8]), np.array([1, 0, 1])
    want = -(3 * np.log(0.25) + 0.5 * np.log(0.5) + 3 * np.log(0.8)) / 6.5
    np.testing.assert_allclose(losses.binary_cross_entropy(p, y, class_weights=(0.5, 3.0)), want, rtol=1e-14)
    z = np.log(p / (1 - p))
    with_logits = losses.binary_cross_entropy_with_logits
    np.testing.assert_allclose(with_logits(z, y, class_weights=(0.5, 3.0)), want, rtol=1e-14)
    # pos_weight is a factor that does not count.
    want = -(2 * 3 * np.log(0.25) + 0.5 * np.log(0.5) + 2 * 3 * np.log(0.8)) / 6.5
    np.testing.assert_allclose(with_logits(z, y, class_weights=(0.5, 3.0), pos_weight=2.0), want, rtol=1e-14)


def test_two_classes_are_one_logit(x64):
    """softmax of (0, z) is σ(z), with smoothed shares and class weights too."""
    z, y = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.25, 0.0])
    options = {"class_weights": (0.5, 3.0), "label_smoothing": 0.2}
    two = losses.softmax_cross_entropy(np.stack([0 * z, z], -1), np.stack([1 - y, y], -1), **options)
    np.testing.assert_allclose(losses.binary_cross_entropy_with_logits(z, y, **options), two, rtol=1e-14)


def test_hinge_class_weights_by_hand(x64):
    s, y = np.array([[2.0, 1.5, 3.0], [0.0, 0.0, 0.5]]), np.array([0, 2])
    # Row 0: 0.5 + 2 = 2.5; row 1: 0.5 + 0.5 = 1.
    assert losses.multiclass_hinge(s, y, class_weights=W) == (1 * 2.5 + 4 * 1.0) / 5
    gradient = losses.multiclass_hinge.gradient(s, y, class_weights=W)
    np.testing.assert_allclose(gradient, np.array([[-2, 1, 1], [4, 4, -8]]) / 5, rtol=1e-15)


def test_a_class_of_weight_zero_does_not_count(x64):
    z = np.array([[0.0, -np.inf], [1.0, 2.0]])
    got = losses.softmax_cross_entropy(z, [1, 1], class_weights=(1.0, 0.0))
    assert (got, losses.softmax_cross_entropy.counted(z, [1, 1], class_weights=(1.0, 0.0))) == (0, 0)
    assert not np.any(losses.softmax_cross_entropy.gradient(z, [1, 1], class_weights=(1.0, 0.0)))


def test_weights_by_hand(x64):
    p, t = np.array([[1.0, 5.0], [4.0, 2.0]]), np.zeros((2, 2))
    # Squares 1 25 | 16 4.
    assert losses.mean_squared_error(p, t, weights=[3, 1]) == (3 * 26 + 20) / 8
    assert losses.mean_squared_error.counted(p, t, weights=[3, 1]) == 8
    assert losses.mean_squared_error(p, t, weights=[[1, 0], [0, 0.5]]) == (1 + 2) / 1.5
    assert losses.mean_squared_error(p, t, weights=[3, 1], where=[[True, False], [True, True]]) == (3 + 20) / 5
    assert losses.mean_squared_error(p, t, weights=[3, 1], reduction="sum") == 98
    np.testing.assert_array_equal(losses.half_squared_error(p, t, weights=[3, 1], reduction="none"), [39, 10])
    assert losses.root_mean_squared_error(p, t, weights=[3, 1]) == np.sqrt(98 / 8)
    np.testing.assert_array_equal(losses.mean_squared_error.gradient(p, t, weights=[3, 1]), [[0.75, 3.75], [1, 0.5]])
    assert losses.mean_squared_error(p, t, weights=[0, 0]) == 0
    assert not np.any(losses.mean_squared_error.gradient(p, t, weights=[0, 0]))


def test_a_weight_of_zero_hides_no_nan():
    assert np.isnan(losses.mean_squared_error(jnp.array([1.0, jnp.nan]), jnp.zeros(2), weights=[1, 0]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_weights_of_any_dtype(dtype):
    """Counts are at least float32, whatever the dtypes of prediction and weights."""
    p, weights = jnp.full(4, 2.0, jnp.bfloat16), jnp.array([1, 2, 3, 300], dtype)
    assert losses.mean_squared_error(p, jnp.zeros_like(p), weights=weights) == 4
    counted = losses.mean_squared_error.counted(p, p, weights=weights)
    assert (counted, counted.dtype) == (306, jnp.float32)


@pytest.mark.peers
def test_class_weights_are_those_of_torch(x64):
    torch = pytest.importorskip("torch")
    f, tensor, rng = torch.nn.functional, torch.tensor, np.random.default_rng(3)
    z, y, w = rng.normal(size=(50, 3)), rng.integers(0, 3, 50), tensor(W, dtype=torch.float64)
    for smoothing in (0.0, 0.3):
        want = f.cross_entropy(tensor(z), tensor(y), weight=w, label_smoothing=smoothing)
        got = losses.softmax_cross_entropy(z, y, class_weights=W, label_smoothing=smoothing)
        np.testing.assert_allclose(got, want.item(), rtol=1e-13)
    want = f.nll_loss(tensor(z), tensor(y), weight=w)
    np.testing.assert_allclose(losses.negative_log_likelihood(z, y, class_weights=W), want.item(), rtol=1e-13)
    # torch's weight of the binary loss is one of rows, and its mean divides by their number.
    b, rows = (y > 0).astype(float), np.where(y > 0, 3.0, 0.5)
    want = f.binary_cross_entropy_with_logits(tensor(z[:, 0]), tensor(b), weight=tensor(rows), reduction="sum")
    got = losses.binary_cross_entropy_with_logits(z[:, 0], b, class_weights=(0.5, 3.0))
    np.testing.assert_allclose(got, want.item() / rows.sum(), rtol=1e-13)


def test_half_precision_is_reduced_in_float32():
    """300² is infinite in float16, the mean of 300² and 0 is not; nor is a count of 70,000."""
    p = jnp.array([300.0, 0.0], jnp.float16)
    assert losses.mean_squared_error(p, jnp.zeros_like(p)) == 45000
    assert losses.root_mean_squared_error(p[:1], jnp.zeros_like(p[:1])) == 300
    ones = jnp.ones(70_000, jnp.float16)
    assert losses.mean_squared_error(ones, jnp.zeros_like(ones), where=ones > 0) == 1
    # The sum over a part is infinite in float16; its share of the whole is not.
    counted = losses.mean_squared_error.counted(ones, ones)
    assert losses.share(losses.mean_squared_error, 2 * counted)(ones, -ones) == 2


def test_large_numpy_integers_survive_without_x64():
    """jnp.asarray would wrap 2**40 to 0."""
    assert losses.mean_absolute_error(jnp.zeros(1), np.array([2**40])) == 2.0**40


INVALID = {
    "softmax_cross_entropy": (losses.softmax_cross_entropy, {}),
    "softmax_cross_entropy smoothed": (losses.softmax_cross_entropy, {"label_smoothing": 0.1}),
    "softmax_cross_entropy class weights": (losses.softmax_cross_entropy, {"class_weights": (1.0, 2.0, 3.0)}),
    "binary_cross_entropy class weights": (losses.binary_cross_entropy, {"class_weights": (1.0, 2.0)}),
    "multiclass_hinge class weights": (losses.multiclass_hinge, {"class_weights": (1.0, 2.0, 3.0)}),
    "negative_log_likelihood": (losses.negative_log_likelihood, {}),
    "cross_entropy": (losses.cross_entropy, {}),
    "cross_entropy class weights": (losses.cross_entropy, {"class_weights": (1.0, 2.0, 3.0)}),
    "multiclass_hinge": (losses.multiclass_hinge, {}),
    "multiclass_hinge crammer_singer": (losses.multiclass_hinge, {"variant": "crammer_singer"}),
    "binary_cross_entropy": (losses.binary_cross_entropy, {}),
    "binary_cross_entropy_with_logits": (losses.binary_cross_entropy_with_logits, {}),
}


@pytest.mark.parametrize(("loss", "options"), INVALID.values(), ids=INVALID)
def test_labels_that_jit_hides_give_nan(loss, options):
    """Row 1 has a class too many, row 2 a negative one, row 3 is not marked, row 0 is right."""
    p = jnp.full((4, 3), 0.5)
    labels, where = np.array([1, 3, -1, 99], np.int32), np.array([True, True, True, False])
    target = np.repeat(labels[:, None], 3, axis=1) if loss.axes is None else labels

    @jax.jit
    def report(p, target, where):
        hand, auto = both_gradients(loss, p, target, where=where, **options)
        total = loss(p, target, where=where, **options)
        return loss(p, target, where=where, reduction="none", **options), hand, auto, total

    *arrays, total = report(p, target, where)
    assert np.isnan(total)
    for array in arrays:
        assert np.isfinite(array[0]).all()
        assert np.isnan(array[1:3]).all()
        assert not np.any(array[3])


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.uint32])
def test_labels_beyond_32_bits_give_nan_too(dtype):
    """NumPy labels with a traced mask: their values are not checked, and must not wrap to a valid class."""
    labels = np.array([0, 2**32 - 1 if dtype is np.uint32 else 2**40], dtype)
    run = jax.jit(lambda where: losses.softmax_cross_entropy(jnp.zeros((2, 3)), labels, where=where, reduction="none"))
    np.testing.assert_allclose(run(np.array([True, True])), [np.log(3), np.nan], rtol=1e-6)
    np.testing.assert_allclose(run(np.array([True, False])), [np.log(3), 0], rtol=1e-6)


def test_small_label_dtypes_reach_every_class():
    """uint8 labels of 300 classes: 300 does not fit the labels' own dtype."""
    z = jnp.zeros((2, 300)).at[:, 200].set(50.0)
    for labels in (np.array([200, 255], np.uint8), jnp.array([200, 255], jnp.uint8)):
        np.testing.assert_allclose(losses.softmax_cross_entropy(z, labels, reduction="none"), [0, 50], atol=1e-6)
        run = jax.jit(lambda labels: losses.softmax_cross_entropy(z, labels, reduction="none"))
        np.testing.assert_allclose(run(labels), [0, 50], atol=1e-6)


# Numbers at the edge: infinities, and numbers whose squares are 0 or infinite.


@pytest.mark.parametrize(
    ("loss", "p", "t", "value", "slopes"),
    [
        (losses.binary_cross_entropy_with_logits, [np.inf, -np.inf], [1, 0], [0, 0], [0, 0]),
        (losses.binary_cross_entropy_with_logits, [np.inf, -np.inf], [0, 1], [np.inf, np.inf], [1, -1]),
        (losses.huber, [np.inf, -np.inf, 3e38], [0.0, 0.0, 0.0], [np.inf, np.inf, 3e38], [1, -1, 1]),
        (losses.smooth_l1, [np.inf, -np.inf, 3e38], [0.0, 0.0, 0.0], [np.inf, np.inf, 3e38], [1, -1, 1]),
        (losses.log_cosh, [np.inf, -np.inf, 3e38], [0.0, 0.0, 0.0], [np.inf, np.inf, 3e38], [1, -1, 1]),
        (losses.mean_absolute_error, [np.inf, -np.inf, 3e38], [0.0, 0.0, 0.0], [np.inf, np.inf, 3e38], [1, -1, 1]),
        (losses.mean_squared_error, [np.inf, -np.inf], [0.0, 0.0], [np.inf, np.inf], [np.inf, -np.inf]),
    ],
)
def test_infinities(loss, p, t, value, slopes):
    p, t = jnp.array(p), jnp.array(t)
    np.testing.assert_allclose(loss(p, t, reduction="none"), value, rtol=1e-6)
    auto = jax.grad(lambda p: loss(p, t, reduction="sum"))(p)
    for gradient in (loss.gradient(p, t, reduction="none"), auto):
        np.testing.assert_array_equal(gradient, slopes)


@pytest.mark.parametrize("r", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_root_mean_squared_error_squares_no_extremes(r):
    """Of r, −r and seven zeros: |r| √2/3, and ±√2/6."""
    p, t, loss = jnp.array([r, -r] + [0.0] * 7), jnp.zeros(9), losses.root_mean_squared_error
    np.testing.assert_allclose(loss(p, t), r * np.sqrt(2) / 3, rtol=1e-6)
    for gradient in (loss.gradient(p, t), jax.grad(loss)(p, t)):
        np.testing.assert_allclose(gradient, np.array([1, -1] + [0] * 7) / np.sqrt(18), rtol=1e-6)


def test_probabilities_beyond_0_and_1_are_nan_where_jit_hides_them():
    loss = losses.binary_cross_entropy
    value, gradient = jax.jit(lambda p, t: (loss(p, t), loss.gradient(p, t)))(jnp.array([0.5, 1.5]), jnp.ones(2))
    assert np.isnan(value)
    np.testing.assert_array_equal(np.isnan(gradient), [False, True])
    loss = losses.cross_entropy
    both = jax.jit(lambda p, t: (loss(p, t, reduction="none"), loss.gradient(p, t)))
    value, gradient = both(jnp.array([[0.5, 0.5], [1.0, -0.5]]), jnp.zeros(2, int))
    np.testing.assert_array_equal(np.isnan(value), [False, True])
    np.testing.assert_array_equal(np.isnan(gradient), [[False, False], [False, True]])
