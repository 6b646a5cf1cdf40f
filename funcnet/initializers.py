"""Initializers: `(key, shape, dtype) -> array`.

`zeros` and `ones` are initializers themselves; all others are made by a call, `he_normal()`, as which they print, and
equal calls make equal initializers. What one computes is compiled once for each shape and dtype, and shared by all
leaves and models. Numbers narrower than 32 bits are drawn in float32 and then rounded: drawn in bfloat16 itself, normal
numbers take 128 different values and have a mean of −0.01.

A kernel is (in, out), or (…, in, out) with a receptive field in front, as in a convolution's HWIO:

    fan_in = receptive field · in,   fan_out = receptive field · out.

Equal numbers everywhere are no start for a kernel: units with equal weights get equal gradients and never part.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer

from funcnet.checks import check_choice, number, positive
from funcnet.dtypes import at_least_float32
from funcnet.errors import ConfigError, DtypeError, ShapeError
from funcnet.made import constructor
from funcnet.types import Array, Key

__all__ = [
    "Initializer", "calculate_gain", "constant", "he_normal", "he_uniform", "identity", "lecun_normal", "lecun_uniform",
    "normal", "ones", "orthogonal", "truncated_normal", "uniform", "variance_scaling", "xavier_normal",
    "xavier_uniform", "zeros",
]  # fmt: skip


class Initializer(Protocol):
    """`initializer(key, shape, dtype) -> array`; the same key gives the same numbers."""

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: Any, /) -> Array: ...


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
        ConfigError: `value` is no finite number.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.initializers.constant(0.5)(jax.random.key(0), (2,), jnp.float32)
    Array([0.5, 0.5], dtype=float32)
    """
    return _initializer(_constant, number("value", value))


def _constant(numbers, shape, dtype, value):
    del numbers
    return jnp.full(shape, value, dtype)


@constructor
def identity(gain: float = 1.0) -> Initializer:
    """`gain` on the diagonal and 0 elsewhere, so that a dense layer starts as y = gain · x.

    A rectangular kernel passes on the first min(in, out) features.

    Raises:
        ConfigError: `gain` is no finite number.
        ShapeError: when called, for a shape that is not (in, out).

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.initializers.identity()(jax.random.key(0), (2, 3), jnp.float32)
    Array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    return _initializer(_identity, number("gain", gain))


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
    return _initializer(_normal, positive("stddev", stddev), number("mean", mean))


def _normal(numbers, shape, dtype, stddev, mean):
    return stddev * numbers(jax.random.normal, shape, dtype) + mean


@constructor
def uniform(low: float, high: float) -> Initializer:
    """Uniform numbers in [low, high); symmetric ones are `uniform(-a, a)`, of variance a²/3.

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
    return _initializer(_uniform, low, high)


def _uniform(numbers, shape, dtype, low, high):
    return numbers(partial(jax.random.uniform, minval=low, maxval=high), shape, dtype)


@constructor
def truncated_normal(stddev: float = 1.0, mean: float = 0.0, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Normal numbers N(mean, stddev²), drawn again where they lie outside the bounds.

    Args:
        stddev: that of the normal *before* truncation; what comes out varies less, 0.8796 · stddev for the default
            bounds. `variance_scaling` corrects for that.
        mean: that of the normal before truncation; it stays the mean if the bounds are symmetric.
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
    return _initializer(_truncated_normal, stddev, mean, lower, upper)


def _truncated_normal(numbers, shape, dtype, stddev, mean, lower, upper):
    return stddev * numbers(_truncated(lower, upper), shape, dtype) + mean


def _truncated(lower, upper):
    return lambda key, shape, dtype: jax.random.truncated_normal(key, lower, upper, shape, dtype)


# The standard deviation of N(0, 1) truncated at ±2: Var = 1 − 2 · 2 φ(2) / (Φ(2) − Φ(−2)), about 0.8796².
_TRUNCATED_STDDEV = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))

_DISTRIBUTIONS: dict[str, Callable[..., Array]] = {
    "truncated_normal": lambda *arguments: _truncated(-2.0, 2.0)(*arguments) / _TRUNCATED_STDDEV,
    "normal": jax.random.normal,
    "uniform": partial(jax.random.uniform, minval=-math.sqrt(3), maxval=math.sqrt(3)),
}


@constructor
def variance_scaling(scale: float, mode: str = "fan_in", distribution: str = "truncated_normal") -> Initializer:
    """Numbers of mean 0 and variance scale / n, so that signals neither grow nor fade from layer to layer.

    Args:
        scale: 1 keeps the variance of a linear layer's input, 2 makes up for a relu behind it.
        mode: which n: `"fan_in"` (forward signals), `"fan_out"` (gradients) or their mean, `"fan_avg"`.
        distribution: `"truncated_normal"`, cut at two standard deviations and widened so that its variance is
            exactly scale / n; `"normal"`; or `"uniform"`, on (−a, a) with a = √(3 scale / n).

    Raises:
        ConfigError: `scale` is not positive, or another `mode` or `distribution`.
        ShapeError: when called, for a shape without (in, out) axes, or with none in them.

    References: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010; He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.variance_scaling(1.0)(jax.random.key(0), (400, 300), jnp.float32)
    >>> f"{w.std():.3f}"  # 1/√400
    '0.050'
    """
    return _scaled(scale, mode, distribution)


@constructor
def xavier_uniform(gain: float = 1.0) -> Initializer:
    """Xavier or Glorot: uniform on (−a, a), a = gain √(6 / (fan_in + fan_out)); for sigmoid, tanh and no activation.

    Raises:
        ConfigError: `gain` is not positive.
        ShapeError: as for `variance_scaling`.

    References: Glorot, Bengio, AISTATS 2010, equation 16.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.xavier_uniform()(jax.random.key(0), (400, 200), jnp.float32)
    >>> f"{w.max():.2f}"  # √(6/600)
    '0.10'
    """
    return _scaled(positive("gain", gain) ** 2, "fan_avg", "uniform")


@constructor
def xavier_normal(gain: float = 1.0) -> Initializer:
    """Xavier or Glorot: truncated normal of variance gain² · 2 / (fan_in + fan_out).

    Raises:
        ConfigError: `gain` is not positive.
        ShapeError: as for `variance_scaling`.

    References: Glorot, Bengio, AISTATS 2010, equation 12.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.xavier_normal()(jax.random.key(0), (400, 400), jnp.float32)
    >>> f"{w.std():.3f}"  # 1/√400
    '0.050'
    """
    return _scaled(positive("gain", gain) ** 2, "fan_avg", "truncated_normal")


@constructor
def he_uniform(negative_slope: float = 0.0, mode: str = "fan_in") -> Initializer:
    """He or Kaiming: uniform of variance 2 / ((1 + slope²) · fan); for relu and, with its slope, leaky relu.

    Raises:
        ConfigError: `negative_slope` is no finite number, or another `mode`.
        ShapeError: as for `variance_scaling`.

    References: He, Zhang, Ren, Sun, ICCV 2015, equations 10 and 15.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.he_uniform()(jax.random.key(0), (600, 200), jnp.float32)
    >>> f"{w.max():.2f}"  # √(6/600)
    '0.10'
    """
    return _scaled(_he_scale(negative_slope), mode, "uniform")


@constructor
def he_normal(negative_slope: float = 0.0, mode: str = "fan_in") -> Initializer:
    """He or Kaiming: truncated normal of variance 2 / ((1 + slope²) · fan); for relu and leaky relu.

    Raises:
        ConfigError: `negative_slope` is no finite number, or another `mode`.
        ShapeError: as for `variance_scaling`.

    References: He, Zhang, Ren, Sun, ICCV 2015, equations 10 and 15.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.he_normal()(jax.random.key(0), (800, 200), jnp.float32)
    >>> f"{w.std():.3f}"  # √(2/800)
    '0.050'
    """
    return _scaled(_he_scale(negative_slope), mode, "truncated_normal")


@constructor
def lecun_normal() -> Initializer:
    """LeCun: truncated normal of variance 1 / fan_in; for selu and, as funcnet's default, everything else.

    Raises:
        ShapeError: as for `variance_scaling`.

    References: LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, equation 16.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.lecun_normal()(jax.random.key(0), (400, 200), jnp.float32)
    >>> f"{w.std():.3f}"  # 1/√400
    '0.050'
    """
    return _scaled(1.0, "fan_in", "truncated_normal")


@constructor
def lecun_uniform() -> Initializer:
    """LeCun: uniform on (−a, a), a = √(3 / fan_in).

    Raises:
        ShapeError: as for `variance_scaling`.

    References: LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, equation 16.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.lecun_uniform()(jax.random.key(0), (300, 200), jnp.float32)
    >>> f"{w.max():.2f}"  # √(3/300)
    '0.10'
    """
    return _scaled(1.0, "fan_in", "uniform")


@constructor
def orthogonal(gain: float = 1.0) -> Initializer:
    """An orthogonal matrix times `gain`, drawn uniformly: it keeps the length of every signal.

    The axes before the last are made one, so the kernel is a matrix W (m, out). Its columns are orthonormal,
    WᵀW = gain² I, if m ≥ out, and its rows are, WWᵀ = gain² I, otherwise. W is the Q of the QR decomposition of a
    normal matrix, with the signs of R's diagonal moved into Q: without that Q is not uniform.

    Raises:
        ConfigError: `gain` is not positive.
        ShapeError: when called, for a shape with fewer than two axes or without elements.

    References: Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", ICLR 2014; Mezzadri, "How to generate random matrices from the classical compact groups", 2007.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> w = fn.initializers.orthogonal()(jax.random.key(0), (4, 2), jnp.float32)
    >>> bool(jnp.allclose(w.T @ w, jnp.eye(2), atol=1e-6))
    True
    """
    return _initializer(_orthogonal, positive("gain", gain))


def _orthogonal(numbers, shape, dtype, gain):
    _fans(shape)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    tall = (max(rows, columns), min(rows, columns))
    q, r = jnp.linalg.qr(numbers(jax.random.normal, tall, dtype))
    q = jnp.where(jnp.diagonal(r) < 0, -q, q)
    return gain * (q if rows >= columns else q.T).reshape(shape)


_GAINS = {"identity": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


@constructor
def calculate_gain(activation: str, parameter: float | None = None) -> float:
    """The factor by which kernels are to be wider in front of an activation: `xavier_uniform(calculate_gain("tanh"))`.

    identity and sigmoid 1, tanh 5/3, relu √2, leaky_relu √(2 / (1 + slope²)), selu 3/4. The values for tanh and selu
    are the customary ones, which no formula gives; all are those of torch.

    Args:
        activation: its name.
        parameter: the negative slope of `"leaky_relu"`, 0.01 if `None`; the others have none.

    Raises:
        ConfigError: another name, or a parameter where there is none.

    >>> import funcnet as fn
    >>> fn.initializers.calculate_gain("relu")
    1.4142135623730951
    """
    if activation == "leaky_relu":
        return math.sqrt(_he_scale(0.01 if parameter is None else parameter))
    check_choice("activation", activation, (*_GAINS, "leaky_relu"))
    if parameter is not None:
        raise ConfigError(f"expected parameter to be None, as {activation} has none, got {parameter!r}.")
    return _GAINS[activation]


def _scaled(scale: float, mode: str, distribution: str) -> Initializer:
    scale = positive("scale", scale)
    check_choice("mode", mode, ("fan_in", "fan_out", "fan_avg"))
    check_choice("distribution", distribution, _DISTRIBUTIONS)
    return _initializer(_of_variance, scale, mode, distribution)


def _of_variance(numbers, shape, dtype, scale, mode, distribution):
    fan_in, fan_out = _fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    return math.sqrt(scale / fan) * numbers(_DISTRIBUTIONS[distribution], shape, dtype)


def _he_scale(negative_slope: float) -> float:
    return 2 / (1 + number("negative_slope", negative_slope) ** 2)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2 or 0 in shape:
        raise ShapeError(
            f"expected the shape (…, in, out) of a kernel, without zeros, got {shape}; "
            "for a bias or a scale use zeros, constant or normal."
        )
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


def _initializer(draw: Callable[..., Array], *parameters: Any) -> Initializer:
    """`draw(numbers, shape, dtype, *parameters)`, with `numbers(distribution, shape, dtype)` for what is random."""

    def initializer(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
        # float64 without 64-bit mode becomes float32, as in every array that jax makes of NumPy's.
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise DtypeError(f"expected a floating dtype, got {dtype}.")
        return _drawn(draw, tuple(shape), jnp.dtype(dtype), parameters, not isinstance(key, Tracer), key)

    return initializer


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _drawn(draw, shape, dtype, parameters, alone, key):
    """What is drawn, in at least 32 bits; a program of its own if `alone`, with the same bits as within another one.

    The barrier keeps it apart there: merged with its surroundings, XLA would round it differently.
    """

    def numbers(distribution, shape, dtype):
        """Number i is a function of the key and of i. In one row they take a third of the time to compile; but only in
        their own shape can they be cut along any axis, so that no device of several makes all of them."""
        return (
            distribution(key, (math.prod(shape),), dtype).reshape(shape) if alone else distribution(key, shape, dtype)
        )

    drawn = draw(numbers, shape, at_least_float32(dtype), *parameters)
    return jax.lax.optimization_barrier(drawn).astype(dtype)
