"""Layers whose backward autodiff supplies, for those whose derivation is still to come."""

from collections.abc import Callable
from typing import Any

import jax

from funcnet.layers.layer import layer, no_parameters
from funcnet.types import ApplyFn, InitFn, Layer

__all__ = ["automatic", "automatic_function"]


def automatic(init: InitFn, apply: ApplyFn, *, name: str | None = None) -> Layer:
    """A layer from `init` and `apply` alone: its backward is `jax.vjp` of `apply`.

    For layers whose derivation is still to come. It runs `apply` again in the backward pass, like `layers.recompute`.

    Args:
        init: `(key, x) -> (params, state)`.
        apply: `(params, state, x, *, key=None, train=False) -> (y, state)`.
        name: the call that makes the layer, with which its errors begin.

    Kept: params are given to the backward; x, the state before, the key and the mode are the residuals.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> def apply(params, state, x, *, key=None, train=False):
    ...     return jnp.sin(params["scale"] * x), state
    >>> wave = fn.gradients.automatic(lambda key, x: ({"scale": jnp.ones(())}, ()), apply, name="wave()")
    >>> _, _, residuals = wave.forward({"scale": jnp.ones(())}, (), jnp.zeros(1))
    >>> wave.backward({"scale": jnp.ones(())}, residuals, jnp.ones(1))[1]
    Array([1.], dtype=float32)
    """
    name = name or getattr(apply, "__name__", "automatic")

    def forward(params, state, x, *, key=None, train=False):
        y, new_state = apply(params, state, x, key=key, train=train)
        return y, new_state, {"x": x, "state": state, "key": key, "mode": () if train else None}

    def backward(params, residuals, dy):
        def run(params, x):
            train = residuals["mode"] is not None
            return apply(params, residuals["state"], x, key=residuals["key"], train=train)[0]

        x = residuals["x"]
        if not jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
            return jax.vjp(lambda params: run(params, x), params)[1](dy)[0], None
        return jax.vjp(run, params, x)[1](dy)

    return layer(init, forward, backward, name=name)


def automatic_function(function: Callable[[Any], Any], *, name: str | None = None) -> Layer:
    """A layer without parameters from a plain function `x -> y`; its backward is `jax.vjp` of the function.

    With a derivative of your own use `layers.elementwise` or `layers.parameterless`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.gradients.automatic_function(jnp.sin).apply((), (), jnp.zeros(1))[0]
    Array([0.], dtype=float32)
    """

    def apply(params, state, x, *, key=None, train=False):
        del params, key, train
        return function(x), state

    return automatic(no_parameters, apply, name=name or getattr(function, "__name__", "function"))
