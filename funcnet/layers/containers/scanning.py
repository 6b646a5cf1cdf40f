"""`scan`, which runs a cell over time."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.dtypes import at_least_float32, widen
from funcnet.errors import ConfigError, ShapeError, StructureError
from funcnet.layers.checks import check_dy, check_pair, describe_tree
from funcnet.layers.containers.container import placed
from funcnet.layers.layer import assembled
from funcnet.layers.sequences import chosen, swapped, zeroed
from funcnet.made import constructor
from funcnet.trees import filled, is_padded, keep_shape, map_leaves, shapes
from funcnet.types import Layer, Padded, Rules

__all__ = ["scan"]


@constructor
def scan(cell: Layer, *, reverse: bool = False, carry: bool = False) -> Layer:
    """A cell over time, (c_t, y_t) = f(c_{t−1}, x_t), with the same parameters at each time.

    A cell is a layer on `(carry, x_t)` that gives `(carry, y_t)`, such as `lstm_cell(8)` or the `rules.cell` of a
    layer. The carry is an array (batch, …) or a tree of them.

    Args:
        cell: the cell. Its `rules.start(params, state, x_t, length)` makes the first carry, from shapes alone.
        reverse: whether to run from the last position to the first. y_t stays at the place of x_t.
        carry: whether x is `(carry, xs)` and y `(carry, ys)`: the first carry is given, and the last one returned. So a
            first carry can be learned, an encoder can hand its carry to a decoder, and a long sequence can be cut.

    xs is an array (batch, time, …), a tree of them, or one `Padded`, and ys is like it. Where a `Padded` has nothing,
    the carry is held, y is zero, and the cell sees zeros. In training with a key, each position has a key of its own.
    Params and state are those of the cell, and the state goes from position to position.

    Backward. c_t reaches L through everything later. So with g_t = ∂L/∂y_t and s_t = ∂L/∂c_t, for t from last to first
        (dθ_t, (s_{t−1}, dx_t)) = backward_f(θ, r_t, (s_t, g_t)),   dθ = Σ_t dθ_t,
    where r_t are the residuals at t, and the last s is zero, or given if `carry` is true. Where there is nothing, c_t =
    c_{t−1}, so that s_{t−1} = s_t and nothing else moves. Kept: the stacked residuals.

    Raises:
        ConfigError: `cell` is not a `Layer`, or it has no `rules.start`, which is needed unless `carry` is true.
        ShapeError: the arrays of x have no common axes (batch, time).
        StructureError: the cell changes the shape of its carry, or with `carry` x is not a pair.

    References: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 1986.

    A cell of your own, h_t = a ⊙ h_{t−1} + x_t, with one number a for each feature:

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> @fn.constructor
    ... def fading():
    ...     def forward(params, state, x, *, key=None, train=False):
    ...         h = params["scale"] * x[0] + x[1]
    ...         return (h, h), state, x[0]
    ...     def backward(params, before, dy):
    ...         dh = dy[0] + dy[1]  # h goes on as the carry, and out as y
    ...         return {"scale": (dh * before).sum(0)}, (params["scale"] * dh, dh)
    ...     start = lambda params, state, x, length: jnp.zeros(x.shape, x.dtype)
    ...     leaves = lambda x: {"scale": (fn.initializers.constant(0.9), x.shape[-1:])}
    ...     return fn.layers.layer(forward, backward, leaves=leaves, rules=fn.types.Rules(start=start))
    >>> model = fn.layers.serial(fn.layers.scan(fading()), fn.layers.last(), fn.layers.dense(1))
    >>> rows = jax.random.normal(jax.random.key(0), (64, 5, 2)), jnp.ones((64, 1))
    >>> run = fn.training.fit(model, fn.losses.mean_squared_error, fn.optimizers.adam(0.05), rows, epochs=20)
    >>> [report.metrics["loss"] for report in run][-1] < 0.1
    Array(True, dtype=bool)
    """
    run, start, given = placed(cell), cell.rules.start, carry
    if start is None and not given:
        fix = "give it Rules(start=…), or take rules.cell of a layer"
        raise ConfigError(f"expected a cell, which has rules.start, got {cell}; {fix}.")

    def taken(x):
        if given:
            check_pair(x, "(carry, xs)", "without carry=True it is xs alone")
        return x if given else (None, x)

    def init(key, x):
        first, xs = taken(x)
        return run.init(key, (first, _one_position(_parted(xs)[0])))

    def looped(method, params, state, x, key, train):
        """One loop for `apply` and `forward`: y, and the other results, stacked."""
        first, xs = taken(x)
        xs, where = _parted(xs)
        time = jax.tree.leaves(xs)[0].shape[1]
        if start is not None and not given:
            first = start(params, state, _one_position(xs), time)

        def step(carried, entry):
            (before, state), (x_t, there, subkey) = carried, entry
            (after, y), state, *rest = method(params, state, (before, x_t), key=subkey, train=train)
            _check_carry(cell, before, after)
            return (chosen(there, after, before), state), (zeroed(there, y), rest)

        subkeys = None if key is None else jax.random.split(key, time)
        entries = (swapped(zeroed(where, xs)), swapped(where), subkeys)
        (last, state), (ys, rest) = jax.lax.scan(step, (first, state), entries, length=time, reverse=reverse)
        ys = swapped(ys)
        ys = ys if where is None else jax.tree.map(lambda leaf: Padded(leaf, where), ys)
        return (last, ys) if given else ys, state, *rest, where, last

    def apply(params, state, x, *, key=None, train=False):
        y, new_state, *_ = looped(run.apply, params, state, x, key, train)
        return y, new_state

    def forward(params, state, x, *, key=None, train=False):
        y, new_state, residuals, where, last = looped(run.forward, params, state, x, key, train)
        return y, new_state, (residuals, where, map_leaves(keep_shape, (y, last)))

    def back(params, residuals, dy, rule=None):
        residuals, where, (like, like_carry) = residuals
        check_dy(like, dy)
        dy = filled(like, dy)
        dlast, dys = dy if given else (filled(like_carry, None), dy)

        def step(carried, entry):
            (dafter, total), (kept, there, dy) = carried, entry
            arriving = zeroed(there, (dafter, dy))
            dparams, (dbefore, dx) = run.backward(params, kept, arriving)
            dparams = dparams if rule is None else rule(params, kept, arriving)
            dbefore = chosen(there, filled(like_carry, dbefore), dafter)
            total = jax.tree.map(lambda total, dparam: total + widen(dparam), total, dparams)
            return (dbefore, total), zeroed(there, dx)

        rows = () if rule is None else jax.tree.leaves(like)[0].shape[1:2]
        zero = jax.tree.map(lambda p: jnp.zeros((*rows, *p.shape), at_least_float32(p.dtype)), params)
        entries = (residuals, swapped(where), swapped(dys))
        (dfirst, dparams), dxs = jax.lax.scan(step, (dlast, zero), entries, reverse=not reverse)
        dparams = jax.tree.map(lambda total, p: total.astype(p.dtype), dparams, params)
        return dparams, (dfirst, swapped(dxs)) if given else swapped(dxs)

    def per_example(params, residuals, dy):
        return back(params, residuals, dy, cell.rules.per_example)[0]

    own = None if reverse or given else cell
    rules = Rules(per_example=cell.rules.per_example and per_example, cell=own)
    return assembled("scan", init, apply, forward, back, rules=rules)


def _parted(xs: Any) -> tuple[Any, Any]:
    """Arrays (batch, time, …), and where there is something."""
    xs, where = (xs.values, xs.where) if is_padded(xs) else (xs, None)
    found = {leaf.shape[:2] for leaf in jax.tree.leaves((xs, where))}
    if len(found) != 1 or len(found.pop()) != 2:
        got = describe_tree(xs) + ("" if where is None else f" with where of shape {where.shape}")
        raise ShapeError(f"expected arrays of shape (batch, time, …), got {got}; give each the same batch and time.")
    return xs, where


def _one_position(xs: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((leaf.shape[0], *leaf.shape[2:]), leaf.dtype), xs)


def _check_carry(cell: Layer, before: Any, after: Any) -> None:
    if shapes(before) != shapes(after):
        got = f"{describe_tree(before)} -> {describe_tree(after)}; each carry is the next one's"
        raise StructureError(f"expected {cell} to keep the shapes and dtypes of its carry, got {got}.")
