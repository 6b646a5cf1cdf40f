"""`trace_backward`: how large the activations and gradients are at each layer, as numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checking.watch import backpropagate, seen, watched
from funcnet.checks import over_leading_axes
from funcnet.gradients.engines import unpack
from funcnet.made import leading
from funcnet.numerics import power_of_two
from funcnet.rendering import text_table
from funcnet.trees import is_padded, leaves, values_of
from funcnet.types import Array, Batch, Key, Layer, LossFn, Params, State

__all__ = ["Statistics", "Trace", "trace_backward"]


class Statistics(NamedTuple):
    """Statistics of the arrays at each layer. A layer without such an array has NaN, and −1 as the index."""

    norm: Array  #: (layers,), √(Σ a²)
    rms: Array  #: (layers,), the root mean square √(Σ a² / n), which compares layers of different widths
    zeros: Array  #: (layers,), the share of numbers that are 0
    dead: Array  #: (layers,), the share of units (along the last axis) that are 0 in all rows of the batch
    nonfinite: Array  #: (layers,), int32, the flat index in C order of the first NaN or infinity, or −1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trace:
    """The layers of a model in forward order, and what passed through them; `str(trace)` is a table.

    It is a pytree whose `places` are static. So a function under `jit` can return it, and `scan` stacks the traces of
    many steps.
    """

    places: tuple[str, ...] = field(metadata={"static": True})  #: `"serial[0] dense(16)"`
    y: Statistics  #: of each layer's output
    dy: Statistics  #: of the gradient that arrives there, ∂loss/∂y
    dparams: Statistics  #: of the gradient of the layer's parameters, all together

    def __str__(self) -> str:
        if np.ndim(self.y.norm) != 1:
            return repr(self)
        parts = jax.device_get((self.y, self.dy, self.dparams))
        return text_table(
            [_HEAD, *(_cells(place, *jax.tree.map(itemgetter(i), parts)) for i, place in enumerate(self.places))]
        )


def trace_backward(model: Layer, loss: LossFn) -> Callable[..., Trace]:
    """A function `(params, state, batch, key=None) -> Trace` that looks inside one backpropagation.

    It has the signature of a gradient engine. Like an engine it is pure and ready for `jax.jit`, and it runs the model
    in training mode. Each plain layer is an entry, also inside containers. In a `repeat` each repetition is an entry.

    Args:
        model: a layer.
        loss: `(prediction, target) -> scalar`. If it has no hand-derived gradient, `jax.grad` takes the gradient.

    A batch is `(x, target[, where[, weights]])`, and its entries may be trees. If the output of a layer is a tree, the
    numbers of the layer are over all leaves together. In a padded output only the filled positions count. Gradients are
    0 at the empty ones.

    Statistics are in JAX's default float dtype, and no square in them underflows or overflows. No gradient arrives at
    layers before a layer that takes integers. There the statistics of dy and dparams are NaN. Those of dparams are also
    NaN in a layer without parameters.

    Raises: what the layers and the loss raise for the batch.

    References: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010, figures 2 to 7.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.dense(2), fn.layers.relu())
    >>> params, state = ({"kernel": jnp.array([[3.0, -1.0]]), "bias": jnp.zeros(2)}, ()), ((), ())
    >>> trace = fn.checking.trace_backward(model, fn.losses.half_squared_error)
    >>> print(jax.jit(trace)(params, state, (jnp.array([[1.0]]), jnp.zeros((1, 2)))))
    layer               y rms     zeros  dead   dy rms    zeros  dead   dparams rms  non-finite
    -------------------------------------------------------------------------------------------
    serial[0] dense(2)  2.24e+00  0.0%   0.0%   2.12e+00  50.0%  50.0%  2.12e+00
    serial[1] relu()    2.12e+00  50.0%  50.0%  2.12e+00  50.0%  50.0%
    """
    instrumented = watched(
        model,
        lambda params, state, x, y, new_state: _statistics(y),
        lambda dparams, dx, dy: (_statistics(dy), _statistics(dparams)),
    )

    def trace(params: Params, state: State, batch: Batch, key: Key | None = None, /) -> Trace:
        with leading("trace_backward"):
            x, target, options = unpack(batch)
        done = backpropagate(instrumented, loss, params, state, x, target, options, key)
        arrived = {one.steps: one.shown for one in seen(done.dparams)}
        places, rows = [], []
        for one in seen(done.state):
            shape = one.shown.norm.shape
            rows.append((one.shown, *arrived.get(one.steps, [_nothing(shape)] * 2)))
            places += [(one.order(index), place) for index, place in one.repetitions(shape)]
        order = sorted(range(len(places)), key=lambda i: places[i][0])
        parts = jax.tree.map(lambda *numbers: jnp.concatenate([n.ravel() for n in numbers])[np.array(order)], *rows)
        return Trace(tuple(places[i][1] for i in order), *parts)

    return trace


def _statistics(tree: Any) -> Statistics:
    dtype = jnp.result_type(float)  # the square of a number above 255 is infinite in float16
    parts = [(values.astype(dtype), there) for values, there in map(_with_mask, leaves(tree)) if values.size]
    if not parts:
        return _nothing(())
    numbers = jnp.concatenate([values.ravel() for values, _ in parts])
    there = jnp.concatenate([there.ravel() for _, there in parts])
    units = jnp.concatenate([(values == 0).reshape(-1, *values.shape[-1:] or (1,)).all(0) for values, _ in parts])
    scale = power_of_two([numbers], dtype)  # in float32 the square of a vanishing gradient, such as 1e-23, is 0
    size = jnp.sum(there.astype(dtype))
    rms = scale * jnp.sqrt(jnp.sum(jnp.square(numbers / scale)) / size)
    at = jnp.argmax(~jnp.isfinite(numbers))
    first = jnp.where(jnp.isfinite(numbers[at]), -1, at).astype(jnp.int32)
    zeros = jnp.sum(((numbers == 0) & there).astype(dtype)) / size
    return Statistics(rms * jnp.sqrt(size), rms, zeros, jnp.mean(units.astype(dtype)), first)


def _with_mask(leaf):
    """The values, with 0 at the empty positions of a `Padded`, and the mask of the filled positions."""
    if not is_padded(leaf):
        leaf = values_of(leaf)
        return leaf, jnp.ones(leaf.shape, bool)
    there = jnp.broadcast_to(over_leading_axes(leaf.where, leaf.values.ndim), leaf.values.shape)
    return jnp.where(there, leaf.values, 0), there


def _nothing(shape: tuple[int, ...]) -> Statistics:
    nan = jnp.full(shape, jnp.nan, jnp.result_type(float))
    return Statistics(nan, nan, nan, nan, jnp.full(shape, -1, jnp.int32))


_HEAD = ("layer", "y rms", "zeros", "dead", "dy rms", "zeros", "dead", "dparams rms", "non-finite")


def _cells(place: str, y: Statistics, dy: Statistics, dparams: Statistics) -> tuple[str, ...]:
    parts = {"y": y, "dy": dy, "dparams": dparams}
    bad = ", ".join(f"{name}[{one.nonfinite}]" for name, one in parts.items() if one.nonfinite >= 0)
    return (place, *_sizes(y), *_sizes(dy), _sizes(dparams)[0], bad)


def _sizes(one: Statistics) -> tuple[str, ...]:
    """Blank where there was no array."""
    if np.isnan(one.zeros):
        return "", "", ""
    return f"{one.rms:.2e}", f"{one.zeros:.1%}", f"{one.dead:.1%}"
