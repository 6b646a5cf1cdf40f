"""Learning-rate schedules: pure functions `schedule(step) -> rate`.

`step` counts the updates *already done*, so the first update asks for `schedule(0)`; an optimizer calls its
schedule with `state.step` as it was before the update. `step` is a Python int or an integer array, traced or
not. The rate comes out in its shape and in JAX's default float dtype, so `schedule(jnp.arange(1000))` is the
curve to plot.

An argument called `rate` is a number or another schedule. A function of the step that you write is a schedule
too.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax.numpy as jnp

from funcnet.checks import check_count, describe, is_count, is_number, nonnegative, positive, spell, unit_interval
from funcnet.errors import ConfigError
from funcnet.types import Array, Schedule

__all__ = [
    "as_schedule", "constant", "cosine_decay", "exponential_decay", "join", "linear", "multi_step",
    "per_epoch", "step_decay", "warmup",
]  # fmt: skip


def as_schedule(rate: float | Schedule, *, name: str | None = None, what: str = "rate") -> Schedule:
    """A number becomes `constant(rate)`; a function comes back unchanged.

    Args:
        rate: a number ≥ 0, or a function `step -> rate`. A traced number, as under `jax.vmap` over rates, is
            passed as a function: `lambda step: rate`.
        name, what: the call and its argument, as an error names them; by default this call and its own.

    Raises:
        ConfigError: a rate that is negative, not finite, or neither number nor function.

    >>> import funcnet as fn
    >>> fn.schedules.as_schedule(0.5)(7)
    Array(0.5, dtype=float32)
    """
    if callable(rate):
        return rate
    if not is_number(rate) or rate < 0:
        name = name or spell(as_schedule, rate)
        raise ConfigError(
            f"{name}: expected {what} to be a finite number >= 0 or a schedule step -> rate, got {describe(rate)}; "
            "write an array as float(…), a traced one as lambda step: …."
        )
    return constant(rate)


def constant(value: float) -> Schedule:
    """rate = value.

    Raises:
        ConfigError: `value` is negative or not finite.

    >>> import funcnet as fn
    >>> fn.schedules.constant(0.5)(7)
    Array(0.5, dtype=float32)
    """
    name = spell(constant, value)
    value = nonnegative(name, "value", value)
    return _named(name, lambda step: jnp.full(jnp.shape(step), value, _float_dtype()))


def step_decay(value: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """rate = value · γ^⌊step / step_size⌋: a staircase of equal stairs.

    Args:
        value: the first rate.
        step_size: updates a stair.
        gamma: the factor γ > 0 from one stair to the next.

    Raises:
        ConfigError: an argument out of its range.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.schedules.step_decay(1.0, 2, gamma=0.5)(jnp.arange(5))
    Array([1.  , 1.  , 0.5 , 0.5 , 0.25], dtype=float32)
    """
    name = spell(step_decay, value, step_size, gamma=gamma)
    value = nonnegative(name, "value", value)
    step_size = check_count(name, "step_size", step_size)
    gamma = positive(name, "gamma", gamma)
    return _named(name, lambda step: value * gamma ** _as_float(jnp.asarray(step) // step_size))


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
    name = spell(multi_step, value, milestones, gamma=gamma)
    value = nonnegative(name, "value", value)
    milestones = _increasing(name, "milestones", milestones)
    gamma = positive(name, "gamma", gamma)

    def schedule(step):
        step = jnp.asarray(step)
        passed = jnp.searchsorted(jnp.asarray(milestones, step.dtype), step, side="right", method="compare_all")
        return value * gamma ** _as_float(passed)

    return _named(name, schedule)


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
    name = spell(exponential_decay, value, transition_steps, decay_rate, staircase=staircase)
    value = nonnegative(name, "value", value)
    transition_steps = check_count(name, "transition_steps", transition_steps)
    decay_rate = positive(name, "decay_rate", decay_rate)
    if staircase:
        return _named(name, step_decay(value, transition_steps, decay_rate))
    return _named(name, lambda step: value * decay_rate ** (_as_float(step) / transition_steps))


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
    name = spell(cosine_decay, value, decay_steps, alpha=alpha)
    value = nonnegative(name, "value", value)
    decay_steps = check_count(name, "decay_steps", decay_steps)
    alpha = unit_interval(name, "alpha", alpha)

    def schedule(step):
        cosine = (1 + jnp.cos(math.pi * _fraction(step, decay_steps))) / 2
        return value * (alpha + (1 - alpha) * cosine)

    return _named(name, schedule)


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
    name = spell(linear, start, stop, steps)
    start = nonnegative(name, "start", start)
    stop = nonnegative(name, "stop", stop)
    steps = check_count(name, "steps", steps)
    return _named(name, lambda step: _between(start, stop, _fraction(step, steps)))


def warmup(rate: float | Schedule, warmup_steps: int, initial: float = 0.0) -> Schedule:
    """In a straight line from `initial` to `rate`, which then counts from 0 at the end of the warm-up.

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
    name = spell(warmup, rate, warmup_steps, initial=initial)
    target = as_schedule(rate, name=name)
    warmup_steps = check_count(name, "warmup_steps", warmup_steps)
    initial = nonnegative(name, "initial", initial)

    def rise(step):
        return _between(initial, _as_float(target(jnp.zeros_like(step))), _fraction(step, warmup_steps))

    return _named(name, join((rise, target), (warmup_steps,)))


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
    name = spell(join, schedules, boundaries)
    parts = [as_schedule(schedule, name=name, what="each of schedules") for schedule in schedules]
    boundaries = _increasing(name, "boundaries", boundaries)
    if len(parts) != len(boundaries) + 1:
        raise ConfigError(
            f"{name}: expected one boundary between each two schedules, got {len(parts)} schedules and "
            f"{len(boundaries)} boundaries."
        )

    def schedule(step):
        step = jnp.asarray(step)
        rate = _as_float(parts[0](step))
        for part, boundary in zip(parts[1:], boundaries, strict=True):
            # All parts are computed; the maximum keeps those still to come from a negative count.
            later = _as_float(part(jnp.maximum(step - boundary, 0)))
            rate = jnp.where(step >= boundary, later, rate)
        return rate

    return _named(name, schedule)


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
    name = spell(per_epoch, rate, steps_per_epoch)
    epochs = as_schedule(rate, name=name)
    steps_per_epoch = check_count(name, "steps_per_epoch", steps_per_epoch)
    return _named(name, lambda step: _as_float(epochs(jnp.asarray(step) // steps_per_epoch)))


def _float_dtype() -> Any:
    return jnp.result_type(float)  # float32, or float64 where x64 is on


def _as_float(x: Any) -> Array:
    return jnp.asarray(x, _float_dtype())


def _fraction(step: Any, steps: int) -> Array:
    return _as_float(jnp.minimum(jnp.asarray(step), steps)) / steps


def _between(start: Any, stop: Any, fraction: Array) -> Array:
    return (1 - fraction) * start + fraction * stop  # in this form exact at both ends


def _named(name: str, schedule: Schedule) -> Schedule:
    """The same schedule, printing as the call that made it; so does a schedule made of it."""

    def named(step):
        return schedule(step)

    named.__name__ = named.__qualname__ = name
    return named


def _increasing(name: str, what: str, values: Any) -> tuple[int, ...]:
    counts = isinstance(values, Sequence) and len(values) > 0 and all(map(is_count, values))
    if not counts or any(a >= b for a, b in pairwise(values)):
        raise ConfigError(f"{name}: expected {what} to be increasing positive integers, got {values!r}.")
    return tuple(map(int, values))
