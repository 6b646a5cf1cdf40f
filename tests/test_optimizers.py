"""Optimizers, bare and wrapped: against NumPy, by the laws that all obey, and with bad arguments."""

import math
from importlib import import_module
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, usual_jit
from source import code_lines_of

from funcnet import optimizers
from funcnet.errors import ConfigError, DtypeError, ShapeError, StructureError
from funcnet.made import constructor
from funcnet.optimizers import (
    adagrad,
    adam,
    adamw,
    averaged,
    clipped,
    decayed,
    descent,
    frozen,
    guarded,
    lion,
    nadam,
    partitioned,
    rescaled,
    rmsprop,
    sgd,
)
from funcnet.schedules import exponential_decay

STEPS = 100


# The references: each optimizer from its paper, on one flat vector p, with gradient(t, p).


def numpy_sgd(gradient, p, rate, momentum=0.0, nesterov=False, dampening=0.0):
    v = 0.0
    for t in range(STEPS):
        g = gradient(t, p)
        v = g if t == 0 else momentum * v + (1 - dampening) * g
        p = p - rate(t) * (g + momentum * v if nesterov else v)
    return p


def numpy_adagrad(gradient, p, rate, a=0.0, epsilon=1e-10):
    for t in range(STEPS):
        g = gradient(t, p)
        a = a + g**2
        p = p - rate(t) * g / (np.sqrt(a) + epsilon)
    return p


def numpy_rmsprop(gradient, p, rate, rho=0.99, epsilon=1e-8, inside=False, centered=False, momentum=0.0):
    square = mean = v = 0.0
    for t in range(STEPS):
        g = gradient(t, p)
        square, mean = rho * square + (1 - rho) * g**2, rho * mean + (1 - rho) * g
        variance = square - mean**2 if centered else square
        v = momentum * v + g / (np.sqrt(variance + epsilon) if inside else np.sqrt(variance) + epsilon)
        p = p - rate(t) * v
    return p


def numpy_adam(gradient, p, rate, b1=0.9, b2=0.999, epsilon=1e-8, decay=0.0, amsgrad=False):
    m = v = largest = 0.0
    for t in range(STEPS):
        g = gradient(t, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v) if amsgrad else v
        m_hat, v_hat = m / (1 - b1 ** (t + 1)), largest / (1 - b2 ** (t + 1))
        p = p - rate(t) * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * p)
    return p


def numpy_nadam(gradient, p, rate, b1=0.9, b2=0.999, epsilon=1e-8, momentum_decay=4e-3):
    m, v, momenta = 0.0, 0.0, [b1 * (1 - 0.96 ** (t * momentum_decay) / 2) for t in range(1, STEPS + 2)]
    for t in range(STEPS):
        g = gradient(t, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        ahead = momenta[t + 1] * m / (1 - np.prod(momenta[: t + 2]))
        m_hat = ahead + (1 - momenta[t]) * g / (1 - np.prod(momenta[: t + 1]))
        p = p - rate(t) * m_hat / (np.sqrt(v / (1 - b2 ** (t + 1))) + epsilon)
    return p


def numpy_lion(gradient, p, rate, b1=0.9, b2=0.99, decay=0.0):
    m = 0.0
    for t in range(STEPS):
        g = gradient(t, p)
        p = p - rate(t) * (np.sign(b1 * m + (1 - b1) * g) + decay * p)
        m = b2 * m + (1 - b2) * g
    return p


def numpy_normalised(gradient, p, rate, rho=0.9, decay=0.0):
    m = size = 0.0
    for t in range(STEPS):
        g = gradient(t, p)
        m = rho * m + (1 - rho) * g
        size = rho * size + (1 - rho) * np.where(BIAS, np.mean(g[BIAS] ** 2), np.mean(g[~BIAS] ** 2))  # of each leaf
        p = p - rate(t) * (m / np.sqrt(size) + decay * p)
    return p


# An optimizer made of `descent`, whose one slot is a tree: beside the mean gradient the mean square of the whole leaf.


class NormalisedState(NamedTuple):
    step: jax.Array
    params: dict
    moments: dict
    scale: jax.Array


@constructor
def normalised(learning_rate, *, decay=0.9, **options):
    def direction(p, g, t, moments):
        mean = decay * moments["mean"] + (1 - decay) * g
        size = decay * moments["size"] + (1 - decay) * jnp.mean(jnp.square(g))
        return mean / jnp.sqrt(jnp.where(size == 0, 1, size)), {"mean": mean, "size": size}

    slots = {"moments": lambda p: {"mean": 0 * p, "size": jnp.zeros((), p.dtype)}}
    return descent(NormalisedState, learning_rate, direction, slots=slots, **options)


# The problem: two leaves, whose flat order is bias, kernel; a quadratic, a sine and noise.

BIAS = np.arange(8) < 2
NOISE = np.random.default_rng(0).normal(size=(STEPS, 8))
START = np.random.default_rng(1).normal(size=8)


def tree(flat, dtype=jnp.float64):
    return {"bias": jnp.asarray(flat[:2], dtype), "kernel": jnp.asarray(flat[2:], dtype).reshape(3, 2)}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def numpy_gradient(t, p):
    return p + 2 * np.sin(3 * p) + NOISE[t]


def run(optimizer, params, noise, gradient=lambda p, n: p + 2 * jnp.sin(3 * p) + n, jit=quick_jit):
    def step(state, noise):
        return optimizer.update(state, jax.tree.map(gradient, state.params, noise)), None

    return jit(lambda state, noise: jax.lax.scan(step, state, noise)[0])(optimizer.init(params), noise)


def noise_tree(dtype=jnp.float64):
    return jax.vmap(lambda row: tree(row, dtype))(jnp.asarray(NOISE, dtype))


def at(rate):
    return lambda t: rate


def norm_clipped(g, where=True):
    return g * min(1, 2 / np.sqrt(np.sum(g**2, where=where)))


def is_bias(path):
    return path == "bias"


decaying = exponential_decay(0.1, 20, 0.5)

# name: (optimizer, its reference); the first word names the constructor
CASES = {
    "sgd": (sgd(0.1), lambda g, p: numpy_sgd(g, p, at(0.1))),
    "sgd schedule": (sgd(decaying), lambda g, p: numpy_sgd(g, p, lambda t: 0.1 * 0.5 ** (t / 20))),
    "sgd momentum": (sgd(0.02, momentum=0.9), lambda g, p: numpy_sgd(g, p, at(0.02), 0.9)),
    "sgd nesterov": (sgd(0.02, momentum=0.9, nesterov=True), lambda g, p: numpy_sgd(g, p, at(0.02), 0.9, True)),
    "sgd dampening": (
        sgd(0.1, momentum=0.8, dampening=0.3),
        lambda g, p: numpy_sgd(g, p, at(0.1), 0.8, dampening=0.3),
    ),
    "adagrad": (adagrad(0.1), lambda g, p: numpy_adagrad(g, p, at(0.1))),
    "adagrad start": (
        adagrad(0.1, initial_accumulator=0.1, epsilon=1e-3),
        lambda g, p: numpy_adagrad(g, p, at(0.1), 0.1, 1e-3),
    ),
    "rmsprop": (rmsprop(0.01), lambda g, p: numpy_rmsprop(g, p, at(0.01))),
    "rmsprop inside": (
        rmsprop(0.01, decay=0.9, epsilon=1e-3, eps_in_sqrt=True),
        lambda g, p: numpy_rmsprop(g, p, at(0.01), 0.9, 1e-3, True),
    ),
    "rmsprop centered": (rmsprop(0.01, centered=True), lambda g, p: numpy_rmsprop(g, p, at(0.01), centered=True)),
    "rmsprop momentum": (rmsprop(0.01, momentum=0.5), lambda g, p: numpy_rmsprop(g, p, at(0.01), momentum=0.5)),
    "rmsprop all": (
        rmsprop(decaying, decay=0.9, centered=True, eps_in_sqrt=True, momentum=0.5),
        lambda g, p: numpy_rmsprop(g, p, lambda t: 0.1 * 0.5 ** (t / 20), 0.9, 1e-8, True, True, 0.5),
    ),
    "adam": (adam(0.05), lambda g, p: numpy_adam(g, p, at(0.05))),
    "adam options": (
        adam(decaying, b1=0.5, b2=0.9, epsilon=1e-3),
        lambda g, p: numpy_adam(g, p, lambda t: 0.1 * 0.5 ** (t / 20), 0.5, 0.9, 1e-3),
    ),
    "adam without means": (adam(0.05, b1=0.0, b2=0.0), lambda g, p: numpy_adam(g, p, at(0.05), 0.0, 0.0)),
    "adamw": (adamw(0.05), lambda g, p: numpy_adam(g, p, at(0.05), decay=0.01)),
    "adamw mask": (
        adamw(0.05, b1=0.8, b2=0.9, epsilon=1e-6, weight_decay=0.1, mask=is_bias),
        lambda g, p: numpy_adam(g, p, at(0.05), 0.8, 0.9, 1e-6, 0.1 * BIAS),
    ),
    "adam amsgrad": (
        adam(0.05, b2=0.9, amsgrad=True),
        lambda g, p: numpy_adam(g, p, at(0.05), b2=0.9, amsgrad=True),
    ),
    "adamw amsgrad": (
        adamw(0.05, b2=0.9, amsgrad=True),
        lambda g, p: numpy_adam(g, p, at(0.05), b2=0.9, decay=0.01, amsgrad=True),
    ),
    "nadam": (nadam(0.05), lambda g, p: numpy_nadam(g, p, at(0.05))),
    "nadam options": (
        nadam(decaying, b1=0.8, b2=0.9, epsilon=1e-3, momentum_decay=0.1),
        lambda g, p: numpy_nadam(g, p, lambda t: 0.1 * 0.5 ** (t / 20), 0.8, 0.9, 1e-3, 0.1),
    ),
    "lion": (lion(0.01), lambda g, p: numpy_lion(g, p, at(0.01))),
    "lion options": (
        lion(decaying, b1=0.5, b2=0.8, weight_decay=0.1),
        lambda g, p: numpy_lion(g, p, lambda t: 0.1 * 0.5 ** (t / 20), 0.5, 0.8, 0.1),
    ),
    "clipped norm": (
        clipped(sgd(0.1), norm=2.0),
        lambda g, p: numpy_sgd(lambda t, p: norm_clipped(g(t, p)), p, at(0.1)),
    ),
    "clipped value": (
        clipped(adam(0.05), value=1.5),
        lambda g, p: numpy_adam(lambda t, p: np.clip(g(t, p), -1.5, 1.5), p, at(0.05)),
    ),
    "decayed": (decayed(adam(0.05), 0.1), lambda g, p: numpy_adam(lambda t, p: g(t, p) + 0.1 * p, p, at(0.05))),
    "decayed mask": (
        decayed(sgd(0.02, momentum=0.9), 0.1, mask=is_bias),
        lambda g, p: numpy_sgd(lambda t, p: g(t, p) + 0.1 * BIAS * p, p, at(0.02), 0.9),
    ),
    "frozen": (
        frozen(adamw(0.05), is_bias),
        lambda g, p: numpy_adam(lambda t, p: ~BIAS * g(t, p), p, at(0.05), decay=0.01 * ~BIAS),
    ),
    "clipped(decayed(frozen))": (
        clipped(decayed(frozen(sgd(0.1, momentum=0.5), is_bias), 0.1), norm=2.0),
        lambda g, p: numpy_sgd(lambda t, p: ~BIAS * (norm_clipped(g(t, p)) + 0.1 * p), p, at(0.1), 0.5),
    ),
    "frozen(clipped(decayed))": (
        frozen(clipped(decayed(adagrad(0.1), 0.1), norm=2.0), is_bias),
        lambda g, p: numpy_adagrad(lambda t, p: ~BIAS * norm_clipped(g(t, p), ~BIAS) + 0.1 * ~BIAS * p, p, at(0.1)),
    ),
    "partitioned": (
        partitioned([("b.*", sgd(0.1, momentum=0.5)), (".*", adamw(0.05))]),
        lambda g, p: np.where(BIAS, numpy_sgd(g, p, at(0.1), 0.5), numpy_adam(g, p, at(0.05), decay=0.01)),
    ),
    "clipped(partitioned)": (
        clipped(partitioned([("[^b].*", sgd(0.1)), (".*", sgd(0.01))]), norm=2.0),
        lambda g, p: numpy_sgd(lambda t, p: norm_clipped(g(t, p)), p, lambda t: np.where(BIAS, 0.01, 0.1)),
    ),
    "guarded": (guarded(adam(0.05)), lambda g, p: numpy_adam(g, p, at(0.05))),
    "averaged": (averaged(adam(0.05)), lambda g, p: numpy_adam(g, p, at(0.05))),
    "guarded(clipped(averaged))": (
        guarded(clipped(averaged(sgd(0.1)), norm=2.0)),
        lambda g, p: numpy_sgd(lambda t, p: norm_clipped(g(t, p)), p, at(0.1)),
    ),
    "descent": (
        normalised(0.05, weight_decay=0.1, mask=is_bias),
        lambda g, p: numpy_normalised(g, p, at(0.05), decay=0.1 * BIAS),
    ),
}

by_case = pytest.mark.parametrize("optimizer", [optimizer for optimizer, _ in CASES.values()], ids=CASES.keys())


def test_every_optimizer_has_a_case():
    constructors = {name for name in optimizers.__all__ if not name.endswith("State")} - {"guards", "rescaled"}
    assert {name.replace("(", " ").split()[0] for name in CASES} == constructors


def test_every_state_begins_with_step_and_params():
    """And ends with scale; those of wrappers begin with the state of what they wrap, which has the params."""
    for name in optimizers.__all__:
        if name.endswith("State"):
            state = getattr(optimizers, name)
            if state._fields[0] != "inner":
                assert (*state._fields[:2], state._fields[-1]) == ("step", "params", "scale")
            assert hasattr(state, "step")
            assert hasattr(state, "params")


@pytest.mark.parametrize("name", CASES)
def test_hundred_steps_in_float64(name, x64):
    optimizer, reference = CASES[name]
    state = run(optimizer, tree(START), noise_tree())
    np.testing.assert_allclose(flat(state.params), reference(numpy_gradient, START), rtol=1e-12, atol=1e-12)
    assert state.step == STEPS


@by_case
def test_float32_is_near_float64(optimizer, x64):
    """On one sequence of gradients, so that the problem itself amplifies nothing."""
    fixed = lambda p, n: n  # noqa: E731
    exact = run(optimizer, tree(START), noise_tree(), fixed)
    single = run(optimizer, tree(START, jnp.float32), noise_tree(jnp.float32), fixed, jit=usual_jit)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(single) if leaf.shape)
    np.testing.assert_allclose(flat(single.params), flat(exact.params), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "optimizer, expected",
    [
        (sgd(0.1), [0.95, 0.9, 0.85]),
        (sgd(0.1, momentum=0.9), [0.95, 0.855, 0.7195]),
        (sgd(0.1, momentum=0.9, nesterov=True), [0.905, 0.7695, 0.5976]),
        (sgd(0.1, momentum=0.9, dampening=0.5), [0.95, 0.88, 0.792]),  # v = .5, .7, .88
        (adagrad(0.1), [0.9, 0.8293, 0.7716]),
        (adagrad(0.1, initial_accumulator=0.1), [0.9155, 0.8509, 0.7967]),
        (rmsprop(0.1), [0, -0.7089, -1.2891]),
        (rmsprop(0.1, decay=0.9, eps_in_sqrt=True), [0.6838, 0.4544, 0.2623]),
        (adam(0.1), [0.9, 0.8, 0.7]),
        (adamw(0.1), [0.899, 0.7981, 0.6973]),
        (nadam(0.1), [0.8944, 0.8160, 0.7428]),
        (lion(0.1), [0.9, 0.8, 0.7]),
    ],
    ids=str,
)
def test_three_steps(optimizer, expected):
    """From 1 with the gradient 0.5: the numbers of the libraries whose convention was taken."""
    state, seen = optimizer.init(jnp.array(1.0)), []
    for _ in range(3):
        state = optimizer.update(state, jnp.array(0.5))
        seen.append(float(state.params))
    np.testing.assert_allclose(seen, expected, atol=6e-5)


def first_params():
    """Leaves of several ranks; `jnp.array(2.0)` has a weak type, which must not reach the state."""
    return {"bias": jnp.array([1.0, -1.0]), "deep": (jnp.array(2.0), np.ones((2, 1, 2), np.float32))}


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


@by_case
def test_init(optimizer):
    params = first_params()
    state = optimizer.init(params)
    chex.assert_trees_all_equal(state.params, params)
    assert jax.tree.structure(state.params) == jax.tree.structure(params)
    assert (state.step.dtype, state.step.shape, int(state.step)) == (jnp.int32, (), 0)
    chex.assert_trees_all_equal(quick_jit(optimizer.init)(params), state)


@by_case
def test_update_keeps_structure_and_compiles_once(optimizer):
    chex.clear_trace_counter()
    update = quick_jit(chex.assert_max_traces(optimizer.update, n=1))
    state = start = optimizer.init(first_params())
    grads = jax.tree.map(jnp.ones_like, state.params)
    for count in range(3):
        state, before = update(state, grads), state
        assert state.step == count + 1
        assert before.step == count  # nothing was changed in place
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert shapes(state) == shapes(start)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@by_case
def test_jit_is_eager(optimizer):
    start = optimizer.init(first_params())
    grads, update = jax.tree.map(lambda p: 0.3 * p, start.params), jax.jit(optimizer.update)
    second = update(start, grads)
    chex.assert_trees_all_close(optimizer.update(second, grads), update(second, grads), rtol=1e-6, atol=1e-7)


@by_case
def test_donation(optimizer):
    """No two slots share a buffer, from `init` on; a donated state is used up."""
    expected = optimizer.init(first_params())
    grads = jax.tree.map(jnp.ones_like, expected.params)
    update = quick_jit(optimizer.update, donate_argnums=0)
    for init in (optimizer.init, quick_jit(optimizer.init), quick_jit(optimizer.init, donate_argnums=0)):
        state = init(jax.tree.map(jnp.array, first_params()))
        after = update(state, grads)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
        chex.assert_trees_all_close(after, optimizer.update(expected, grads), rtol=1e-6, atol=1e-7)


@by_case
def test_mixed_dtypes_are_kept(optimizer, x64):
    params = {"bias": jnp.ones(2, jnp.float32), "half": jnp.ones(2, jnp.bfloat16), "kernel": jnp.ones(2)}
    state = optimizer.init(params)
    after = quick_jit(optimizer.update)(state, params)
    assert shapes(after) == shapes(state)
    assert {name: leaf.dtype for name, leaf in after.params.items()} == {n: leaf.dtype for n, leaf in params.items()}


@pytest.mark.parametrize("name", [name for name in CASES if " " not in name])
def test_half_precision(name):
    """Slots are float32 beside half precision: 0.999 would round to 1, epsilon to 0 and a zero gradient to NaN."""
    optimizer, _ = CASES[name]
    grads = tree(np.array([1, 0, 1, -1, 0, 0.5, -0.5, 0]), jnp.float32)
    for dtype, digits in ((jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)):
        half = optimizer.init(tree(START, dtype))
        single = optimizer.init(jax.tree.map(lambda p: p.astype(jnp.float32), half.params))
        update = usual_jit(optimizer.update)
        for _ in range(3):
            half = update(half, jax.tree.map(lambda g, dtype=dtype: g.astype(dtype), grads))
            single = update(single, grads)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(half.params))
        np.testing.assert_allclose(flat(half.params).astype(float), flat(single.params), rtol=digits, atol=digits)


def test_slots_beside_half_precision_are_float32():
    state = adam(0.1).init({"kernel": jnp.ones(2, jnp.bfloat16)})
    assert (state.mu["kernel"].dtype, state.nu["kernel"].dtype) == (jnp.float32, jnp.float32)


def test_unused_slots_are_empty():
    params = {"kernel": jnp.ones(2)}
    assert sgd(0.1).init(params).velocity == ()
    state = rmsprop(0.1).init(params)
    assert (state.mu, state.velocity) == ((), ())
    assert adam(0.1).update(adam(0.1).init(()), ()).step == 1


def test_bias_correction_is_exact_in_float32():
    """1 − 0.999 computed in float32 is off by 5e-5; the slots are set so that no other rounding shows."""
    optimizer = adam(1.0, b1=0.0, b2=0.999, epsilon=0.0)
    for done in (0, 9, 999):
        state = optimizer.init(jnp.zeros(()))._replace(step=jnp.int32(done), nu=jnp.ones(()))
        share = 1 - 0.999 ** (done + 1)
        assert float(optimizer.update(state, jnp.ones(())).params) == pytest.approx(-math.sqrt(share), rel=2e-7)


def test_centred_variance_below_zero_is_zero():
    """Rounding leaves ν − m̄² slightly negative for a constant gradient; its root would be NaN."""
    gradient = jnp.float32(0.1) * jnp.arange(1.0, 101.0)
    state = run(rmsprop(0.1, decay=0.5, centered=True), jnp.zeros(100), jnp.zeros((60, 100)), lambda p, n: gradient)
    assert np.any(np.asarray(state.nu - jnp.square(state.mu)) < 0)
    assert np.all(np.isfinite(state.params))


def test_rates_can_be_swept_with_vmap():
    def train(rate):
        optimizer = sgd(lambda step: rate)
        return optimizer.update(optimizer.init(jnp.ones(2)), jnp.ones(2)).params

    np.testing.assert_allclose(jax.vmap(train)(jnp.array([0.0, 0.25])), [[1, 1], [0.75, 0.75]])


def test_schedule_may_return_a_python_number():
    optimizer = sgd(lambda step: 1)
    np.testing.assert_array_equal(optimizer.update(optimizer.init(jnp.ones(2)), jnp.ones(2)).params, [0, 0])


def test_numpy_hyper_parameters(x64):
    """A NumPy number is strongly typed; it must not turn float32 into float64."""
    number = np.float64(0.5)
    for optimizer in (
        sgd(number, momentum=number),
        adagrad(number, initial_accumulator=number, epsilon=number),
        rmsprop(number, decay=number, epsilon=number, momentum=number),
        adamw(number, b1=number, b2=number, epsilon=number, weight_decay=number, amsgrad=True),
        nadam(number, b1=number, b2=number, epsilon=number, momentum_decay=number),
        lion(number, b1=number, b2=number, weight_decay=number),
        clipped(decayed(sgd(number), number), norm=number),
        clipped(sgd(number), value=number),
    ):
        state = optimizer.init(jnp.ones(2, jnp.float32))
        assert shapes(optimizer.update(state, jnp.ones(2, jnp.float32))) == shapes(state)


# Rates with which each optimizer solves a parabola and Rosenbrock's valley.
SOLVERS = {
    "sgd": (sgd(0.1), sgd(1e-3)),
    "momentum": (sgd(0.05, momentum=0.9), sgd(2e-4, momentum=0.9)),
    "nesterov": (sgd(0.05, momentum=0.9, nesterov=True), sgd(2e-4, momentum=0.9, nesterov=True)),
    "adagrad": (adagrad(1.0), adagrad(1.0)),
    "rmsprop": (rmsprop(exponential_decay(0.1, 50, 0.5)), rmsprop(exponential_decay(0.01, 2000, 0.5))),
    "adam": (adam(0.1), adam(0.02)),
    "amsgrad": (adam(0.1, amsgrad=True), adam(0.02, amsgrad=True)),
    "adamw": (adamw(0.1, weight_decay=0.0), adamw(0.02, weight_decay=0.0)),
    "nadam": (nadam(0.1), nadam(0.02)),
    "lion": (lion(exponential_decay(0.1, 50, 0.5)), lion(exponential_decay(0.01, 2000, 0.5))),
}


def minimum(optimizer, objective, start, steps):
    def step(_, state):
        return optimizer.update(state, jax.grad(objective)(state.params))

    return jax.jit(lambda state: jax.lax.fori_loop(0, steps, step, state))(optimizer.init(start)).params


@pytest.mark.parametrize("name", SOLVERS)
def test_solves_a_parabola(name):
    objective = lambda p: jnp.sum(jnp.square(p - jnp.array([3.0, -1.0])))  # noqa: E731
    np.testing.assert_allclose(minimum(SOLVERS[name][0], objective, jnp.zeros(2), 500), [3, -1], atol=1e-3)


@pytest.mark.parametrize("name", SOLVERS)
def test_solves_rosenbrock(name):
    objective = lambda p: jnp.square(1 - p[0]) + 100 * jnp.square(p[1] - jnp.square(p[0]))  # noqa: E731
    np.testing.assert_allclose(minimum(SOLVERS[name][1], objective, jnp.array([-1.0, 1.0]), 20_000), [1, 1], atol=2e-2)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sgd(-0.1), r"sgd\(-0\.1\): expected learning_rate to be a finite number >= 0 or a schedule"),
        (lambda: adagrad(math.nan), r"adagrad\(nan\): expected learning_rate"),
        (lambda: rmsprop("fast"), r"rmsprop\('fast'\): expected learning_rate"),
        (lambda: adam(math.inf), r"adam\(inf\): expected learning_rate"),
        (lambda: adamw(-1), r"adamw\(-1\): expected learning_rate"),
        (lambda: sgd(0.1, momentum=1.0), r"sgd\(0\.1, momentum=1\.0\): expected momentum to be .* in \[0, 1\), got"),
        (lambda: sgd(0.1, momentum=-0.1), r"sgd\(0\.1, momentum=-0\.1\)"),
        (lambda: sgd(0.1, momentum=0.9, dampening=2), r"sgd\(0\.1, momentum=0\.9, dampening=2\): expected dampening"),
        (lambda: sgd(0.1, nesterov=True), r"sgd\(0\.1, nesterov=True\): expected momentum > 0 and dampening = 0"),
        (lambda: sgd(0.1, momentum=0.9, dampening=0.1, nesterov=True), r"sgd.*: .* dampening = 0 .* got 0\.9 and 0"),
        (lambda: adagrad(0.1, initial_accumulator=-1), r"adagrad\(0\.1, initial_accumulator=-1\): .* number >= 0, got"),
        (lambda: adagrad(0.1, epsilon=-1), r"adagrad\(0\.1, epsilon=-1\)"),
        (lambda: rmsprop(0.1, decay=1), r"rmsprop\(0\.1, decay=1\)"),
        (lambda: rmsprop(0.1, epsilon=math.nan), r"rmsprop\(0\.1, epsilon=nan\)"),
        (lambda: rmsprop(0.1, momentum="high"), r"rmsprop\(0\.1, momentum='high'\)"),
        (lambda: adam(0.1, b1=1.5), r"adam\(0\.1, b1=1\.5\)"),
        (lambda: adam(0.1, b2=True), r"adam\(0\.1, b2=True\)"),
        (lambda: adam(0.1, epsilon=-1e-8), r"adam\(0\.1, epsilon=-1e-08\)"),
        (lambda: adamw(0.1, b2=1.5), r"adamw\(0\.1, b2=1\.5\)"),
        (lambda: adamw(0.1, weight_decay=-1), r"adamw\(0\.1, weight_decay=-1\): .* number >= 0"),
        (
            lambda: adamw(0.1, mask=3),
            r"adamw\(0\.1, mask=3\): expected mask to be a regular expression or a function of a leaf",
        ),
        (lambda: nadam(0.1, b1=1), r"^nadam\(0\.1, b1=1\): expected b1 to be a finite number in \[0, 1\), got 1\."),
        (
            lambda: nadam(0.1, momentum_decay=-1),
            r"^nadam\(0\.1, momentum_decay=-1\): .* momentum_decay .* >= 0, got -1",
        ),
        (lambda: lion(0.1, b2=1.0), r"^lion\(0\.1, b2=1\.0\): expected b2 to be a finite number in \[0, 1\), got 1\.0"),
        (lambda: lion(0.1, weight_decay=-1), r"^lion\(0\.1, weight_decay=-1\): expected weight_decay to be .* >= 0"),
        (lambda: adam(1e-3, b1=adam), r"^adam\(0\.001, b1=adam\): expected b1 to be a finite number in \[0, 1\)"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@by_case
@pytest.mark.parametrize(
    "leaf, got",
    [
        (jnp.ones(2, jnp.int32), r"an array of dtype int32 and shape \(2,\)"),
        (jnp.ones(2, jnp.complex64), r"an array of dtype complex64 and shape \(2,\)"),
        (1.0, "1.0;"),
    ],
    ids=["integers", "complex", "number"],
)
def test_init_needs_floating_arrays(optimizer, leaf, got):
    message = rf"^\w+\(.+\): expected the parameter '1/table' to be an array of a floating dtype, got {got}"
    with pytest.raises(DtypeError, match=message):
        optimizer.init(({"bias": jnp.ones(2)}, {"table": leaf}))


@by_case
@pytest.mark.parametrize(
    "grads, error, message",
    [
        ({"bias": jnp.ones(())}, StructureError, "grads do not fit params: kernel is missing"),
        (
            {"bias": jnp.ones(()), "kernel": jnp.ones((1, 2))},
            StructureError,
            r"kernel has shape \(1, 2\), expected \(2,",
        ),
        ({"bias": jnp.ones(()), "kernel": jnp.ones(2), "k": ()}, StructureError, "expected the tree"),
        (
            {"bias": jnp.ones(()), "kernel": jnp.ones(2, jnp.float16)},
            DtypeError,
            "expected the gradient of 'kernel' in the parameter's dtype, float32, got an array of dtype float16",
        ),
        ({"bias": 1.0, "kernel": jnp.ones(2)}, DtypeError, "gradient of 'bias' .* got 1.0;"),
    ],
    ids=["missing", "shape", "tree", "dtype", "number"],
)
def test_update_needs_fitting_grads(optimizer, grads, error, message):
    state = optimizer.init({"bias": jnp.ones(()), "kernel": jnp.ones(2)})
    with pytest.raises(error, match=rf"^\w+\(.+\): .*{message}"):
        optimizer.update(state, grads)


@by_case
def test_swapped_arguments_of_update_are_named(optimizer):
    state = optimizer.init({"bias": jnp.ones(()), "kernel": jnp.ones(2)})
    message = r"^\w+\(.+\): expected state .*, got a dict; the order is update\(state, grads\)"
    with pytest.raises(StructureError, match=message):
        optimizer.update({"bias": jnp.ones(()), "kernel": jnp.ones(2)}, state)


def test_rate_must_be_a_scalar():
    optimizer = adam(lambda step: jnp.ones(1))
    message = r"adam\(<lambda>\): expected learning_rate\(step\) of shape \(\), got \(1,\); return"
    with pytest.raises(ShapeError, match=message):
        optimizer.update(optimizer.init(jnp.ones(())), jnp.ones(()))


# Two equal calls make one optimizer.


@pytest.mark.parametrize(
    "make",
    [
        lambda: sgd(0.1, momentum=0.9),
        lambda: adamw(exponential_decay(0.1, 20, 0.5), mask=is_bias),
        lambda: guarded(averaged(clipped(decayed(frozen(lion(0.1), is_bias), 0.1), norm=1.0))),
        lambda: partitioned([("b.*", sgd(0.1)), (".*", nadam(0.1))]),
        lambda: normalised(0.1, weight_decay=0.1),
    ],
    ids=lambda make: str(make()),
)
def test_equal_calls_are_equal(make):
    assert make() == make()
    assert hash(make()) == hash(make())


def test_other_calls_are_not_equal():
    others = [adam(0.1), adam(0.2), adam(0.1, b1=0.5), adamw(0.1), adam(0.1)._replace(update=sgd(0.1).update)]
    assert len(set(others)) == len(others)
    assert sgd(lambda step: 0.1) != sgd(lambda step: 0.1)
    assert adam(1e-3) == adam(0.001, b1=0.9)


def test_optimizers_print_as_their_calls():
    rate = exponential_decay(0.1, 20, 0.5)
    assert str(adam(1e-3)) == "adam(0.001)"
    assert str(sgd(rate, momentum=0.9)) == "sgd(exponential_decay(0.1, 20, 0.5), momentum=0.9)"
    assert str(clipped(adam(0.001), norm=1.0)) == "clipped(adam(0.001), norm=1.0)"
    assert str(partitioned([("b.*", sgd(0.1)), (".*", lion(1e-3))])) == (
        "partitioned((('b.*', sgd(0.1)), ('.*', lion(0.001))))"
    )
    assert adam(1e-3).made.constructor is adam
    assert repr(adam(1e-3).update) == "adam(0.001)"


def test_amsgrad_divides_by_the_largest_mean_square():
    """Gradients 2 and 1, β₁ = 0, β₂ = ½: ν = 2, then 1.5; the corrections are ½ and ¾."""
    optimizer = adam(1.0, b1=0.0, b2=0.5, epsilon=0.0, amsgrad=True)
    first = optimizer.update(optimizer.init(jnp.zeros(())), jnp.array(2.0))
    second = optimizer.update(first, jnp.array(1.0))
    np.testing.assert_allclose([first.params, second.params], [-1, -1 - math.sqrt(0.75 / 2)], rtol=1e-6)
    assert (float(second.nu), float(second.nu_max)) == (1.5, 2.0)


# The scale of the rate.


@by_case
def test_rescaled_by_a_half_is_half_the_rate(optimizer, x64):
    """The scale acts at once, and as the rate does; `halved` is the same call with half of it."""

    def halved(optimizer):
        made = optimizer.made
        if "learning_rate" in made.arguments:
            rate = made.arguments["learning_rate"]
            half = (lambda step: rate(step) / 2) if callable(rate) else rate / 2
            return called(made, learning_rate=half)
        if "rules" in made.arguments:
            return called(made, rules=[(pattern, halved(one)) for pattern, one in made.arguments["rules"]])
        return called(made, optimizer=halved(made.arguments["optimizer"]))

    def called(made, **changed):
        arguments = {name: value for name, value in made.arguments.items() if name != "options"}
        return made.constructor(**{**arguments, **made.arguments.get("options", {}), **changed})

    def train(optimizer, factor):
        def step(state, noise):
            return optimizer.update(state, noise), None

        start = rescaled(optimizer.init(tree(START)), factor)
        return quick_jit(lambda state, noise: jax.lax.scan(step, state, noise)[0])(start, noise_tree()).params

    chex.assert_trees_all_close(train(optimizer, 0.5), train(halved(optimizer), 1), rtol=1e-12, atol=1e-13)
    assert not np.allclose(flat(train(optimizer, 0.5)), flat(train(optimizer, 1)))


@by_case
def test_rescaled_changes_the_scale_alone(optimizer):
    """In half precision too, under `jit`, and twice: scales multiply."""
    start = optimizer.init(jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), first_params()))
    state = rescaled(jax.jit(rescaled)(start, jnp.bfloat16(0.5)), 0.5)
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert shapes(state) == shapes(start)
    changed = [(a, b) for a, b in zip(*map(jax.tree.leaves, (start, state)), strict=True) if not np.array_equal(a, b)]
    assert changed
    assert all((before.shape, float(before), float(after)) == ((), 1, 0.25) for before, after in changed)
    grads, update = jax.tree.map(jnp.ones_like, start.params), quick_jit(optimizer.update)
    assert shapes(update(state, grads)) == shapes(start)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(update(state, grads).params))


def test_an_optimizer_is_a_few_lines():
    """With its state; `nadam` shares that of `adam`, of which 4 lines are for `amsgrad`."""
    adams = import_module("funcnet.optimizers.adam")
    for most, parts in (
        (20, (optimizers.SGDState, sgd)),
        (20 + 4, (optimizers.AdamState, adam, adams._adam)),
        (12, (nadam,)),
        (12, (optimizers.LionState, lion)),
    ):
        assert code_lines_of(*parts) <= most, parts
