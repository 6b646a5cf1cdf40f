"""`repeat`, whose layers share one compiled body, and `recompute`, whose forward runs again in the backward."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_count
from funcnet.errors import ShapeError, StructureError
from funcnet.layers.checks import describe_tree
from funcnet.layers.containers.container import around, placed
from funcnet.layers.layer import cell as make_cell
from funcnet.made import constructor
from funcnet.trees import filled, keep_shape, map_leaves, shapes
from funcnet.types import Layer, Rules

__all__ = ["recompute", "repeat"]


@constructor
def repeat(inner: Layer, n: int) -> Layer:
    """`inner` applied `n` times in a row, each time with parameters of its own, y = f(p_n, … f(p_1, x)).

    Params and state are those of `inner` with a leading axis of length `n`. The layers run in one `jax.lax.scan`,
    so the compile time does not grow with `n`.

    Backward. As for `serial`. With x_i the input of application i and r_i its residuals,
        (∂L/∂p_i, ∂L/∂x_i) = backward(p_i, r_i, ∂L/∂x_{i+1}),
    which is a scan over the stacked residuals in reverse. Its carry is ∂L/∂x. Kept: the stacked residuals.

    Raises:
        ConfigError: `n` is not a positive integer.
        ShapeError: `inner` changes the shape or dtype of its input.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> deep = fn.layers.repeat(fn.layers.serial(fn.layers.dense(3), fn.layers.tanh()), 50)
    >>> params, state = deep.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> params[0]["kernel"].shape
    (50, 3, 3)
    """
    run, n = placed(inner), check_count("n", n)

    def init(key, x):
        params, state = jax.vmap(lambda subkey: run.init(subkey, x))(jax.random.split(key, n))
        y = jax.eval_shape(run.apply, *jax.tree.map(_one_of, (params, state)), x, key=key)[0]
        if y != shapes(x):
            got = f"{_words(x)} -> {_words(y)}; each output is the next one's input"
            raise ShapeError(f"expected {inner} to keep shape and dtype, got {got}.")
        return params, state

    def looped(method, params, state, x, key, train):
        """One loop for `apply` and `forward`: y, and the other results, stacked."""
        _check_stack(params, state, n)

        def step(x, entry):
            own, state, subkey = entry
            y, *rest = method(own, state, x, key=subkey, train=train)
            return y, rest

        subkeys = None if key is None else jax.random.split(key, n)
        y, rest = jax.lax.scan(step, x, (params, state, subkeys), length=n)
        return y, *rest

    def apply(params, state, x, *, key=None, train=False):
        return looped(run.apply, params, state, x, key, train)

    def forward(params, state, x, *, key=None, train=False):
        y, new_state, residuals = looped(run.forward, params, state, x, key, train)
        kept = map_leaves(keep_shape, y)
        return y, new_state, (residuals, kept)

    def backward(params, residuals, dy):
        residuals, like = residuals

        def step(dy, entry):
            own, inner_residuals = entry
            dparams, dx = run.backward(own, inner_residuals, dy)
            return filled(like, dx), dparams

        dx, dparams = jax.lax.scan(step, filled(like, dy), (params, residuals), length=n, reverse=True)
        return dparams, dx

    return around("repeat", inner, init, apply, forward, backward, rules=Rules(cell=_repeated(inner.rules.cell, n)))


def _repeated(cell: Any, n: int) -> Layer | None:
    """The cells of a repeated layer, one after the other. They carry what one cell carries, with an axis for the cells.

    In the carry this axis is the second one, after that of the rows.
    """
    if cell is None:
        return None

    def init(key, x):
        return jax.vmap(lambda subkey: cell.init(subkey, (None, x[1])))(jax.random.split(key, n))

    def start(params, state, x, length):
        first = jax.tree.map(lambda leaf: leaf[0], (params, state))
        carry = cell.rules.start(*first, x, length)
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * n, min(1, leaf.ndim)), carry)

    def forward(params, state, x, *, key=None, train=False):
        def step(x, entry):
            own, state, carry, subkey = entry
            (carry, y), *rest = cell.forward(own, state, (carry, x), key=subkey, train=train)
            return y, (carry, *rest)

        carries, x = x
        subkeys = None if key is None else jax.random.split(key, n)
        entries = (params, state, _cells_first(carries), subkeys)
        y, (carries, new_state, residuals) = jax.lax.scan(step, x, entries, length=n)
        return (_rows_first(carries), y), new_state, residuals

    def backward(params, residuals, dy):
        def step(dy, entry):
            own, inner_residuals, dcarry = entry
            dparams, (dcarry, dx) = cell.backward(own, inner_residuals, (dcarry, dy))
            return dx, (dparams, dcarry)

        dcarries, dy = dy
        entries = (params, residuals, _cells_first(dcarries))
        dx, (dparams, dcarries) = jax.lax.scan(step, dy, entries, length=n, reverse=True)
        return dparams, (_rows_first(dcarries), dx)

    return make_cell(forward, backward, init, start)


def _cells_first(carries: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, min(1, leaf.ndim - 1), 0), carries)


def _rows_first(carries: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, min(1, leaf.ndim - 1)), carries)


@constructor
def recompute(inner: Layer) -> Layer:
    """`inner` with less memory and more time: only its input is kept, and the backward runs the forward again.

    The result is that of `inner`. `apply` runs under `jax.checkpoint`, so autodiff keeps no more than the input either.
    On a CPU this saves memory only inside loops, such as `repeat`. Outside of loops XLA's compiler for CPUs merges the
    second forward with the first.

    Backward. The residuals are a function of what is kept, so (dW, dx) = backward(W, residuals(W, x), g).
    Kept: x, the state before, the key, and the mode.

    References: Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> thrifty = fn.layers.recompute(fn.layers.serial(fn.layers.dense(64), fn.layers.tanh()))
    >>> params, state = thrifty.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> y, state, residuals = thrifty.forward(params, state, jnp.ones((5, 3)))
    >>> fn.trees.total_size(residuals)
    15
    """
    run = placed(inner)

    def apply(params, state, x, *, key=None, train=False):
        def checkpointed(params, state, x, key):
            return run.apply(params, state, x, key=key, train=train)

        return jax.checkpoint(checkpointed)(params, state, x, key)

    def forward(params, state, x, *, key=None, train=False):
        y, new_state = run.apply(params, state, x, key=key, train=train)
        return y, new_state, {"x": x, "state": state, "key": key, "mode": () if train else None}

    def backward(params, residuals, dy):
        # The barrier keeps the compiler from merging the second forward with the first, which would keep everything
        # alive after all. It includes dy, so that the second forward cannot start early.
        x, dy = jax.lax.optimization_barrier((residuals["x"], dy))
        train = residuals["mode"] is not None
        _, _, kept = run.forward(params, residuals["state"], x, key=residuals["key"], train=train)
        return run.backward(params, kept, dy)

    return around("recompute", inner, run.init, apply, forward, backward)


def _one_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape of one entry of a stack."""
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _words(x: Any) -> str:
    return f"{x.shape} {x.dtype}" if hasattr(x, "dtype") else describe_tree(x)


def _check_stack(params, state, n):
    for leaf in jax.tree.leaves((params, state)):
        if leaf.shape[:1] != (n,):
            got = f"shape {leaf.shape}; take them from init of this very layer"
            raise StructureError(f"expected leaves of params and state with a first axis of length {n}, got {got}.")
