"""What can be checked, in one form: a layer, a loss, a function. Each gives its gradient by hand and by autodiff, and
the scalar whose differences are taken."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.errors import ConfigError

__all__ = [
    "Point", "Subject", "as_float64", "function_subject", "layer_subject", "loss_subject", "moved", "random_like",
]  # fmt: skip


class Point(NamedTuple):
    """Where gradients are compared."""

    variables: Any  #: what they are taken with respect to: {"params": …, "x": …} or {"prediction": …}
    constants: Any  #: the rest: state, key, integers, targets
    dy: Any  #: the cotangent, or None for a scalar


class Subject(NamedTuple):
    """Something with a gradient by hand."""

    name: str
    mode: str
    draw: Callable[..., Point]  #: (seed, x, y, params, state) -> Point
    by_hand: Callable[[Point], Any]  #: a tree like `variables`
    by_autodiff: Callable[[Point], Any]
    scalar: Callable[[Point, Any], Any]  #: (point, variables) -> (scalar, sum of its absolute terms)


def layer_subject(layer, mode):
    """A layer: the variables are its parameters, and its input unless that holds integers."""
    if mode not in ("evaluation", "training"):
        raise ConfigError(f'check_gradients: expected modes among "evaluation" and "training", got {mode!r}.')
    train = mode == "training"

    def forward(point, variables):
        x = variables.get("x", point.constants["x"])
        args = (variables["params"], point.constants["state"], x)
        return layer.forward(*args, key=point.constants["key"], train=train)

    def draw(seed, x, y, params, state):
        del y
        keys = jax.random.split(jax.random.key(seed), 5)
        x = random_like(keys[0], x)
        if params is None:
            params, fresh = layer.init(keys[1], x)
            params = moved(keys[2], params)
            state = fresh if state is None else state
        params, state = as_float64(params), as_float64(() if state is None else state)
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        variables = {"params": params} | ({"x": x} if floating else {})
        point = Point(variables, {"state": state, "key": keys[3], "x": None if floating else x}, None)
        y = jax.eval_shape(lambda point: forward(point, point.variables)[0], point)
        return point._replace(dy=jax.random.normal(keys[4], y.shape, y.dtype))

    def by_hand(point):
        _, _, residuals = forward(point, point.variables)
        dparams, dx = layer.backward(point.variables["params"], residuals, point.dy)
        return {"params": dparams} | ({"x": dx} if "x" in point.variables else {})

    def apply(point, variables):
        x = variables.get("x", point.constants["x"])
        args = (variables["params"], point.constants["state"], x)
        return layer.apply(*args, key=point.constants["key"], train=train)[0]

    def by_autodiff(point):
        return jax.vjp(lambda variables: apply(point, variables), point.variables)[1](point.dy)[0]

    def scalar(point, variables):
        terms = apply(point, variables) * point.dy
        return jnp.sum(terms), jnp.sum(jnp.abs(terms))

    return Subject(layer.name, mode, draw, by_hand, by_autodiff, scalar)


def loss_subject(loss):
    """A loss: the variable is the prediction, the gradient is taken of the mean."""
    name = getattr(loss, "__name__", "loss")
    if not hasattr(loss, "gradient"):
        raise ConfigError(
            f"check_gradients: expected a Layer, a loss with a hand-derived gradient, or a function and gradient=…, "
            f"got {name}, which has none; attach it with losses.loss, or pass gradient=."
        )

    def draw(seed, x, y, params, state):
        del params, state
        return Point({"prediction": random_like(jax.random.key(seed), x)}, {"target": as_float64(y)}, None)

    def scalar(point, variables):
        value = loss(variables["prediction"], point.constants["target"])
        return value, jnp.abs(value)

    def by_hand(point):
        return {"prediction": loss.gradient(point.variables["prediction"], point.constants["target"])}

    def by_autodiff(point):
        return jax.grad(lambda variables: scalar(point, variables)[0])(point.variables)

    return Subject(name, "", draw, by_hand, by_autodiff, scalar)


def function_subject(function, gradient):
    """A function `tree -> scalar` with a hand-written gradient `tree -> tree`."""

    def draw(seed, x, y, params, state):
        del y, params, state
        leaves, structure = jax.tree.flatten(x)
        keys = jax.random.split(jax.random.key(seed), max(len(leaves), 1))
        return Point(jax.tree.unflatten(structure, map(random_like, keys, leaves)), (), None)

    def scalar(point, variables):
        del point
        value = function(variables)
        return value, jnp.abs(value)

    return Subject(
        getattr(function, "__name__", "function"), "", draw,
        lambda point: gradient(point.variables), lambda point: jax.grad(function)(point.variables), scalar,
    )  # fmt: skip


def random_like(key, x):
    """`x` as float64; random normal numbers where only its shape is given. Integers stay."""
    if isinstance(x, jax.ShapeDtypeStruct):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ConfigError("check_gradients: expected an array for an input of integers, got a shape; draw it.")
        return jax.random.normal(key, x.shape, jnp.float64)
    return as_float64(x)


def as_float64(tree):
    """Floating leaves as float64, by way of NumPy: the caller's arrays may be of 32-bit mode."""

    def convert(leaf):
        leaf = np.asarray(leaf)
        return jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.asarray(leaf)

    return jax.tree.map(convert, tree)


def moved(key, params):
    """Parameters moved off their start by a quarter of a standard normal: zeros hide mistakes."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))[: len(leaves)]
    shifts = [jax.random.normal(k, leaf.shape, leaf.dtype) / 4 for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.map(jnp.add, params, jax.tree.unflatten(structure, shifts))
