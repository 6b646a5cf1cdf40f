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
from funcnet.gradients.outputs import check_output
from funcnet.types import Array, Gradient, GradientFn, Layer, LossFn, Params

__all__ = ["autodiff", "backprop", "hand_gradient", "unpack"]


def autodiff(model: Layer, loss: LossFn, *, penalty: Callable[[Params], Array] | None = None) -> GradientFn:
    """Gradients by `jax.grad` of the loss of `model.apply`.

    Args:
        model: a layer.
        loss: `(prediction, target) -> scalar`, one of `funcnet.losses` or your own. An `OutputWarning` says if the
            model is known not to give what it takes: probabilities to a loss on logits, say.
        penalty: `params -> scalar`, added to the loss: `losses.l2_penalty`, say.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, loss = fn.layers.dense(1, use_bias=False), fn.losses.mean_squared_error
    >>> params = {"kernel": jnp.array([[2.0]])}
    >>> fn.gradients.autodiff(model, loss)(params, (), (jnp.array([[3.0]]), jnp.array([[5.0]]))).grads
    {'kernel': Array([[6.]], dtype=float32)}
    """
    check_output(model, loss)

    def gradient(params, state, batch, key=None, /):
        x, target, where = unpack(batch)

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
    check_output(model, loss)
    loss_gradient = hand_gradient("backprop", "loss", loss)
    penalty_gradient = hand_gradient("backprop", "penalty", penalty) if penalty else None

    def gradient(params, state, batch, key=None, /):
        x, target, where = unpack(batch)
        prediction, new_state, residuals = model.forward(params, state, x, key=key, train=True)
        value = loss(prediction, target, **where)
        grads, _ = model.backward(params, residuals, loss_gradient(prediction, target, **where))
        if penalty is not None and penalty_gradient is not None:
            value = value + penalty(params)
            grads = jax.tree.map(lambda g, p: g + p, grads, penalty_gradient(params))
        return Gradient(value, grads, new_state, prediction)

    return gradient


def unpack(batch: Any) -> tuple[Any, Any, dict[str, Any]]:
    """`(x, target, where)` -> x, the target, and the mask as a keyword of the loss; the mask may be missing."""
    if not isinstance(batch, tuple) or len(batch) not in (2, 3):
        raise DtypeError(f"gradient: expected batch to be (x, target) or (x, target, where), got {describe(batch)}.")
    x, target, *rest = batch
    return x, target, {"where": rest[0]} if rest else {}


def hand_gradient(engine: str, what: str, function: Any) -> Callable[..., Any]:
    """The gradient attached to a loss or penalty."""
    gradient = getattr(function, "gradient", None)
    if gradient is None:
        word = getattr(function, "__name__", repr(function))
        raise ConfigError(
            f"{engine}: expected the {what} {word} to have a hand-derived gradient, got none; "
            f"attach one with losses.loss{', or use gradients.autodiff' if engine == 'backprop' else ''}."
        )
    return gradient
