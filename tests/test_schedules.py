"""Schedules: against plain Python, at their edges, under every way of calling, and with bad arguments."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import schedules
from funcnet.errors import ConfigError
from funcnet.schedules import (
    as_schedule,
    constant,
    cosine_decay,
    exponential_decay,
    join,
    linear,
    multi_step,
    per_epoch,
    step_decay,
    warmup,
)


def cosine(t, value, steps, alpha):
    return value * (alpha + (1 - alpha) * (1 + math.cos(math.pi * min(t / steps, 1))) / 2)


# name: the schedule, and the same from its formula, of one Python int
CASES = {
    "as_schedule": (as_schedule(0.3), lambda t: 0.3),
    "constant": (constant(0.3), lambda t: 0.3),
    "constant zero": (constant(0), lambda t: 0.0),
    "step_decay": (step_decay(0.3, 30), lambda t: 0.3 * 0.1 ** (t // 30)),
    "step_decay gamma": (step_decay(0.3, 7, gamma=0.7), lambda t: 0.3 * 0.7 ** (t // 7)),
    "multi_step": (multi_step(0.3, (3, 50, 51)), lambda t: 0.3 * 0.1 ** sum(t >= m for m in (3, 50, 51))),
    "multi_step list": (multi_step(0.3, [10], gamma=2.0), lambda t: 0.3 * 2.0 ** (t >= 10)),
    "exponential_decay": (exponential_decay(0.3, 10, 0.9), lambda t: 0.3 * 0.9 ** (t / 10)),
    "exponential_decay growth": (exponential_decay(1e-5, 1, 1.1), lambda t: 1e-5 * 1.1**t),
    "exponential_decay stairs": (exponential_decay(0.3, 9, 0.5, staircase=True), lambda t: 0.3 * 0.5 ** (t // 9)),
    "cosine_decay": (cosine_decay(0.3, 80), lambda t: cosine(t, 0.3, 80, 0)),
    "cosine_decay alpha": (cosine_decay(0.3, 80, alpha=0.2), lambda t: cosine(t, 0.3, 80, 0.2)),
    "linear": (linear(0.3, 0.1, 60), lambda t: 0.3 + (0.1 - 0.3) * min(t / 60, 1)),
    "linear rising": (linear(0.0, 0.7, 60), lambda t: 0.7 * min(t / 60, 1)),
    "warmup": (warmup(0.3, 20), lambda t: 0.3 * min(t / 20, 1)),
    "warmup initial": (
        warmup(cosine_decay(0.3, 50), 20, initial=0.1),
        lambda t: 0.1 + 0.2 * t / 20 if t < 20 else cosine(t - 20, 0.3, 50, 0),
    ),
    "join": (
        join((0.5, linear(0.4, 0.0, 40), lambda t: 0.25), (10, 60)),
        lambda t: 0.5 if t < 10 else 0.4 * (1 - (t - 10) / 40) * (t < 50) if t < 60 else 0.25,
    ),
    "per_epoch": (per_epoch(multi_step(0.3, (2, 5)), 11), lambda t: 0.3 * 0.1 ** sum(t // 11 >= m for m in (2, 5))),
}

by_case = pytest.mark.parametrize("schedule, formula", CASES.values(), ids=CASES.keys())


def test_every_schedule_has_a_case():
    assert {name.split()[0] for name in CASES} == set(schedules.__all__)


@by_case
def test_formula_in_float64(schedule, formula, x64):
    steps = np.arange(101)
    rates = np.asarray(jax.vmap(schedule)(jnp.asarray(steps, jnp.int32)))
    np.testing.assert_allclose(rates, [formula(int(t)) for t in steps], rtol=1e-15, atol=1e-16)


@by_case
def test_formula_in_float32(schedule, formula):
    rates = jax.vmap(schedule)(jnp.arange(101))
    assert rates.dtype == jnp.float32
    np.testing.assert_allclose(rates, [formula(t) for t in range(101)], rtol=1e-5, atol=1e-8)


@by_case
def test_every_way_of_calling_agrees(schedule, formula):
    steps = jnp.arange(0, 101, 10)
    rates = jax.vmap(schedule)(steps)
    jitted = jax.jit(lambda step: jnp.asarray(schedule(step)))
    one_by_one = [schedule(int(step)) for step in steps]
    assert all(rate.shape == () and rate.dtype == jnp.float32 and not rate.weak_type for rate in one_by_one)
    np.testing.assert_allclose(one_by_one, rates, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose([jitted(step) for step in steps], rates, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(schedule(steps), rates, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (step_decay(1.0, 3, 0.5), {0: 1, 2: 1, 3: 0.5, 5: 0.5, 6: 0.25}),
        (multi_step(1.0, (3, 5), 0.5), {0: 1, 2: 1, 3: 0.5, 4: 0.5, 5: 0.25, 10**6: 0.25}),
        (exponential_decay(1.0, 2, 0.25), {0: 1, 1: 0.5, 2: 0.25}),
        (cosine_decay(1.0, 4, 0.5), {0: 1, 2: 0.75, 4: 0.5, 5: 0.5, 10**9: 0.5}),
        (linear(0.1, 0.3, 4), {0: 0.1, 4: 0.3, 5: 0.3, 10**9: 0.3}),
        (warmup(step_decay(1.0, 2, 0.5), 2), {0: 0, 1: 0.5, 2: 1, 3: 1, 4: 0.5}),
        (join((1.0, exponential_decay(0.5, 1, 0.5)), (2,)), {0: 1, 1: 1, 2: 0.5, 3: 0.25}),
        (per_epoch(linear(1.0, 0.0, 2), 5), {0: 1, 4: 1, 5: 0.5, 9: 0.5, 10: 0, 99: 0}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_edges_are_exact(schedule, expected, x64):
    assert {step: float(schedule(step)) for step in expected} == pytest.approx(expected, rel=0, abs=0)


def test_joined_schedules_are_not_asked_for_the_past():
    """A decay backwards from its start would overflow before the boundary."""
    later = lambda step: jnp.sqrt(step.astype(jnp.float32))  # noqa: E731
    with jax.debug_nans(True):
        np.testing.assert_allclose(join((1.0, later), (1000,))(jnp.array([0, 1000, 1004])), [1, 0, 2])


def test_dtype_follows_the_mode():
    schedule = cosine_decay(0.1, 10)
    assert schedule(1).dtype == jnp.float32
    with jax.enable_x64(True):
        assert schedule(1).dtype == jnp.float64
        assert schedule(jnp.int32(1)).dtype == jnp.float64


def test_numpy_numbers_are_numbers(x64):
    """A NumPy number is strongly typed and would not mix with other dtypes."""
    schedule = step_decay(np.float32(0.5), np.int64(2), np.float64(0.5))
    np.testing.assert_array_equal(schedule(jnp.arange(3, dtype=jnp.int32)), [0.5, 0.5, 0.25])
    schedule = join((1.0, multi_step(0.5, [np.int64(1)], 0.5)), [np.int64(1)])
    np.testing.assert_array_equal(schedule(jnp.arange(3, dtype=jnp.int32)), [1, 0.5, 0.25])


def test_functions_are_schedules():
    own = lambda step: 0.1  # noqa: E731
    assert as_schedule(own) is own


def test_schedules_print_as_their_calls():
    made = warmup(step_decay(0.1, 30), 5)
    assert repr(made) == "warmup(step_decay(0.1, 30), 5)"
    assert str(join([made, 0.1], (9,))) == "join((warmup(step_decay(0.1, 30), 5), 0.1), (9,))"
    assert str(exponential_decay(0.3, 9, 0.5, staircase=True)) == "exponential_decay(0.3, 9, 0.5, staircase=True)"
    assert made.made.constructor is warmup


@pytest.mark.parametrize(
    "make",
    [
        lambda: constant(0.1), lambda: step_decay(0.1, 5), lambda: multi_step(0.1, [3, 5]), lambda: linear(0.1, 0.0, 5),
        lambda: exponential_decay(0.1, 5, 0.5), lambda: cosine_decay(1e-3, 10), lambda: warmup(cosine_decay(0.1, 5), 5),
        lambda: join((0.1, constant(0.2)), (3,)), lambda: per_epoch(step_decay(0.1, 5), 5), lambda: as_schedule(0.1),
    ],
    ids=lambda make: str(make()),
)  # fmt: skip
def test_equal_calls_are_equal(make):
    assert make() == make()
    assert hash(make()) == hash(make())


def test_other_calls_are_not_equal():
    different = [
        cosine_decay(1e-3, 10), cosine_decay(1e-3, 11), cosine_decay(2e-3, 10), cosine_decay(1e-3, 10, 0.5),
        warmup(1e-3, 10), warmup(cosine_decay(1e-3, 10), 10), warmup(lambda step: 1e-3, 10), constant(1e-3),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert cosine_decay(1e-3, 10) == cosine_decay(0.001, decay_steps=10, alpha=0.0)


def test_errors_of_a_schedule_within_name_it():
    """Each error is led by one call: of the schedule that was made wrong, or, for an argument, the one that got it."""
    with pytest.raises(ConfigError, match=r"^step_decay\(0\.1, 0\): expected step_size"):
        warmup(step_decay(0.1, 0), 5)
    with pytest.raises(ConfigError, match=r"^join\(\('fast', 0\.1\), \(3,\)\): expected each of schedules to be a fin"):
        join(("fast", 0.1), (3,))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: as_schedule(-0.1), r"as_schedule\(-0\.1\): expected rate to be .* >= 0 or a schedule .* got -0\.1"),
        (lambda: as_schedule(math.nan), r"as_schedule\(nan\): .* got nan"),
        (lambda: as_schedule(math.inf), r"as_schedule\(inf\): .* got inf"),
        (lambda: as_schedule("0.1"), r"as_schedule\('0\.1'\): .* got '0\.1'"),
        (lambda: as_schedule(True), r"as_schedule\(True\): .* got True"),
        (lambda: as_schedule(jnp.ones(())), r"as_schedule\(Array\(1\., .* got an array .*; write an array as float\("),
        (lambda: as_schedule(-1, what="rates"), r"^expected rates to be a finite number >= 0 or a schedule .* got -1"),
        (lambda: constant(-1), r"constant\(-1\): expected value to be a finite number >= 0, got -1"),
        (lambda: step_decay(math.nan, 3), r"step_decay\(nan, 3\): expected value"),
        (lambda: step_decay(0.1, 0), r"step_decay\(0\.1, 0\): expected step_size to be a positive int"),
        (lambda: step_decay(0.1, 3, 0), r"step_decay\(0\.1, 3, gamma=0\): expected gamma to be .* > 0, got 0"),
        (lambda: multi_step(-0.1, (1,)), r"multi_step\(-0\.1, \(1,\)\): expected value"),
        (lambda: multi_step(0.1, (3, 3)), r"multi_step\(0\.1, \(3, 3\)\): expected milestones to be increasing pos"),
        (lambda: multi_step(0.1, ()), r"multi_step.*: expected milestones to be increasing .* got \(\)"),
        (lambda: multi_step(0.1, 5), r"multi_step.*: expected milestones to be increasing .* got 5"),
        (lambda: multi_step(0.1, (0, 1)), r"multi_step.*: expected milestones"),
        (lambda: multi_step(0.1, (1.5,)), r"multi_step.*: expected milestones"),
        (lambda: multi_step(0.1, (1,), -1), r"multi_step.*: expected gamma .* > 0, got -1"),
        (lambda: exponential_decay(-1, 5, 0.9), r"exponential_decay.*: expected value"),
        (lambda: exponential_decay(0.1, 0.5, 0.9), r"exponential_decay.*: expected transition_steps .* got 0\.5"),
        (lambda: exponential_decay(0.1, 5, 0.0), r"exponential_decay.*: expected decay_rate .* > 0, got 0\.0"),
        (lambda: cosine_decay(-1, 5), r"cosine_decay.*: expected value"),
        (lambda: cosine_decay(0.1, True), r"cosine_decay.*: expected decay_steps .* got True"),
        (lambda: cosine_decay(0.1, 5, 1.5), r"cosine_decay.*: expected alpha to be .* in \[0, 1\], got 1\.5"),
        (lambda: cosine_decay(0.1, 5, -0.5), r"cosine_decay.*: expected alpha .* in \[0, 1\], got -0\.5"),
        (lambda: linear(-1, 0, 5), r"linear.*: expected start"),
        (lambda: linear(1, -1, 5), r"linear.*: expected stop"),
        (lambda: linear(1, 0, -5), r"linear\(1, 0, -5\): expected steps to be a positive integer, got -5"),
        (lambda: warmup(-0.1, 5), r"warmup\(-0\.1, 5\): expected rate to be a finite number >= 0"),
        (lambda: warmup(0.1, 0), r"warmup\(0\.1, 0\): expected warmup_steps .* got 0"),
        (lambda: warmup(0.1, 5, -1), r"warmup.*: expected initial"),
        (lambda: join((0.1, -0.2), (5,)), r"join\(\(0\.1, -0\.2\), \(5,\)\): expected each of schedules to be"),
        (lambda: join((0.1, 0.2), (5, 6)), r"join\(\(0\.1, 0\.2\), \(5, 6\)\): expected one .* got 2 .* and 2"),
        (lambda: join((0.1, 0.2, 0.3), (6, 5)), r"join.*: expected boundaries to be increasing"),
        (
            lambda: warmup(0.1, 2**31),
            r"warmup\(0\.1, 2147483648\): expected warmup_steps to be at most 2147483647, got 21",
        ),
        (lambda: join((0.1, 0.2), (2**40,)), r"join.*: expected each of boundaries to be at most 2147483647, got 109"),
        (lambda: per_epoch(-0.1, 5), r"per_epoch\(-0\.1, 5\): expected rate to be a finite number >= 0"),
        (lambda: per_epoch(0.1, 0), r"per_epoch\(0\.1, 0\): expected steps_per_epoch .* got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
