"""Measures and oracles that the tests share."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree


def norm_relative(got, want):
    """‖got − want‖ / ‖want‖, and 0 for two zeros."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    difference, scale = np.linalg.norm(got - want), np.linalg.norm(want)
    return 0.0 if difference == 0 else difference / scale if scale else np.inf


def worst_leaf(got, want):
    """The largest `norm_relative` of two trees, leaf by leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    return max(map(norm_relative, jax.tree.leaves(got), jax.tree.leaves(want)), default=0.0)


def worst_element(got, want, floor=1e-3):
    """max |got − want| / |want| over all elements of two trees, with |want| at least `floor`."""
    (got, _), (want, _) = ravel_pytree(got), ravel_pytree(want)
    return float(jnp.max(jnp.abs(got - want) / jnp.maximum(jnp.abs(want), floor), initial=0.0))


def richardson(function, tree, step=1e-3):
    """The gradient of a scalar function by central differences, Richardson-extrapolated: all elements, float64.

    D(h) has the error c h² + O(h⁴), so (4 D(h/2) − D(h)) / 3 has O(h⁴).
    """
    flat, unravel = ravel_pytree(tree)
    assert flat.dtype == jnp.float64

    @jax.jit
    def differences(flat):
        basis = jnp.eye(flat.size)

        def central(h):
            plus, minus = (jax.lax.map(lambda e, s=s: function(unravel(flat + s * h * e)), basis) for s in (1, -1))
            return (plus - minus) / (2 * h)

        return (4 * central(step / 2) - central(step)) / 3

    return unravel(differences(flat))
