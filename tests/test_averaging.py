"""What `averaged` does; the laws of all optimizers and 100 steps against NumPy are in `test_optimizers`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet.errors import ConfigError
from funcnet.optimizers import averaged, frozen, guarded, sgd

GRADIENTS = np.random.default_rng(0).normal(size=(40, 3))


def path_of(optimizer, gradients=GRADIENTS, dtype=jnp.float64):
    """(the params, the average) after each update from 5."""

    def step(state, grads):
        state = optimizer.update(state, grads)
        return state, (state.params, state.average)

    run = jax.jit(lambda state, gradients: jax.lax.scan(step, state, gradients)[1])
    return run(optimizer.init(jnp.full(3, 5.0, dtype)), jnp.asarray(gradients, dtype))


@pytest.mark.parametrize("decay", [0.9, 0.0, None])
def test_the_average_is_that_of_all_params_since_the_start(decay, x64):
    for start in (0, 7):
        params, averages = path_of(averaged(sgd(0.1), decay, start=start))
        np.testing.assert_allclose(params, 5 - 0.1 * np.cumsum(GRADIENTS, 0), rtol=1e-14)
        for t in range(len(params)):
            seen = np.asarray(params)[min(start, t) : t + 1]
            weights = (1.0 if decay is None else decay) ** np.arange(len(seen))[::-1]
            np.testing.assert_allclose(averages[t], weights @ seen / weights.sum(), rtol=1e-14)


def test_the_training_is_that_of_the_optimizer():
    params, _ = path_of(averaged(sgd(0.1), 0.9), dtype=jnp.float32)
    state = sgd(0.1).init(jnp.full(3, 5.0))
    for grads in jnp.asarray(GRADIENTS, jnp.float32):
        state = sgd(0.1).update(state, grads)
    np.testing.assert_array_equal(params[-1], state.params)


def test_the_first_average_is_the_params():
    params = {"bias": jnp.ones(2, jnp.float16), "kernel": jnp.ones(2)}
    chex.assert_trees_all_equal(averaged(sgd(0.1)).init(params).average, params)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_averages_of_half_precision_are_kept_in_float32(dtype):
    """From 4 the steps of 1/64 are seen, of which a thousandth is nothing in half precision."""
    optimizer = averaged(sgd(1.0), 0.999)
    state = optimizer.init(jnp.array([4.0], dtype))
    update = jax.jit(optimizer.update)
    for _ in range(64):
        state = update(state, jnp.array([1 / 64], dtype))
    assert state.mean.dtype == jnp.float32
    assert state.average.dtype == dtype
    weights, seen = 0.999 ** np.arange(64)[::-1], 4 - np.arange(1, 65) / 64
    np.testing.assert_allclose(state.mean, weights @ seen / weights.sum(), rtol=1e-6)


def test_weights_are_exact_in_float32():
    """1 − 0.999 computed in float32 is off by 5e-5: the mean of 0 and 1, weighted as 0.999 : 1."""
    optimizer = averaged(sgd(1.0), 0.999)
    state = optimizer.update(optimizer.init(jnp.zeros(1)), jnp.zeros(1))
    state = optimizer.update(state, -jnp.ones(1))
    assert float(state.average[0]) == pytest.approx(1 / 1.999, rel=4e-7)


def test_what_counts_as_an_update():
    """Within `guarded` only the updates done have weight, outside every call."""
    gradients = [jnp.array([g]) for g in (1.0, 1.0, jnp.nan, jnp.nan)]

    def average(optimizer):
        state, update = optimizer.init(jnp.zeros(1)), jax.jit(optimizer.update)
        for grads in gradients:
            state = update(state, grads)
        return float((state if hasattr(state, "average") else state.inner).average[0])

    assert average(guarded(averaged(sgd(1.0), None))) == -1.5
    assert average(averaged(guarded(sgd(1.0)), None)) == pytest.approx(-(1 + 2 + 2 + 2) / 4)


def test_frozen_leaves_have_no_average():
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    state = frozen(averaged(sgd(1.0)), lambda path: path == "bias").init(params)
    chex.assert_trees_all_equal(state.inner.average, {"bias": None, "kernel": jnp.ones(1)})


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: averaged(sgd(0.1), 1.0),
            r"^averaged\(sgd\(0\.1\), decay=1\.0\): expected decay to be a finite number in \[0, 1\)",
        ),
        (lambda: averaged(sgd(0.1), "mean"), r"^averaged\(sgd\(0\.1\), decay='mean'\): expected decay"),
        (
            lambda: averaged(sgd(0.1), start=-1),
            r"^averaged\(sgd\(0\.1\), start=-1\): expected start to be an integer >= 0, got -1",
        ),
        (lambda: averaged(sgd), r"^averaged\(sgd\): expected optimizer to be an optimizer, .*; call its constructor"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
