"""The checker's verdicts: what rounding explains is right, and what it does not explain is wrong, at every size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import gradients, layers, losses
from funcnet.checking import check_gradients, find_nonfinite, gradient_test, mutants, mutation_score
from funcnet.checking.judging import NOT_DECIDED, RIGHT, WRONG, judged, trifles
from funcnet.checking.rounding import rounding
from funcnet.errors import ConfigError, GradientError

BOTH = ("backprop", "autodiff")
NUMERIC = ("backprop", "numeric")
SIZES = (1e-12, 1e-10, 1e-6, 1.0, 1e6, 1e10, 1e12)


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def normal(*sizes, seed=0):
    return np.random.default_rng(seed).normal(size=sizes)


def of_x(function, slope):
    return layers.elementwise(function, lambda x, y: slope(x), keep="x")


def with_gradients(layer, change):
    """`layer`, whose gradients go through `change(dparams, dx)`."""
    return layer._replace(backward=lambda params, kept, dy: change(*layer.backward(params, kept, dy)))


def cube(factor):
    return of_x(lambda x: x**3, lambda x: factor * x * x)


# What is small is not lost beside what is large.


@pytest.mark.parametrize("engines", [BOTH, NUMERIC], ids=str)
def test_a_mistake_is_found_at_every_size(engines):
    for size in SIZES:
        x = size * normal(3, 4)
        assert check_gradients(cube(3), x, engines=engines).verdict == RIGHT, size
        found = check_gradients(cube(2.9), x, engines=engines).verdict
        # Steps of a share of 1e10 could hide a function that bends near 1, and steps of 1e-3 drown in rounding.
        assert found == (NOT_DECIDED if engines == NUMERIC and size >= 1e10 else WRONG), size


def test_a_function_that_bends_near_1_at_every_size():
    """Steps that are a share of a large number do not see its waves."""
    wave = of_x(lambda x: jnp.sin(x) + x, lambda x: jnp.cos(x) + 1)
    flat = of_x(lambda x: jnp.sin(x) + x, lambda x: jnp.cos(x) * 0.9 + 1)
    for size in (1e3, 1e6, 1e8, 1e12):
        assert check_gradients(wave, size * normal(3, 4)).verdict == RIGHT, size
        assert check_gradients(flat, size * normal(3, 4)).verdict == WRONG, size
    assert check_gradients(flat, 1e6 * normal(3, 4), engines=NUMERIC).verdict == WRONG


def test_a_slope_that_is_small_beside_its_input():
    assert check_gradients(of_x(jnp.log, lambda x: 1 / x), np.full((3, 4), 1e7)).verdict == RIGHT
    assert check_gradients(of_x(jnp.log, lambda x: 2 / x), np.full((3, 4), 1e7)).verdict == WRONG


def test_a_loss_without_its_factor_at_large_predictions():
    prediction = 1e7 * normal(3, 4)
    target = prediction + 1e-3 * normal(3, 4, seed=1)
    loss = losses.mean_squared_error
    half = dataclasses.replace(loss, gradient=lambda *args: loss.gradient(*args) / 2)
    assert check_gradients(loss, prediction, target).verdict == RIGHT
    assert check_gradients(half, prediction, target).verdict == WRONG


def test_a_large_parameter_hides_nothing():
    params = {"kernel": normal(4, 3), "bias": np.zeros(3)}
    params["kernel"][0, 0] = 1e12
    layer = layers.dense(3)
    assert check_gradients(layer, normal(5, 4), params=params).verdict == RIGHT
    wrong = with_gradients(layer, lambda p, dx: (p | {"bias": 1.5 * p["bias"]}, dx))
    assert check_gradients(wrong, normal(5, 4), params=params).verdict == WRONG


def test_a_small_column_is_compared_by_itself():
    x = normal(5, 4) * [1, 1e-11, 1, 1]
    layer = layers.dense(3)
    assert check_gradients(layer, x).verdict == RIGHT
    wrong = with_gradients(layer, lambda p, dx: (p | {"kernel": p["kernel"].at[1].multiply(1.5)}, dx))
    report = check_gradients(wrong, x)
    assert report.verdict == WRONG
    assert report.reasons[0] == (
        "params/kernel, backprop / autodiff in both: 3 of 12 elements differ by more than rounding explains"
    )
    assert report.located == ("dense(3)",)  # within a model, too, it is compared element by element


# What cancels is no mistake.


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1e-2, 1.0, 100.0, 1e12])
def test_a_bias_before_a_normalisation(size):
    for seed in range(3):
        for layer, sizes in ((layers.dense(3), (6, 4)), (layers.conv(3, 3), (3, 4, 4, 2))):
            x = normal(*sizes, seed=seed)
            report = check_gradients(layers.serial(layer, layers.batch_norm()), size * x, engines=BOTH, seed=seed)
            assert report.ok, report


def test_a_mistake_beside_a_bias_that_cancels_is_found():
    wrong = with_gradients(layers.dense(3), lambda p, dx: (p | {"bias": p["bias"] + 1e-9}, dx))
    report = check_gradients(layers.serial(wrong, layers.batch_norm()), normal(6, 4), engines=BOTH)
    assert (report.verdict, report.located) == (WRONG, ("serial[0] dense(3)",))


# What cannot be told.


def versine(slope):
    """(1 − cos x) / x², whose program loses all digits near 0."""
    return of_x(lambda x: (1 - jnp.cos(x)) / (x * x), slope)


def test_where_rounding_hides_all_it_is_not_decided():
    right = versine(lambda x: -x / 12)
    report = check_gradients(right, 1e-9 * normal(3, 4), engines=BOTH)
    assert (report.verdict, report.located) == (NOT_DECIDED, ())
    assert "rounding could hide a mistake in 12 of 12 elements" in str(report)
    with pytest.raises(GradientError, match="it is not decided whether the hand-derived gradient is right; give "):
        gradient_test(right, 1e-9 * normal(3, 4), engines=BOTH)()
    assert check_gradients(versine(lambda x: -x / 12 + x**3 / 180), 0.01 * normal(3, 4), tolerance=1e-6).ok


def test_where_both_gradients_are_not_finite_it_is_not_decided():
    root = of_x(jnp.sqrt, lambda x: 0.5 / jnp.sqrt(x))
    report = check_gradients(root, -np.ones((2, 2)), engines=BOTH)
    assert report.verdict == NOT_DECIDED
    assert "the reference is not finite in 4 of 4 elements" in str(report)
    for slope in (1, 2):  # ∞ is ∞, whatever its formula
        log = of_x(jnp.log, lambda x, slope=slope: slope / x)
        for engines in (BOTH, NUMERIC, (*BOTH, "numeric")):
            assert check_gradients(log, np.zeros((2, 2)), engines=engines).verdict == NOT_DECIDED
    finite = of_x(jnp.sqrt, jnp.ones_like)
    assert check_gradients(finite, -np.ones((2, 2)), engines=BOTH).verdict == NOT_DECIDED
    not_finite = of_x(jnp.sin, lambda x: jnp.nan * x)
    assert check_gradients(not_finite, np.ones((2, 2)), engines=BOTH).verdict == WRONG


@pytest.mark.parametrize("rows", [(0, 4), (3, 0)], ids=str)
def test_where_there_is_nothing_to_compare_it_is_not_decided(rows):
    for target, x, y in ((layers.tanh(), np.zeros(rows), None), (losses.mean_squared_error, *[np.zeros(rows)] * 2)):
        report = check_gradients(target, x, y)
        assert report.verdict == NOT_DECIDED
        assert "the input or the output has no elements" in str(report)
    assert check_gradients(layers.dense(2), np.zeros((0, 4))).verdict == NOT_DECIDED
    assert mutation_score(layers.dense(2), np.zeros((0, 4)), seeds=1).made == 0


@pytest.mark.parametrize("check", [check_gradients, mutants, mutation_score], ids=lambda check: check.__name__)
def test_numbers_that_are_traced_are_refused(check):
    with pytest.raises(ConfigError, match=f"^{check.__name__}: expected numbers, got an array that is traced"):
        jax.jit(lambda x: check(layers.tanh(), x).ok)(jnp.ones((2, 2)))


def test_the_search_for_numbers_that_are_not_finite_refuses_them_too():
    model = layers.tanh()

    def search(x):
        return find_nonfinite(model, losses.mean_squared_error, (), (), (x, x))

    with pytest.raises(ConfigError, match="^find_nonfinite: expected numbers, got an array that is traced"):
        jax.jit(search)(jnp.ones((2, 2)))


# Kinks and ties.


def pooling(share):
    """A max pooling over pairs of columns that hands dy to the inputs `share(x, y)`."""

    def forward(x, *, key, train):
        y = jnp.max(x.reshape(x.shape[0], -1, 2), -1)
        return y, (x, y)

    def backward(kept, dy):
        x, y = kept
        pairs = x.reshape(*y.shape, 2)
        return (share(pairs, y[..., None]) * dy[..., None]).reshape(x.shape)

    return layers.parameterless(forward, backward)


def to_all(x, y):
    return (x == y).astype(x.dtype)


def to_the_last(x, y):
    return jnp.stack([x[..., 0] > x[..., 1], x[..., 1] >= x[..., 0]], -1).astype(x.dtype)


def evenly(x, y):
    return to_all(x, y) / to_all(x, y).sum(-1, keepdims=True)


def to_none(x, y):
    return jnp.where(to_all(x, y).sum(-1, keepdims=True) == 1, to_all(x, y), 0)


@pytest.mark.parametrize(
    "share, verdict", [(to_all, WRONG), (to_none, WRONG), (to_the_last, RIGHT), (evenly, RIGHT)],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
@pytest.mark.parametrize("x", [shape(3, 8), np.array([[1.0, 1.0, 2.0, 0.0]])], ids=["drawn", "given"])
def test_ties_may_be_shared_in_any_way_that_keeps_the_sum(share, verdict, x):
    for engines in (BOTH, NUMERIC[:1] + BOTH[1:] + NUMERIC[1:]):
        report = check_gradients(pooling(share), x, engines=engines)
        assert report.verdict == verdict, report
    if verdict == WRONG and isinstance(x, jax.ShapeDtypeStruct):
        assert "at inputs with ties" in str(report)


@pytest.mark.parametrize("at_zero, verdict", [(0.0, RIGHT), (0.3, RIGHT), (1.0, RIGHT), (5.0, NOT_DECIDED)])
def test_a_slope_at_a_kink_lies_between_its_sides(at_zero, verdict):
    relu = of_x(lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x == 0, at_zero, jnp.heaviside(x, 0.0)))
    for x in (shape(4, 5), np.array([[0.0, 1.0, -1.0]])):
        assert check_gradients(relu, x, engines=BOTH).verdict == verdict
        assert check_gradients(relu, x, engines=NUMERIC).verdict == verdict


def test_a_small_mistake_is_found_among_equal_numbers():
    """Numeric derivatives are too coarse to excuse what differs from autodiff by less than they resolve."""
    slightly = of_x(jnp.sin, lambda x: jnp.cos(x) * (1 + 1e-8))
    assert check_gradients(slightly, np.ones((2, 3))).verdict == WRONG
    assert check_gradients(slightly, np.zeros((2, 3)), engines=BOTH).verdict == WRONG


def test_autodiff_is_not_followed_where_it_is_wrong_at_a_kink():
    """relu(x) − relu(−x) is x. At 0 autodiff gives 0, because that of relu does."""
    identity = of_x(lambda x: jax.nn.relu(x) - jax.nn.relu(-x), jnp.ones_like)
    assert check_gradients(identity, shape(4, 5), engines=BOTH).verdict == RIGHT
    assert check_gradients(identity, np.zeros((1, 3)), engines=BOTH).verdict == RIGHT


def test_a_mistake_in_one_branch_is_found_at_inputs_of_its_size():
    """Normal numbers are never beyond 20."""
    wrong = of_x(jnp.sin, lambda x: jnp.where(jnp.abs(x) > 20, 0.0, jnp.cos(x)))
    report = check_gradients(wrong, shape(4, 5))
    assert report.verdict == WRONG
    assert "differ by more than rounding explains, at inputs of size 1e2" in str(report)
    series = of_x(jnp.sin, lambda x: jnp.where(jnp.abs(x) < 1e-3, x, jnp.cos(x)))
    assert "at inputs of size 1e-4" in str(check_gradients(series, shape(4, 5)))


def test_inputs_where_autodiff_has_no_answer_are_left_out_if_the_checker_drew_them():
    """exp overflows at inputs of size 1e6; nobody asked for them."""
    assert check_gradients(layers.elementwise(jnp.exp, lambda x, y: y), shape(4, 5)).ok
    inner = layers.serial(layers.elementwise(jnp.exp, lambda x, y: y), layers.dense(3), layers.relu(), layers.dense(2))
    assert check_gradients(inner, shape(4, 5)).ok  # ∞ − ∞ within, where some elements are finite by chance
    fails = of_x(jax.nn.sigmoid, lambda x: jnp.exp(x) / (1 + jnp.exp(x)) ** 2)  # ∞ / ∞ from 710 on
    assert check_gradients(fails, shape(4, 5)).verdict == WRONG


# The bound of rounding.


def bound(function, *args):
    with jax.enable_x64(True):
        args = [jnp.asarray(arg) for arg in args]
        return np.asarray(jax.jit(rounding(function))(*args))


EPSILON = np.finfo(np.float64).eps


@pytest.mark.parametrize(
    "function, args, size",
    [
        (lambda x: 3 * x, [1e12], 3e12),
        (lambda x: 3 * x, [1e-12], 3e-12),
        (lambda x: (x + 1) - x, [1e8], 1e8),  # the rounding of x + 1
        (jnp.sum, [np.array([1e8, -1e8, 1.0])], 1e8),  # terms that cancel within one operation
        (lambda x: x @ x, [np.array([[0.0, 1e6], [0.0, 0.0]]) + 1e3], 1e9),
        (lambda x: jax.lax.fori_loop(0, 3, lambda i, x: x * 1.5, x), [1e3], 1.5**3 * 1e3),
        (lambda x: jax.lax.scan(lambda c, _: (c * 1.5, None), x, None, 3)[0], [1e3], 1.5**3 * 1e3),
        (lambda x: jax.lax.cond(x > 0, lambda x: 2 * x, lambda x: x, x), [1e3], 2e3),
        (lambda x: jax.nn.relu(2 * x), [1e3], 2e3),  # within a function with a rule of its own
        (lambda x: jax.checkpoint(lambda x: 2 * x)(x), [1e3], 2e3),
    ],
)
def test_rounding_is_of_the_size_of_the_numbers_that_cancel(function, args, size):
    found = np.max(bound(function, *args))
    assert EPSILON * size <= found <= 200 * EPSILON * size


def test_rounding_leaves_exact_results_and_ties():
    x = np.array([[1.0, 1.0, 2.0]])
    assert bound(lambda x: x, x).max() == 0
    assert bound(lambda x: jnp.max(x) - x, x)[0, 2] == 0
    tied = bound(lambda x: jnp.where(jnp.max(jnp.sin(x)) == jnp.sin(x), 1.0, 0.0), np.ones((1, 3)))
    assert tied.max() == 0  # the same operation with the same number has the same error


def test_a_short_result_rounds_in_its_own_type():
    moved = bound(lambda x: (x.astype(jnp.float32) * 3).astype(jnp.bfloat16).astype(jnp.float64), 1.0)
    assert 1e-3 < moved < 1


# The judgement.


def test_elements_are_judged_one_by_one():
    a, b = np.array([1.0, 1.0, 1e-17, 1.0, np.inf, np.nan, 1.0, np.nan]), np.array(
        [1.0, 1.1, 3e-17, 1.5, np.inf, np.nan, np.nan, 1.0]
    )  # fmt: skip
    moved = np.array([1e-16, 1e-16, 1e-16, 1.0, 0, 0, 0, 1e-16])
    assert judged(a, b, 1e-10, lambda: moved, trifle=1e-12).tolist() == [0, 2, 0, 1, 1, 1, 1, 2]


def test_rounding_is_asked_for_only_where_it_is_needed():
    def never():
        raise AssertionError

    assert judged(np.ones(3), np.ones(3) + 1e-12, 1e-10, never).tolist() == [0, 0, 0]


def test_a_trifle_is_small_beside_what_others_do():
    (a, b) = trifles({"a": np.array([1e3]), "b": np.array([2.0, 0.0])}, {"a": np.ones(1), "b": np.zeros(2)}, 1.0)
    np.testing.assert_allclose(a, 1e-6 * 1e3)
    np.testing.assert_allclose(b, 1e-6 * 1e3)  # numbers that are 0 count as if they were 1


def test_autodiffs_own_backward_is_right_everywhere():
    assert check_gradients(gradients.automatic_function(lambda x: jnp.sort(x) * jnp.abs(x)), shape(3, 4)).ok
