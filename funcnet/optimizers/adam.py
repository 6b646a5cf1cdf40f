"""Adam and its variants: the running mean of the gradient, divided by the root of its running mean square."""

import math
from typing import NamedTuple

import jax.numpy as jnp

from funcnet.checks import fraction, nonnegative
from funcnet.made import constructor
from funcnet.numerics import root
from funcnet.optimizers.checks import Rate
from funcnet.optimizers.descent import descent
from funcnet.trees import Select
from funcnet.types import Array, Optimizer, Params, brief

__all__ = ["AdamState", "adam", "adamw", "nadam"]


class AdamState(NamedTuple):
    """The state of `adam`, `adamw` and `nadam`."""

    step: Array  #: (), int32, updates done
    params: Params
    mu: Params  #: the running mean of the gradient, like params
    nu: Params  #: the running mean of the squared gradient, like params
    nu_max: Params  #: the largest `nu` so far, like params; `()` without `amsgrad`
    product: Params  #: the product of the momenta so far, () for each leaf; `()` except for `nadam`
    scale: Array  #: (), a factor of the rate, 1 until `rescaled`

    __repr__ = brief


@constructor
def adam(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8, amsgrad: bool = False
) -> Optimizer:
    """Adam: the running mean of the gradient, divided by the root of its running mean square.

    m ← β₁ m + (1 − β₁) g,   ν ← β₂ ν + (1 − β₂) g²
    m̂ = m / (1 − β₁ᵗ),   ν̂ = ν / (1 − β₂ᵗ),   p ← p − η m̂ / (√ν̂ + ε)
    where t counts the updates including this one. The bias correction starts at t = 1, the schedule at 0. With
    `amsgrad` the largest ν so far takes the place of ν in ν̂, so that the rate of a parameter never grows again.

    The square of g must be finite, so |g| below 1.8e19 in float32. Beyond it ν is infinite, and the parameter never
    moves again. `guarded` skips such a step.

    Args:
        learning_rate: η, a number or a schedule of the updates already done (`state.step` before the update).
        b1, b2: β₁ and β₂ in [0, 1), the weights of the old means.
        epsilon: ε.
        amsgrad: divide by the root of the largest mean square. As in torch, the maximum is taken before the bias
            correction.

    Raises:
        ConfigError: an argument out of its range.
        DtypeError: params that are not floating-point arrays, or a gradient in another dtype than its parameter.
        StructureError: gradients that do not fit the params.

    References: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1;
    Reddi, Kale, Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, algorithm 2, for AMSGrad.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.adam(0.5)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, -0.1])}).params["kernel"].round(6)
    Array([0.5, 2.5], dtype=float32)
    """
    return _adam(learning_rate, b1, b2, epsilon, amsgrad)


@constructor
def adamw(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    amsgrad: bool = False,
    weight_decay: float = 1e-2,
    mask: Select | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay: p ← p − η (m̂ / (√ν̂ + ε) + λ p), with m̂ and ν̂ as in `adam`.

    The decay does not enter m and ν, and it is multiplied by the rate. For decay as part of the gradient see `decayed`.

    Args:
        learning_rate, b1, b2, epsilon, amsgrad: as in `adam`.
        weight_decay: λ.
        mask: which parameters decay: a regular expression that matches the whole path of a leaf, such as
            `".*kernel"`, or a function of the path; by default all.

    Raises: as `adam`.

    References: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.adamw(0.5, weight_decay=0.1, mask=lambda path: path.endswith("kernel"))
    >>> state = optimizer.init({"bias": jnp.array([2.0]), "kernel": jnp.array([2.0])})
    >>> optimizer.update(state, {"bias": jnp.array([0.0]), "kernel": jnp.array([0.0])}).params
    {'bias': Array([2.], dtype=float32), 'kernel': Array([1.9], dtype=float32)}
    """
    return _adam(learning_rate, b1, b2, epsilon, amsgrad, weight_decay=weight_decay, mask=mask)


def _adam(learning_rate, b1, b2, epsilon, amsgrad, **decay):
    b1, b2, epsilon = fraction("b1", b1), fraction("b2", b2), nonnegative("epsilon", epsilon)

    def direction(p, g, t, mu, nu, nu_max):
        mu, nu = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * jnp.square(g)
        largest = jnp.maximum(nu_max, nu) if amsgrad else nu
        d = mu / _gathered(b1, t) / (root(largest / _gathered(b2, t)) + epsilon)
        return d, mu, nu, largest if amsgrad else ()

    slots = {"mu": 0.0, "nu": 0.0, "nu_max": 0.0 if amsgrad else ()}
    return descent(AdamState, learning_rate, direction, slots=slots, **decay)


@constructor
def nadam(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8, momentum_decay: float = 4e-3
) -> Optimizer:
    """NAdam: Adam with Nesterov's momentum, which looks one update ahead.

    With m and ν of `adam`, the momentum μ(t) = β₁ (1 − ½ · 0.96^(t ψ)) of update t, and π = μ(1) μ(2) … μ(t):
    m̂ = μ(t + 1) m / (1 − π μ(t + 1)) + (1 − μ(t)) g / (1 − π),   p ← p − η m̂ / (√ν̂ + ε)

    Args:
        learning_rate, b1, b2, epsilon: as in `adam`.
        momentum_decay: ψ ≥ 0, how fast the momentum goes from about β₁ / 2 to β₁.

    Raises: as `adam`.

    References: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016, algorithm 2 with the schedule of
    its section 3; as in torch.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.nadam(0.1)
    >>> state = optimizer.init({"kernel": jnp.array([1.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([0.5])}).params["kernel"].round(4)
    Array([0.8944], dtype=float32)
    """
    b1, b2, epsilon = fraction("b1", b1), fraction("b2", b2), nonnegative("epsilon", epsilon)
    momentum_decay = nonnegative("momentum_decay", momentum_decay)

    def direction(p, g, t, mu, nu, product):
        now, ahead = (b1 * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in (t, t + 1))
        mu, nu, product = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * jnp.square(g), now * product
        mean = ahead / (1 - ahead * product) * mu + (1 - now) / (1 - product) * g
        return mean / (root(nu / _gathered(b2, t)) + epsilon), mu, nu, product

    return descent(AdamState, learning_rate, direction, slots={"mu": 0, "nu": 0, "product": lambda p: p.dtype.type(1)})


def _gathered(decay, t):
    """1 − βᵗ, the weight of all gradients so far in a mean that began at 0.

    It uses expm1, because 1 − 0.999 loses three digits in float32. Python computes log β, in double precision.
    """
    return -jnp.expm1((math.log(decay) if decay > 0 else -math.inf) * t)
