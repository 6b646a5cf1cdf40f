"""Looking inside a model: every plain layer compared with autodiff where it stands."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp

from funcnet import gradients
from funcnet.checking.programs import QUICKLY
from funcnet.checking.subjects import Point, run
from funcnet.checking.watch import Seen, in_forward_order, seen
from funcnet.layers import layer as make_layer
from funcnet.layers import map_layers
from funcnet.types import Layer

__all__ = ["compared", "locate"]


def compared(place: str, inner: Layer) -> Layer:
    """`inner`, whose backward compares itself with autodiff and hands autodiff's dx on.

    In place of its parameters' gradient it shows its largest distance from autodiff over its leaves and dx,
    norm-relative. Since the dx handed down is right, a wrong formula does not make the layers below it look wrong.
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
        return Seen(place, inner.name, jnp.max(jnp.stack([jnp.zeros(()), *distances]))), by_autodiff[1]

    return make_layer(inner.init, forward, backward, name=inner.name)


def _largest(tree):
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.max(jnp.stack([jnp.ones(()), *(jnp.max(jnp.abs(leaf), initial=0) for leaf in floating)]))


def locate(model: Layer, mode: str, point: Point, tolerance: float) -> list[str]:
    """Places of the layers whose own backward departs from autodiff, the last layer of the model first."""
    # Not "distance > tolerance", which NaN is not.
    wrong = [one for one in seen(_departures(model, mode)(point)) if not float(jnp.max(one.shown)) <= tolerance]
    wrong.sort(key=lambda one: in_forward_order(one.place), reverse=True)
    return [f"{one.place} {one.call}".strip() for one in wrong]


@lru_cache(maxsize=8)
def _departures(model, mode):
    instrumented = map_layers(compared, model)

    @partial(jax.jit, compiler_options=QUICKLY)
    def departures(point):
        _, _, residuals = run(instrumented.forward, mode, point, point.variables)
        return instrumented.backward(point.variables["params"], residuals, point.dy)[0]

    return departures
