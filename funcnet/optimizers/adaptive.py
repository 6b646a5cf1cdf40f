"""Optimizers that scale each parameter's step by the size of its own past gradients."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import fraction, nonnegative, spell
from funcnet.optimizers.checks import Mask, check_mask, checked_params
from funcnet.optimizers.slots import descend, rate_at, slot_grads, slots, widen
from funcnet.schedules import as_schedule
from funcnet.trees import map_with_paths
from funcnet.types import Array, Optimizer, Params, Schedule

__all__ = ["AdaGradState", "AdamState", "RMSPropState", "adagrad", "adam", "adamw", "rmsprop"]


class AdaGradState(NamedTuple):
    """The state of `adagrad`."""

    step: Array  #: (), int32, updates done
    params: Params
    accumulator: Params  #: the sum of the squared gradients, like params


def adagrad(learning_rate: float | Schedule, *, initial_accumulator: float = 0.0, epsilon: float = 1e-10) -> Optimizer:
    """AdaGrad: each parameter's rate falls with the gradients it has seen.

    a ← a + g²,   p ← p − η g / (√a + ε)

    Args:
        learning_rate: η, a number or a schedule of the updates already done (`state.step` before the update).
        initial_accumulator: the first a.
        epsilon: ε.

    Raises:
        ConfigError: an argument out of its range.
        DtypeError: params or gradients that are not floating-point arrays, or not of one dtype.
        StructureError: gradients that do not fit the params.

    References: Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
    JMLR 2011.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.adagrad(0.5)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, -0.1])}).params
    {'kernel': Array([0.5, 2.5], dtype=float32)}
    """
    name = spell(adagrad, learning_rate, initial_accumulator=initial_accumulator, epsilon=epsilon)
    schedule = as_schedule(learning_rate, name=name, what="learning_rate")
    initial_accumulator = nonnegative(name, "initial_accumulator", initial_accumulator)
    epsilon = nonnegative(name, "epsilon", epsilon)

    def init(params):
        params = checked_params(name, params)
        return AdaGradState(jnp.zeros((), jnp.int32), params, slots(params, initial_accumulator))

    def update(state, grads):
        grads = slot_grads(name, state, grads)
        accumulator = jax.tree.map(lambda a, g: a + jnp.square(g), state.accumulator, grads)
        direction = jax.tree.map(lambda a, g: g / (jnp.sqrt(a) + epsilon), accumulator, grads)
        params = descend(state.params, rate_at(name, schedule, state.step), direction)
        return AdaGradState(state.step + 1, params, accumulator)

    return Optimizer(init, update)


class RMSPropState(NamedTuple):
    """The state of `rmsprop`."""

    step: Array  #: (), int32, updates done
    params: Params
    nu: Params  #: the running mean of the squared gradient, like params
    mu: Params  #: the running mean of the gradient, like params; `()` unless centred
    velocity: Params  #: the decaying sum of steps, like params; `()` without momentum


def rmsprop(
    learning_rate: float | Schedule,
    *,
    decay: float = 0.99,
    epsilon: float = 1e-8,
    eps_in_sqrt: bool = False,
    centered: bool = False,
    momentum: float = 0.0,
) -> Optimizer:
    """RMSProp: the gradient over the root of its running mean square.

    ν ← ρ ν + (1 − ρ) g²,   d = g / (√ν + ε),   p ← p − η d
    With `centered` the running variance ν − m̄² stands under the root, where m̄ ← ρ m̄ + (1 − ρ) g. With momentum μ
    a velocity gathers the steps: v ← μ v + d, p ← p − η v.

    Args:
        learning_rate: η, a number or a schedule of the updates already done (`state.step` before the update).
        decay: ρ in [0, 1), the weight of the old mean.
        epsilon: ε.
        eps_in_sqrt: d = g / √(ν + ε).
        centered: divide by the standard deviation.
        momentum: μ in [0, 1).

    Raises:
        ConfigError: an argument out of its range.
        DtypeError: params or gradients that are not floating-point arrays, or not of one dtype.
        StructureError: gradients that do not fit the params.

    References: Tieleman, Hinton, "Lecture 6.5: RMSProp", COURSERA 2012; Graves, "Generating Sequences With Recurrent
    Neural Networks", 2013, equations 38 to 41, for the centred form.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.rmsprop(0.5, decay=0.75)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, -0.1])}).params["kernel"].round(6)
    Array([0., 3.], dtype=float32)
    """
    name = spell(
        rmsprop, learning_rate, decay=decay, epsilon=epsilon, eps_in_sqrt=eps_in_sqrt, centered=centered,
        momentum=momentum,
    )  # fmt: skip
    schedule = as_schedule(learning_rate, name=name, what="learning_rate")
    decay = fraction(name, "decay", decay)
    epsilon = nonnegative(name, "epsilon", epsilon)
    momentum = fraction(name, "momentum", momentum)

    def init(params):
        params = checked_params(name, params)
        mu, velocity = slots(params) if centered else (), slots(params) if momentum else ()
        return RMSPropState(jnp.zeros((), jnp.int32), params, slots(params), mu, velocity)

    def scaled(g, v):
        return g / (jnp.sqrt(v + epsilon) if eps_in_sqrt else jnp.sqrt(v) + epsilon)

    def update(state, grads):
        grads = slot_grads(name, state, grads)
        nu = jax.tree.map(lambda v, g: decay * v + (1 - decay) * jnp.square(g), state.nu, grads)
        mu, velocity, variance = (), (), nu
        if centered:
            mu = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, state.mu, grads)
            # Rounding can push the variance of a constant gradient below 0, where the root is NaN.
            variance = jax.tree.map(lambda v, m: jnp.maximum(v - jnp.square(m), 0), nu, mu)
        direction = jax.tree.map(scaled, grads, variance)
        if momentum:
            velocity = direction = jax.tree.map(lambda v, d: momentum * v + d, state.velocity, direction)
        params = descend(state.params, rate_at(name, schedule, state.step), direction)
        return RMSPropState(state.step + 1, params, nu, mu, velocity)

    return Optimizer(init, update)


class AdamState(NamedTuple):
    """The state of `adam` and `adamw`."""

    step: Array  #: (), int32, updates done
    params: Params
    mu: Params  #: the running mean of the gradient, like params
    nu: Params  #: the running mean of the squared gradient, like params


def adam(learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Adam: the running mean of the gradient over the root of its running mean square.

    m ← β₁ m + (1 − β₁) g,   ν ← β₂ ν + (1 − β₂) g²
    m̂ = m / (1 − β₁ᵗ),   ν̂ = ν / (1 − β₂ᵗ),   p ← p − η m̂ / (√ν̂ + ε)
    where t counts the updates with this one: the correction of the bias starts at t = 1, the schedule at 0.

    Args:
        learning_rate: η, a number or a schedule of the updates already done (`state.step` before the update).
        b1, b2: β₁ and β₂ in [0, 1), the weights of the old means.
        epsilon: ε.

    Raises:
        ConfigError: an argument out of its range.
        DtypeError: params or gradients that are not floating-point arrays, or not of one dtype.
        StructureError: gradients that do not fit the params.

    References: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.adam(0.5)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, -0.1])}).params["kernel"].round(6)
    Array([0.5, 2.5], dtype=float32)
    """
    name = spell(adam, learning_rate, b1=b1, b2=b2, epsilon=epsilon)
    return _adam(name, learning_rate, b1, b2, epsilon, lambda path, p, d: d)


def adamw(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 1e-2,
    mask: Mask | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay: p ← p − η (m̂ / (√ν̂ + ε) + λ p), with m̂ and ν̂ as in `adam`.

    The decay takes no part in m and ν, and is multiplied by the rate. For the decay that is part of the gradient see
    `decayed`.

    Args:
        learning_rate, b1, b2, epsilon: as in `adam`.
        weight_decay: λ.
        mask: which parameters decay: a function of a leaf's path, such as `"2/kernel"`; by default all.

    Raises: as `adam`.

    References: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.adamw(0.5, weight_decay=0.1, mask=lambda path: path.endswith("kernel"))
    >>> state = optimizer.init({"bias": jnp.array([2.0]), "kernel": jnp.array([2.0])})
    >>> optimizer.update(state, {"bias": jnp.array([0.0]), "kernel": jnp.array([0.0])}).params
    {'bias': Array([2.], dtype=float32), 'kernel': Array([1.9], dtype=float32)}
    """
    name = spell(adamw, learning_rate, b1=b1, b2=b2, epsilon=epsilon, weight_decay=weight_decay, mask=mask)
    weight_decay = nonnegative(name, "weight_decay", weight_decay)
    if mask is not None:
        check_mask(name, "mask", mask)

    def decay(path, p, d):
        return d + weight_decay * widen(p) if mask is None or mask(path) else d

    return _adam(name, learning_rate, b1, b2, epsilon, decay)


def _adam(name, learning_rate, b1, b2, epsilon, decay):
    """Adam whose direction d goes through `decay(path, p, d)` before the descent."""
    schedule = as_schedule(learning_rate, name=name, what="learning_rate")
    b1, b2 = fraction(name, "b1", b1), fraction(name, "b2", b2)
    epsilon = nonnegative(name, "epsilon", epsilon)

    def init(params):
        params = checked_params(name, params)
        return AdamState(jnp.zeros((), jnp.int32), params, slots(params), slots(params))

    def update(state, grads):
        grads = slot_grads(name, state, grads)
        step = state.step + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        mu_share, nu_share = _gathered(b1, step), _gathered(b2, step)

        def direction(path, p, m, v):
            corrected_mean, corrected_square = m / mu_share.astype(m.dtype), v / nu_share.astype(v.dtype)
            return decay(path, p, corrected_mean / (jnp.sqrt(corrected_square) + epsilon))

        directions = map_with_paths(direction, state.params, mu, nu)
        params = descend(state.params, rate_at(name, schedule, state.step), directions)
        return AdamState(step, params, mu, nu)

    return Optimizer(init, update)


def _gathered(decay, step):
    """1 − βᵗ, the weight of all gradients so far in a mean that began at 0.

    By expm1, because 1 − 0.999 loses three digits in float32; log β is taken in Python, in double precision.
    """
    log_decay = math.log(decay) if decay > 0 else -math.inf
    return -jnp.expm1(log_decay * step.astype(jnp.result_type(float)))
