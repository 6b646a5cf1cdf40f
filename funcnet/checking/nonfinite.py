"""`find_nonfinite`: where the first NaN or infinity of a training step appears."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checking.drawing import refuse_tracers
from funcnet.checking.programs import quickly
from funcnet.checking.watch import backpropagate, seen, watched
from funcnet.gradients.engines import unpack
from funcnet.made import leading, spelled
from funcnet.trees import flatten_with_paths
from funcnet.types import Array, Batch, Key, Layer, LossFn, Params, State

__all__ = ["Found", "find_nonfinite"]


class Found(NamedTuple):
    """The first NaN or infinity; `str(found)` is a sentence."""

    place: str  #: `"serial[2] dense(16)"`, `"batch"`, `"model"` or the name of the loss
    direction: str  #: `"given"` if it was there before, else the pass that made it, `"forward"` or `"backward"`
    what: str  #: `"params/kernel"`, `"x"`, `"y"`, `"state/mean"`, `"dy"`, `"dparams/kernel"`, `"dx"` …
    at: tuple[int, ...]  #: the index of the first such number in it
    value: float  #: NaN or ±∞

    def __str__(self) -> str:
        index = f" at [{', '.join(map(str, self.at))}]" if self.at else ""
        return f"{self.place}: {self.what} is {self.value}{index}, {self._origin()}"

    def _origin(self) -> str:
        if self.direction == "given":
            return "before any computation."
        if self.what in ("x", "dy", "prediction"):
            return f"where a container put finite numbers together in the {self.direction} pass."
        return f"born here in the {self.direction} pass: all that went in is finite."


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _First:
    """The first number of an array that is not finite. If all are finite, one of them."""

    what: str = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})
    number: Array
    at: Array  #: its flat index in C order


def find_nonfinite(
    model: Layer, loss: LossFn, params: Params, state: State, batch: Batch, key: Key | None = None
) -> Found | None:
    """Where the first NaN or infinity appears in a forward and backward pass in training mode, or `None`.

    The walk has this order: the batch, the parameters and the state as given; the layers in forward order; the
    prediction, the loss and its gradient; the layers in backward order. It stops at the first number that is not
    finite. All numbers before it are finite, so the place says where the fault is. The innermost layer is named, also
    inside containers. `x` or `dy` is named if every layer is right and a sum in a container overflows.

    A dx that only the batch would receive does not count, because no parameter's gradient is computed from it. A target
    that is not finite counts only if the loss or its gradient is not finite either, because `where` may mask the
    target.

    Args:
        model: a layer.
        loss: `(prediction, target) -> scalar`. If it has no hand-derived gradient, `jax.grad` takes the gradient.
        params, state, batch, key: as for a gradient engine. Each call is traced anew and runs under `jit`.

    Raises: ConfigError for numbers that are traced, for example by `jit`; what the layers and the loss raise for the
    batch.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> @fn.constructor
    ... def root():
    ...     return fn.layers.elementwise(jnp.sqrt, lambda x, y: 0.5 / y)
    >>> model, loss = fn.layers.serial(fn.layers.dense(2), root()), fn.losses.mean_squared_error
    >>> params, state = ({"kernel": jnp.eye(2), "bias": jnp.zeros(2)}, ()), ((), ())
    >>> print(fn.checking.find_nonfinite(model, loss, params, state, (jnp.array([[4.0, 0.0]]), jnp.ones((1, 2)))))
    serial[1] root(): dx is -inf at [0, 1], born here in the backward pass: all that went in is finite.
    """
    with leading("find_nonfinite"):
        refuse_tracers((params, state, batch))
        x, target, options = unpack(batch)
    instrumented = watched(
        model,
        lambda params, state, x, y, new_state: (
            _firsts(params=params, state=state), _firsts(x=x, y=y, state=new_state),
        ),
        lambda dparams, dx, dy: _firsts(dy=dy, dparams=dparams, dx=dx),
    )  # fmt: skip

    @quickly
    def run(params, state, x, key):
        # The target stays outside, because losses check labels only if these are not tracers.
        done = backpropagate(instrumented, loss, params, state, x, target, options, key)
        ends = {"x": x, "prediction": done.prediction, "target": target, "value": done.loss,
                "gradient": done.dprediction}  # fmt: skip
        return {name: _firsts(**{name: tree}) for name, tree in ends.items()}, done.state, done.dparams

    with jax.debug_nans(False), jax.debug_infs(False):  # these would raise at the first one, without its place
        ends, states, dparams = jax.device_get(run(params, state, x, key))
    layers, name = _layers(states), spelled(loss)
    walk = [
        ("batch", "given", ends["x"]),
        *((place, "given", before) for place, (before, _) in layers),
        *((place, "forward", made) for place, (_, made) in layers),
        ("model", "forward", ends["prediction"]),
        ("batch", "given", ends["target"]),
        (name, "forward", ends["value"]),
        (name, "backward", ends["gradient"]),
        *((place, "backward", made) for place, made in reversed(_layers(dparams))),
    ]
    found = [one for stop in walk for one in _not_finite(*stop)]
    if all(one.place != name for one in found):
        found = [one for one in found if not _is(one, "target")]
    return None if all(_is(one, "dx") for one in found) else found[0]


def _is(found: Found, what: str) -> bool:
    """Whether it was found in `what`, which may be a tree."""
    return found.what.split("/")[0] == what


def _firsts(**trees: Any) -> list[_First]:
    """A `_First` for each floating leaf, by name and path."""
    firsts = []
    for name, tree in trees.items():
        for path, leaf in flatten_with_paths({name: tree}):
            leaf = jnp.asarray(leaf)
            if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size:
                at = jnp.argmax(~jnp.isfinite(leaf))
                firsts.append(_First(path, leaf.shape, leaf.ravel()[at], at))
    return firsts


def _layers(tree: Any) -> list[tuple[str, Any]]:
    """What each layer showed, in forward order, with each repetition of a `repeat` by itself."""
    layers = []
    for one in seen(tree):
        firsts = jax.tree.leaves(one.shown, is_leaf=lambda node: isinstance(node, _First))
        for index, place in one.repetitions(firsts[0].number.shape if firsts else ()):
            shown = jax.tree.map(lambda leaf, index=index: leaf[index], one.shown)
            layers.append((one.order(index), place, shown))
    return [layer[1:] for layer in sorted(layers, key=lambda layer: layer[0])]


def _not_finite(place: str, direction: str, firsts: list[_First]) -> list[Found]:
    return [
        Found(place, direction, one.what, tuple(map(int, np.unravel_index(one.at, one.shape))), float(one.number))
        for one in firsts
        if not np.isfinite(float(one.number))
    ]
