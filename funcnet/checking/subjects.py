"""Layers, losses and functions in one form, so that all can be checked.

Each of them gives its gradient by hand and by autodiff, and the values of a scalar for finite differences. Inputs,
outputs and targets are trees. Gradients are taken with respect to the floating leaves. Those of a `Padded` are its
values.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checking.drawing import as_float64, is_floating, moved, random_cotangent, random_like, some_shapes
from funcnet.checking.numeric import sampler
from funcnet.checking.programs import quickly, same_program
from funcnet.checking.rounding import rounding
from funcnet.checks import over_leading_axes
from funcnet.errors import ConfigError
from funcnet.gradients.cotangents import as_cotangent
from funcnet.made import spelled
from funcnet.trees import is_leaf, is_padded, leaves, map_leaves, values_of, with_values
from funcnet.types import Layer

__all__ = [
    "Point",
    "Subject",
    "arguments_of",
    "by_hand",
    "joined",
    "parted",
    "run",
    "subjects_of",
    "there",
    "whole",
]

MODES = ("evaluation", "training")


class Point(NamedTuple):
    """Where gradients are compared."""

    variables: Any  #: the floating leaves: {"params": …, "x": …}, {"prediction": …} or those of a function's argument
    constants: Any  #: the rest of the input; for a layer also state and key, for a loss also the target
    dy: Any  #: the cotangent: a tree like the output, with None for leaves without gradient; None for a scalar


class Subject(NamedTuple):
    """Something with a gradient by hand."""

    name: str
    mode: str  #: of a layer "evaluation", "training", or "both" if these are one program; else ""
    draw: Callable[..., Point]  #: (seed, x, y, params, state, numbers="normal") -> Point; see `drawing.NUMBERS`
    #: the gradient by hand and by autodiff, trees like `variables`, and the size of what they are the gradient of
    both: Callable[[Point], tuple[Any, Any, Any]]
    rounding: Callable[[Point], tuple[Any, Any]]  #: how far rounding may move either of them, element by element
    noise: Callable[[Point], Any]  #: how far rounding may move the scalar
    sampled: Callable[..., Any]  #: the scalar's values around a point: see `numeric.sampler`
    program: Any = None  #: of a layer: Point -> the traced program of all that is compared


def subjects_of(
    target: Any,
    x: Any,
    y: Any = None,
    *,
    modes: Sequence[str] | None = None,
    gradient: Callable[..., Any] | None = None,
    params: Any = None,
    state: Any = None,
) -> list[Subject]:
    """One subject per mode of a layer, by default one if both are the same program; one of a loss or a function."""
    if isinstance(target, Layer):
        if modes is None:
            _, training = every = [_layer_subject(target, mode) for mode in MODES]
            one = same_program(*(subject.program(subject.draw(0, x, y, params, state)) for subject in every))
            return [training._replace(mode="both")] if one else every
        if not modes or not set(modes) <= set(MODES):
            raise ConfigError(f'expected modes among "evaluation" and "training", got {modes!r}.')
        return [_layer_subject(target, mode) for mode in modes]
    # A loss may have no target. Then it differs from a penalty in that it has a `check` for targets.
    is_loss = y is not None or getattr(target, "check", None) is not None
    gradient = gradient or getattr(target, "gradient", None)
    if gradient is None:
        raise ConfigError(
            f"expected a Layer, a loss with a hand-derived gradient, or a function and gradient=…, got "
            f"{spelled(target)}, which has none; attach it with losses.loss, or pass gradient=."
        )
    return [_loss_subject(target, gradient) if is_loss else _function_subject(target, gradient)]


def by_hand(target: Any, mode: str, point: Point) -> Any:
    """The hand-derived gradient of a layer, or of a loss or penalty that carries one: a tree like `point.variables`."""
    if not isinstance(target, Layer):
        return _of_loss(target.gradient, point)
    y, _, residuals = run(target.forward, mode, point, point.variables)
    dparams, dx = target.backward(point.variables["params"], residuals, there(y, point.dy))
    return {"params": dparams, "x": whole(point.variables["x"], dx)}


def _of_loss(gradient: Callable[..., Any], point: Point) -> Any:
    """A gradient of a loss, of a penalty, or of a function of one argument, at a point."""
    arguments = arguments_of(point, point.variables)
    if len(arguments) > 1:
        return {"prediction": whole(point.variables["prediction"], gradient(*arguments))}
    return whole(point.variables, gradient(*arguments))


def arguments_of(point: Point, variables: Any) -> list[Any]:
    """The arguments of a loss or function at a point with other variables: prediction and target, or one tree."""
    if "target" in point.constants:
        return [joined(point.constants["prediction"], variables["prediction"]), point.constants["target"]]
    return [joined(point.constants["rest"], variables)]


def run(function: Callable[..., Any], mode: str, point: Point, variables: Any) -> Any:
    """A layer's `apply` or `forward`, at a point with other variables."""
    x = joined(point.constants["x"], variables["x"])
    args = (variables["params"], point.constants["state"], x)
    return function(*args, key=point.constants["key"], train=mode != "evaluation")


def _subject(name, mode, draw, by_hand, by_autodiff, scalar):
    """A `Subject` with its compiled functions."""

    def both(point):
        return by_hand(point), *by_autodiff(point)

    moved = rounding(lambda point: both(point)[:2])
    noise = rounding(lambda point: scalar(point, point.variables)[0])
    return Subject(name, mode, draw, quickly(both), quickly(moved), quickly(noise), sampler(scalar))


@lru_cache(maxsize=16)  # the same target checked again is not compiled again
def _layer_subject(layer, mode):
    """A layer: the variables are its parameters and its input."""

    def draw(seed, x, y, params, state, numbers="normal"):
        del y
        random, (init_key, key) = np.random.default_rng(seed), jax.random.split(jax.random.key(seed))
        x = random_like(random, x, numbers)
        if params is None:
            params, fresh = layer.init(init_key, x)
            params, state = moved(random, params), fresh if state is None else state
        floating, rest = parted(x)
        state = () if state is None else as_float64(state)
        constants = {"state": state, "key": key, "x": rest}
        point = Point({"params": as_float64(params), "x": floating}, constants, None)
        y, _ = jax.eval_shape(output, point)
        return point._replace(dy=map_leaves(partial(random_cotangent, random), y))

    @jax.jit  # so that it is traced once for all draws; only the shapes are read
    def output(point):
        return run(layer.apply, mode, point, point.variables)

    def program(point):
        return jax.make_jaxpr(lambda point: (by_hand(layer, mode, point), by_autodiff(point), output(point)))(point)

    def apply(point, variables):
        return run(layer.apply, mode, point, variables)[0]

    def by_autodiff(point):
        y, vjp = jax.vjp(lambda variables: apply(point, variables), point.variables)
        return vjp(as_cotangent(y, there(y, point.dy)))[0], _size(_terms(y, point.dy))

    def scalar(point, variables):
        terms = _terms(apply(point, variables), point.dy)
        return sum(map(jnp.sum, terms), jnp.zeros(())), _size(terms)

    subject = _subject(str(layer), mode, draw, partial(by_hand, layer, mode), by_autodiff, scalar)
    return subject._replace(program=program)


@lru_cache(maxsize=16)
def _loss_subject(loss, gradient):
    """A loss: the variable is the prediction, and the gradient is that of the mean."""

    def draw(seed, x, y, params, state, numbers="normal"):
        del params, state
        random = np.random.default_rng(seed)
        floating, rest = parted(random_like(random, x, numbers))
        target = random_like(random, y, numbers)
        if not some_shapes((x, y)) and (check := getattr(loss, "check", None)):
            check(joined(rest, floating), target)  # the numbers too, which a compiled program does not see
        return Point({"prediction": floating}, {"prediction": rest, "target": target}, None)

    return _of_scalar(loss, gradient, draw)


@lru_cache(maxsize=16)
def _function_subject(function, gradient):
    """A function `tree -> scalar` with a hand-written gradient `tree -> tree`."""

    def draw(seed, x, y, params, state, numbers="normal"):
        del y, params, state
        floating, rest = parted(random_like(np.random.default_rng(seed), x, numbers))
        return Point(floating, {"rest": rest}, None)

    return _of_scalar(function, gradient, draw)


def _of_scalar(function, gradient, draw):
    def scalar(point, variables):
        value = function(*arguments_of(point, variables))
        return value, jnp.abs(value)

    def by_autodiff(point):
        (_, size), gradient = jax.value_and_grad(lambda variables: scalar(point, variables), has_aux=True)(
            point.variables
        )
        return gradient, size

    return _subject(spelled(function), "", draw, partial(_of_loss, gradient), by_autodiff, scalar)


# Trees and their floating leaves.


def parted(tree):
    """Two trees: the floating leaves (of a `Padded` or `Whole` the values), and the others, each with `None` for the
    rest."""

    def variable(leaf):
        values = values_of(leaf)
        return values if is_floating(values) else None

    def rest(leaf):
        if variable(leaf) is None:
            return leaf
        return with_values(leaf, None)

    return map_leaves(variable, tree), map_leaves(rest, tree)


def joined(rest, floating):
    """The tree that `parted` took apart."""

    def one(leaf, variable):
        return with_values(leaf, variable) if values_of(leaf) is None else leaf

    return jax.tree.map(one, rest, floating, is_leaf=lambda node: node is None or is_leaf(node))


def whole(floating, gradient):
    """A gradient by hand like the floating leaves, with zeros for `None`. Another structure stays as it is."""
    if floating is None:
        return gradient
    if gradient is None:
        return jax.tree.map(jnp.zeros_like, floating)
    if hasattr(floating, "dtype"):
        return gradient
    try:
        return jax.tree.map(whole, floating, gradient, is_leaf=lambda node: node is not floating)  # one level down
    except (TypeError, ValueError):
        return gradient


def there(y, dy):
    """`dy` with zeros at the empty positions of a padded output."""

    def one(leaf, gradient):
        if gradient is None or not is_padded(leaf):
            return gradient
        return jnp.where(over_leading_axes(leaf.where, gradient.ndim), gradient, 0)

    return map_leaves(one, y, dy)


def _terms(y, dy):
    """The products whose sum has the gradient dy at y."""
    given = jax.tree.structure(y, is_leaf=is_leaf).flatten_up_to(there(y, dy))
    values = map(values_of, leaves(y))
    return [one * gradient for one, gradient in zip(values, given, strict=True) if gradient is not None]


def _size(terms):
    """The sum of the absolute values of terms, in float64."""
    return sum((jnp.sum(jnp.abs(one).astype(jnp.float64)) for one in terms), jnp.zeros((), jnp.float64))
