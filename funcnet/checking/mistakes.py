"""The mistakes that people make in a backward pass, as functions that make it wrong.

They come in three kinds:

- in an array of the gradient (`IN_THE_GRADIENT`),
- in what the backward reads (`IN_WHAT_IS_READ`),
- in its formula (`in_the_formula`): a term left out, or a sum over the wrong axis. These are made in the traced program
  of a function, wherever it adds.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from funcnet.dtypes import is_key

__all__ = [
    "IN_THE_GRADIENT", "IN_WHAT_IS_READ", "FormulaMistake", "either", "in_the_formula", "shared_by_ties",
    "wrong_formula",
]  # fmt: skip


# In an array g of the gradient, for a batch of n rows. The result is `None` if the mistake cannot be made.


def _with_an_element_zeroed(g, n):
    return jnp.ravel(g).at[0].set(0).reshape(g.shape)


def _transposed(g, n):
    return jnp.swapaxes(g, -1, -2) if g.ndim >= 2 and g.shape[-1] == g.shape[-2] > 1 else None


def _reversed(g, n):
    return jnp.flip(g, -1) if g.ndim and g.shape[-1] > 1 else None


def _averaged(g, n):
    return jnp.broadcast_to(g.mean(-1, keepdims=True), g.shape) if g.ndim and g.shape[-1] > 1 else None


def _noisy(g, n):
    return g * (1 + 1e-3 * jax.random.normal(jax.random.key(0), g.shape, g.dtype))


IN_THE_GRADIENT: dict[str, Callable[[Any, int], Any]] = {
    "zeroed": lambda g, n: 0 * g,
    "one element zeroed": _with_an_element_zeroed,
    "scaled by 1.001": lambda g, n: 1.001 * g,
    "sign flipped": lambda g, n: -g,
    "batch mean for the sum": lambda g, n: g / n if n > 1 else None,
    "transposed": _transposed,
    "reversed": _reversed,
    "averaged over the last axis": _averaged,
    "noise of 1e-3": _noisy,
}


def shared_by_ties(x: Any, dx: Any) -> Any:
    """The gradient dx of x, in which each of equal inputs of an example gets the largest of their gradients.

    So a pooling is wrong that hands its gradient to all inputs that tie for the maximum.

    >>> import jax.numpy as jnp
    >>> shared_by_ties(jnp.array([[2.0, 2.0, 1.0]]), jnp.array([[5.0, 0.0, 0.0]])).tolist()
    [[5.0, 5.0, 0.0]]
    """

    def of_an_example(x, dx):
        equal = jnp.ravel(x)[:, None] == jnp.ravel(x)
        largest = jnp.argmax(jnp.where(equal, jnp.abs(jnp.ravel(dx)), -1), axis=1)
        return jnp.ravel(dx)[largest].reshape(dx.shape)

    return jax.tree.map(jax.vmap(of_an_example), x, dx)


# In what a backward reads, residuals and dy. Each function takes both and returns both, or `None`. Arrays of size 0, in
# which layers keep shapes, stay as they are.


def _rolls(leaf):
    return not is_key(leaf) and leaf.size > 0 and leaf.ndim > 0 and leaf.shape[0] > 1


def _another_example(tree):
    """Each example reads the numbers of the next one."""
    if not any(map(_rolls, jax.tree.leaves(tree))):
        return None
    return jax.tree.map(lambda leaf: jnp.roll(leaf, 1, 0) if _rolls(leaf) else leaf, tree)


def _masks_inverted(tree):
    if not any(leaf.dtype == bool and leaf.size for leaf in jax.tree.leaves(tree)):
        return None
    return jax.tree.map(lambda leaf: ~leaf if leaf.dtype == bool else leaf, tree)


def _without_the_first(tree):
    if not any(leaf.ndim and leaf.size for leaf in jax.tree.leaves(tree)):
        return None
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).at[0].set(0) if leaf.ndim and leaf.size else leaf, tree)


def _residuals(change):
    return lambda residuals, dy: None if (wrong := change(residuals)) is None else (wrong, dy)


def _dy(change):
    return lambda residuals, dy: None if (wrong := change(dy)) is None else (residuals, wrong)


IN_WHAT_IS_READ: dict[str, Callable[[Any, Any], Any]] = {
    "residuals shuffled": _residuals(_another_example),
    "mask inverted": _residuals(_masks_inverted),
    "dy ignored": _dy(lambda dy: jax.tree.map(jnp.ones_like, dy)),
    "dy shuffled": _dy(_another_example),
    "dy of the first example left out": _dy(_without_the_first),
}


# In the formula.


class FormulaMistake(NamedTuple):
    """One addition of a traced program that is done wrongly."""

    place: int  #: which of its additions
    name: str
    change: Callable[..., Any]  #: the operands' values -> the wrong result


def in_the_formula(function: Callable[..., Any], *args: Any) -> list[FormulaMistake]:
    """Every term that can be left out of a function, and every sum that fits over another axis.

    >>> import jax.numpy as jnp
    >>> [mistake.name for mistake in in_the_formula(lambda x: 2 * x + jnp.sin(x), jnp.ones(3))]
    ['first term of sum 0 left out', 'second term of sum 0 left out']
    """
    found: list[FormulaMistake] = []
    places = itertools.count()

    def note(equation, read, result):
        place = next(places)
        found.extend(FormulaMistake(place, name, change) for name, change in _ways(place, equation))
        return result

    jax.eval_shape(lambda *args: _evaluated(function, args, note), *args)
    return found


def wrong_formula(
    function: Callable[..., Any], mistakes: Sequence[FormulaMistake], made: Sequence[Any]
) -> Callable[..., Any]:
    """`function` with those of its mistakes that are made: True, False, or known when the program runs."""
    if all(one is False for one in made):
        return function

    def wrong(*args):
        places = itertools.count()

        def done(equation, read, result):
            place = next(places)
            for mistake, is_made in zip(mistakes, made, strict=True):
                if mistake.place == place:
                    result = either(is_made, partial(mistake.change, *read), result)
            return result

        return _evaluated(function, args, done)

    return wrong


def either(is_made: Any, wrong: Callable[[], Any], right: Any) -> Any:
    """`wrong()` if the mistake is made, else `right`: leaf by leaf if that is known only when the program runs."""
    if isinstance(is_made, bool):
        return wrong() if is_made else right
    return jax.tree.map(lambda a, b: b if a is b else jnp.where(is_made, a, b), wrong(), right)


def _ways(place, equation):
    """How an addition can be wrong: `(name, change)`."""
    shape = equation.outvars[0].aval.shape
    if equation.primitive.name == "reduce_sum":
        (operand,), axes = [v.aval.shape for v in equation.invars], tuple(equation.params["axes"])
        for axis in range(len(operand)):
            if len(axes) == 1 and axis != axes[0] and (*operand[:axis], *operand[axis + 1 :]) == shape:
                yield f"sum {place} over axis {axis} for {axes[0]}", lambda x, axis=axis: x.sum(axis)
        return
    minus = equation.primitive.name == "sub"
    yield f"first term of sum {place} left out", lambda a, b: jnp.broadcast_to(-b if minus else b, shape)
    yield f"second term of sum {place} left out", lambda a, b: jnp.broadcast_to(a, shape)


def _evaluated(function, args, done):
    """`function(*args)` from its traced program; of an addition `done(equation, read, result)` gives the result."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    outputs = _run(closed.jaxpr, closed.consts, jax.tree.leaves(args), done)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _run(jaxpr, consts, args, done):
    """An interpreter of jaxprs that also enters the compiled functions in them."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for equation in jaxpr.eqns:
        read = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        inner = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
        if inner is not None:
            results = _run(inner.jaxpr, inner.consts, read, done)
        else:
            results = equation.primitive.bind(*read, **equation.primitive.get_bind_params(equation.params))
            results = results if equation.primitive.multiple_results else [results]
            if _adds(equation):
                results = [done(equation, read, *results)]
        values.update(zip(equation.outvars, results, strict=True))
    return [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]


def _adds(equation):
    adds = equation.primitive.name in ("add", "add_any", "sub", "reduce_sum")
    return adds and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating)
