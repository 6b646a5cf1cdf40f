"""Derivatives by finite differences, in float64, with an estimate of their own error.

Central differences at h, h/2 and h/4 are extrapolated twice (Richardson), which removes the errors of order h² and h⁴.
Where the function has a kink or a jump nearby, a difference quotient says nothing about the derivative *at* the point.
Such a place is recognised in one of two ways: the extrapolated values do not settle, or the quotients from the left and
the right stay apart however small h is. Then steps that are a hundred times smaller are used. They are less exact, but
nearer to the point. They are also used where the derivatives from both sizes of step disagree, because the function
then bends within the larger steps. If the smaller steps find a kink too, it is reported, and the slopes on its two
sides are kept.

Steps are a share of the number itself if it is larger than 1. If it is smaller, they are a share of 1, because most
functions bend at sizes near 1. Where such steps find a kink, or do not resolve the derivative, they are tried again as
a share of the number: 1e-10 has an x³ of its own.

For a function that is analytic and takes complex numbers, the complex step Im f(x + ih) / h gives the derivative
exactly, up to rounding. Nothing is subtracted, so h can be so small that h² vanishes (Squire, Trapp, "Using Complex
Variables to Estimate Derivatives of Real Functions", SIAM Review 1998). But |x| is not analytic, and many functions
refuse complex numbers. So the complex step is used only where it confirms the differences.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from funcnet.checking.programs import compiled

__all__ = ["Differences", "Suspicion", "derivatives", "sample", "sampler", "where"]

STEPS = 1e-3 * np.array([1, 1 / 2, 1 / 4])  # near the best size: truncation error h⁶ against rounding error ε/h
SMALL_STEPS = STEPS / 100
SHIFTS = np.concatenate([STEPS, -STEPS, SMALL_STEPS, -SMALL_STEPS])
COMPLEX_STEP = 1e-30
EPSILON, TINY = np.finfo(np.float64).eps, np.finfo(np.float64).tiny
CONFIRMED = 1e-3  #: the share of a complex step up to which differences must be known to confirm it
RESOLVED = 1e-6  #: the share of a derivative up to which its error is small


class Differences(NamedTuple):
    """Numeric derivatives along some directions; each array is (directions,)."""

    value: np.ndarray  #: the twice extrapolated difference quotient, or the complex step where that confirms it
    error: np.ndarray  #: how far it may be off: disagreement of the extrapolations, and rounding; 0 for complex steps
    kink: np.ndarray  #: bool, a kink or jump is near
    exact: np.ndarray  #: bool, the value is that of a complex step
    sides: np.ndarray  #: (directions, 2): the slopes to the left and to the right, by the smallest step


def sampler(scalar: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """`(point, directions, scales) -> (centre, values, magnitudes, steps)`, compiled once for each shape.

    Args:
        scalar: `(point, variables) -> (value, magnitude)`. The magnitude is the sum of the absolute values of the terms
            of the scalar, which bounds its rounding error. `point.variables` is the tree around which the scalar is
            sampled.

    `directions` are (count,) flat indices of elements, or (count, size) vectors, and `scales` are (count,). `values`
    are (count, 12), at `SHIFTS` times the scale. `steps` are the derivatives by complex step, or `None` if the function
    takes no complex numbers.
    """

    def along(flat, direction):
        return jnp.zeros(flat.size).at[direction].set(1) if direction.ndim == 0 else direction

    @compiled
    def around(point, directions, scales):
        flat, unravel = ravel_pytree(point.variables)

        def one(direction, scale):
            line, shifts = along(flat, direction), scale * SHIFTS
            values, magnitudes = jax.lax.map(lambda h: scalar(point, unravel(flat + h * line)), shifts)
            return values, magnitudes.max()

        # One by one: for several kernels together XLA makes a convolution in groups, which is much slower.
        return scalar(point, point.variables)[0], *jax.lax.map(lambda each: one(*each), (directions, scales))

    @compiled
    def by_complex_step(point, directions):
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(jnp.complex128), point.variables))

        def one(direction):
            shift = jax.lax.complex(jnp.zeros(flat.size), COMPLEX_STEP * along(flat, direction))
            return scalar(point, unravel(flat + shift))[0].imag / COMPLEX_STEP

        return jax.lax.map(one, directions)

    refused: list[Exception] = []  # a function that takes no complex numbers is tried only once

    def complex_steps(point, directions):
        try:  # a function may raise anything for numbers that it was not written for
            with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
                warnings.simplefilter("error")
                return np.asarray(by_complex_step(point, directions))
        except Exception as error:
            refused.append(error)

    def sampled(point, directions, scales):
        directions = jnp.asarray(directions)
        steps = None if refused else complex_steps(point, directions)
        return *map(np.asarray, around(point, directions, jnp.asarray(scales))), steps

    return sampled


class Suspicion(NamedTuple):
    """What is known of a scalar where numeric derivatives did not agree with a gradient."""

    slopes: np.ndarray  #: the derivatives that the gradient gives, along each direction
    size: float  #: of the scalar
    noise: float  #: how far rounding may move the scalar

    def scales(self) -> np.ndarray:
        """Scales of steps: 1, and less where the scalar would change by more than its size.

        Shares of a large number are too long for what bends near 1 everywhere, such as sin x, and 1 is too long for
        sin(10⁶ x).
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.fmax(np.fmin(1.0, self.size / np.abs(self.slopes)), TINY)


def derivatives(
    sampled: Callable[..., Any], point: Any, directions: Any, suspicion: Suspicion | None = None
) -> Differences:
    """Numeric derivatives of what a `sampler` samples.

    Args:
        sampled: from `sampler`.
        point: as for `sampled`.
        directions: flat indices of elements, or vectors. Along a vector steps are a share of it.
        suspicion: for a second look, with steps and bounds of rounding that suit the scalar.
    """
    directions = np.asarray(directions)
    along_axes = directions.ndim == 1
    numbers = np.abs(np.asarray(ravel_pytree(point.variables)[0], np.float64))
    sizes = numbers[directions] if along_axes else np.zeros(len(directions))

    def found(scales):
        centre, values, magnitudes, steps = sampled(point, directions, scales)
        bounds = 256 * EPSILON * magnitudes
        if suspicion is not None:  # a step is rounded, too, where it is added to a large number, and a quarter of it
            bounds = np.maximum(bounds, suspicion.noise) + 8 * EPSILON * sizes * np.abs(suspicion.slopes)
        return _differences(centre, values, bounds, steps, scales)

    if suspicion is not None:
        return found(suspicion.scales())
    scales = np.maximum(1, sizes)
    first = found(scales)
    if not along_axes:
        return first
    again = (first.kink | (first.error > RESOLVED * np.abs(first.value))) & (sizes < 1) & (sizes > 0)
    if not again.any():
        return first
    finer = found(np.where(again, sizes, scales))  # all of them once more, so that the program is the same
    better = again & ~finer.kink & (first.kink | (finer.error < first.error))
    return where(better, finer, first)


def where(chosen: np.ndarray, one: Differences, other: Differences) -> Differences:
    """Those of `one` where they are chosen, else those of `other`."""
    columns = zip(one, other, strict=True)
    return Differences(*(np.where(chosen if a.ndim == 1 else chosen[:, None], a, b) for a, b in columns))


def _differences(centre, values, bounds, steps, scales):
    """Derivatives from values at such scales, each of them off by up to a bound."""
    plus, minus, near_plus, near_minus = np.split(values, 4, axis=1)
    wide = _extrapolated(np.outer(scales, STEPS), centre, plus, minus, bounds)
    near = _extrapolated(np.outer(scales, SMALL_STEPS), centre, near_plus, near_minus, bounds)
    bends = wide.kink | (np.abs(wide.value - near.value) > wide.error + near.error)
    # Rounding can hide a kink from the near differences. So a kink that they do not find may still be there.
    hidden = wide.kink & (near.rounding > 0.1 * wide.unrest)
    value, error = np.where(bends, near.value, wide.value), np.where(bends, near.error, wide.error)
    kink, scale = bends & (near.kink | hidden), np.where(bends, near.scale, wide.scale)
    sides = np.where(bends[:, None], near.sides, wide.sides)
    if steps is None:
        return Differences(value, error, kink, np.zeros(kink.shape, bool), sides)
    slack = error + 1e-8 * scale
    # What differences do not resolve they cannot confirm: the steps may be those of a function that is not analytic.
    exact = ~kink & (np.abs(steps - value) <= slack) & (slack <= CONFIRMED * np.abs(steps))
    return Differences(np.where(exact, steps, value), np.where(exact, 0, error), kink, exact, sides)


class _Extrapolated(NamedTuple):
    value: np.ndarray
    error: np.ndarray
    kink: np.ndarray  #: bool
    unrest: np.ndarray  #: how far the extrapolations, or the two sides, stay apart: the size of a kink
    rounding: np.ndarray  #: bound of the rounding error
    scale: np.ndarray  #: the steepest quotient
    sides: np.ndarray  #: the slopes on both sides


def _extrapolated(h, centre, plus, minus, bounds):
    """The derivative from values at ±h, ±h/2 and ±h/4; h is (directions, 3)."""
    central = (plus - minus) / (2 * h)
    once = (4 * central[:, 1:] - central[:, :-1]) / 3
    value = (16 * once[:, 1] - once[:, 0]) / 15
    rounding = bounds / h[:, 0]
    spread = np.abs(once[:, 1] - once[:, 0])
    right, left = (plus - centre) / h, (centre - minus) / h
    scale = np.maximum(np.abs(right), np.abs(left)).max(1)
    # A smooth function settles to about h⁴ of its slope; 1e-5 leaves room for steep ones.
    settled = spread <= 1e-5 * scale + rounding
    # For a smooth function the gap between the sides is h f″. At h/4 it is a quarter of the gap at h.
    gap = np.abs(right - left)
    closing = gap[:, 2] <= 0.5 * gap[:, 0] + 1e-5 * scale + rounding
    # Where f″ jumps nearby, the extrapolation may be further off than its two stages are apart.
    error = np.maximum(spread, np.abs(central[:, 2] - value)) + rounding
    unrest = np.maximum(spread, gap[:, 2])
    sides = np.stack([left[:, 2], right[:, 2]], -1)
    return _Extrapolated(value, error, ~(settled & closing), unrest, rounding, scale, sides)


def sample(sizes: list[int], most: int, seed: int) -> np.ndarray:
    """Flat indices of the elements to check: all up to `most`, else a share of each leaf, at least eight.

    Args:
        sizes: elements of each leaf, in order.
        most: about how many elements in all.
        seed: that of the random choice.

    >>> sample([3, 2], 10, 0)
    array([0, 1, 2, 3, 4])
    >>> len(sample([1000, 10], 100, 0))
    107
    """
    total = sum(sizes)
    if total <= most:
        return np.arange(total)
    random = np.random.default_rng(seed)
    chosen, start = [], 0
    for size in sizes:
        count = min(size, max(8, most * size // total))
        chosen.append(start + np.sort(random.choice(size, count, replace=False)))
        start += size
    return np.concatenate(chosen)
