"""Measures, oracles and compiler options that the tests share."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from funcnet.compiler import quick_options

#: For programs that run once: compiling them well would take longer than it saves.
quick_jit = partial(jax.jit, compiler_options=quick_options())

USUAL = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", ""):  # conftest.py has seen that XLA knows it
    USUAL["xla_cpu_use_fusion_emitters"] = True
#: As users compile, whatever conftest.py has chosen for all other programs.
usual_jit = partial(jax.jit, compiler_options=USUAL)


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
    got, want = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (got, want))
    return float(np.max(np.abs(got - want) / np.maximum(np.abs(want), floor), initial=0.0))


def richardson(function, tree, step=1e-3):
    """The gradient of a scalar function by central differences, Richardson-extrapolated: all elements, float64.

    D(h) has the error c h² + O(h⁴), so (4 D(h/2) − D(h)) / 3 has O(h⁴). All shifted points are one program.
    """

    @quick_jit  # all of it, because each operation by itself would be compiled too
    def gradient(tree):
        flat, unravel = ravel_pytree(tree)
        assert flat.dtype == jnp.float64
        shifts = np.multiply.outer([step, -step, step / 2, -step / 2], np.eye(flat.size)).reshape(-1, flat.size)
        values = jax.lax.map(lambda point: function(unravel(point)), flat + shifts)
        plus, minus, half_plus, half_minus = values.reshape(4, -1)
        return unravel((4 * (half_plus - half_minus) / step - (plus - minus) / (2 * step)) / 3)

    return gradient(tree)
