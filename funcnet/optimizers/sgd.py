"""Stochastic gradient descent, with and without momentum."""

from typing import NamedTuple

import jax.numpy as jnp

from funcnet.checks import fraction
from funcnet.errors import ConfigError
from funcnet.made import constructor
from funcnet.optimizers.checks import Rate
from funcnet.optimizers.descent import descent
from funcnet.types import Array, Optimizer, Params, brief

__all__ = ["SGDState", "sgd"]


class SGDState(NamedTuple):
    """The state of `sgd`."""

    step: Array  #: (), int32, updates done
    params: Params
    velocity: Params  #: the decaying sum of gradients, like params; `()` without momentum
    scale: Array  #: (), a factor of the rate, 1 until `rescaled`

    __repr__ = brief


@constructor
def sgd(learning_rate: Rate, *, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0) -> Optimizer:
    """Stochastic gradient descent.

    With gradient g, rate η, momentum μ and dampening τ:
        plain       p ← p − η g
        momentum    v ← μ v + (1 − τ) g,   p ← p − η v
        Nesterov    v ← μ v + g,           p ← p − η (g + μ v)
    The first velocity is v = g for every τ, as in torch. The rate is outside v, so a schedule acts at once.

    Args:
        learning_rate: η, a number or a schedule of the updates already done (`state.step` before the update).
        momentum: μ in [0, 1); at 0 no velocity is kept.
        nesterov: take the gradient at the point to which the momentum leads.
        dampening: τ in [0, 1), only with momentum.

    Raises:
        ConfigError: an argument out of its range, or Nesterov without momentum or with dampening.
        DtypeError: params that are not floating-point arrays, or a gradient in another dtype than its parameter.
        StructureError: gradients that do not fit the params.

    References: Polyak, "Some Methods of Speeding up the Convergence of Iteration Methods", 1964; Sutskever, Martens,
    Dahl, Hinton, "On the Importance of Initialization and Momentum in Deep Learning", ICML 2013.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.sgd(0.5)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([1.0, -1.0])}).params
    {'kernel': Array([0.5, 2.5], dtype=float32)}
    """
    momentum, dampening = fraction("momentum", momentum), fraction("dampening", dampening)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ConfigError(f"expected momentum > 0 and dampening = 0 for nesterov=True, got {momentum} and {dampening}.")

    def direction(p, g, t, velocity):
        if momentum == 0:
            return g, ()
        velocity = momentum * velocity + jnp.where(t == 1, 1.0, 1 - dampening) * g
        return g + momentum * velocity if nesterov else velocity, velocity

    return descent(SGDState, learning_rate, direction, slots={"velocity": 0.0 if momentum else ()})
