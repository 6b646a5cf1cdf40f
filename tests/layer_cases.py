"""The rows of the catalogue that the laws of layers go through, and numbers to look at them with."""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from numerics import quick_jit

from funcnet.catalogue import LAYERS, MODELS, TREES
from funcnet.trees import map_leaves
from funcnet.types import Padded

#: Those whose input and output are one array; the large models are in test_models.py.
ARRAYS = LAYERS | MODELS
CASES = ARRAYS | TREES
#: Those whose backward is a derivative, which finite differences and the second order need.
SMOOTH = {name: case for name, case in CASES.items() if not case.straight_through}


def in_modes(cases):
    """`name-mode` -> (case, train), in evaluation only where that differs from training.

    What has no flag for it computes the same in both modes, which a law holds.
    """
    return {f"{name}-training": (case, True) for name, case in cases.items()} | {
        f"{name}-evaluation": (case, False) for name, case in cases.items() if case.random or case.counts
    }


def draw(case, seed=0, batch=3, width=2, dtype=jnp.float64):
    """`(params, state, x, key)`: random parameters (no zeros, which hide mistakes) and an input off the kink."""
    return _drawn(case, seed, batch, width, dtype, jax.config.jax_enable_x64)


@lru_cache(maxsize=512)  # most laws look at the same draw
def _drawn(case, seed, batch, width, dtype, x64):
    random, key = np.random.default_rng(seed), jax.random.key(seed)  # NumPy's numbers need no program to be compiled
    x = map_leaves(lambda leaf: drawn_like(random, leaf, case.kink), case.example(batch, width, dtype))
    params, state = jax.eval_shape(case.layer.init, key, x)
    if jax.tree.leaves(state):
        state = quick_jit(lambda key: case.layer.init(key, x)[1])(key)
    params = jax.tree.map(lambda leaf: as_array(random.normal(size=leaf.shape) / fan_in(leaf) ** 0.5, dtype), params)
    return params, state, x, jax.random.fold_in(key, 1)


def drawn_like(random, leaf, kink=False):
    """Normal numbers for a floating shape, 0 and 1 for integers, and lengths from 1 to all for what is padded."""
    if isinstance(leaf, Padded):
        *rows, time = leaf.where.shape
        lengths = random.integers(1, time + 1, rows)
        return Padded(drawn_like(random, leaf.values, kink), jax.device_put(np.arange(time) < lengths[..., None]))
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return as_array(random.integers(0, 2, leaf.shape), leaf.dtype)
    x = random.normal(size=leaf.shape)
    return as_array(x + 0.1 * np.where(x >= 0, 1, -1) if kink else x, leaf.dtype)


def as_array(numbers, dtype):
    """NumPy's numbers in another dtype, without the program for each shape that `jnp.asarray` compiles."""
    return jax.device_put(np.asarray(numbers).astype(dtype))


def fan_in(leaf):
    """How many numbers meet in one of a kernel's outputs; 1 of a bias."""
    return max(1, math.prod(leaf.shape[:-1]))


def draw_shapes(case, dtype):
    """The shapes and dtypes of a draw, without one."""
    key, x = jax.eval_shape(jax.random.key, 0), case.example(3, 2, dtype)
    params, state = jax.eval_shape(case.layer.init, key, x)
    if case in TREES.values():  # below integers the parameters are of the default dtype
        params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), params)
    return params, state, x, key
