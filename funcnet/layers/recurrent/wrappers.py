"""Containers of sequences: a layer in both directions of time, and a layer at each position."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_choice
from funcnet.layers.containers import container, merged
from funcnet.layers.containers.composition import concatenated, slices, summed
from funcnet.layers.containers.container import check_layers
from funcnet.layers.layer import one_position
from funcnet.layers.sequences import closed, opened_times, zeroed
from funcnet.made import constructor
from funcnet.trees import keep_shape, kept_shape, total
from funcnet.types import Layer, Padded, Rules

__all__ = ["bidirectional", "over_time"]


@constructor
def bidirectional(inner: Layer, *, combine: str = "concatenate") -> Layer:
    """A layer of sequences in both directions of time, y = (f(x), R f(R x)), where R reverses the time.

    Args:
        inner: the layer, such as `lstm(8)`. Each direction has parameters of its own.
        combine: `"concatenate"` puts the two outputs side by side on the last axis, as in torch and Keras. `"sum"` adds
            them.

    Input (batch, time, …), also as a `Padded` if `inner` takes one. Then the empty positions stand at the beginning for
    the second direction, where recurrences hold their first state. At the last position the second direction has seen
    only this position, so take the mean or the maximum over time rather than the last one.
    Params and state: `{"forward": …, "backward": …}`.

    Backward. R only moves numbers, so that ∂L/∂x of R x is R applied to what arrives. With g = ∂L/∂y, and (g₁, g₂) its
    parts (both are g for `"sum"`), dx = backward_f(g₁) + R backward_f(R g₂). Kept: each direction's residuals.

    Raises:
        ConfigError: `inner` is not a `Layer`, or `combine` has another value.
        ShapeError: `x` has fewer than two axes.

    References: Schuster, Paliwal, "Bidirectional Recurrent Neural Networks", IEEE Transactions on Signal Processing
    1997.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.bidirectional(fn.layers.gru(4))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((5, 7, 3)))
    >>> layer.apply(params, state, jnp.ones((5, 7, 3)))[0].shape, params["backward"]["kernel"].shape
    ((5, 7, 8), (3, 12))
    """
    check_layers((inner,))
    check_choice("combine", combine, ("concatenate", "sum"))

    def walk(run, x):
        ys = [run(0, x), _reversed(run(1, _reversed(x)))]
        if combine == "sum":
            return summed(ys), None
        return merged(partial(concatenated, -1), *ys), [keep_shape(y) for y in ys]

    def back(run, kept, dy):
        ahead, behind = (dy, dy) if kept is None else slices(dy, [kept_shape(y).shape[-1] for y in kept], -1)
        return total([run(0, ahead), jax.tree.map(_flip, run(1, _flip(behind)))])

    # One position at a time is not possible, as the second direction begins at the end.
    return container({"forward": inner, "backward": inner}, walk, back)._replace(rules=Rules())


@constructor
def over_time(inner: Layer) -> Layer:
    """A layer at each position of a sequence by itself, y_t = f(x_t).

    It is for layers that do not take an axis of time, such as `conv` for the images of a film. Layers that take any
    axes before their own, such as `dense`, do not need it.

    Args:
        inner: the layer. It sees the positions of all sequences as rows of one batch.

    Input (batch, time, …), also as a `Padded`. Output (batch, time, …). The empty positions of a `Padded` are zeros for
    `inner`, and in the output. A layer that mixes rows, such as `batch_norm`, counts these zeros.
    Params and state are those of `inner`.

    Backward. y_t depends on x_t alone, so dx_t = backward_f(g_t), and the sum over rows in the gradients of the
    parameters becomes one over rows and times. Kept: the residuals of `inner`.

    Raises:
        ConfigError: `inner` is not a `Layer`.
        ShapeError: `x` has fewer than two axes.

    References: Donahue and others, "Long-term Recurrent Convolutional Networks for Visual Recognition and Description",
    CVPR 2015.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.over_time(fn.layers.serial(fn.layers.conv(4, 3), fn.layers.global_avg_pool()))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 7, 8, 8, 1)))
    >>> model.apply(params, state, jnp.ones((2, 7, 8, 8, 1)))[0].shape
    (2, 7, 4)
    """
    check_layers((inner,))

    def walk(run, x):
        values, where = opened_times(x)
        batch, time = values.shape[:2]
        y = run(0, merged(lambda values, where: _as_rows(zeroed(where, values)), values, where))

        def unfolded(leaf):
            return closed(merged(lambda y, where: zeroed(where, _as_sequences(batch, time, y)), leaf, where), where)

        return jax.tree.map(unfolded, y), (where, keep_shape(values))

    def back(run, kept, dy):
        where, shape = kept
        batch, time = kept_shape(shape).shape[:2]
        dx = run(0, jax.tree.map(lambda leaf: _as_rows(zeroed(where, leaf)), dy))
        return jax.tree.map(lambda leaf: zeroed(where, _as_sequences(batch, time, leaf)), dx)

    return container(inner, walk, back)._replace(rules=Rules(cell=one_position(inner)))


def _flip(a: Any) -> Any:
    return jnp.flip(a, 1)


def _reversed(x: Any) -> Any:
    values, where = opened_times(x)
    values = merged(_flip, values)
    return values if where is None else Padded(values, merged(_flip, where))


def _as_rows(leaf):
    return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])


def _as_sequences(batch, time, leaf):
    return leaf.reshape(batch, time, *leaf.shape[1:])
