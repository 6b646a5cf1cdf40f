"""What optimizers share: slots beside the params, the schedule, the decay and the step itself.

A slot, such as Adam's mean gradient, has the dtype of its parameter. Beside a parameter in half precision it has
float32, because in bfloat16 a decay of 0.999 rounds to 1, and in float16 an epsilon of 1e-8 rounds to 0.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from funcnet.checks import check_shape, describe, nonnegative
from funcnet.dtypes import widen
from funcnet.errors import ConfigError, StructureError
from funcnet.made import leading
from funcnet.optimizers.checks import Rate, check_grads, checked_params
from funcnet.schedules import as_schedule
from funcnet.trees import Select, check_matches, flatten_with_paths, selector
from funcnet.types import Array, Optimizer

__all__ = ["Start", "descent", "rescaled"]

#: How a slot begins: a number for all its entries, a function from the leaf to any tree, or `()` for a slot not used.
Start: TypeAlias = float | Callable[[Array], Any] | tuple[()]


def descent(
    State: Callable[..., Any],
    rate: Rate,
    direction: Callable[..., tuple[Any, ...]],
    *,
    slots: Sequence[str] | Mapping[str, Start] = (),
    weight_decay: float = 0.0,
    mask: Select | None = None,
) -> Optimizer:
    """An optimizer from the direction of one leaf: you write only its mathematics.

    (d, slots) ← direction(p, g, t, slots),   p ← p − η s (d + λ p)
    where t counts the updates from 1, including this one. The schedule of the rate η counts from 0. The factor s is
    `state.scale`, which begins at 1 and which `rescaled` changes. λ is the decay, which does not enter the slots.

    Args:
        State: a `NamedTuple` with the fields `step`, `params` and `scale`, and one for each slot. A field that `slots`
            does not name is `()`.
        rate: η, a number or a schedule of the updates already done; errors call it `learning_rate`.
        direction: `(p, g, t, *slots) -> (d, *slots)`, a pure function that is called for each leaf. p is the parameter,
            g its gradient and t has shape (). All are in the dtype of the slots: the dtype of the parameter, or float32
            if that is half precision. d has the shape and dtype of p. Each slot that it returns has the tree, shapes
            and dtypes of the slot that it got.
        slots: the names of the slots, which then begin at 0, or a dictionary from each name to its start. The start is
            a number for all entries, a function from the leaf to any tree of arrays, or `()` for a slot that is not
            used. The direction gets and returns such a slot as `()`.
        weight_decay: λ ≥ 0.
        mask: which parameters decay: a regular expression that matches the whole path of a leaf, such as
            `".*kernel"`, or a function of the path; by default all.

    Raises:
        ConfigError: an argument out of its range, or a `State` without a field that is needed.
        DtypeError: params that are not floating-point arrays, or a gradient in another dtype than its parameter.
        StructureError: gradients that do not fit the params, or a direction that returns something else.

    An optimizer of your own, whose steps have the sign of the mean gradient:

    >>> from typing import NamedTuple
    >>> import jax.numpy as jnp, funcnet as fn
    >>> class SignState(NamedTuple):
    ...     step: fn.types.Array
    ...     params: fn.types.Params
    ...     mu: fn.types.Params
    ...     scale: fn.types.Array
    >>> @fn.constructor
    ... def sign_descent(learning_rate, *, decay=0.9):
    ...     def direction(p, g, t, mu):
    ...         mu = decay * mu + (1 - decay) * g
    ...         return jnp.sign(mu), mu
    ...     return fn.optimizers.descent(SignState, learning_rate, direction, slots=["mu"])
    >>> optimizer = sign_descent(0.5)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, -0.1])}).params
    {'kernel': Array([0.5, 2.5], dtype=float32)}
    """
    schedule, weight_decay = as_schedule(rate, what="learning_rate"), nonnegative("weight_decay", weight_decay)
    decays = None if mask is None else selector("mask", mask)
    starts = dict(slots) if isinstance(slots, Mapping) else dict.fromkeys(slots, 0.0)
    used = [name for name, start in starts.items() if not isinstance(start, tuple)]
    empty = dict.fromkeys(_checked_fields(State, starts), ())

    def init(params):
        params = checked_params(params)
        check_matches(mask, [path for path, _ in flatten_with_paths(params)])
        begun = {name: jax.tree.map(lambda p, name=name: _begun(starts[name], p), params) for name in used}
        begun |= {"step": jnp.zeros((), jnp.int32), "params": params, "scale": jnp.ones((), jnp.result_type(float))}
        return State(**empty | begun)

    def update(state, grads):
        check_grads(state, grads, State)
        size = _rate_at(schedule, state.step).astype(state.scale.dtype) * state.scale
        t, tree = (state.step + 1).astype(size.dtype), jax.tree.structure(state.params)

        def descend(path, p, g, *old):
            wide, g = widen(p), widen(g)
            new = direction(wide, g, t.astype(g.dtype), *old)
            d, *new = _checked_row(new, ("d", *starts), (wide, *old))
            d = d + weight_decay * wide if weight_decay and (decays is None or decays(path)) else d
            return (wide - size.astype(d.dtype) * d).astype(p.dtype), *new

        columns = [_column(tree, state, name) if name in used else [()] * tree.num_leaves for name in starts]
        leaves = zip(flatten_with_paths(state.params), jax.tree.leaves(grads), *columns, strict=True)
        rows = [descend(path, p, g, *old) for (path, p), g, *old in leaves]
        new = {name: [row[i] for row in rows] for i, name in enumerate(["params", *starts])}
        new = {name: tree.unflatten(new[name]) for name in ["params", *used]}
        return State(**empty | new | {"step": state.step + 1, "scale": state.scale})

    return Optimizer(init, update)


def rescaled(state: Any, factor: float | Array) -> Any:
    """The state with all its rates multiplied: `state.scale` ← `factor` · `state.scale`, in every state within.

    It finds the rate through every wrapper (`clipped`, `frozen`, `partitioned` …), and in any tree that holds an
    optimizer's state, such as a train state. It is a pure function that also works under `jit`. A schedule goes on
    counting.

    Args:
        state: what `init` or `update` returned.
        factor: a number ≥ 0, or an array of shape (), traced or not.

    Raises:
        ConfigError: a negative number, or one that is not finite.
        ShapeError: a factor that is not a scalar.
        StructureError: `state` holds no optimizer's state, or one without the field `scale`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.clipped(fn.optimizers.sgd(1.0), value=1.0)
    >>> state = fn.optimizers.rescaled(optimizer.init({"kernel": jnp.array([4.0])}), 0.5)
    >>> optimizer.update(state, {"kernel": jnp.array([1.0])}).params
    {'kernel': Array([3.5], dtype=float32)}
    """
    with leading("rescaled"):
        if isinstance(factor, Real) or not hasattr(factor, "dtype"):
            factor = nonnegative("factor", factor)
        check_shape("factor", factor, "()", "give one number for all parameters")
        states = [part for part in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(part)]
        for part in states or [state]:
            if "scale" not in getattr(part, "_fields", ()):
                got = f"{describe(part)}; give your own optimizer's state that field"
                raise StructureError(f"expected the state of an optimizer with the field scale, got {got}.")
    return jax.tree.map(lambda part: _scaled(part, factor) if _is_state(part) else part, state, is_leaf=_is_state)


def _scaled(state, factor):
    return state._replace(scale=state.scale * jnp.asarray(factor, state.scale.dtype))


def _is_state(node):
    """Whether `node` is an innermost state. The states of wrappers take step or params from the state within."""
    return {"step", "params"} <= set(getattr(node, "_fields", ()))


def _begun(start, p):
    """A slot's start, strongly typed and in its own buffers, because a donated state must not share one."""
    p = widen(p)
    tree = start(p) if callable(start) else jnp.full_like(p, start)
    return jax.tree.map(lambda x: jnp.array(x, jnp.asarray(x).dtype), tree)


def _rate_at(schedule, step):
    """The learning rate, a scalar: any other shape would broadcast the params to a new one."""
    rate = jnp.asarray(schedule(step))
    check_shape("learning_rate(step)", rate, "()", "return a scalar")
    return rate


def _column(tree, state, name):
    """What the slot holds for each leaf."""
    try:
        return tree.flatten_up_to(getattr(state, name))
    except ValueError as error:
        got = f"{describe(getattr(state, name))}; take the state from init of this very optimizer"
        raise StructureError(f"expected state.{name} to be a tree like params, got {got}.") from error


def _checked_fields(State, slots):
    fields, needed = getattr(State, "_fields", ()), ["step", "params", *slots, "scale"]
    if not set(needed) <= set(fields):
        got = f"{getattr(State, '__name__', describe(State))} with {', '.join(fields) or 'none'}"
        raise ConfigError(f"expected State to be a NamedTuple with the fields {', '.join(needed)}, got {got}.")
    return fields


def _checked_row(row, names, wanted):
    """What a direction returned, strongly typed. Each value must have the tree, shapes and dtypes of what it got."""
    if not (isinstance(row, tuple) and len(row) == len(names)):
        got = f"{len(row)} values" if isinstance(row, tuple) else describe(row)
        shown = ", ".join(names) + "," * (len(names) == 1)
        raise StructureError(f"expected direction(p, g, t, *slots) to return ({shown}), got {got}.")
    for name, new, old in zip(names, row, wanted, strict=True):
        if jax.tree.structure(new) != jax.tree.structure(old) or _kinds(new) != _kinds(old):
            shown = [", ".join(f"{dtype}{list(shape)}" for shape, dtype in _kinds(tree)) for tree in (old, new)]
            wanted = f"{name} like {'p' if name == 'd' else 'what it got'}, {shown[0]}"
            fix = "keep tree, shapes and dtypes"
            raise StructureError(f"expected direction(p, g, t, *slots) to return {wanted}, got {shown[1]}; {fix}.")
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)) if getattr(x, "weak_type", True) else x, row)


def _kinds(tree):
    return [(jnp.shape(x), getattr(x, "dtype", None) or jnp.result_type(x)) for x in jax.tree.leaves(tree)]
