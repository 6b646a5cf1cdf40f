"""What wrapped optimizers do: hand-computed values, nesting, frozen leaves, errors.

That they obey the laws of all optimizers, and agree with NumPy over 100 steps, is in `test_optimizers`.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet.errors import ConfigError, DtypeError, ShapeError
from funcnet.optimizers import (
    FrozenState,
    PartitionedState,
    adam,
    adamw,
    clipped,
    decayed,
    frozen,
    guarded,
    guards,
    partitioned,
    sgd,
)

# sgd(1) from 0: the params after one update are the gradient that it saw, negated.


def seen(wrap, grads, params=None):
    optimizer = wrap(sgd(1.0))
    params = jax.tree.map(jnp.zeros_like, grads) if params is None else params
    after = optimizer.update(optimizer.init(params), grads).params
    return jax.tree.map(lambda before, after: before - after, params, after)


def two_leaves(bias, kernel, dtype=jnp.float32):
    return {"bias": jnp.array([bias], dtype), "kernel": jnp.array([kernel], dtype)}


def is_bias(path):
    return path.endswith("bias")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_clipped_by_norm_is_global(scale):
    grads = seen(lambda inner: clipped(inner, norm=5 * scale), two_leaves(6.0 * scale, 8.0 * scale))
    chex.assert_trees_all_close(grads, two_leaves(3.0 * scale, 4.0 * scale), rtol=1e-6)


@pytest.mark.parametrize("norm", [5.0, 5.5])
def test_clipped_leaves_small_gradients_alone(norm):
    chex.assert_trees_all_equal(
        seen(lambda inner: clipped(inner, norm=norm), two_leaves(3.0, 4.0)), two_leaves(3.0, 4.0)
    )


def test_clipped_zero_gradient():
    with jax.debug_nans(True):
        chex.assert_trees_all_equal(
            seen(lambda inner: clipped(inner, norm=1.0), two_leaves(0.0, 0.0)), two_leaves(0.0, 0.0)
        )


def test_clipped_by_value_is_elementwise():
    grads = seen(lambda inner: clipped(inner, value=2.0), jnp.array([-3.0, -1.0, 0.5, 9.0]))
    np.testing.assert_array_equal(grads, [-2.0, -1.0, 0.5, 2.0])


@pytest.mark.parametrize("options", [{"norm": 1.0}, {"value": 1.0}], ids=str)
def test_clipped_does_not_hide_nan(options):
    assert np.isnan(seen(lambda inner: clipped(inner, **options), jnp.array([math.nan])))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_clipped_half_precision(dtype):
    """300² is infinite in float16; 256 + 1 is 256 in bfloat16, and so is every longer sum of ones."""
    grads = seen(lambda inner: clipped(inner, norm=3.0), jnp.full(10_000, 300.0, dtype))
    np.testing.assert_allclose(grads.astype(jnp.float32), 0.03, rtol=4e-3)


def test_clipped_mixed_dtypes(x64):
    grads = {"bias": jnp.array([3.0], jnp.float32), "kernel": jnp.array([4.0], jnp.float64)}
    halved = seen(lambda inner: clipped(inner, norm=2.5), grads)
    chex.assert_trees_all_equal(halved, jax.tree.map(lambda g: g / 2, grads))


def test_clipped_without_leaves():
    assert seen(lambda inner: clipped(inner, norm=1.0), ()) == ()


def test_decayed_is_the_gradient_of_a_penalty():
    params, grads = two_leaves(2.0, -4.0), two_leaves(1.0, 1.0)
    chex.assert_trees_all_equal(seen(lambda inner: decayed(inner, 0.5), grads, params), two_leaves(2.0, -1.0))
    masked = seen(lambda inner: decayed(inner, 0.5, mask=is_bias), grads, params)
    chex.assert_trees_all_equal(masked, two_leaves(2.0, 1.0))


def test_decay_in_the_gradient_is_not_decoupled():
    """Adam divides the decay in the gradient away; `adamw` does not."""
    start, zero = jnp.array([4.0]), jnp.array([0.0])
    coupled, decoupled = decayed(adam(0.1), 0.5), adamw(0.1, weight_decay=0.5)
    np.testing.assert_allclose(coupled.update(coupled.init(start), zero).params, 4 - 0.1, rtol=1e-6)
    np.testing.assert_allclose(decoupled.update(decoupled.init(start), zero).params, 4 - 0.1 * 0.5 * 4, rtol=1e-6)


def test_the_outermost_wrapper_acts_first():
    params, grads = two_leaves(0.0, 10.0), two_leaves(6.0, 8.0)
    clip_first = seen(lambda inner: clipped(decayed(inner, 1.0), norm=5.0), grads, params)
    chex.assert_trees_all_close(clip_first, two_leaves(3.0, 14.0), rtol=1e-6)
    decay_first = seen(lambda inner: decayed(clipped(inner, norm=5.0), 1.0), grads, params)
    norm = math.hypot(6, 18)
    chex.assert_trees_all_close(decay_first, two_leaves(5 * 6 / norm, 5 * 18 / norm), rtol=1e-6)


def test_norm_counts_frozen_leaves_outside_only():
    grads = two_leaves(6.0, 8.0)
    outside = seen(lambda inner: clipped(frozen(inner, is_bias), norm=5.0), grads)
    chex.assert_trees_all_close(outside, two_leaves(0.0, 4.0), rtol=1e-6)
    inside = seen(lambda inner: frozen(clipped(inner, norm=5.0), is_bias), grads)
    chex.assert_trees_all_close(inside, two_leaves(0.0, 5.0), rtol=1e-6)


class Block(NamedTuple):
    kernel: jax.Array
    bias: jax.Array | None


PARAMS = (Block(jnp.array([1.0]), jnp.array([2.0])), (), {"deep": [Block(jnp.array([3.0]), None)]})


def test_frozen_state():
    optimizer = frozen(adam(0.1), is_bias)
    state = optimizer.init(PARAMS)
    trained = (Block(PARAMS[0].kernel, None), (), PARAMS[2])
    fixed = (Block(None, PARAMS[0].bias), (), {"deep": [Block(None, None)]})
    assert isinstance(state, FrozenState)
    chex.assert_trees_all_equal(state.inner.params, trained)
    chex.assert_trees_all_equal(state.inner.mu, jax.tree.map(jnp.zeros_like, trained))
    chex.assert_trees_all_equal(state.fixed, fixed)
    assert jax.tree.structure(state.params) == jax.tree.structure(PARAMS)
    state = optimizer.update(state, jax.tree.map(jnp.ones_like, PARAMS))
    assert state.step == 1
    expected = (Block(jnp.array([0.9]), jnp.array([2.0])), (), {"deep": [Block(jnp.array([2.9]), None)]})
    chex.assert_trees_all_close(state.params, expected, rtol=1e-6)


def test_frozen_leaves_neither_decay_nor_read_their_gradient():
    optimizer = frozen(clipped(decayed(adamw(0.1), 0.5), norm=1.0), is_bias)
    state = optimizer.update(optimizer.init(two_leaves(2.0, 2.0)), two_leaves(math.nan, 1.0))
    assert float(state.params["bias"][0]) == 2.0
    assert np.isfinite(state.params["kernel"][0])


def test_frozen_twice():
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1), "scale": jnp.ones(1)}
    optimizer = frozen(frozen(sgd(1.0), lambda path: path == "scale"), is_bias)
    state = optimizer.update(optimizer.init(params), params)
    assert {name: float(leaf[0]) for name, leaf in state.params.items()} == {"bias": 1, "kernel": 0, "scale": 1}


def test_partitioned_state():
    optimizer = partitioned([(".*bias", sgd(1.0)), ("2/.*", sgd(0.5)), (".*", adam(0.1))])
    state = optimizer.init(PARAMS)
    assert isinstance(state, PartitionedState)
    bias, deep, others = state.inner
    none = {"deep": [Block(None, None)]}
    chex.assert_trees_all_equal(bias.params, (Block(None, PARAMS[0].bias), (), none))
    chex.assert_trees_all_equal(deep.params, (Block(None, None), (), PARAMS[2]))
    chex.assert_trees_all_equal(others.mu, (Block(jnp.zeros(1), None), (), none))
    assert jax.tree.structure(state.params) == jax.tree.structure(PARAMS)
    state = optimizer.update(state, jax.tree.map(jnp.ones_like, PARAMS))
    assert [int(part.step) for part in state.inner] == [1, 1, 1]
    expected = (Block(jnp.array([0.9]), jnp.array([1.0])), (), {"deep": [Block(jnp.array([2.5]), None)]})
    chex.assert_trees_all_close(state.params, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda select: frozen(sgd(0.1), select),
        lambda select: decayed(sgd(0.1), 0.1, mask=select),
        lambda select: adamw(0.1, mask=select, weight_decay=0.5),
        lambda select: partitioned([(select, sgd(0.1)), (".*", sgd(0.2))]),
    ],
)
def test_a_pattern_and_a_function_choose_the_same_leaves(make):
    results = []
    for select in (".*bias", is_bias, ".*kernel"):
        optimizer = make(select)
        results.append(optimizer.update(optimizer.init(PARAMS), jax.tree.map(jnp.ones_like, PARAMS)).params)
    chex.assert_trees_all_equal(*results[:2])
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, *results[1:]))


def test_partitioned_nests():
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1), "scale": jnp.ones(1)}
    rules = [("kernel", guarded(sgd(1.0))), (".*", frozen(sgd(0.5), lambda path: path == "scale"))]
    optimizer = partitioned(rules)
    state = optimizer.update(optimizer.init(params), params | {"kernel": jnp.array([math.nan])})
    assert {name: float(leaf[0]) for name, leaf in state.params.items()} == {"bias": 0.5, "kernel": 1, "scale": 1}
    assert [int(guard.skipped) for guard in guards(state)] == [1]
    optimizer = frozen(partitioned([("bias", sgd(1.0)), (".*", sgd(0.5))]), lambda path: path == "kernel")
    state = optimizer.update(optimizer.init(params), params)
    assert {name: float(leaf[0]) for name, leaf in state.params.items()} == {"bias": 0, "kernel": 1, "scale": 0.5}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda mask: adamw(0.1, mask=mask),
        lambda mask: decayed(sgd(0.1), 0.1, mask=mask),
        lambda mask: frozen(sgd(0.1), lambda path: mask(path) or path == "0/kernel"),
    ],
    ids=["adamw", "decayed", "frozen"],
)
def test_predicates_get_paths(wrap):
    paths = []
    optimizer = wrap(lambda path: paths.append(path))
    optimizer.update(optimizer.init(PARAMS), PARAMS)
    assert paths == ["0/kernel", "0/bias", "2/deep/0/kernel"]


def test_masks_within_frozen_get_the_same_paths():
    paths = []
    optimizer = frozen(decayed(sgd(0.1), 0.1, mask=lambda path: paths.append(path)), is_bias)
    optimizer.update(optimizer.init(PARAMS), PARAMS)
    assert paths == ["0/kernel", "2/deep/0/kernel"]


def test_an_error_within_names_the_call_where_it_was_seen_once():
    """The outer wrapper looks first; what it cannot see is named by the optimizer within."""
    optimizer = clipped(decayed(sgd(lambda step: jnp.ones(2)), 0.1), norm=1.0)
    state = optimizer.init(jnp.ones(1))
    message = r"^clipped\(decayed\(sgd\(<lambda>\), 0\.1\), norm=1\.0\): expected the gradient of '' .* got an array of"
    with pytest.raises(DtypeError, match=message):
        optimizer.update(state, jnp.ones(1, jnp.float16))
    with pytest.raises(ShapeError, match=r"^sgd\(<lambda>\): expected learning_rate\(step\) of shape \(\), got \(2,\)"):
        optimizer.update(state, jnp.ones(1))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: clipped(sgd(0.1)), r"^clipped\(sgd\(0\.1\)\): expected exactly one .* got none"),
        (
            lambda: clipped(sgd(0.1), norm=1, value=1),
            r"^clipped\(sgd\(0\.1\), norm=1, value=1\): expected exactly one .* got both",
        ),
        (
            lambda: clipped(sgd(0.1), norm=0),
            r"^clipped\(sgd\(0\.1\), norm=0\): expected norm to be a finite number > 0, got 0",
        ),
        (
            lambda: clipped(sgd(0.1), value=-1),
            r"^clipped\(sgd\(0\.1\), value=-1\): expected value to be a finite number > 0",
        ),
        (lambda: clipped(sgd(0.1), norm=math.nan), r"^clipped\(sgd\(0\.1\), norm=nan\)"),
        (
            lambda: decayed(sgd(0.1), -0.1),
            r"^decayed\(sgd\(0\.1\), -0\.1\): expected weight_decay .* >= 0, got -0\.1",
        ),
        (
            lambda: decayed(sgd(0.1), 0.1, mask=["kernel"]),
            r"^decayed\(sgd\(0\.1\), 0\.1, mask=\('kernel',\)\): expected mask to be a regular expression or a func",
        ),
        (
            lambda: clipped(adam(1e-3), norm=-1),
            r"^clipped\(adam\(0\.001\), norm=-1\): expected norm to be .* > 0, got -1\.",
        ),
        (
            lambda: clipped(0.1, norm=1),
            r"^clipped\(0\.1, norm=1\): expected optimizer to be an optimizer, .* got 0\.1; call",
        ),
        (
            lambda: decayed(sgd, 0.1),
            r"^decayed\(sgd, 0\.1\): expected optimizer to be an optimizer, such as adam\(1e-3\)",
        ),
        (
            lambda: frozen(None, is_bias),
            r"^frozen\(None, is_bias\): expected optimizer to be an optimizer, .* got None",
        ),
        (
            lambda: frozen(sgd(0.1), 3),
            r"^frozen\(sgd\(0\.1\), 3\): expected select to be a regular expression or a function of a leaf's",
        ),
        (
            lambda: frozen(sgd(0.1), "bias").init(PARAMS),
            r"^frozen\(sgd\(0\.1\), 'bias'\): .* got 0 of 3: 0/kernel, .*; a pattern has to match the whole path",
        ),
        (
            lambda: decayed(sgd(0.1), 0.1, mask="bias").init(PARAMS),
            r"^decayed\(.*\): expected 'bias' to match a leaf, got none of 0/kernel, .*; a pattern has to match the",
        ),
        (
            lambda: adamw(0.1, mask="bias").init(PARAMS),
            r"^adamw\(.*\): expected 'bias' to match a leaf, got none of 0/kernel, .*; a pattern has to match the",
        ),
        (
            lambda: frozen(sgd(0.1), lambda path: False).init(PARAMS),
            r"^frozen\(sgd\(0\.1\), <lambda>\): .* got 0 of 3: 0/kernel, 0/bias, 2/deep/0/kernel; it is called",
        ),
        (
            lambda: frozen(sgd(0.1), lambda path: True).init(PARAMS),
            r"^frozen\(sgd\(0\.1\), <lambda>\): .* got 3 of 3: 0/kernel",
        ),
        (
            lambda: frozen(sgd(0.1), lambda path: False).init([jnp.ones(1)] * 9),
            r"got 0 of 9: 0, 1, 2, 3, 4, 5, 6, 7, …;",
        ),
        (
            lambda: partitioned([]),
            r"^partitioned\(\(\)\): expected rules to be pairs \(pattern, optimizer\), got a tuple \(\); write",
        ),
        (
            lambda: partitioned([(3, sgd(0.1))]),
            r"^partitioned\(\(\(3, sgd\(0\.1\)\),\)\): expected rules to be pairs .* got a tuple .*; write",
        ),
        (
            lambda: partitioned([(".*", 0.1)]),
            r"^partitioned\(\(\('\.\*', 0\.1\),\)\): expected rules to be pairs .*; write for example",
        ),
        (
            lambda: partitioned([("[", sgd(0.1))]),
            r"^partitioned\(\(\('\[', sgd\(0\.1\)\),\)\): expected '\[' to be a regular expression, got an error: un",
        ),
        (
            lambda: partitioned([("0/.*", sgd(0.1))]).init(PARAMS),
            r"^partitioned\(\(\('0/\.\*', sgd\(0\.1\)\),\)\): expected a rule for every leaf, got none for '2/.*'; end",
        ),
        (
            lambda: partitioned([(".*", sgd(0.1)), ("0/bias", sgd(0.2))]).init(PARAMS),
            r"expected '0/bias' to be the first rule that matches some leaf, got none of 0/kernel, 0/bias, 2/deep/0/k",
        ),
        (
            lambda: partitioned([("bias", sgd(0.1)), (".*", sgd(0.2))]).init(PARAMS),
            r"expected 'bias' to be the first rule .*; a pattern has to match the whole path",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 6e37])
def test_clipped_by_a_norm_whose_square_is_extreme(size):
    grads = seen(lambda inner: clipped(inner, norm=1.0), jnp.array([3 * size, 4 * size]))
    np.testing.assert_allclose(grads, np.array([0.6, 0.8]) * min(1, 5 * size), rtol=1e-6)
