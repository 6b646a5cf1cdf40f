"""Looking inside a model: every plain layer is compared with autodiff at its place."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp

from funcnet import gradients
from funcnet.checking.programs import QUICKLY
from funcnet.checking.subjects import Point, run, there, whole
from funcnet.checking.watch import Seen, Step, map_plain, seen
from funcnet.trees import global_norm
from funcnet.types import Layer

__all__ = ["compared", "locate"]


def compared(steps: tuple[Step, ...], inner: Layer) -> Layer:
    """`inner`, whose backward compares itself with autodiff and passes autodiff's dx on.

    In place of its parameters' gradient it shows the largest distance from autodiff over its leaves and dx,
    norm-relative. The dx that is passed on is right, so a wrong formula does not make the layers below it look wrong.
    """
    automatic = gradients.automatic(inner.init, inner.apply)

    def forward(params, state, x, *, key=None, train=False):
        y, new_state, residuals = inner.forward(params, state, x, key=key, train=train)
        _, _, again = automatic.forward(params, state, x, key=key, train=train)
        return y, new_state, (residuals, again, _largest((params, x)))

    def backward(params, kept, dy):
        residuals, again, largest = kept
        by_hand = inner.backward(params, residuals, dy)
        by_autodiff = automatic.backward(params, again, dy)
        floor = 64 * jnp.finfo(largest.dtype).eps * global_norm(dy) * largest
        distances = [jnp.zeros(()), *_distances(by_hand, by_autodiff, floor)]
        return Seen(steps, str(inner), jnp.max(jnp.stack(distances))), by_autodiff[1]

    return inner._replace(forward=forward, backward=backward, inside=None)


def _distances(by_hand, by_autodiff, floor):
    by_hand = whole(by_autodiff, by_hand)
    if jax.tree.structure(by_hand) != jax.tree.structure(by_autodiff):
        return [jnp.asarray(jnp.inf)]
    pairs = zip(jax.tree.leaves(by_hand), jax.tree.leaves(by_autodiff), strict=True)
    return [jnp.linalg.norm(jnp.ravel(a - b)) / (jnp.linalg.norm(jnp.ravel(b)) + floor) for a, b in pairs]


def _largest(tree):
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.max(jnp.stack([jnp.ones(()), *(jnp.max(jnp.abs(leaf), initial=0) for leaf in floating)]))


def locate(model: Layer, mode: str, point: Point, tolerance: float) -> list[str]:
    """Places of the layers whose own backward differs from autodiff, the last layer of the model first."""
    # Not "distance > tolerance", which is false for NaN.
    wrong = [one for one in seen(_departures(model, mode)(point)) if not float(jnp.max(one.shown)) <= tolerance]
    wrong.sort(key=lambda one: one.order(), reverse=True)
    return [f"{one.place} {one.call}".strip() for one in wrong]


@lru_cache(maxsize=8)
def _departures(model, mode):
    instrumented = map_plain(compared, model)

    @partial(jax.jit, compiler_options=QUICKLY)
    def departures(point):
        y, _, residuals = run(instrumented.forward, mode, point, point.variables)
        return instrumented.backward(point.variables["params"], residuals, there(y, point.dy))[0]

    return departures
