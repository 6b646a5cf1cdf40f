"""Whether the gradient of a batch is the mean of the gradients of its parts.

If so, devices may compute parts by themselves, and one sum over them makes the whole. It is not so if rows influence
each other: in the statistics of a batch norm, in dropout (whose draws depend on the shape of the batch), or in a loss
such as the root of a mean.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from funcnet.dtypes import at_least_float32, is_key
from funcnet.gradients.accumulation import parts_of
from funcnet.trees import apart, map_rows, together
from funcnet.types import Batch, GradientFn, Key, Params, State

__all__ = ["mean_over_rows"]

ROWS = 6  #: of the batch for the test
CUTS = 3  #: ways in which the batch is cut into halves
TOLERANCE = 1e-3  #: relative to a leaf's largest number; rows that influence each other make differences of about 1


def mean_over_rows(gradient: GradientFn, params: Params, state: State, batch: Batch, key: Key | None = None, /) -> bool:
    """Whether the gradient of every batch is the mean of its parts' gradients, weighted by their rows.

    There must be no state, and the compiled program must not read the key. Two things are tested: the loss is a mean,
    and no row influences another. The test takes a few random rows, and random parameters of the given shapes. The rows
    are cut into halves in three ways. Loss and gradient of the whole must be the weighted means of those of the halves,
    and the predictions must be the same. Functions that mix rows differ there, unless they differ only for special
    numbers.

    The test compiles two small programs of the gradient, and runs them on one device.

    Args: those of `gradient`. Only shapes and dtypes are read, so tracers will do.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> model, batch = fn.layers.dense(1), (jnp.zeros((8, 3)), jnp.zeros((8, 1)))
    >>> params = {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}
    >>> for loss in (fn.losses.mean_squared_error, fn.losses.root_mean_squared_error):
    ...     fn.parallel.mean_over_rows(fn.gradients.autodiff(model, loss), params, (), batch)
    True
    False
    """
    if jax.tree.leaves(state):
        return False
    try:
        return not _reads_key(gradient, params, state, batch, key) and _is_mean(gradient, params, state, batch, key)
    except Exception:
        # Random numbers, or so few rows, do not suit every function. What cannot be tested counts as not a mean.
        return False


def _reads_key(gradient, params, state, batch, key):
    """Whether anything that is computed depends on the key."""
    if key is None:
        return False
    program = jax.make_jaxpr(gradient)(*_shapes((params, state, batch, key))).jaxpr
    _, used = dce_jaxpr(program, [True] * len(program.outvars))
    return used[-1]


def _shapes(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _is_mean(gradient, params, state, batch, key):
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: _normal(random, leaf.shape, leaf.dtype), params)
    batch = _some_rows(random, batch)
    parts = parts_of(gradient)

    @jax.jit
    def of_rows(params, batch, share):
        """What some rows add to the whole: their share, if the gradient gives it, else their weighted mean."""
        one = None if key is None else _some_key(key)
        computed = (gradient if parts is None else parts.share(share))(params, state, batch, one)
        scale = share if parts is None else 1
        added = jax.tree.map(lambda leaf: scale * leaf, (computed.loss, computed.grads))
        return added, apart(computed.prediction)[0]

    def run(rows):
        share = _count(batch, rows) / _count(batch, everything) if parts is None else totals
        return jax.device_get(of_rows(params, map_rows(lambda leaf: leaf[rows], batch), share))

    def is_sum_of(halves):
        added, predictions = zip(*map(run, halves), strict=True)
        total = jax.tree.map(lambda *leaves: np.sum(leaves, 0), *added)
        alike = jax.tree.map(lambda leaf: leaf[halves], prediction)
        return _close(total, whole) and _close(jax.tree.map(lambda *leaves: np.stack(leaves), *predictions), alike)

    with jax.ensure_compile_time_eval():
        everything = np.arange(ROWS)
        totals = None if parts is None else parts.totals(params, state, batch, key)
        whole, prediction = run(everything)
        return all(is_sum_of(random.permutation(ROWS).reshape(2, -1)) for _ in range(CUTS))


def _some_rows(random, batch):
    """Random rows like those of the batch: normal x; targets in [0, 1), as probabilities are; labels 0 and 1."""
    x, *others = batch

    def rows(draw):
        return lambda leaf: draw(random, (ROWS, *leaf.shape[1:]), leaf.dtype)

    (x, shared), others = apart(x), apart(others)[0]
    shared = jax.tree.map(lambda leaf: _normal(random, leaf.shape, leaf.dtype), shared)
    return together(jax.tree.map(rows(_normal), x), shared), *jax.tree.map(rows(_uniform), others)


def _normal(random, shape, dtype):
    if not jnp.issubdtype(dtype, jnp.inexact):
        return random.integers(0, 2, shape).astype(dtype)
    # As large as an initializer would make a kernel, so that nothing saturates.
    return (random.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(at_least_float32(dtype))


def _uniform(random, shape, dtype):
    if not jnp.issubdtype(dtype, jnp.inexact):
        return random.integers(0, 2, shape).astype(dtype)
    return random.random(shape).astype(at_least_float32(dtype))


def _some_key(key):
    return jax.random.key(0, impl=jax.random.key_impl(key)) if is_key(key) else jnp.zeros(key.shape, key.dtype)


def _count(batch, rows):
    """How many of the values of which the loss is a mean are in some rows."""
    return batch[2][rows].sum() if len(batch) > 2 and batch[2] is not None else len(rows)


def _close(got, expected):
    def close(got, expected):  # NaN is not close
        return bool(np.all(np.abs(got - expected) <= TOLERANCE * np.max(np.abs(expected), initial=0)))

    return all(jax.tree.leaves(jax.tree.map(close, got, expected)))
