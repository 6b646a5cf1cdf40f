"""The restricted Boltzmann machine: pure functions of its parameters, with the gradient of the free energy below it.

In this file v (batch, visible) are the visible units and h (batch, hidden) the hidden ones. W, b and c are the leaves
`kernel`, `visible_bias` and `hidden_bias`, and a = c + v W is the input of the hidden units. Units of one kind are not
connected. So, given one kind, the units of the other are independent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import check_choice, check_count, check_floating, check_key, check_shape, check_values
from funcnet.errors import DataError
from funcnet.initializers import Initializer, normal, zeros
from funcnet.layers.checks import check_leaves
from funcnet.made import Made, constructor, own_call
from funcnet.types import Array, Key, Params, State

__all__ = ["RBM", "rbm"]


class RBM(NamedTuple):
    """What `rbm` makes: pure functions, which check shapes, dtypes and the range of binary units.

    It prints as the call that made it.
    """

    init: Callable[[Key, Any], tuple[Params, State]]  #: (key, v) -> params, and the chains or `()`
    energy: Callable[[Params, Any, Any], Array]  #: (params, v, h) -> (batch,)
    free_energy: Callable[[Params, Any], Array]  #: (params, v) -> (batch,)
    free_energy_gradient: Callable[[Params, Any, Any], Params]  #: (params, v, weights) -> Σ_n weights_n ∂F(v_n)/∂params
    hidden: Callable[[Params, Any], Array]  #: (params, v) -> p(h = 1 | v)
    visible: Callable[[Params, Any], Array]  #: (params, h) -> the mean of v given h
    sample_hidden: Callable[[Key, Params, Any], Array]  #: (key, params, v) -> h of zeros and ones
    sample_visible: Callable[[Key, Params, Any], Array]  #: (key, params, h) -> v
    kind: str  #: of the visible units, "binary" or "gaussian"
    made: Made = own_call("rbm")  #: the call that made it

    def __repr__(self) -> str:
        return str(self.made)


@constructor
def rbm(
    hidden: int, *, visible: str = "binary", chains: int = 0, kernel_init: Initializer = normal(0.01)
) -> RBM:  # fmt: skip
    """Restricted Boltzmann machine, p(v, h) ∝ e^(−E(v, h)), whose hidden units are 0 or 1.

    Binary visible units are for numbers in [0, 1], which count as probabilities:
        E(v, h) = −v·b − h·c − v W h,     p(v_i = 1 | h) = σ(b_i + (W h)_i).
    Gaussian visible units, of variance 1, are for standardised numbers:
        E(v, h) = ½ ‖v − b‖² − h·c − v W h,     v | h ~ N(b + W h, 1).
    Both have p(h_j = 1 | v) = σ(a_j), a = c + v W. The sum over each h_j ∈ {0, 1} gives the free energy,
    F(v) = −log Σ_h e^(−E(v, h)), with p(v) ∝ e^(−F(v)):
        binary     F(v) = −v·b − Σ_j softplus(a_j)
        Gaussian   F(v) = ½ ‖v − b‖² − Σ_j softplus(a_j)

    Args:
        hidden: number of hidden units.
        visible: `"binary"` or `"gaussian"`.
        chains: number of Markov chains that the state keeps from one batch to the next, for persistent contrastive
            divergence. With 0 there are none, and the state is `()`.
        kernel_init: `(key, shape, dtype) -> array`; the biases start at 0.

    Params: `kernel` (visible, hidden), `visible_bias` (visible,), `hidden_bias` (hidden,), in the dtype of v.

    Gradient of F. softplus′ = σ and ∂a_j/∂W_ij = v_i, so with p = σ(a)
        ∂F/∂W = −v ⊗ p,   ∂F/∂c = −p,   ∂F/∂b = −v (binary) or b − v (Gaussian).

    Raises:
        ConfigError: `hidden` is not a positive integer, `chains` is not an integer >= 0, or another `visible`.
        DtypeError, ShapeError: when called, for arrays of another dtype or width.
        DataError: when called, for binary units outside [0, 1].

    References: Smolensky, "Information Processing in Dynamical Systems", 1986; Hinton, "A Practical Guide to Training
    Restricted Boltzmann Machines", 2010, sections 2 and 13.2.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> machine = fn.pretraining.rbm(3)
    >>> v = jnp.ones((1, 2))
    >>> params, state = machine.init(jax.random.key(0), v)
    >>> params = jax.tree.map(jnp.zeros_like, params)
    >>> machine.free_energy(params, v)  # −3 log 2
    Array([-2.0794415], dtype=float32)
    >>> machine.free_energy_gradient(params, v, jnp.ones(1))["kernel"]
    Array([[-0.5, -0.5, -0.5],
           [-0.5, -0.5, -0.5]], dtype=float32)
    """
    hidden = check_count("hidden", hidden)
    chains = check_count("chains", chains, 0)
    check_choice("visible", visible, ("binary", "gaussian"))
    binary = visible == "binary"

    def init(key, v):
        check_key(key)
        v = _checked_units("v", v, None)
        _check_range(v, binary)
        kernel_key, chain_key = jax.random.split(key)
        params = {
            "kernel": kernel_init(kernel_key, (v.shape[1], hidden), v.dtype),
            "visible_bias": zeros(key, (v.shape[1],), v.dtype),
            "hidden_bias": zeros(key, (hidden,), v.dtype),
        }
        return params, sample_visible(chain_key, params, jnp.zeros((chains, hidden), v.dtype)) if chains else ()

    def energy(params, v, h):
        v, h = visible_units(params, v), hidden_units(params, h)
        return own_energy(params, v) - h @ params["hidden_bias"] - jnp.sum((v @ params["kernel"]) * h, 1)

    def free_energy(params, v):
        v = visible_units(params, v)
        return own_energy(params, v) - jnp.sum(jnp.logaddexp(entering(params, v), 0), 1)

    def free_energy_gradient(params, v, weights):
        v = visible_units(params, v)
        p, weights = jax.lax.logistic(entering(params, v)), jnp.asarray(weights, v.dtype)
        return {
            "kernel": -(v * weights[:, None]).T @ p,
            "visible_bias": weights @ (-v if binary else params["visible_bias"] - v),
            "hidden_bias": -weights @ p,
        }

    def hidden_probability(params, v):
        return jax.lax.logistic(entering(params, visible_units(params, v)))

    def visible_mean(params, h):
        z = params["visible_bias"] + hidden_units(params, h) @ params["kernel"].T
        return jax.lax.logistic(z) if binary else z

    def sample_hidden(key, params, v):
        return _draw(key, hidden_probability(params, v))

    def sample_visible(key, params, h):
        mean = visible_mean(params, h)
        return _draw(key, mean) if binary else mean + jax.random.normal(key, mean.shape, mean.dtype)

    def entering(params, v):
        return params["hidden_bias"] + v @ params["kernel"]

    def own_energy(params, v):
        return -(v @ params["visible_bias"]) if binary else 0.5 * jnp.square(v - params["visible_bias"]).sum(1)

    def visible_units(params, v):
        v = _checked_units("v", v, _width(params))
        check_leaves("params", params, v, leaves_for(v, v.shape[1]))
        _check_range(v, binary)
        return v

    def hidden_units(params, h):
        h = _checked_units("h", h, hidden)
        check_leaves("params", params, h, leaves_for(h, _width(params)))
        return h

    def leaves_for(units, width):
        shapes = {"kernel": (width, hidden), "visible_bias": (width,), "hidden_bias": (hidden,)}
        return {leaf: jax.ShapeDtypeStruct(shape, units.dtype) for leaf, shape in shapes.items()}

    return RBM(
        init, energy, free_energy, free_energy_gradient, hidden_probability, visible_mean, sample_hidden,
        sample_visible, visible,
    )  # fmt: skip


def _draw(key, p):
    """1 with probability p, else 0."""
    return (jax.random.uniform(key, p.shape, p.dtype) < p).astype(p.dtype)


def _width(params):
    """The number of visible units of the params; `None` for anything else, which `check_leaves` refuses."""
    kernel = params.get("kernel") if isinstance(params, dict) else None
    return kernel.shape[0] if kernel is not None and kernel.ndim else None


def _checked_units(what: str, x: Any, width: int | None) -> Any:
    """Units of one kind, (batch, width) of a floating dtype. A `width` of `None` allows any width."""
    check_floating(what, x, "convert it with jnp.asarray(…, jnp.float32)")
    fix = "reshape images to rows, and take params from init of this very machine"
    check_shape(what, x, f"(batch, {'visible' if width is None else width})", fix)
    return x if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x)


def _check_range(v, binary):
    """Check that binary units are probabilities. Within a compiled program their values are not known."""
    if binary:
        fix = 'scale it, or use visible="gaussian" with standardised numbers'
        check_values(DataError, "v of binary units in [0, 1]", v, None, lambda v: (v >= 0) & (v <= 1), fix)
