"""A model whose plain layers show what passes through them.

What a layer shows of its forward pass comes out in the place of its new state, and what it shows of its backward pass
in the place of its parameters' gradient: containers hand both on, through `scan` and the second forward of `recompute`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet.layers import layer as make_layer
from funcnet.layers import map_layers
from funcnet.types import Array, Layer, LossFn

__all__ = ["Pass", "Seen", "backpropagate", "in_forward_order", "repetitions", "seen", "watched"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen:
    """What a layer shows. In a `repeat` each array has a leading axis of the repetitions."""

    place: str = field(metadata={"static": True})  #: as `layers.map_layers` names it
    call: str = field(metadata={"static": True})  #: the one that made the layer
    shown: Any  #: a pytree


def watched(model: Layer, forward: Callable[..., Any], backward: Callable[..., Any]) -> Layer:
    """`model`, whose layers show `forward(params, state, x, y, new_state)` and `backward(dparams, dx, dy)`."""

    def watch(place: str, inner: Layer) -> Layer:
        def watched_forward(params, state, x, *, key=None, train=False):
            y, new_state, residuals = inner.forward(params, state, x, key=key, train=train)
            return y, Seen(place, inner.name, forward(params, state, x, y, new_state)), residuals

        def watched_backward(params, residuals, dy):
            dparams, dx = inner.backward(params, residuals, dy)
            return Seen(place, inner.name, backward(dparams, dx, dy)), dx

        return make_layer(inner.init, watched_forward, watched_backward, name=inner.name)

    return map_layers(watch, model)


class Pass(NamedTuple):
    """One forward and backward pass in training mode."""

    prediction: Any
    loss: Array
    dprediction: Any
    state: Any
    dparams: Any


def backpropagate(model: Layer, loss: LossFn, params, state, x, target, where, key) -> Pass:
    """As `gradients.backprop`, but with ∂loss/∂prediction, which is taken by autodiff where it is not hand-derived."""
    prediction, new_state, residuals = model.forward(params, state, x, key=key, train=True)
    loss_gradient = getattr(loss, "gradient", None) or jax.grad(loss)
    dprediction = loss_gradient(prediction, target, **where)
    dparams, _ = model.backward(params, residuals, dprediction)
    return Pass(prediction, loss(prediction, target, **where), dprediction, new_state, dparams)


def seen(tree: Any) -> list[Seen]:
    """What the layers showed in a state or gradient. Where no dy arrived a gradient holds zeros and shows nothing."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Seen))
    return [node for node in nodes if isinstance(node, Seen)]


def repetitions(place: str, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
    """The index and the place of each repetition: `serial[1] repeat` of shape (2,) is `serial[1] repeat[0]`, `…[1]`."""
    for index in np.ndindex(*shape):
        numbers = iter(index)
        words = [f"repeat[{next(numbers)}]" if word == "repeat" else word for word in place.split()]
        yield index, " ".join(words)


def in_forward_order(place: str) -> list[int]:
    """A key to sort by: a container runs its sublayers, and `repeat` its repetitions, by number."""
    return [int(number) for number in re.findall(r"\[(\d+)\]", place)]
