"""The two gradient engines: `autodiff` and `backprop` have one signature, so swapping them changes one word.

    gradient(params, state, (x, target), key=None) -> Gradient(loss, grads, state, prediction, counted)

Both run the model in training mode. A batch may have two more entries, `(x, target, where, weights)`: which values of
the loss count, and by how much. `None` for `where` means all of them, and for `weights` equal weights. An engine of
your own is a function `(model, loss, *, penalty=None) -> gradient`. It is accepted wherever these two are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import describe
from funcnet.errors import ConfigError, DtypeError
from funcnet.gradients.outputs import check_output
from funcnet.made import constructor, spelled
from funcnet.types import Array, Gradient, GradientFn, Layer, LossFn, Params

__all__ = ["autodiff", "backprop", "counted", "hand_gradient", "unpack"]


@constructor
def autodiff(model: Layer, loss: LossFn, *, penalty: Callable[[Params], Array] | None = None) -> GradientFn:
    """Gradients by `jax.grad` of the loss of `model.apply`.

    Args:
        model: a layer.
        loss: `(prediction, target) -> scalar`, one of `funcnet.losses` or your own. An `OutputWarning` is given if the
            model is known to end with something else than the loss takes, for example probabilities for a loss on
            logits.
        penalty: `params -> scalar`, added to the loss, such as `losses.l2_penalty`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, loss = fn.layers.dense(1, use_bias=False), fn.losses.mean_squared_error
    >>> params = {"kernel": jnp.array([[2.0]])}
    >>> fn.gradients.autodiff(model, loss)(params, (), (jnp.array([[3.0]]), jnp.array([[5.0]]))).grads
    {'kernel': Array([[6.]], dtype=float32)}
    """
    check_output(model, loss)

    def gradient(params, state, batch, key=None, /):
        x, target, options = unpack(batch)

        def objective(params):
            prediction, new_state = model.apply(params, state, x, key=key, train=True)
            value = loss(prediction, target, **options)
            if penalty is not None:
                value = value + penalty(params)
            return value, (new_state, prediction)

        (value, (new_state, prediction)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return Gradient(value, grads, new_state, prediction, counted(loss, prediction, target, options))

    return gradient


@constructor
def backprop(model: Layer, loss: LossFn, *, penalty: Callable[[Params], Array] | None = None) -> GradientFn:
    """Gradients by the hand-derived `loss.gradient` and `model.backward`; JAX differentiates nothing.

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
    loss_gradient = hand_gradient("loss", loss)
    penalty_gradient = hand_gradient("penalty", penalty) if penalty else None

    def gradient(params, state, batch, key=None, /):
        x, target, options = unpack(batch)
        with jax.named_scope("forward"):
            prediction, new_state, residuals = model.forward(params, state, x, key=key, train=True)
        with jax.named_scope("loss"):
            value, dy = loss(prediction, target, **options), loss_gradient(prediction, target, **options)
        with jax.named_scope("backward"):
            grads, _ = model.backward(params, residuals, dy)
        if penalty is not None and penalty_gradient is not None:
            value = value + penalty(params)
            grads = jax.tree.map(jnp.add, grads, penalty_gradient(params))
        return Gradient(value, grads, new_state, prediction, counted(loss, prediction, target, options))

    return gradient


def unpack(batch: Any) -> tuple[Any, Any, dict[str, Any]]:
    """`(x, target, where, weights)` -> x, the target, and the last two, if given, as keywords of the loss."""
    if not isinstance(batch, tuple) or len(batch) not in (2, 3, 4):
        wanted = "(x, target), (x, target, where) or (x, target, where, weights)"
        raise DtypeError(f"expected batch to be {wanted}, got {describe(batch)}.")
    x, target, *rest = batch
    options = zip(("where", "weights"), rest, strict=False)
    return x, target, {name: value for name, value in options if value is not None}


def counted(loss: Any, prediction: Any, target: Any, options: dict[str, Any]) -> Any:
    """The divisor of the mean of a loss; `None` for a loss without `counted`."""
    count = getattr(loss, "counted", None)
    return None if count is None else count(prediction, target, **options)


def hand_gradient(what: str, function: Any) -> Callable[..., Any]:
    """The gradient that a loss or penalty carries."""
    gradient = getattr(function, "gradient", None)
    if gradient is None:
        fix = "make it with losses.loss and its hand_gradient, or use gradients.autodiff"
        raise ConfigError(f"expected the {what} {spelled(function)} to have a hand-derived gradient, got none; {fix}.")
    return gradient
