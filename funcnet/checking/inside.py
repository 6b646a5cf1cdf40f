"""Looking inside a model: every plain layer compared with autodiff where it stands."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import gradients
from funcnet.layers import layer as make_layer
from funcnet.layers import map_layers
from funcnet.types import Layer

__all__ = ["Departure", "compared", "locate"]


class Departure(NamedTuple):
    """How far a layer's own backward is from autodiff, in context."""

    distance: Any  #: the largest over its leaves and dx, norm-relative


def compared(inner: Layer) -> Layer:
    """`inner`, whose backward compares itself with autodiff and hands autodiff's dx on.

    The gradient of its parameters is replaced by a `Departure`. Since the dx handed down is right, a wrong formula
    does not make the layers below it look wrong.
    """
    automatic = gradients.automatic(inner.init, inner.apply, name=inner.name)

    def forward(params, state, x, *, key=None, train=False):
        y, new_state, residuals = inner.forward(params, state, x, key=key, train=train)
        _, _, again = automatic.forward(params, state, x, key=key, train=train)
        return y, new_state, (residuals, again)

    def backward(params, kept, dy):
        residuals, again = kept
        by_hand = inner.backward(params, residuals, dy)
        by_autodiff = automatic.backward(params, again, dy)
        floor = 64 * jnp.finfo(dy.dtype).eps * jnp.linalg.norm(dy.ravel()) * _largest((params, again["x"]))
        distances = [
            jnp.linalg.norm(jnp.ravel(a - b)) / (jnp.linalg.norm(jnp.ravel(b)) + floor)
            for a, b in zip(jax.tree.leaves(by_hand), jax.tree.leaves(by_autodiff), strict=True)
        ]
        return Departure(jnp.max(jnp.stack([jnp.zeros(()), *distances]))), by_autodiff[1]

    return make_layer(inner.init, forward, backward, name=inner.name)


def _largest(tree):
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.max(jnp.stack([jnp.ones(()), *(jnp.max(jnp.abs(leaf), initial=0) for leaf in floating)]))


def locate(model: Layer, train: bool, point: Any, tolerance: float) -> list[str]:
    """Places of the layers whose own backward departs from autodiff, the last layer of the model first."""
    places: list[str] = []

    def instrument(place: str, inner: Layer) -> Layer:
        places.append(f"{place} {inner}".strip())
        return compared(inner)

    instrumented = map_layers(instrument, model)

    @jax.jit
    def departures(point):
        x = point.variables.get("x", point.constants["x"])
        args = (point.variables["params"], point.constants["state"], x)
        _, _, residuals = instrumented.forward(*args, key=point.constants["key"], train=train)
        return instrumented.backward(point.variables["params"], residuals, point.dy)[0]

    found = jax.tree.leaves(departures(point), is_leaf=lambda node: isinstance(node, Departure))
    wrong = [place for place, one in zip(places, found, strict=True) if float(jnp.max(one.distance)) > tolerance]
    return wrong[::-1]
