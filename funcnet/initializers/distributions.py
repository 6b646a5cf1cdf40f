"""Initializers with a given distribution of their numbers, and initializers with fixed numbers."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import number, positive
from funcnet.errors import ConfigError, ShapeError
from funcnet.initializers.initializer import Initializer, fans, initializer
from funcnet.made import constructor
from funcnet.types import Array, Key

__all__ = [
    "constant", "identity", "normal", "ones", "orthogonal", "truncated", "truncated_normal", "uniform", "zeros",
]  # fmt: skip


def zeros(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    """All zeros.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.initializers.zeros(jax.random.key(0), (2,), jnp.float32)
    Array([0., 0.], dtype=float32)
    """
    del key
    return jnp.zeros(shape, jax.dtypes.canonicalize_dtype(dtype))


def ones(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    """All ones.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.initializers.ones(jax.random.key(0), (2,), jnp.float32)
    Array([1., 1.], dtype=float32)
    """
    del key
    return jnp.ones(shape, jax.dtypes.canonicalize_dtype(dtype))


@constructor
def constant(value: float) -> Initializer:
    """All equal to `value`.

    Raises:
        ConfigError: `value` is not a finite number.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.initializers.constant(0.5)(jax.random.key(0), (2,), jnp.float32)
    Array([0.5, 0.5], dtype=float32)
    """
    return initializer(_constant, number("value", value))


def _constant(numbers, shape, dtype, value):
    del numbers
    return jnp.full(shape, value, dtype)


@constructor
def identity(gain: float = 1.0) -> Initializer:
    """`gain` on the diagonal and 0 elsewhere, so that a dense layer starts as y = gain · x.

    A rectangular kernel passes on the first min(in, out) features.

    Raises:
        ConfigError: `gain` is not a finite number.
        ShapeError: when called with a shape that is not (in, out).

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.initializers.identity()(jax.random.key(0), (2, 3), jnp.float32)
    Array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    return initializer(_identity, number("gain", gain))


def _identity(numbers, shape, dtype, gain):
    del numbers
    if len(shape) != 2:
        raise ShapeError(f"expected a shape (in, out), got {shape}.")
    return gain * jnp.eye(*shape, dtype=dtype)


@constructor
def normal(stddev: float = 1.0, mean: float = 0.0) -> Initializer:
    """Normal numbers, N(mean, stddev²).

    Raises:
        ConfigError: `stddev` is not positive, or a number is not finite.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.normal(0.1)(jax.random.key(0), (100, 100), jnp.float32)
    >>> f"{w.std():.2f}"
    '0.10'
    """
    return initializer(_normal, positive("stddev", stddev), number("mean", mean))


def _normal(numbers, shape, dtype, stddev, mean):
    return stddev * numbers(jax.random.normal, shape, dtype) + mean


@constructor
def uniform(low: float, high: float) -> Initializer:
    """Uniform numbers in [low, high). `uniform(-a, a)` is symmetric and has the variance a²/3.

    Raises:
        ConfigError: low ≥ high, or a number is not finite.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.uniform(-0.5, 0.5)(jax.random.key(0), (100, 100), jnp.float32)
    >>> bool(-0.5 <= w.min()) and bool(w.max() < 0.5)
    True
    """
    low, high = number("low", low), number("high", high)
    if not low < high:
        raise ConfigError(f"expected low < high, got {low!r} and {high!r}; swap them.")
    return initializer(_uniform, low, high)


def _uniform(numbers, shape, dtype, low, high):
    return numbers(partial(jax.random.uniform, minval=low, maxval=high), shape, dtype)


@constructor
def truncated_normal(stddev: float = 1.0, mean: float = 0.0, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Normal numbers N(mean, stddev²), drawn again where they lie outside the bounds.

    Args:
        stddev: the standard deviation *before* truncation. After it the standard deviation is smaller, 0.8796 · stddev
            for the default bounds. `variance_scaling` corrects for that.
        mean: the mean before truncation. It stays the mean if the bounds are symmetric.
        lower, upper: the bounds in standard deviations, mean + lower · stddev and mean + upper · stddev.

    Raises:
        ConfigError: `stddev` is not positive, lower ≥ upper, or a number is not finite.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.truncated_normal(0.1)(jax.random.key(0), (400, 400), jnp.float32)
    >>> f"{w.std():.3f}"
    '0.088'
    """
    stddev, mean = positive("stddev", stddev), number("mean", mean)
    lower, upper = number("lower", lower), number("upper", upper)
    if not lower < upper:
        raise ConfigError(f"expected lower < upper, got {lower!r} and {upper!r}; swap them.")
    return initializer(_truncated_normal, stddev, mean, lower, upper)


def _truncated_normal(numbers, shape, dtype, stddev, mean, lower, upper):
    return stddev * numbers(truncated(lower, upper), shape, dtype) + mean


def truncated(lower, upper):
    return lambda key, shape, dtype: jax.random.truncated_normal(key, lower, upper, shape, dtype)


@constructor
def orthogonal(gain: float = 1.0) -> Initializer:
    """An orthogonal matrix times `gain`, drawn uniformly. It keeps the length of every signal.

    The axes before the last are merged into one, so the kernel is a matrix W (m, out). If m ≥ out, its columns are
    orthogonal, WᵀW = gain² I. Otherwise its rows are, WWᵀ = gain² I. W is gain times the Q of the QR decomposition of a
    normal matrix. The signs of R's diagonal are moved into Q, because Q would not be uniform without that.

    Raises:
        ConfigError: `gain` is not positive.
        ShapeError: when called with a shape that has fewer than two axes or no elements.

    References: Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", ICLR 2014; Mezzadri, "How to generate random matrices from the classical compact groups", 2007.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.orthogonal()(jax.random.key(0), (4, 2), jnp.float32)
    >>> bool(jnp.allclose(w.T @ w, jnp.eye(2), atol=1e-6))
    True
    """
    return initializer(_orthogonal, positive("gain", gain))


def _orthogonal(numbers, shape, dtype, gain):
    fans(shape)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    tall = (max(rows, columns), min(rows, columns))
    q, r = jnp.linalg.qr(numbers(jax.random.normal, tall, dtype))
    q = jnp.where(jnp.diagonal(r) < 0, -q, q)
    return gain * (q if rows >= columns else q.T).reshape(shape)
