"""The two gradient engines: `autodiff` and `backprop` have one signature, so swapping them changes one word.

    gradient(params, state, (x, target), key=None) -> Gradient(loss, grads, state, prediction)

Both run the model in training mode. A batch may carry a third entry, `(x, target, where)`: a mask over the rows, which
goes to the loss as `where=`.
"""

from collections.abc import Callable
from typing import Any

import jax

from funcnet.checks import describe
from funcnet.errors import ConfigError, DtypeError
from funcnet.layers.layer import layer, no_parameters
from funcnet.types import ApplyFn, Array, Gradient, GradientFn, InitFn, Layer, LossFn, Params

__all__ = ["autodiff", "automatic", "automatic_function", "backprop"]


def autodiff(model: Layer, loss: LossFn, *, penalty: Callable[[Params], Array] | None = None) -> GradientFn:
    """Gradients by `jax.grad` of the loss of `model.apply`.

    Args:
        model: a layer.
        loss: `(prediction, target) -> scalar`, one of `funcnet.losses` or your own.
        penalty: `params -> scalar`, added to the loss: `losses.l2_penalty`, say.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, loss = fn.layers.dense(1, use_bias=False), fn.losses.mean_squared_error
    >>> params = {"kernel": jnp.array([[2.0]])}
    >>> fn.gradients.autodiff(model, loss)(params, (), (jnp.array([[3.0]]), jnp.array([[5.0]]))).grads
    {'kernel': Array([[6.]], dtype=float32)}
    """

    def gradient(params, state, batch, key=None, /):
        x, target, where = _unpack(batch)

        def objective(params):
            prediction, new_state = model.apply(params, state, x, key=key, train=True)
            value = loss(prediction, target, **where)
            if penalty is not None:
                value = value + penalty(params)
            return value, (new_state, prediction)

        (value, (new_state, prediction)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return Gradient(value, grads, new_state, prediction)

    return gradient


def backprop(model: Layer, loss: LossFn, *, penalty: Callable[[Params], Array] | None = None) -> GradientFn:
    """Gradients by the hand-derived `loss.gradient` and `model.backward`; nothing is differentiated by jax.

    Args: as for `autodiff`.

    Raises:
        ConfigError: the loss or the penalty has no hand-derived gradient.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, loss = fn.layers.dense(1, use_bias=False), fn.losses.mean_squared_error
    >>> params = {"kernel": jnp.array([[2.0]])}
    >>> fn.gradients.backprop(model, loss)(params, (), (jnp.array([[3.0]]), jnp.array([[5.0]]))).grads
    {'kernel': Array([[6.]], dtype=float32)}
    """
    loss_gradient = _hand_gradient("loss", loss)
    penalty_gradient = _hand_gradient("penalty", penalty) if penalty else None

    def gradient(params, state, batch, key=None, /):
        x, target, where = _unpack(batch)
        prediction, new_state, residuals = model.forward(params, state, x, key=key, train=True)
        value = loss(prediction, target, **where)
        grads, _ = model.backward(params, residuals, loss_gradient(prediction, target, **where))
        if penalty is not None and penalty_gradient is not None:
            value = value + penalty(params)
            grads = jax.tree.map(lambda g, p: g + p, grads, penalty_gradient(params))
        return Gradient(value, grads, new_state, prediction)

    return gradient


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


def _unpack(batch):
    if not isinstance(batch, tuple) or len(batch) not in (2, 3):
        raise DtypeError(f"gradient: expected batch to be (x, target) or (x, target, where), got {describe(batch)}.")
    x, target, *rest = batch
    return x, target, {"where": rest[0]} if rest else {}


def _hand_gradient(what, function):
    gradient = getattr(function, "gradient", None)
    if gradient is None:
        word = getattr(function, "__name__", repr(function))
        raise ConfigError(
            f"backprop: expected the {what} {word} to have a hand-derived gradient, got none; "
            f"attach one with losses.loss, or use gradients.autodiff."
        )
    return gradient
