"""Activation functions, each with its derivative on the line below.

The conventions at kinks are those of `jax.nn`, and a test checks each of them. The forward passes are written so that
their autodiff agrees with the derivative *at* the kink too. A NaN in the input gives a NaN in the output.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc

from funcnet import initializers
from funcnet.checks import check_choice, check_floating, number, positive
from funcnet.dtypes import widen
from funcnet.errors import ConfigError
from funcnet.layers.checks import check_training_key
from funcnet.layers.layer import elementwise, layer, parameterless
from funcnet.made import constructor
from funcnet.numerics import valued_by
from funcnet.types import Layer, Rules

__all__ = [
    "binary_step", "elu", "gelu", "leaky_relu", "log_sigmoid", "prelu", "relu", "rrelu", "sigmoid", "silu", "softplus",
    "tanh",
]  # fmt: skip


@constructor
def sigmoid() -> Layer:
    """Logistic sigmoid, y = σ(x) = 1 / (1 + e⁻ˣ).

    It is nearly flat outside [−6, 6], and its slope is at most 0.25. So gradients vanish through many of them. The
    output is not centred at 0.

    Backward. With g = ∂L/∂y and 1 − σ = e⁻ˣ / (1 + e⁻ˣ), σ′ = e⁻ˣ / (1 + e⁻ˣ)² = σ (1 − σ), so dx = y (1 − y) ⊙ g.
    Kept: y.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.sigmoid().apply((), (), jnp.array([0.0]))[0]
    Array([0.5], dtype=float32)
    """
    return elementwise(jax.lax.logistic, lambda x, y: y * (1 - y), keep="y")


@constructor
def tanh() -> Layer:
    """Hyperbolic tangent, y = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ).

    Backward. y = sinh x / cosh x, with sinh′ = cosh and cosh′ = sinh. By the quotient rule
        y′ = (cosh² x − sinh² x) / cosh² x = 1 − y²,
    so dx = (1 − y²) ⊙ g with g = ∂L/∂y. Kept: y.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.tanh().apply((), (), jnp.array([0.0]))[0]
    Array([0.], dtype=float32)
    """
    return elementwise(jnp.tanh, lambda x, y: (1 - y) * (1 + y), keep="y")


@constructor
def relu() -> Layer:
    """Rectified linear unit, y = max(0, x).

    Backward. y′ = 1 where y = x and 0 where y = 0, so dx is g = ∂L/∂y where x > 0, else 0. At the kink x = 0 the
    derivative is 0. Since y > 0 exactly where x > 0, y is enough. Kept: y.

    References: Nair, Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", ICML 2010.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.relu().apply((), (), jnp.array([-2.0, 3.0]))[0]
    Array([0., 3.], dtype=float32)
    """

    def rectified(x):  # Not where(x > 0, x, 0), which turns NaN into 0.
        return jnp.where(x <= 0, 0, x)

    largest = valued_by(lambda x: jnp.maximum(x, 0), rectified)  # autodiff of this maximum at 0 would be 0.5
    return elementwise(rectified, lambda x, y: (y > 0).astype(y.dtype), apply=largest, keep="y")


@constructor
def leaky_relu(negative_slope: float = 0.01) -> Layer:
    """Leaky ReLU, y = x for x ≥ 0, else y = a x. No unit can die.

    Backward. y′ = 1 where y = x and a where y = a x. So with g = ∂L/∂y, dx = g where x ≥ 0, else a g. At the kink x = 0
    the derivative is 1. Kept: x.

    Raises:
        ConfigError: a is not a finite number.

    References: Maas, Hannun, Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", ICML 2013.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.leaky_relu(0.1).apply((), (), jnp.array([-2.0, 3.0]))[0]
    Array([-0.2,  3. ], dtype=float32)
    """
    negative_slope = number("negative_slope", negative_slope)
    return elementwise(
        lambda x: jnp.where(x >= 0, x, negative_slope * x),
        lambda x, y: jnp.where(x >= 0, 1, jnp.full_like(x, negative_slope)),
        keep="x",
    )


@constructor
def prelu(negative_slope: float = 0.25) -> Layer:
    """Parametric ReLU: a leaky ReLU whose slope a is learned. The whole layer has one slope.

    Args:
        negative_slope: the first value of a.

    Params: `negative_slope` ().

    Backward. Below zero y = a x, so ∂y/∂a = x there. With g = ∂L/∂y, da = Σ_{x<0} x g, and dx = g where x ≥ 0, else a
    g. At the kink x = 0 the derivative is 1 for x and 0 for a. Kept: x.

    Raises:
        ConfigError: `negative_slope` is not a finite number.

    References: He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 1.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> params, state = fn.layers.prelu().init(jax.random.key(0), jnp.ones((1, 2)))
    >>> fn.layers.prelu().apply(params, state, jnp.array([[-2.0, 3.0]]))[0]
    Array([[-0.5,  3. ]], dtype=float32)
    """
    negative_slope = number("negative_slope", negative_slope)

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        below = (widen(params["negative_slope"]) * widen(x)).astype(x.dtype)
        return jnp.where(x >= 0, x, below), state, x

    def backward(params, x, dy):
        return {"negative_slope": jnp.sum(slopes(x, dy)).astype(x.dtype)}, jnp.where(
            x >= 0, dy, params["negative_slope"] * dy
        )

    def per_example(params, x, dy):
        del params
        return {"negative_slope": jnp.sum(slopes(x, dy), tuple(range(1, x.ndim))).astype(x.dtype)}

    def slopes(x, dy):
        return jnp.where(x >= 0, 0, widen(x) * widen(dy))

    leaves = {"negative_slope": (initializers.constant(negative_slope), ())}
    return layer(forward, backward, leaves=leaves, rules=Rules(per_example, positionwise=0))


@constructor
def rrelu(lower: float = 1 / 8, upper: float = 1 / 3) -> Layer:
    """Randomised leaky ReLU: in training each negative number gets a slope drawn from U(lower, upper).

    At evaluation the slope is the mean, (lower + upper) / 2. Training needs a key.

    Backward. y = a ⊙ x with slopes a that are 1 where x ≥ 0 and do not depend on x otherwise. So dx = a ⊙ g with g =
    ∂L/∂y. At the kink x = 0 the derivative is 1. Kept: a.

    Raises:
        ConfigError: lower > upper, or a bound is not a finite number.
        MissingKeyError: in training without a key.

    References: Xu, Wang, Chen, Li, "Empirical Evaluation of Rectified Activations in Convolution Network", 2015.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.rrelu(0.2, 0.4).apply((), (), jnp.array([-1.0, 3.0]))[0]
    Array([-0.3,  3. ], dtype=float32)
    """
    lower, upper = number("lower", lower), number("upper", upper)
    if not lower <= upper:
        raise ConfigError(f"expected lower <= upper, got {lower} and {upper}; swap them.")

    def forward(x, *, key, train):
        check_floating("x", x)
        if train:
            check_training_key(key)
            # Always drawn in float32, so that a key gives the same slopes with and without 64-bit numbers.
            slopes = jax.random.uniform(key, x.shape, jnp.float32, lower, upper).astype(x.dtype)
        else:
            slopes = jnp.full_like(x, (lower + upper) / 2)
        slopes = jnp.where(x >= 0, 1, slopes)
        return slopes * x, slopes

    return parameterless(forward, _scaled, rules=Rules(positionwise=0))


def _scaled(derivatives, dy):
    """dx = d ⊙ g, with the derivatives d kept by the forward."""
    return derivatives * dy


@constructor
def elu(alpha: float = 1.0) -> Layer:
    """Exponential linear unit, y = x for x > 0, else y = α (eˣ − 1).

    Backward. y′ = 1 above zero and α eˣ below. So with g = ∂L/∂y, dx = g where x > 0, else α eˣ g. At x = 0 the
    derivative is α. Kept: x.

    Raises:
        ConfigError: α is not a finite number.

    References: Clevert, Unterthiner, Hochreiter, "Fast and Accurate Deep Network Learning by ELUs", ICLR 2016.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.elu().apply((), (), jnp.array([0.0, 3.0]))[0]
    Array([0., 3.], dtype=float32)
    """
    alpha = number("alpha", alpha)
    # Both branches of a `where` are computed. Without `_nonpositive` e^x would overflow in the unused one, and autodiff
    # would multiply that infinity by 0.
    return elementwise(
        lambda x: jnp.where(x > 0, x, alpha * jnp.expm1(_nonpositive(x))),
        lambda x, y: jnp.where(x > 0, 1, alpha * jnp.exp(_nonpositive(x))),
        keep="x",
    )


def _nonpositive(x):
    return jnp.where(x > 0, 0, x)


@constructor
def silu() -> Layer:
    """SiLU or Swish, y = x σ(x).

    Backward. By the product rule and σ′ = σ (1 − σ), y′ = σ + x σ (1 − σ) = σ (1 + x (1 − σ)). So with g = ∂L/∂y, dx =
    σ (1 + x (1 − σ)) ⊙ g. Kept: x.

    References: Elfwing, Uchibe, Doya, "Sigmoid-Weighted Linear Units", 2017; Ramachandran, Zoph, Le, "Searching for
    Activation Functions", 2017.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.silu().apply((), (), jnp.array([0.0]))[0]
    Array([0.], dtype=float32)
    """

    def derivative(x, y):
        del y
        s = jax.lax.logistic(x)
        return s * (1 + _near(x) * (1 - s))

    return elementwise(lambda x: _gated(x, jax.lax.logistic(x)), derivative, keep="x")


_FAR = 1000.0  # beyond it σ and Φ are exactly 0 or 1, in float64 too


def _near(x):
    """x for a term that vanishes far out, where its powers would overflow, and ∞ · 0 would be NaN."""
    return jnp.clip(x, -_FAR, _FAR)


def _gated(x, gate):
    """x ⊙ gate, for a gate that is 0 far below and 1 far above: 0 and x there, for ±∞ too."""
    return jnp.where(x > _FAR, x, _near(x) * gate)


@constructor
def softplus(beta: float = 1.0) -> Layer:
    """Smooth ReLU, y = log(1 + e^(βx)) / β.

    Backward. y′ = 1/β · β e^(βx) / (1 + e^(βx)) = σ(βx), so dx = σ(βx) ⊙ g. Kept: x.

    Raises:
        ConfigError: β is not a positive number.

    References: Dugas, Bengio, Bélisle, Nadeau, Garcia, "Incorporating Second-Order Functional Knowledge", NIPS 2000.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.softplus().apply((), (), jnp.array([-1e4, 1e4]))[0]
    Array([    0., 10000.], dtype=float32)
    """
    beta = positive("beta", beta)
    return elementwise(
        lambda x: jnp.where(beta * x > _FAR, x, jnp.logaddexp(jnp.minimum(beta * x, _FAR), 0) / beta),
        lambda x, y: jax.lax.logistic(beta * x),
        keep="x",
    )


@constructor
def log_sigmoid() -> Layer:
    """Logarithm of the sigmoid, y = log σ(x) = −log(1 + e⁻ˣ), without overflow.

    Backward. y′ = σ′/σ = σ (1 − σ) / σ = 1 − σ(x) = σ(−x), so dx = σ(−x) ⊙ g. Kept: x.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.log_sigmoid().apply((), (), jnp.array([-1e4, 1e4]))[0]
    Array([-10000.,     -0.], dtype=float32)
    """
    return elementwise(lambda x: -jnp.logaddexp(-x, 0), lambda x, y: jax.lax.logistic(-x), keep="x")


@constructor
def gelu(*, approximate: bool = False) -> Layer:
    """Gaussian error linear unit, y = x Φ(x), with Φ the normal distribution function.

    Args:
        approximate: whether to use the tanh form, y = x (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³). Its error
            is at most 5e-4.

    Backward. By the product rule y′ = Φ(x) + x φ(x) with φ(x) = Φ′(x) = e^(−x²/2) / √(2π). The tanh form has y′ = (1 +
    t) / 2 + x (1 − t²) u′ / 2 with t = tanh u and u′ = √(2/π) (1 + 3 · 0.044715 x²). In both forms dx = y′ ⊙ g with g =
    ∂L/∂y. Kept: x.

    References: Hendrycks, Gimpel, "Gaussian Error Linear Units", arXiv 1606.08415.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.gelu().apply((), (), jnp.array([1.0]))[0]
    Array([0.8413447], dtype=float32)
    """
    if approximate:
        return elementwise(_gelu_tanh, _gelu_tanh_derivative, keep="x")
    return elementwise(_gelu, _gelu_derivative, keep="x")


def _normal_cdf(x):
    return 0.5 * erfc(-x * math.sqrt(0.5))  # erfc, not 1 + erf: no cancellation in the lower tail


def _gelu(x):
    return _gated(x, _normal_cdf(x))


def _gelu_derivative(x, y):
    del y
    near = _near(x)
    return _normal_cdf(x) + near * jnp.exp(-0.5 * jnp.square(near)) / math.sqrt(2 * math.pi)


def _gelu_inner(near):
    return math.sqrt(2 / math.pi) * (near + 0.044715 * near**3)


def _gelu_tanh(x):
    return _gated(x, 0.5 * (1 + jnp.tanh(_gelu_inner(_near(x)))))


def _gelu_tanh_derivative(x, y):
    del y
    near = _near(x)
    t = jnp.tanh(_gelu_inner(near))
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * jnp.square(near))
    return 0.5 * (1 + t) + 0.5 * near * (1 - t) * (1 + t) * slope


@constructor
def binary_step(ste: str = "zero") -> Layer:
    """Binary step, y = 1 for x ≥ 0, else 0. It is the unit of the perceptron.

    Args:
        ste: what replaces the derivative, which is 0 everywhere. `"zero"` keeps the 0. `"identity"` is 1 for every
            finite x (straight-through estimator). `"clip"` is 1 for |x| ≤ 1, else 0.

    Backward. dx = d ⊙ g with g = ∂L/∂y and d as chosen. The forward adds s(x) − s(x), where s is the function whose
    derivative is d and the second term is held constant. This adds zero, and autodiff sees d as well. Kept: d.

    Raises:
        ConfigError: `ste` has another value.

    References: Bengio, Léonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.binary_step().apply((), (), jnp.array([-1.0, 0.0, 2.0]))[0]
    Array([0., 1., 1.], dtype=float32)
    """
    check_choice("ste", ste, ("zero", "identity", "clip"))

    def forward(x, *, key, train):
        del key, train
        check_floating("x", x)
        mask = (jnp.abs(x) <= 1) if ste == "clip" else jnp.isfinite(x) & (ste == "identity")
        finite = jnp.where(jnp.isinf(x), 0, x)
        step = jnp.where(x >= 0, 1, jnp.zeros_like(x))
        mask = mask.astype(x.dtype)
        return step + mask * (finite - jax.lax.stop_gradient(finite)), mask

    return parameterless(forward, _scaled, rules=Rules(positionwise=0))
