"""Layers whose backward pass comes from autodiff, for those that have no derivation yet."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from funcnet.gradients.cotangents import as_cotangent, as_gradient
from funcnet.layers.layer import layer
from funcnet.made import own_call, owned, spelled
from funcnet.types import ApplyFn, InitFn, Inside, Layer

__all__ = ["automatic", "automatic_function"]


def automatic(init: InitFn, apply: ApplyFn, *, inside: Sequence[Layer] = ()) -> Layer:
    """A layer from `init` and `apply` only: its backward is `jax.vjp` of `apply`.

    Use it for layers whose backward pass you have not derived yet, and for models that are not a chain of layers. The
    backward pass runs `apply` again, like `layers.recompute`. `x` and `y` may be trees.

    Args:
        init: `(key, x) -> (params, state)`.
        apply: `(params, state, x, *, key=None, train=False) -> (y, state)`.
        inside: the layers that it runs, for tools that look inside. If there is one, params and state are those of that
            layer. If there are several, params and state are tuples with an entry for each.

    Kept: x, the state before, the key and the mode. The backward gets params as an argument.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> @fn.constructor
    ... def wave():
    ...     def apply(params, state, x, *, key=None, train=False):
    ...         return jnp.sin(params["scale"] * x), state
    ...     return fn.gradients.automatic(lambda key, x: ({"scale": jnp.ones(())}, ()), apply)
    >>> _, _, residuals = wave().forward({"scale": jnp.ones(())}, (), jnp.zeros(1))
    >>> wave().backward({"scale": jnp.ones(())}, residuals, jnp.ones(1))[1]
    Array([1.], dtype=float32)
    """

    def forward(params, state, x, *, key=None, train=False):
        y, new_state = apply(params, state, x, key=key, train=train)
        return y, new_state, {"x": x, "state": state, "key": key, "mode": () if train else None}

    def backward(params, residuals, dy):
        def run(params, x):
            train = residuals["mode"] is not None
            return apply(params, residuals["state"], x, key=residuals["key"], train=train)[0]

        y, vjp = jax.vjp(run, params, residuals["x"])
        dparams, dx = vjp(as_cotangent(y, dy))
        return dparams, as_gradient(dx)

    made = layer(forward, backward, init=init, trees=True)
    places = (None,) if len(inside) == 1 else tuple(range(len(inside)))
    runs = Inside(tuple(inside), places, None) if inside else None
    return owned(own_call(getattr(apply, "__name__", "automatic")), made._replace(inside=runs))


def automatic_function(function: Callable[[Any], Any]) -> Layer:
    """A layer without parameters from a plain function `x -> y`; its backward is `jax.vjp` of the function.

    If you have derived the backward pass, use `layers.elementwise` or `layers.parameterless`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.gradients.automatic_function(jnp.sin).apply((), (), jnp.zeros(1))[0]
    Array([0.], dtype=float32)
    """

    def apply(params, state, x, *, key=None, train=False):
        del params, key, train
        return function(x), state

    made = automatic(lambda key, x: ((), ()), apply)
    return owned(own_call(spelled(function)), made)
