"""What all normalisations share: the scale and the bias of each channel behind them, y = s ⊙ x̂ + b, and their checks.

Either may be left out; `inits` has an initializer for each that is there.
"""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.errors import ShapeError
from funcnet.initializers import Initializer
from funcnet.layers.checks import check_empty, check_floating, check_leaves
from funcnet.types import Array, Params

__all__ = ["as_params", "check_channels", "check_input", "check_params", "chosen", "init_params", "statistics_dtype"]

Inits = dict[str, Initializer]


def chosen(use_scale: bool, scale_init: Initializer, use_bias: bool, bias_init: Initializer) -> Inits:
    return ({"scale": scale_init} if use_scale else {}) | ({"bias": bias_init} if use_bias else {})


def init_params(inits: Inits, key: Any, x: Any) -> Params:
    """One number a channel for each, in the dtype of `x`; `()` for none."""
    keys = {"scale": key, "bias": jax.random.fold_in(key, 1)}  # two initializers of one kind draw different numbers
    return {leaf: init(keys[leaf], x.shape[-1:], x.dtype) for leaf, init in inits.items()} or ()


def as_params(inits: Inits, dtype: Any, **gradients: Array) -> Params:
    """The gradients as a tree like the params."""
    return {leaf: gradients[leaf].astype(dtype) for leaf in inits} or ()


def statistics_dtype(x: Any) -> Any:
    """float32 or wider: a mean of 16-bit numbers would keep two digits."""
    return x.dtype if x.dtype.itemsize >= 4 else jnp.float32


def check_input(name: str, x: Any) -> None:
    check_floating(name, x)
    if x.ndim < 2:
        raise ShapeError(
            f"{name}: expected x of shape (batch, …, channels), got {x.shape}; add the batch axis with x[None]."
        )


def check_params(name: str, inits: Inits, params: Any, x: Any) -> None:
    if not inits:
        return check_empty(name, "params", params)
    if isinstance(params, dict):
        check_channels(name, x, *params.values())
    channels: tuple[int, ...] = x.shape[-1:]
    return check_leaves(name, params, x, dict.fromkeys(inits, channels))


def check_channels(name: str, x: Any, *arrays: Any) -> None:
    """`x` has as many channels as the layer's own arrays have numbers."""
    for array in arrays:
        if array.ndim == 1 and array.shape != x.shape[-1:]:
            raise ShapeError(
                f"{name}: expected x of {array.size} channels, got {x.shape}; "
                "feed the channels that init saw, or init again."
            )
