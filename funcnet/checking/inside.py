"""Looking inside a model: every plain layer is compared with autodiff at its place."""

from functools import cache, lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import gradients
from funcnet.checking.judging import WRONG, judged, verdict
from funcnet.checking.programs import quickly
from funcnet.checking.rounding import rounding
from funcnet.checking.subjects import Point, run, there, whole
from funcnet.checking.watch import Seen, Step, map_plain, seen
from funcnet.types import Layer

__all__ = ["compared", "locate"]


def compared(steps: tuple[Step, ...], inner: Layer) -> Layer:
    """`inner`, whose backward shows itself beside autodiff and passes autodiff's dx on.

    In place of its parameters' gradient it shows the leaves of both gradients: `(by hand, by autodiff)`. The dx that is
    passed on is right, so a wrong formula does not make the layers below it look wrong.
    """
    automatic = gradients.automatic(inner.init, inner.apply)

    def forward(params, state, x, *, key=None, train=False):
        y, new_state, residuals = inner.forward(params, state, x, key=key, train=train)
        _, _, again = automatic.forward(params, state, x, key=key, train=train)
        return y, new_state, (residuals, again)

    def backward(params, kept, dy):
        residuals, again = kept
        by_autodiff = automatic.backward(params, again, dy)
        by_hand = whole(by_autodiff, inner.backward(params, residuals, dy))
        return Seen(steps, str(inner), _pair(by_hand, by_autodiff)), by_autodiff[1]

    return inner._replace(forward=forward, backward=backward, inside=None)


def _pair(by_hand, by_autodiff):
    if jax.tree.structure(by_hand) != jax.tree.structure(by_autodiff):
        return [jnp.asarray(jnp.inf)], [jnp.zeros(())]
    return jax.tree.leaves(by_hand), jax.tree.leaves(by_autodiff)


def locate(model: Layer, mode: str, point: Point, tolerance: float) -> list[str]:
    """Places of the layers whose own backward differs from autodiff, the last layer of the model first."""
    shown, moved = _departures(model, mode)

    @cache
    def bounds():
        return [one.shown for one in seen(moved(point))]

    def bound(number, leaf):
        by_hand, by_autodiff = bounds()[number]
        return np.asarray(by_hand[leaf]) + np.asarray(by_autodiff[leaf])

    def is_wrong(number, one):
        pairs = enumerate(zip(*one.shown, strict=True))
        states = (judged(np.asarray(a), np.asarray(b), tolerance, partial(bound, number, i)) for i, (a, b) in pairs)
        return verdict(states) == WRONG

    wrong = [one for number, one in enumerate(seen(shown(point))) if is_wrong(number, one)]
    wrong.sort(key=lambda one: one.order(), reverse=True)
    return [f"{one.place} {one.call}".strip() for one in wrong]


@lru_cache(maxsize=8)
def _departures(model, mode):
    instrumented = map_plain(compared, model)

    def departures(point):
        y, _, residuals = run(instrumented.forward, mode, point, point.variables)
        return instrumented.backward(point.variables["params"], residuals, there(y, point.dy))[0]

    return [quickly(departures), quickly(rounding(departures))]
