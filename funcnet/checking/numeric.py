"""Derivatives by finite differences, in float64, with an estimate of their own error.

Central differences at h, h/2 and h/4 are extrapolated twice (Richardson), which removes the errors of order h² and h⁴.
Where the function has a kink or a jump nearby, a difference quotient says nothing about the derivative *at* the point.
Such a place is recognised in one of two ways: the extrapolated values do not settle, or the quotients from the left and
the right stay apart however small h is. Then steps that are a hundred times smaller are used. They are less exact, but
nearer to the point. They are also used where the derivatives from both sizes of step disagree, because the function
then bends within the larger steps. If the smaller steps find a kink too, it is reported, and it is not counted as a
mistake.

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

__all__ = ["Differences", "differences", "sample", "sampler"]

STEPS = 1e-3 * np.array([1, 1 / 2, 1 / 4])  # near the best size: truncation error h⁶ against rounding error ε/h
SMALL_STEPS = STEPS / 100
SHIFTS = np.concatenate([STEPS, -STEPS, SMALL_STEPS, -SMALL_STEPS])
COMPLEX_STEP = 1e-30


class Differences(NamedTuple):
    """Numeric derivatives along some directions; each array is (directions,)."""

    value: np.ndarray  #: the twice extrapolated difference quotient, or the complex step where that confirms it
    error: np.ndarray  #: how far it may be off: disagreement of the extrapolations, and rounding; 0 for complex steps
    kink: np.ndarray  #: bool, a kink or jump is near
    exact: np.ndarray  #: bool, the value is that of a complex step


def sampler(scalar: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`(point, directions) -> (centre, values, magnitudes, steps)`, compiled once for each shape.

    Args:
        scalar: `(point, variables) -> (value, magnitude)`. The magnitude is the sum of the absolute values of the terms
            of the scalar, which bounds its rounding error. `point.variables` is the tree around which the scalar is
            sampled.

    `directions` are (count,) flat indices of elements, or (count, size) vectors. `values` are (count, 12), at `SHIFTS`.
    `steps` are the derivatives by complex step, or `None` if the function takes no complex numbers.
    """

    def along(flat, direction):
        return jnp.zeros(flat.size).at[direction].set(1) if direction.ndim == 0 else direction

    @compiled
    def around(point, directions):
        flat, unravel = ravel_pytree(point.variables)

        def one(direction):
            line = along(flat, direction)
            values, magnitudes = jax.lax.map(lambda h: scalar(point, unravel(flat + h * line)), jnp.asarray(SHIFTS))
            # Inner terms can be as large as the inputs, however small their sum is.
            return values, jnp.maximum(magnitudes.max(), jnp.max(jnp.abs(flat), initial=0))

        # One by one: for several kernels together XLA makes a convolution in groups, which is much slower.
        return scalar(point, point.variables)[0], *jax.lax.map(one, directions)

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

    def sampled(point, directions):
        directions = jnp.asarray(directions)
        steps = None if refused else complex_steps(point, directions)
        return *map(np.asarray, around(point, directions)), steps

    return sampled


def differences(centre: Any, values: Any, magnitudes: Any, steps: Any = None) -> Differences:
    """Derivatives from what a `sampler` returned."""
    plus, minus, near_plus, near_minus = np.split(values, 4, axis=1)
    wide = _extrapolated(STEPS, centre, plus, minus, magnitudes)
    near = _extrapolated(SMALL_STEPS, centre, near_plus, near_minus, magnitudes)
    bends = wide.kink | (np.abs(wide.value - near.value) > wide.error + near.error)
    # Rounding can hide a kink from the near differences. So a kink that they do not find may still be there.
    hidden = wide.kink & (near.rounding > 0.1 * wide.unrest)
    value, error = np.where(bends, near.value, wide.value), np.where(bends, near.error, wide.error)
    kink, scale = bends & (near.kink | hidden), np.where(bends, near.scale, wide.scale)
    if steps is None:
        return Differences(value, error, kink, np.zeros(kink.shape, bool))
    exact = ~kink & (np.abs(steps - value) <= error + 1e-8 * scale)
    return Differences(np.where(exact, steps, value), np.where(exact, 0, error), kink, exact)


class _Extrapolated(NamedTuple):
    value: np.ndarray
    error: np.ndarray
    kink: np.ndarray  #: bool
    unrest: np.ndarray  #: how far the extrapolations, or the two sides, stay apart: the size of a kink
    rounding: np.ndarray  #: bound of the rounding error
    scale: np.ndarray  #: the steepest quotient


def _extrapolated(h, centre, plus, minus, magnitudes):
    """The derivative from values at ±h, ±h/2 and ±h/4."""
    central = (plus - minus) / (2 * h)
    once = (4 * central[:, 1:] - central[:, :-1]) / 3
    value = (16 * once[:, 1] - once[:, 0]) / 15
    rounding = 256 * np.finfo(np.float64).eps * magnitudes / h[0]
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
    return _Extrapolated(value, error, ~(settled & closing), unrest, rounding, scale)


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
