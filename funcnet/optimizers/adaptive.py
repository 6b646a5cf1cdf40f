"""Optimizers that divide each parameter's step by the size of its own past gradients."""

from typing import NamedTuple

import jax.numpy as jnp

from funcnet.checks import fraction, nonnegative
from funcnet.made import constructor
from funcnet.numerics import root
from funcnet.optimizers.checks import Rate
from funcnet.optimizers.descent import descent
from funcnet.types import Array, Optimizer, Params, brief

__all__ = ["AdaGradState", "RMSPropState", "adagrad", "rmsprop"]


class AdaGradState(NamedTuple):
    """The state of `adagrad`."""

    step: Array  #: (), int32, updates done
    params: Params
    accumulator: Params  #: the sum of the squared gradients, like params
    scale: Array  #: (), a factor of the rate, 1 until `rescaled`

    __repr__ = brief


@constructor
def adagrad(learning_rate: Rate, *, initial_accumulator: float = 0.0, epsilon: float = 1e-10) -> Optimizer:
    """AdaGrad: the rate of each parameter falls with the gradients that it has seen.

    a ← a + g²,   p ← p − η g / (√a + ε)

    The square of g must be finite, so |g| below 1.8e19 in float32. Beyond it a is infinite, and the parameter never
    moves again. `guarded` skips such a step.

    Args:
        learning_rate: η, a number or a schedule of the updates already done (`state.step` before the update).
        initial_accumulator: the value of a at the start.
        epsilon: ε.

    Raises:
        ConfigError: an argument out of its range.
        DtypeError: params that are not floating-point arrays, or a gradient in another dtype than its parameter.
        StructureError: gradients that do not fit the params.

    References: Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
    JMLR 2011.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.adagrad(0.5)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, -0.1])}).params
    {'kernel': Array([0.5, 2.5], dtype=float32)}
    """
    initial_accumulator = nonnegative("initial_accumulator", initial_accumulator)
    epsilon = nonnegative("epsilon", epsilon)

    def direction(p, g, t, accumulator):
        accumulator = accumulator + jnp.square(g)
        return g / (root(accumulator) + epsilon), accumulator

    return descent(AdaGradState, learning_rate, direction, slots={"accumulator": initial_accumulator})


class RMSPropState(NamedTuple):
    """The state of `rmsprop`."""

    step: Array  #: (), int32, updates done
    params: Params
    nu: Params  #: the running mean of the squared gradient, like params
    mu: Params  #: the running mean of the gradient, like params; `()` unless centred
    velocity: Params  #: the decaying sum of steps, like params; `()` without momentum
    scale: Array  #: (), a factor of the rate, 1 until `rescaled`

    __repr__ = brief


@constructor
def rmsprop(
    learning_rate: Rate,
    *,
    decay: float = 0.99,
    epsilon: float = 1e-8,
    eps_in_sqrt: bool = False,
    centered: bool = False,
    momentum: float = 0.0,
) -> Optimizer:
    """RMSProp: the gradient, divided by the root of its running mean square.

    ν ← ρ ν + (1 − ρ) g²,   d = g / (√ν + ε),   p ← p − η d
    With `centered` the root is of the running variance ν − m̄², where m̄ ← ρ m̄ + (1 − ρ) g. With momentum μ a velocity
    collects the steps: v ← μ v + d, p ← p − η v. As for `adam`, the square of g must be finite.

    Args:
        learning_rate: η, a number or a schedule of the updates already done (`state.step` before the update).
        decay: ρ in [0, 1), the weight of the old mean.
        epsilon: ε.
        eps_in_sqrt: d = g / √(ν + ε).
        centered: divide by the standard deviation.
        momentum: μ in [0, 1).

    Raises:
        ConfigError: an argument out of its range.
        DtypeError: params that are not floating-point arrays, or a gradient in another dtype than its parameter.
        StructureError: gradients that do not fit the params.

    References: Tieleman, Hinton, "Lecture 6.5: RMSProp", COURSERA 2012; Graves, "Generating Sequences With Recurrent
    Neural Networks", 2013, equations 38 to 41, for the centred form.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.rmsprop(0.5, decay=0.75)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, -0.1])}).params["kernel"].round(6)
    Array([0., 3.], dtype=float32)
    """
    decay, momentum = fraction("decay", decay), fraction("momentum", momentum)
    epsilon = nonnegative("epsilon", epsilon)

    def direction(p, g, t, nu, mu, velocity):
        variance = nu = decay * nu + (1 - decay) * jnp.square(g)
        if centered:
            mu = decay * mu + (1 - decay) * g
            # Rounding can push the variance of a constant gradient below 0, where the root is NaN.
            variance = jnp.maximum(nu - jnp.square(mu), 0)
        d = g / (root(variance + epsilon) if eps_in_sqrt else root(variance) + epsilon)
        if momentum:
            d = velocity = momentum * velocity + d
        return d, nu, mu, velocity

    slots = {"nu": 0.0, "mu": 0.0 if centered else (), "velocity": 0.0 if momentum else ()}
    return descent(RMSPropState, learning_rate, direction, slots=slots)
