"""What `guarded` does; the laws of all optimizers and 100 steps against NumPy are in `test_optimizers`."""

from functools import lru_cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit

from funcnet.errors import ConfigError
from funcnet.optimizers import (
    GuardedState,
    adagrad,
    adam,
    averaged,
    clipped,
    decayed,
    frozen,
    guarded,
    guards,
    rmsprop,
    sgd,
)  # fmt: skip

PARAMS = ({"bias": jnp.array([1.0, 2.0]), "kernel": jnp.ones((2, 3))}, (), {"kernel": jnp.ones((3, 1))})
PATHS = ("0/bias", "0/kernel", "2/kernel")


def gradients(value=0.5, leaf=None):
    """The gradients 0.5 everywhere, but for the last number of one leaf."""
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda p: jnp.full_like(p, 0.5), PARAMS))
    if leaf is not None:
        leaves[leaf] = leaves[leaf].at[(-1,) * leaves[leaf].ndim].set(value)
    return tree.unflatten(leaves)


ADAM = guarded(adam(0.1))
GOOD, BAD = gradients(), gradients(np.nan, 1)


@lru_cache
def compiled(optimizer):
    return quick_jit(optimizer.update)


def after(optimizer, steps, params=PARAMS):
    state, update = optimizer.init(params), compiled(optimizer)
    for grads in steps:
        state = update(state, grads)
    return state


def counts(guard):
    return tuple(int(n) for n in (guard.step, guard.skipped, guard.in_a_row, guard.bad_step, guard.bad_leaf))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("leaf", range(3))
def test_a_bad_step_is_skipped_and_named(value, leaf):
    update = compiled(ADAM)
    before = update(ADAM.init(PARAMS), GOOD)
    state = update(before, gradients(value, leaf))
    chex.assert_trees_all_equal(state.inner, before.inner)  # its step too
    assert counts(state) == (2, 1, 1, 1, leaf)
    assert state.bad_path == PATHS[leaf]
    assert before.bad_path is None
    chex.assert_trees_all_equal(update(state, GOOD).inner, update(before, GOOD).inner)


def test_of_several_bad_leaves_the_first_is_named():
    assert after(ADAM, [jax.tree.map(lambda p: p * np.nan, PARAMS)]).bad_path == "0/bias"


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_large_gradients_are_finite(dtype):
    """Their sum is not, nor are their squares."""
    most, least = jnp.finfo(dtype).max, jnp.finfo(dtype).smallest_subnormal
    grads = {"large": jnp.full(100, most, dtype), "mixed": jnp.array([-most, least, -0.0], dtype)}
    state = after(guarded(sgd(0.0)), [grads], jax.tree.map(jnp.zeros_like, grads))
    assert counts(state) == (1, 0, 0, -1, -1)
    assert state.inner.step == 1


def test_rows_of_bad_steps():
    """In a row: none, 1, 2, none, 1; the step and the leaf are those of the first of the last row."""
    other = gradients(np.inf, 2)
    seen = [counts(after(ADAM, [GOOD, BAD, other, GOOD, other][:n])) for n in range(6)]
    assert seen == [
        (0, 0, 0, -1, -1), (1, 0, 0, -1, -1), (2, 1, 1, 1, 1), (3, 2, 2, 1, 1), (4, 2, 0, 1, 1), (5, 3, 1, 4, 2),
    ]  # fmt: skip


def test_a_row_of_most_is_the_end():
    """A loop looks once in many steps: what it then finds is the state before the first of the row."""
    optimizer = guarded(sgd(0.1), most=2)
    state = after(optimizer, [GOOD, BAD, BAD, GOOD, gradients(np.inf, 2), GOOD])
    assert counts(state) == (6, 5, 5, 1, 1)
    chex.assert_trees_all_equal(state.inner, after(optimizer, [GOOD]).inner)


def test_the_state_is_a_carry():
    """In a compiled loop, as `training.fit` runs it, and bit for bit the same as one by one."""
    steps = [GOOD, BAD, GOOD, GOOD]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)
    looped, _ = jax.lax.scan(lambda state, grads: (ADAM.update(state, grads), None), ADAM.init(PARAMS), stacked)
    chex.assert_trees_all_close(looped, after(ADAM, steps), rtol=1e-6)
    assert counts(looped) == (4, 1, 0, 1, 1)


WRAPPERS = {
    "averaged": averaged,
    "clipped": lambda optimizer: clipped(optimizer, value=0.25),
    "decayed": lambda optimizer: decayed(optimizer, 0.1),
    "frozen": lambda optimizer: frozen(optimizer, lambda path: path == "0/bias"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_nesting(name):
    """Two bad steps change nothing, whichever is the outer one."""
    wrap = WRAPPERS[name]
    wanted = after(wrap(adam(0.1)), [GOOD] * 4).params
    for optimizer in (guarded(wrap(adam(0.1))), wrap(guarded(adam(0.1)))):
        state = after(optimizer, [GOOD, GOOD, BAD, BAD, GOOD, GOOD])
        (guard,) = guards(state)
        assert counts(guard)[:4] == (6, 2, 0, 2)
        assert (int(state.step), guard.bad_path) == (6, "0/kernel")
        chex.assert_trees_all_close(state.params, wanted, rtol=1e-6)


def test_nesting_of_all():
    inside, outside = ("decayed", "frozen"), ("averaged", "clipped")
    optimizer, alone = sgd(0.5), sgd(0.5)
    for name in inside:
        optimizer, alone = WRAPPERS[name](optimizer), WRAPPERS[name](alone)
    optimizer = guarded(optimizer)
    for name in outside:
        optimizer, alone = WRAPPERS[name](optimizer), WRAPPERS[name](alone)
    state = after(optimizer, [GOOD, BAD, GOOD, BAD])
    assert [counts(guard)[:4] for guard in guards(state)] == [(4, 2, 1, 3)]
    chex.assert_trees_all_close(state.params, after(alone, [GOOD, GOOD]).params, rtol=1e-6)


def test_guards_finds_all_of_them():
    state = after(guarded(frozen(guarded(sgd(0.1), most=5), lambda path: path == "2/kernel")), [GOOD])
    outer, inner = guards({"optimizer": (state, jnp.ones(2))})
    assert isinstance(outer, GuardedState)
    assert (int(outer.most), int(inner.most)) == (3, 5)
    assert guards(adam(0.1).init(PARAMS)) == []


def test_paths_within_frozen_are_those_of_the_whole_tree():
    state = after(frozen(guarded(sgd(0.1)), lambda path: path == "0/bias"), [gradients(np.nan, 2)])
    (guard,) = guards(state)
    assert (int(guard.bad_leaf), guard.bad_path) == (1, "2/kernel")


def test_without_leaves():
    assert counts(after(guarded(adam(0.1)), [()], ())) == (1, 0, 0, -1, -1)


@pytest.mark.parametrize("most", [0, 1.5, None])
def test_most_is_a_count(most):
    with pytest.raises(
        ConfigError, match=rf"^guarded\(sgd\(0\.1\), most={most}\): expected most to be a positive integer, got"
    ):
        guarded(sgd(0.1), most=most)


@pytest.mark.parametrize(
    ("optimizer", "gradient", "path"),
    [
        (sgd(1e38), 1e3, "params/0/bias"),
        (adam(0.1), 1e20, "nu/0/bias"),
        (rmsprop(0.1), 1e20, "nu/0/bias"),
        (adagrad(0.1), 1e20, "accumulator/0/bias"),
    ],
    ids=["sgd", "adam", "rmsprop", "adagrad"],
)
def test_an_update_that_is_not_finite_is_skipped_and_named(optimizer, gradient, path):
    """The gradient is finite, and its square or its product with the rate is not."""
    large = jax.tree.map(lambda p: jnp.full_like(p, gradient), PARAMS)
    state = after(guarded(optimizer), [GOOD, large][optimizer.made.constructor is sgd :])
    assert state.bad_path == path
    assert bool(state.bad_update)
    assert int(state.skipped) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.inner))
