"""The scale and the bias of each channel, y = s ⊙ x̂ + b, for all normalisations with parameters."""

from typing import Any

from funcnet.checks import check_floating, check_shape
from funcnet.layers.layer import Leaves
from funcnet.types import Array, Params

__all__ = ["gradients", "leaves"]


def leaves(x: Any, scale_init: Any, bias_init: Any) -> Leaves:
    """A scale and a bias, each with one number per channel. A false initializer leaves its leaf out."""
    check_floating("x", x)
    check_shape("x", x, "(batch, …, channels)", "add the batch axis with x[None]")
    channels = x.shape[-1:]
    return {"scale": scale_init and (scale_init, channels), "bias": bias_init and (bias_init, channels)}


def gradients(x: Any, dscale: Array, dbias: Array) -> Params:
    """The gradients in the dtype of the params, which is that of `x`."""
    return {"scale": dscale.astype(x.dtype), "bias": dbias.astype(x.dtype)}
