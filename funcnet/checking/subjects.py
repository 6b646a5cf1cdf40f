"""What can be checked, in one form: a layer, a loss, a function. Each gives its gradient by hand and by autodiff, and
the values of the scalar whose differences are taken."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checking.numeric import sampler
from funcnet.checking.programs import QUICKLY, compiled, is_key, same_program
from funcnet.errors import ConfigError
from funcnet.types import Layer

__all__ = ["Point", "Subject", "by_hand", "is_floating", "run", "subjects_of", "widened"]

MODES = ("evaluation", "training")


class Point(NamedTuple):
    """Where gradients are compared."""

    variables: Any  #: what they are taken with respect to: {"params": …, "x": …} or {"prediction": …}
    constants: Any  #: the rest: of a layer state, key and integers, of a loss `(target,)`, of a function `()`
    dy: Any  #: the cotangent, or None for a scalar


class Subject(NamedTuple):
    """Something with a gradient by hand."""

    name: str
    mode: str  #: of a layer "evaluation", "training", or "both" where these are one program; else ""
    draw: Callable[..., Point]  #: (seed, x, y, params, state) -> Point
    both: Callable[[Point], Any]  #: the gradient by hand and by autodiff, trees like `variables`, compiled
    sampled: Callable[[Point, Any], Any]  #: the scalar's values around a point: see `numeric.sampler`
    program: Any = None  #: of a layer, Point -> all that is compared, traced


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
    """`target` in each mode, by default where they differ; a loss with its target `y`, and a function, have one."""
    if isinstance(target, Layer):
        if modes is None:
            _, training = every = [_layer_subject(target, mode) for mode in MODES]
            one = same_program(*(subject.program(subject.draw(0, x, y, params, state)) for subject in every))
            return [training._replace(mode="both")] if one else every
        if not modes or not set(modes) <= set(MODES):
            raise ConfigError(f'check_gradients: expected modes among "evaluation" and "training", got {modes!r}.')
        return [_layer_subject(target, mode) for mode in modes]
    gradient = gradient or getattr(target, "gradient", None)
    if gradient is None:
        raise ConfigError(
            f"check_gradients: expected a Layer, a loss with a hand-derived gradient, or a function and gradient=…, "
            f"got {getattr(target, '__name__', target)}, which has none; attach it with losses.loss, or pass gradient=."
        )
    return [_function_subject(target, gradient) if y is None else _loss_subject(target, gradient)]


def by_hand(target: Any, mode: str, point: Point) -> Any:
    """The hand-derived gradient of a layer, or of a loss or penalty that carries one: a tree like `point.variables`."""
    if not isinstance(target, Layer):
        return _of_loss(target.gradient, point)
    _, _, residuals = run(target.forward, mode, point, point.variables)
    dparams, dx = target.backward(point.variables["params"], residuals, point.dy)
    return {"params": dparams} | ({"x": dx} if "x" in point.variables else {})


def _of_loss(gradient: Callable[..., Any], point: Point) -> Any:
    """A gradient of a loss, of a penalty, or of a function of one argument, at a point."""
    if point.constants:
        return {"prediction": gradient(point.variables["prediction"], *point.constants)}
    return gradient(point.variables)


def run(function: Callable[..., Any], mode: str, point: Point, variables: Any) -> Any:
    """A layer's `apply` or `forward`, at a point with other variables."""
    x = variables.get("x", point.constants["x"])
    args = (variables["params"], point.constants["state"], x)
    return function(*args, key=point.constants["key"], train=mode != "evaluation")


def _subject(name, mode, draw, by_hand, by_autodiff, scalar):
    """A `Subject` with its compiled functions."""
    both = compiled(lambda point: (by_hand(point), by_autodiff(point)))
    return Subject(name, mode, draw, both, sampler(scalar))


@lru_cache(maxsize=16)  # the same target checked again is not compiled again
def _layer_subject(layer, mode):
    """A layer: the variables are its parameters, and its input unless that holds integers."""

    def draw(seed, x, y, params, state):
        del y
        random, (init_key, key) = np.random.default_rng(seed), jax.random.split(jax.random.key(seed))
        x = _random_like(random, x)
        if params is None:
            params, fresh = _init(layer)(init_key, x)
            params, state = _moved(random, params), fresh if state is None else state
        variables = {"params": _as_float64(params)} | ({"x": x} if is_floating(x) else {})
        state = () if state is None else _as_float64(state)
        point = Point(variables, {"state": state, "key": key, "x": None if is_floating(x) else x}, None)
        y, _ = jax.eval_shape(output, point)
        return point._replace(dy=jnp.asarray(random.normal(size=y.shape), y.dtype))

    @jax.jit  # so that it is traced once for all draws; only its shapes are asked for
    def output(point):
        return run(layer.apply, mode, point, point.variables)

    def program(point):
        return jax.make_jaxpr(lambda point: (by_hand(layer, mode, point), by_autodiff(point), output(point)))(point)

    def apply(point, variables):
        return run(layer.apply, mode, point, variables)[0]

    def by_autodiff(point):
        return jax.vjp(lambda variables: apply(point, variables), point.variables)[1](point.dy)[0]

    def scalar(point, variables):
        terms = apply(point, variables) * point.dy
        return jnp.sum(terms), jnp.sum(jnp.abs(terms))

    subject = _subject(layer.name, mode, draw, partial(by_hand, layer, mode), by_autodiff, scalar)
    return subject._replace(program=program)


@lru_cache(maxsize=16)
def _loss_subject(loss, gradient):
    """A loss: the variable is the prediction, the gradient is taken of the mean."""

    def draw(seed, x, y, params, state):
        del params, state
        return Point({"prediction": _random_like(np.random.default_rng(seed), x)}, (_as_float64(y),), None)

    def scalar(point, variables):
        value = loss(variables["prediction"], *point.constants)
        return value, jnp.abs(value)

    return _of_scalar(loss, gradient, draw, scalar)


@lru_cache(maxsize=16)
def _function_subject(function, gradient):
    """A function `tree -> scalar` with a hand-written gradient `tree -> tree`."""

    def draw(seed, x, y, params, state):
        del y, params, state
        random = np.random.default_rng(seed)
        return Point(jax.tree.map(partial(_random_like, random), x), (), None)

    def scalar(point, variables):
        value = function(variables)
        return value, jnp.abs(value)

    return _of_scalar(function, gradient, draw, scalar)


def _of_scalar(function, gradient, draw, scalar):
    def by_autodiff(point):
        return jax.grad(lambda variables: scalar(point, variables)[0])(point.variables)

    name = getattr(function, "__name__", "function")
    return _subject(name, "", draw, partial(_of_loss, gradient), by_autodiff, scalar)


@lru_cache(maxsize=16)
def _init(layer):
    return jax.jit(layer.init, compiler_options=QUICKLY)


# Random numbers are NumPy's, because a program that draws them takes longer to compile than the rest of a check.


def _random_like(random, x):
    """`x` as float64; random normal numbers where only its shape is given. Integers stay."""
    if isinstance(x, jax.ShapeDtypeStruct):
        if not is_floating(x):
            raise ConfigError("check_gradients: expected an array for an input of integers, got a shape; draw it.")
        return jnp.asarray(random.normal(size=x.shape))
    return _as_float64(x)


def is_floating(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _as_float64(tree):
    """Floating leaves as float64, by way of NumPy: the caller's arrays may be of 32-bit mode."""
    return widened(jax.tree.map(lambda leaf: leaf if is_key(leaf) else np.asarray(leaf), tree))


def widened(tree):
    """Floating leaves as float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) if is_floating(leaf) else jnp.asarray(leaf), tree)


def _moved(random, params):
    """Parameters moved off their start by a quarter of a standard normal: zeros hide mistakes."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) + random.normal(size=leaf.shape) / 4, params)
