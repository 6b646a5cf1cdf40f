"""A recurrence, from the mathematics of one step: its cell, and the layer that runs it over time.

All recurrences here have the form

    h_t, … = f(x_t W + b, h_{t−1} U, h_{t−1}, …)

with an f that works number by number. So the products x_t W of all times are one product before the loop. In the
backward the loop only finds e_t = ∂L/∂(x_t W + b) and e′_t = ∂L/∂(h_{t−1} U). After it dW = Σ_t x_tᵀ e_t and
dU = Σ_t h_{t−1}ᵀ e′_t are one product each. With many examples a product of one time is fast by itself, and on a CPU
the arrays of all times cost more than they save. So there all of these are made in the loop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_floating, check_shape
from funcnet.dtypes import at_least_float32, widen
from funcnet.errors import StructureError
from funcnet.layers.checks import describe_tree
from funcnet.layers.layer import layer
from funcnet.layers.sequences import chosen, closed, opened_times, swapped, zeroed
from funcnet.numerics import by_platform
from funcnet.types import Array, Layer, Rules

__all__ = ["Step", "cell_of", "gates_of", "layer_of", "per_gate"]

States = tuple[Any, ...]  #: arrays (batch, features), h first

#: Examples from which on a CPU makes its products in the loop. An LSTM's step is then 1.0 to 2.0 times as fast at 16 to
#: 200 times and 32 to 256 features. At 32 examples both are equal, and at 8 the loop is half as fast.
MANY = 64


class Step(NamedTuple):
    """The mathematics of one step, number by number, in float32 or wider."""

    gates: int  #: width of x W, in features
    states: int  #: how many arrays are carried
    #: `(params, x_t W + b, h_{t−1} U, states) -> (states, kept)`
    advance: Callable[[Any, Array, Array, States], tuple[States, Any]]
    #: `(kept, ∂L/∂states) -> (∂L/∂(x_t W + b), ∂L/∂ of the states before)`, the latter without the way through h U
    retreat: Callable[[Any, States], tuple[Array, States]]
    #: `(kept, ∂L/∂(x_t W + b)) -> ∂L/∂(h_{t−1} U)`
    through: Callable[[Any, Array], Array] = lambda kept, dz: dz


def gates_of(z: Array, n: int) -> list[Array]:
    """The last axis in n equal parts."""
    return jnp.split(z, n, -1)


def per_gate(initializer: initializers.Initializer, gates: int) -> initializers.Initializer:
    """Each gate's part of the last axis drawn by itself, as its fan is that of one gate."""

    def draw(key, shape, dtype):
        own = (*shape[:-1], shape[-1] // gates)
        keys = (jax.random.fold_in(key, i) for i in range(gates))
        return jnp.concatenate([initializer(subkey, own, dtype) for subkey in keys], -1)

    return draw


def cell_of(step: Step, features: int, leaves: Callable[[int], Any]) -> Layer:
    """One step as a cell. `leaves` is a function of the width of x."""

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        carry, x = x
        states = _states(step, features, carry, x)
        new, kept = step.advance(params, _from_input(params, x), _from_hidden(params, states[0]), _widened(states))
        new, kept = _narrowed(x.dtype, (new, kept))
        return (_carry(new), new[0]), state, (x, states[0], kept)

    def retreated(params, residuals, dy):
        x, h, kept = residuals
        (dh, *others), dtype = _as_tuple(dy[0]), x.dtype
        dz, before = step.retreat(_widened(kept), _widened((dh + dy[1], *others)))
        dzh = step.through(_widened(kept), dz).astype(dtype)
        dh = before[0] + widen(dzh @ params["recurrent_kernel"].T)
        return x, h, dz.astype(dtype), dzh, _narrowed(dtype, (dh, *before[1:]))

    def backward(params, residuals, dy):
        x, h, dz, dzh, before = retreated(params, residuals, dy)
        dparams = _gradients(lambda a, b: a.T @ b, 0, features, (x, dz), (h, dzh), dzh)
        return dparams, (_carry(before), dz @ params["kernel"].T)

    def per_example(params, residuals, dy):
        x, h, dz, dzh, _ = retreated(params, residuals, dy)
        return _gradients(lambda a, b: a[:, :, None] * b[:, None], (), features, (x, dz), (h, dzh), dzh)

    def start(params, state, x, length):
        del params, state, length
        return _carry((jnp.zeros((x.shape[0], features), x.dtype),) * step.states)

    def leaves_of(x):
        check_floating("x", x)
        check_shape("x", x, "(batch, features)", "a cell takes one position")
        return leaves(x.shape[-1])

    return layer(forward, backward, leaves=leaves_of, rules=Rules(per_example, start=start))


def layer_of(step: Step, features: int, leaves: Callable[[int], Any], reverse: bool, cell: Layer) -> Layer:
    """The recurrence over all times. `cell` is that of the same step."""

    @partial(jax.jit, static_argnames="at_once", inline=True)  # so that outside jit the loop is compiled only once
    def advanced(params, rows, there, at_once=True):
        """h and what is kept of each step, the time first. The products x W are one before the loop, or made in it."""
        dtype = rows.dtype

        def advance(before, entry):
            x, there = entry
            zx = x if at_once else _from_input(params, x)
            zh = _from_hidden(params, before[0].astype(dtype))
            after, kept = step.advance(params, zx, zh, before)
            after = chosen(there, after, before)
            return after, _narrowed(dtype, (after[0], kept))

        zero = jnp.zeros((rows.shape[1], features), at_least_float32(dtype))
        entries = (_from_input(params, rows) if at_once else rows, there)
        return jax.lax.scan(advance, (zero,) * step.states, entries, reverse=reverse)[1]

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        values, where = opened_times(x)
        rows, there = swapped(zeroed(where, values)), swapped(where)
        h, kept = suited(rows, advanced, partial(advanced, at_once=False))(params, rows, there)
        return closed(zeroed(where, swapped(h)), where), state, (rows, h, kept, there)

    def suited(rows, default, cpu):
        examples = rows.shape[1]  # of an exported program it may be a symbol
        many = isinstance(examples, int) and examples >= MANY
        return partial(by_platform, cpu=cpu, default=default) if many else default

    def before_step(params, dafter, kept, there, dh):
        """∂L/∂ of the states before one step, of x W + b, and of h U."""
        dtype = dh.dtype
        dafter = (dafter[0] + widen(dh), *dafter[1:])
        dz, (dh, *others) = step.retreat(_widened(kept), zeroed(there, dafter))
        dzh = step.through(_widened(kept), dz).astype(dtype)
        dbefore = (dh + widen(dzh @ params["recurrent_kernel"].T), *others)
        return chosen(there, dbefore, dafter), dz.astype(dtype), dzh

    def ends(h, dy, there):
        """Zeros for ∂L/∂ of the last states, and dy, the time first."""
        return (jnp.zeros(h.shape[1:], at_least_float32(h.dtype)),) * step.states, zeroed(there, swapped(dy))

    @partial(jax.jit, inline=True)
    def retreated(params, residuals, dy):
        """The rows of x and h before each step, with ∂L/∂(x W + b) and ∂L/∂(h U), the time first."""
        rows, h, kept, there = residuals

        def retreat(dafter, entry):
            dbefore, dz, _ = before_step(params, dafter, *entry)
            return dbefore, dz

        zero, dy = ends(h, dy, there)
        _, dz = jax.lax.scan(retreat, zero, (kept, there, dy), reverse=not reverse)
        dzh = step.through(_widened(kept), _widened(dz)).astype(h.dtype)
        before, after = (slice(1, None), slice(-1)) if reverse else (slice(-1), slice(1, None))
        return (rows, dz), (h[before], dzh[after]), dzh

    def after_the_loop(params, residuals, dy):
        inputs, hidden, dzh = retreated(params, residuals, dy)
        dx = inputs[1] @ params["kernel"].T
        return _gradients(partial(jnp.einsum, "tni,tnk->ik"), (0, 1), features, inputs, hidden, dzh), dx

    @partial(jax.jit, inline=True)
    def in_the_loop(params, residuals, dy):
        """The same, with the products of each step made and summed within the loop."""
        rows, h, kept, there = residuals

        def own(dafter, x, h, *entry):
            dbefore, dz, dzh = before_step(params, dafter, *entry)
            dparams = _gradients(lambda a, b: a.T @ b, 0, features, *_widened(((x, dz), (h, dzh), dzh)))
            return dparams, dbefore, dz @ params["kernel"].T

        def retreat(carry, entry):
            dparams, dafter = carry
            more, dbefore, dx = own(dafter, *entry)
            return (jax.tree.map(jnp.add, dparams, more), dbefore), dx

        zero, dy = ends(h, dy, there)
        start = jnp.zeros_like(h[:1])
        before = jnp.concatenate([h[1:], start] if reverse else [start, h[:-1]])
        entries = (rows, before, kept, there, dy)
        entry = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), entries)
        sums, _, _ = jax.eval_shape(own, zero, *entry)
        none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)
        (dparams, _), dx = jax.lax.scan(retreat, (none, zero), entries, reverse=not reverse)
        return _narrowed(h.dtype, dparams), dx

    def backward(params, residuals, dy):
        dparams, dx = suited(residuals[0], after_the_loop, in_the_loop)(params, residuals, dy)
        return dparams, swapped(dx)

    def per_example(params, residuals, dy):
        each = partial(jnp.einsum, "tni,tnk->nik")
        return _gradients(each, 0, features, *retreated(params, residuals, dy))

    def leaves_of(x):
        check_floating("x", x)
        check_shape("x", x, "(batch, time, features)", "add the batch axis with x[None]")
        return leaves(x.shape[-1])

    rules = Rules(per_example, cell=None if reverse else cell)
    return layer(forward, backward, leaves=leaves_of, trees=True, rules=rules)


def _gradients(product, axes, features, inputs, hidden, dzh):
    """∂L/∂params from pairs of rows and ∂L/∂ their products, which `product` multiplies and sums, as over `axes`."""
    return {
        "kernel": product(*inputs),
        "recurrent_kernel": product(*hidden),
        "bias": inputs[1].sum(axes),
        "recurrent_bias": dzh[..., -features:].sum(axes),
    }


def _from_input(params, x):
    z = _wide_product(x, params["kernel"])
    return z + widen(params["bias"]) if "bias" in params else z


def _from_hidden(params, h):
    return _wide_product(h, params["recurrent_kernel"])


def _wide_product(x, kernel):
    """x W, not rounded to half precision, as a gate reads small differences of large numbers."""
    return jnp.matmul(x, kernel, preferred_element_type=at_least_float32(x.dtype))


def _widened(tree: Any) -> Any:
    """The arrays in float32 or wider."""
    return jax.tree.map(widen, tree)


def _narrowed(dtype: Any, tree: Any) -> Any:
    """The arrays in this dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _states(step, features, carry, x):
    states = _as_tuple(carry)
    wanted = [jax.ShapeDtypeStruct((x.shape[0], features), x.dtype)] * step.states
    if [getattr(one, "shape", None) for one in states] != [one.shape for one in wanted]:
        fix = "rules.start makes the first one"
        wanted = describe_tree(_carry(tuple(wanted)))
        raise StructureError(f"expected a carry of {wanted}, got {describe_tree(carry)}; {fix}.")
    return states


def _carry(states: States) -> Any:
    """One array stands for itself."""
    return states[0] if len(states) == 1 else tuple(states)


def _as_tuple(carry: Any) -> States:
    return tuple(carry) if isinstance(carry, tuple | list) else (carry,)
