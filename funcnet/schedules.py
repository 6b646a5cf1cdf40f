"""Learning-rate schedules: pure functions `schedule(step) -> rate`.

`step` counts the updates *already done*. So the first update asks for `schedule(0)`, and an optimizer calls its
schedule with `state.step` as it was before the update. `step` is a Python int or an integer array, traced or not. The
rate has the shape of `step` and JAX's default float dtype, so `schedule(jnp.arange(1000))` is the curve to plot.

An argument called `rate` is a number or another schedule. A function of the step that you write is a schedule too.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax.numpy as jnp

from funcnet.checks import check_count, describe, is_count, is_number, nonnegative, positive, unit_interval
from funcnet.errors import ConfigError
from funcnet.made import constructor, leading, spelled
from funcnet.types import Array, Schedule

__all__ = [
    "as_schedule", "constant", "cosine_decay", "exponential_decay", "join", "linear", "multi_step",
    "per_epoch", "step_decay", "warmup",
]  # fmt: skip


def as_schedule(rate: float | Schedule, *, what: str | None = None) -> Schedule:
    """A number becomes `constant(rate)`; a function comes back unchanged.

    Args:
        rate: a number ≥ 0, or a function `step -> rate`. A traced number, for example under `jax.vmap` over rates, must
            be passed as a function: `lambda step: rate`.
        what: the name of the argument of the constructor that passes `rate` on. An error names it after the call of
            that constructor. By default an error names this call.

    Raises:
        ConfigError: a rate that is negative, not finite, or neither a number nor a function.

    >>> import funcnet as fn
    >>> fn.schedules.as_schedule(0.5)(7)
    Array(0.5, dtype=float32)
    """
    if callable(rate):
        return rate
    if is_number(rate) and rate >= 0:
        return constant(rate)
    got = f"{describe(rate)}; write an array as float(…), a traced one as lambda step: …"
    error = ConfigError(f"expected {what or 'rate'} to be a finite number >= 0 or a schedule step -> rate, got {got}.")
    if what is not None:
        raise error
    with leading(f"as_schedule({spelled(rate)})"):
        raise error


@constructor
def constant(value: float) -> Schedule:
    """rate = value.

    Raises:
        ConfigError: `value` is negative or not finite.

    >>> import funcnet as fn
    >>> fn.schedules.constant(0.5)(7)
    Array(0.5, dtype=float32)
    """
    value = nonnegative("value", value)
    return lambda step: jnp.full(jnp.shape(step), value, jnp.result_type(float))


@constructor
def step_decay(value: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """rate = value · γ^⌊step / step_size⌋: a staircase of equally long stairs.

    Args:
        value: the first rate.
        step_size: updates per stair.
        gamma: the factor γ > 0 from one stair to the next.

    Raises:
        ConfigError: an argument out of its range.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.step_decay(1.0, 2, gamma=0.5)(jnp.arange(5))
    Array([1.  , 1.  , 0.5 , 0.5 , 0.25], dtype=float32)
    """
    value = nonnegative("value", value)
    step_size = _updates("step_size", step_size)
    gamma = positive("gamma", gamma)
    return lambda step: value * gamma ** _as_float(jnp.asarray(step) // step_size)


@constructor
def multi_step(value: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """rate = value · γ^k, where k counts the milestones ≤ step: the rate changes *at* a milestone.

    Args:
        value: the first rate.
        milestones: numbers of updates, strictly increasing.
        gamma: the factor γ > 0 at each milestone.

    Raises:
        ConfigError: an argument out of its range.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.multi_step(1.0, (1, 3), gamma=0.5)(jnp.arange(5))
    Array([1.  , 0.5 , 0.5 , 0.25, 0.25], dtype=float32)
    """
    value = nonnegative("value", value)
    milestones = _increasing("milestones", milestones)
    gamma = positive("gamma", gamma)

    def schedule(step):
        step = jnp.asarray(step)
        passed = jnp.searchsorted(jnp.asarray(milestones, step.dtype), step, side="right", method="compare_all")
        return value * gamma ** _as_float(passed)

    return schedule


@constructor
def exponential_decay(value: float, transition_steps: int, decay_rate: float, staircase: bool = False) -> Schedule:
    """rate = value · decay_rate^(step / transition_steps).

    Args:
        value: the first rate.
        transition_steps: updates in which the rate changes by the factor `decay_rate`.
        decay_rate: that factor, > 0; above 1 the rate grows.
        staircase: round the exponent down, which makes it `step_decay`.

    Raises:
        ConfigError: an argument out of its range.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.exponential_decay(1.0, 2, 0.25)(jnp.arange(4))
    Array([1.   , 0.5  , 0.25 , 0.125], dtype=float32)
    """
    value = nonnegative("value", value)
    transition_steps = _updates("transition_steps", transition_steps)
    decay_rate = positive("decay_rate", decay_rate)

    def schedule(step):
        stairs = jnp.asarray(step) // transition_steps if staircase else _as_float(step) / transition_steps
        return value * decay_rate ** _as_float(stairs)

    return schedule


@constructor
def cosine_decay(value: float, decay_steps: int, alpha: float = 0.0) -> Schedule:
    """rate = value · (α + (1 − α) · (1 + cos(π f)) / 2) with f = min(step / decay_steps, 1).

    Args:
        value: the first rate.
        decay_steps: updates until the last rate, which then stays.
        alpha: the last rate as a share of the first, in [0, 1].

    Raises:
        ConfigError: an argument out of its range.

    References: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
    equation 5.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.cosine_decay(1.0, 4)(jnp.array([0, 2, 4, 9])).round(6)
    Array([1. , 0.5, 0. , 0. ], dtype=float32)
    """
    value = nonnegative("value", value)
    decay_steps = _updates("decay_steps", decay_steps)
    alpha = unit_interval("alpha", alpha)

    def schedule(step):
        cosine = (1 + jnp.cos(math.pi * _fraction(step, decay_steps))) / 2
        return value * (alpha + (1 - alpha) * cosine)

    return schedule


@constructor
def linear(start: float, stop: float, steps: int) -> Schedule:
    """rate = (1 − f) · start + f · stop with f = min(step / steps, 1).

    Args:
        start, stop: the first and the last rate.
        steps: updates until the last rate, which then stays.

    Raises:
        ConfigError: an argument out of its range.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.linear(0.0, 1.0, 4)(jnp.array([0, 1, 4, 9]))
    Array([0.  , 0.25, 1.  , 1.  ], dtype=float32)
    """
    start = nonnegative("start", start)
    stop = nonnegative("stop", stop)
    steps = _updates("steps", steps)
    return lambda step: _between(start, stop, _fraction(step, steps))


@constructor
def warmup(rate: float | Schedule, warmup_steps: int, initial: float = 0.0) -> Schedule:
    """A straight line from `initial` to `rate`, then `rate` itself, which counts from 0 at the end of the warm-up.

    (1 − f) · initial + f · rate(0) with f = step / warmup_steps while step < warmup_steps, and
    rate(step − warmup_steps) from there on.

    Args:
        rate: a number or a schedule.
        warmup_steps: updates of the warm-up.
        initial: the rate of the first update.

    Raises:
        ConfigError: an argument out of its range.

    References: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, section 2.2.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.warmup(fn.schedules.step_decay(1.0, 2, 0.5), 2)(jnp.arange(6))
    Array([0. , 0.5, 1. , 1. , 0.5, 0.5], dtype=float32)
    """
    target = as_schedule(rate, what="rate")
    warmup_steps = _updates("warmup_steps", warmup_steps)
    initial = nonnegative("initial", initial)

    def rise(step):
        return _between(initial, _as_float(target(jnp.zeros_like(step))), _fraction(step, warmup_steps))

    return _joined((rise, target), (warmup_steps,))


@constructor
def join(schedules: Sequence[float | Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after the other; each counts from 0 at the boundary where it begins.

    rate = schedules[k](step − b_k), where k counts the boundaries ≤ step and b_k is the last of them; b_0 = 0.

    Args:
        schedules: numbers or schedules.
        boundaries: numbers of updates, strictly increasing, one fewer than there are schedules.

    Raises:
        ConfigError: boundaries that do not increase or do not fit the schedules.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.join((1.0, fn.schedules.linear(0.5, 0.0, 2)), (2,))(jnp.arange(5))
    Array([1.  , 1.  , 0.5 , 0.25, 0.  ], dtype=float32)
    """
    parts = [as_schedule(schedule, what="each of schedules") for schedule in schedules]
    boundaries = _increasing("boundaries", boundaries)
    if len(parts) != len(boundaries) + 1:
        got = f"{len(parts)} schedules and {len(boundaries)} boundaries"
        raise ConfigError(f"expected one boundary fewer than schedules, got {got}.")
    return _joined(parts, boundaries)


@constructor
def per_epoch(rate: float | Schedule, steps_per_epoch: int) -> Schedule:
    """rate(⌊step / steps_per_epoch⌋): a schedule written in epochs, constant within each.

    Args:
        rate: a number or a schedule of the epoch.
        steps_per_epoch: updates in an epoch.

    Raises:
        ConfigError: an argument out of its range.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.per_epoch(fn.schedules.linear(1.0, 0.0, 2), 2)(jnp.arange(5))
    Array([1. , 1. , 0.5, 0.5, 0. ], dtype=float32)
    """
    epochs = as_schedule(rate, what="rate")
    steps_per_epoch = _updates("steps_per_epoch", steps_per_epoch)
    return lambda step: _as_float(epochs(jnp.asarray(step) // steps_per_epoch))


def _joined(parts: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    def schedule(step):
        step = jnp.asarray(step)
        rate = _as_float(parts[0](step))
        for part, boundary in zip(parts[1:], boundaries, strict=True):
            # All parts are computed. The maximum keeps later parts from counting below 0.
            later = _as_float(part(jnp.maximum(step - boundary, 0)))
            rate = jnp.where(step >= boundary, later, rate)
        return rate

    return schedule


def _as_float(x: Any) -> Array:
    return jnp.asarray(x, jnp.result_type(float))


def _fraction(step: Any, steps: int) -> Array:
    return _as_float(jnp.minimum(jnp.asarray(step), steps)) / steps


def _between(start: Any, stop: Any, fraction: Array) -> Array:
    return (1 - fraction) * start + fraction * stop  # this form is exact at both ends


_MOST_STEPS = 2**31 - 1  # an optimizer counts its updates in int32


def _updates(what: str, value: Any) -> int:
    """A number of updates, as a Python int."""
    return check_count(what, value, most=_MOST_STEPS)


def _increasing(what: str, values: Any) -> tuple[int, ...]:
    counts = isinstance(values, Sequence) and len(values) > 0 and all(map(is_count, values))
    if not counts or any(a >= b for a, b in pairwise(values)):
        raise ConfigError(f"expected {what} to be increasing positive integers, got {values!r}.")
    return tuple(_updates(f"each of {what}", value) for value in values)
