"""A model whose plain layers show what passes through them.

A layer returns what it shows of its forward pass in place of its new state. It returns what it shows of its backward
pass in place of its parameters' gradient. Containers pass both on, also through `scan` and through the second forward
of `recompute`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet import layers
from funcnet.gradients.cotangents import as_gradient
from funcnet.layers.containers.mapping import places_of
from funcnet.types import Array, Layer, LossFn

__all__ = ["Pass", "Seen", "Step", "backpropagate", "map_plain", "seen", "watched"]


class Step(NamedTuple):
    """One step of the way to a layer: from a container to a layer in it."""

    word: str  #: `serial[2]`
    position: int | None  #: which of the container's layers it is; `None` in a `repeat`, which repeats one layer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen:
    """What a layer shows. In a `repeat` each array has a leading axis of the repetitions."""

    steps: tuple[Step, ...] = field(metadata={"static": True})  #: the way to the layer
    call: str = field(metadata={"static": True})  #: the call that made the layer
    shown: Any  #: a pytree

    @property
    def place(self) -> str:
        """The place as in errors, for example `serial[1] repeat serial[0]`."""
        return " ".join(step.word for step in self.steps)

    def order(self, index: tuple[int, ...] = ()) -> list[int]:
        """The sort key of the repetition with that index. Containers run their layers in the order of the call."""
        numbers = iter(index)
        return [next(numbers, 0) if step.position is None else step.position for step in self.steps]

    def repetitions(self, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
        """The index and the name of each repetition. For `serial[1] repeat` of shape (2,) the names begin with
        `serial[1] repeat[0]` and `serial[1] repeat[1]`."""
        for index in np.ndindex(*shape):
            numbers = iter(index)
            words = [f"{word}[{next(numbers)}]" if position is None else word for word, position in self.steps]
            yield index, " ".join([*words, self.call])


def map_plain(
    function: Callable[[tuple[Step, ...], Layer], Layer], model: Layer, steps: tuple[Step, ...] = ()
) -> Layer:
    """Like `layers.map_layers`, but `function` gets the steps to each plain layer instead of its place."""
    inside = model.inside
    if inside is None or inside.rebuild is None:
        return function(steps, model)
    loops = model.made.constructor is layers.repeat
    ways = [Step(word, None if loops else i) for i, word in enumerate(places_of(model, ""))]
    inner = [map_plain(function, layer, (*steps, way)) for way, layer in zip(ways, inside.layers, strict=True)]
    return inside.rebuild(*inner)


def watched(model: Layer, forward: Callable[..., Any], backward: Callable[..., Any]) -> Layer:
    """`model`, whose layers show `forward(params, state, x, y, new_state)` and `backward(dparams, dx, dy)`."""

    def watch(steps: tuple[Step, ...], inner: Layer) -> Layer:
        def watched_apply(params, state, x, *, key=None, train=False):  # what `recompute` runs
            y, new_state = inner.apply(params, state, x, key=key, train=train)
            return y, Seen(steps, str(inner), forward(params, state, x, y, new_state))

        def watched_forward(params, state, x, *, key=None, train=False):
            y, new_state, residuals = inner.forward(params, state, x, key=key, train=train)
            return y, Seen(steps, str(inner), forward(params, state, x, y, new_state)), residuals

        def watched_backward(params, residuals, dy):
            dparams, dx = inner.backward(params, residuals, dy)
            return Seen(steps, str(inner), backward(dparams, dx, dy)), dx

        return inner._replace(apply=watched_apply, forward=watched_forward, backward=watched_backward, inside=None)

    return map_plain(watch, model)


class Pass(NamedTuple):
    """One forward and backward pass in training mode."""

    prediction: Any
    loss: Array
    dprediction: Any
    state: Any
    dparams: Any


def backpropagate(model: Layer, loss: LossFn, params, state, x, target, options, key) -> Pass:
    """Like `gradients.backprop`, but with ∂loss/∂prediction too, by autodiff if the loss has no gradient by hand."""
    prediction, new_state, residuals = model.forward(params, state, x, key=key, train=True)
    loss_gradient = getattr(loss, "gradient", None) or _by_autodiff(loss)
    dprediction = loss_gradient(prediction, target, **options)
    dparams, _ = model.backward(params, residuals, dprediction)
    return Pass(prediction, loss(prediction, target, **options), dprediction, new_state, dparams)


def _by_autodiff(loss):
    gradient = jax.grad(loss, allow_int=True)
    return lambda prediction, target, **options: as_gradient(gradient(prediction, target, **options))


def seen(tree: Any) -> list[Seen]:
    """What the layers showed in a state or gradient. Where no dy arrived, a gradient holds zeros and shows nothing."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Seen))
    return [node for node in nodes if isinstance(node, Seen)]
