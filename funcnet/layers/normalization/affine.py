"""The scale and the bias of each channel, y = s ⊙ x̂ + b, for all normalisations with parameters; sums by channel."""

from functools import partial
from typing import Any

import jax

from funcnet.checks import check_floating, check_shape
from funcnet.layers.layer import Leaves
from funcnet.numerics import by_platform
from funcnet.types import Array, Params

__all__ = ["gradients", "leaves", "totals", "within_examples"]


def leaves(x: Any, scale_init: Any, bias_init: Any) -> Leaves:
    """A scale and a bias, each with one number per channel. A false initializer leaves its leaf out."""
    check_floating("x", x)
    check_shape("x", x, "(batch, …, channels)", "add the batch axis with x[None]")
    channels = x.shape[-1:]
    return {"scale": scale_init and (scale_init, channels), "bias": bias_init and (bias_init, channels)}


def gradients(x: Any, dscale: Array, dbias: Array) -> Params:
    """The gradients in the dtype of the params, which is that of `x`."""
    return {"scale": dscale.astype(x.dtype), "bias": dbias.astype(x.dtype)}


def within_examples(x: Array) -> Array:
    """Sums over each example's places, (batch, …, channels) -> (batch, channels)."""
    return x.sum(tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x


@partial(jax.jit, inline=True)  # so that outside jit the choice is not compiled at each call
def totals(x: Array) -> Array:
    """Sums over examples and places, (batch, …, channels) -> (channels,).

    On a CPU they are taken in two stages, because it is slow at summing down the columns of a whole batch.
    """
    axes = tuple(range(x.ndim - 1))
    return by_platform(x, cpu=lambda x: within_examples(x).sum(0), default=lambda x: x.sum(axes))
