"""Penalties on parameters, added to a loss against over-fitting, each with its hand-derived gradient below it."""

import jax
import jax.numpy as jnp

from funcnet.checks import nonnegative
from funcnet.dtypes import widen
from funcnet.errors import ConfigError
from funcnet.losses.loss import hand_derived
from funcnet.trees import Select, flatten_with_paths, map_with_paths, selector
from funcnet.types import Array, Params

__all__ = ["l1_penalty", "l2_penalty"]


@hand_derived
def l1_penalty(params: Params, strength: float = 1.0, *, select: Select | None = None) -> Array:
    """Lasso penalty, λ Σ |w| over the selected parameters: drives small ones to 0.

    Args:
        params: a tree of arrays.
        strength: λ.
        select: a regular expression that matches the whole path of a leaf that counts, such as `".*kernel"`, or a
            function of the path. By default every floating-point leaf counts.

    Gradient. Each w occurs in one term, so ∂(λ Σ |w|)/∂w = λ sign(w). It is 0 at the kink w = 0 and for leaves that do
    not count.

    Raises:
        ConfigError: λ is negative, or `select` chooses no leaf.

    References: Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> params = {"kernel": jnp.array([-2.0, 0.0]), "bias": jnp.array([1.0])}
    >>> fn.losses.l1_penalty(params, 0.5), fn.losses.l1_penalty.gradient(params, 0.5)["kernel"]
    (Array(1.5, dtype=float32), Array([-0.5,  0. ], dtype=float32))
    """
    return _total(params, strength, select, lambda w: jnp.maximum(w, -w))


@l1_penalty.hand_gradient
def _(params, strength=1.0, *, select=None):
    return _slopes(params, strength, select, lambda strength, w: strength * jnp.sign(w))


@hand_derived
def l2_penalty(params: Params, strength: float = 1.0, *, select: Select | None = None) -> Array:
    """Ridge penalty, λ Σ w² over the selected parameters, without a factor ½: it keeps them small.

    Args: as for `l1_penalty`.

    Gradient. Each w occurs in one term, so ∂(λ Σ w²)/∂w = 2 λ w. It is 0 for leaves that do not count.

    Raises: as `l1_penalty`.

    References: Krogh, Hertz, "A Simple Weight Decay Can Improve Generalization", NIPS 1991.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> params = {"kernel": jnp.array([-2.0, 0.0]), "bias": jnp.array([1.0])}
    >>> kernels = fn.losses.partial(fn.losses.l2_penalty, strength=0.5, select=".*kernel")
    >>> kernels(params), kernels.gradient(params)
    (Array(2., dtype=float32), {'bias': Array([0.], dtype=float32), 'kernel': Array([-2.,  0.], dtype=float32)})
    """
    return _total(params, strength, select, jnp.square)


@l2_penalty.hand_gradient
def _(params, strength=1.0, *, select=None):
    return _slopes(params, strength, select, lambda strength, w: (2 * strength) * w)


def _total(params, strength, select, function):
    """λ Σ function(w), in the common dtype of the leaves that count."""
    strength = nonnegative("strength", strength)
    counts = _selection(params, select)
    leaves = [leaf for path, leaf in flatten_with_paths(params) if counts(path, leaf)]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*(leaf.dtype for leaf in leaves)) if leaves else jnp.float32
        # A long sum of half-precision numbers is kept in float32.
        sums = [jnp.sum(function(widen(leaf))) for leaf in leaves]
        return (strength * sum(sums, jnp.zeros((), dtype))).astype(dtype)


def _slopes(params, strength, select, derivative):
    """derivative(λ, w) for the leaves that count, 0 for the others."""
    strength = nonnegative("strength", strength)
    counts = _selection(params, select)

    def slope(path, leaf):
        # In float32 or wider, and 2 λ first, because 2 w may be infinite where 2 λ w is not.
        return derivative(strength, widen(leaf)).astype(leaf.dtype) if counts(path, leaf) else jnp.zeros_like(leaf)

    return map_with_paths(slope, params)


def _selection(params, select):
    """The predicate (path, leaf) -> bool."""
    chosen = None if select is None else selector("select", select)

    def counts(path, leaf):
        return jnp.issubdtype(leaf.dtype, jnp.floating) and (chosen is None or chosen(path))

    paths = [path for path, leaf in flatten_with_paths(params)]
    if select is not None and not any(counts(path, leaf) for path, leaf in flatten_with_paths(params)):
        raise ConfigError(f"expected select to take a floating-point leaf, got none of {', '.join(paths)}.")
    return counts
