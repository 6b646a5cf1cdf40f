"""What `accumulated` does; the laws of all optimizers and 100 steps against NumPy are in `test_optimizers`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit

from funcnet.errors import ConfigError
from funcnet.gradients import backprop
from funcnet.layers import dense, serial, tanh
from funcnet.losses import mean_squared_error
from funcnet.optimizers import AccumulatedState, accumulated, adam, clipped, decayed, frozen, sgd
from funcnet.schedules import step_decay


def after(optimizer, params, *gradients):
    state, update = optimizer.init(params), quick_jit(optimizer.update)
    for grads in gradients:
        state = update(state, grads)
    return state


def test_nothing_changes_before_the_last_of_k():
    params = {"kernel": jnp.array([1.0, 2.0])}
    optimizer = accumulated(adam(0.1), 3)
    state = after(optimizer, params, {"kernel": jnp.array([1.0, 0.0])}, {"kernel": jnp.array([3.0, -1.0])})
    assert isinstance(state, AccumulatedState)
    chex.assert_trees_all_equal(state.inner, adam(0.1).init(params))
    chex.assert_trees_all_equal(state.total, {"kernel": jnp.array([4.0, -1.0])})
    assert state.step == 2
    state = optimizer.update(state, {"kernel": jnp.array([2.0, 4.0])})
    inner = adam(0.1)
    wanted = inner.update(inner.init(params), {"kernel": jnp.array([2.0, 1.0])})
    chex.assert_trees_all_close(state.inner, wanted, rtol=1e-6)
    chex.assert_trees_all_equal(state.total, {"kernel": jnp.zeros(2)})
    assert (int(state.step), int(state.inner.step)) == (3, 1)


def test_small_batches_are_one_large_one(x64):
    """Four steps on three batches of five rows each, against the steps on fifteen rows."""
    model = serial(dense(6), tanh(), dense(2))
    gradient = backprop(model, mean_squared_error)
    x, target = jax.random.normal(jax.random.key(0), (60, 3)), jax.random.normal(jax.random.key(1), (60, 2))
    params, layers = quick_jit(model.init)(jax.random.key(2), x)

    def train(optimizer, rows):
        batches = (x.reshape(-1, rows, 3), target.reshape(-1, rows, 2))

        def step(state, batch):
            return optimizer.update(state, gradient(state.params, layers, batch).grads), None

        return quick_jit(lambda state: jax.lax.scan(step, state, batches)[0])(optimizer.init(params))

    for inner in (sgd(0.1, momentum=0.9), clipped(adam(0.01), norm=0.1)):
        gathered, whole = train(accumulated(inner, 3), 5), train(inner, 15)
        assert (int(gathered.step), int(whole.step)) == (12, 4)
        chex.assert_trees_all_close(gathered.params, whole.params, rtol=1e-14, atol=1e-15)
        assert not np.allclose(jax.tree.leaves(whole.params)[0], jax.tree.leaves(params)[0])


def test_the_schedule_counts_updates():
    """The rate halves after two updates, which are six calls."""
    state = after(accumulated(sgd(step_decay(1.0, 2, gamma=0.5)), 3), jnp.array([0.0]), *[jnp.array([1.0])] * 9)
    np.testing.assert_array_equal(state.params, [-2.5])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_sums_of_half_precision_are_float32(dtype):
    """256 + 1 is 256 in bfloat16, and 40 000 + 40 000 is infinite in float16."""
    optimizer = accumulated(sgd(1.0), 2)
    for pair, mean in (([256.0, 1.0], 128.5), ([40_000.0, 40_000.0], 40_000.0)):
        state = after(optimizer, jnp.zeros(1, dtype), *(jnp.array([g], dtype) for g in pair))
        assert state.total.dtype == jnp.float32
        assert state.params[0] == -jnp.asarray(mean, dtype)


def test_wrappers_within_see_the_mean_and_those_outside_each_gradient():
    gradients = jnp.array([3.0]), jnp.array([-1.0])
    np.testing.assert_array_equal(
        after(accumulated(clipped(sgd(1.0), value=1.0), 2), jnp.zeros(1), *gradients).params, -1
    )
    np.testing.assert_array_equal(
        after(clipped(accumulated(sgd(1.0), 2), value=1.0), jnp.zeros(1), *gradients).params, 0
    )


def test_decay_is_the_same_inside_and_outside():
    gradients = jnp.array([3.0]), jnp.array([-1.0])
    for optimizer in (accumulated(decayed(sgd(0.5), 0.25), 2), decayed(accumulated(sgd(0.5), 2), 0.25)):
        np.testing.assert_array_equal(after(optimizer, jnp.array([4.0]), *gradients).params, 4 - 0.5 * (1 + 1))


def test_frozen_leaves_have_no_sum():
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    state = after(frozen(accumulated(sgd(1.0), 2), lambda path: path == "bias"), params, params, params)
    assert state.inner.total["bias"] is None
    chex.assert_trees_all_equal(state.params, {"bias": jnp.ones(1), "kernel": jnp.zeros(1)})


@pytest.mark.parametrize("k", [0, 2.0, True, None])
def test_k_is_a_count(k):
    with pytest.raises(ConfigError, match=rf"accumulated\(…, {k}\): expected k to be a positive integer, got"):
        accumulated(sgd(0.1), k)
