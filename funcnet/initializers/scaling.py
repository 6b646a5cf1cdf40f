"""Initializers whose variance follows from the shape of a kernel."""

import math
from collections.abc import Callable
from functools import partial

import jax

from funcnet.checks import check_choice, number, positive
from funcnet.errors import ConfigError
from funcnet.initializers.distributions import truncated
from funcnet.initializers.initializer import Initializer, fans, initializer
from funcnet.made import constructor
from funcnet.types import Array

__all__ = [
    "calculate_gain", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "variance_scaling", "xavier_normal",
    "xavier_uniform",
]  # fmt: skip


# The standard deviation of N(0, 1) truncated at ±2: Var = 1 − 2 · 2 φ(2) / (Φ(2) − Φ(−2)), about 0.8796².
_TRUNCATED_STDDEV = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))

_DISTRIBUTIONS: dict[str, Callable[..., Array]] = {
    "truncated_normal": lambda *arguments: truncated(-2.0, 2.0)(*arguments) / _TRUNCATED_STDDEV,
    "normal": jax.random.normal,
    "uniform": partial(jax.random.uniform, minval=-math.sqrt(3), maxval=math.sqrt(3)),
}


@constructor
def variance_scaling(scale: float, mode: str = "fan_in", distribution: str = "truncated_normal") -> Initializer:
    """Numbers of mean 0 and variance scale / n, so that signals neither grow nor fade from layer to layer.

    Args:
        scale: 1 keeps the variance of a linear layer's input, 2 also compensates for a relu after it.
        mode: which n to use: `"fan_in"` for forward signals, `"fan_out"` for gradients, or `"fan_avg"`, the mean of the
            two.
        distribution: `"truncated_normal"`, `"normal"` or `"uniform"`. The truncated normal is cut at two standard
            deviations and widened, so that its variance is exactly scale / n. The uniform one is on (−a, a) with a =
            √(3 scale / n).

    Raises:
        ConfigError: `scale` is not positive, or `mode` or `distribution` has another value.
        ShapeError: when called with a shape that has fewer than two axes or no elements.

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
    """Xavier or Glorot: uniform on (−a, a), a = gain √(6 / (fan_in + fan_out)). For sigmoid, tanh or no activation.

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
    """He or Kaiming: uniform of variance 2 / ((1 + slope²) · fan). For relu and, with its slope, leaky relu.

    Raises:
        ConfigError: `negative_slope` is not a finite number, or `mode` has another value.
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
    """He or Kaiming: truncated normal of variance 2 / ((1 + slope²) · fan). For relu and, with its slope, leaky relu.

    Raises:
        ConfigError: `negative_slope` is not a finite number, or `mode` has another value.
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
    """LeCun: truncated normal of variance 1 / fan_in. For selu, and by default for every layer of funcnet.

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


_GAINS = {"identity": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


@constructor
def calculate_gain(activation: str, parameter: float | None = None) -> float:
    """The factor by which to widen a kernel before an activation, as in `xavier_uniform(calculate_gain("tanh"))`.

    It is 1 for identity and sigmoid, 5/3 for tanh, √2 for relu, √(2 / (1 + slope²)) for leaky_relu and 3/4 for selu.
    The values for tanh and selu are customary and follow from no formula. All values are those of torch.

    Args:
        activation: its name.
        parameter: the negative slope of `"leaky_relu"`, 0.01 if `None`. The other activations have no parameter.

    Raises:
        ConfigError: `activation` has another value, or `parameter` is given to an activation that has none.

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
    return initializer(_of_variance, scale, mode, distribution)


def _of_variance(numbers, shape, dtype, scale, mode, distribution):
    fan_in, fan_out = fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    return math.sqrt(scale / fan) * numbers(_DISTRIBUTIONS[distribution], shape, dtype)


def _he_scale(negative_slope: float) -> float:
    return 2 / (1 + number("negative_slope", negative_slope) ** 2)
