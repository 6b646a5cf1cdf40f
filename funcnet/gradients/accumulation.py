"""The gradient of a batch in parts, one after the other: a large batch in the memory of a small one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import layers
from funcnet.checks import check_count, check_multiple
from funcnet.errors import ConfigError
from funcnet.gradients.engines import autodiff, backprop, unpack
from funcnet.layers.containers.mapping import places_of
from funcnet.losses import share
from funcnet.made import constructor, spelled
from funcnet.trees import apart, equal_rows, is_padded, leaves, map_rows, together
from funcnet.types import Gradient, GradientFn, Layer

__all__ = ["Parts", "accumulated", "parts_of", "refusal"]

_ENGINES = (autodiff, backprop)
_OF_THE_BATCH = (layers.batch_norm,)  #: layers with statistics of the whole batch, which a part does not have


class Parts(NamedTuple):
    """A gradient that is the sum of the gradients of parts. In a `weighted_sum` each term adds up by itself.

    How much counts follows from the target, `where` and `weights`, never from the predicted numbers. So the totals come
    from the whole batch, before it is split. Each part divides its sums by them. Then only the sum over the parts is
    left.
    """

    totals: Callable[..., Any]  #: (params, state, batch, key) -> the divisor of the loss of the batch
    share: Callable[[Any], GradientFn]  #: (totals) -> the gradient of a part, without the penalty
    penalized: Callable[[Gradient, Any], Gradient]  #: (gradient, params) -> with the penalty's value and gradient added


def parts_of(gradient: GradientFn) -> Parts | None:
    """How a gradient is computed in parts; `None` if it is not known that the parts add up to it."""
    made = getattr(gradient, "made", None)
    if made is None or made.constructor not in (*_ENGINES, accumulated):
        return None
    if made.constructor is accumulated:
        within, k = parts_of(made.arguments["gradient"]), made.arguments["k"]
        return within and within._replace(share=lambda totals: _in_turn(within.share(totals), k))
    model, loss, penalty = (made.arguments[name] for name in ("model", "loss", "penalty"))
    if getattr(loss, "counted", None) is None or _mixing(model):
        return None
    engine = made.constructor

    def totals(params, state, batch, key):
        x, target, options = unpack(batch)
        prediction, _ = jax.eval_shape(lambda *args: model.apply(*args, key=key, train=True), params, state, x)
        if any(map(is_padded, leaves(prediction))):  # only its masks are read; under jit nothing else of it is computed
            prediction, _ = model.apply(params, state, x, key=key, train=True)
        return loss.counted(prediction, target, **options)

    def penalized(computed, params):
        if penalty is None:
            return computed
        value, grads = jax.value_and_grad(penalty)(params) if engine is autodiff else _by_hand(penalty, params)
        return computed._replace(loss=computed.loss + value, grads=jax.tree.map(jnp.add, computed.grads, grads))

    return Parts(totals, lambda totals: engine(model, share(loss, totals)), penalized)


def _by_hand(penalty, params):
    return penalty(params), penalty.gradient(params)


def _mixing(model: Layer, place: str = "") -> list[str]:
    """The places of layers that mix the rows of a batch in training."""
    if model.inside is None:
        return [f"{place} {model}".strip()] if model.made.constructor in _OF_THE_BATCH else []
    if model.made.constructor is layers.held:
        return []
    inside = zip(model.inside.layers, places_of(model, place), strict=True)
    return [found for layer, own in inside for found in _mixing(layer, own)]


@constructor
def accumulated(gradient: GradientFn, k: int) -> GradientFn:
    """The gradient of a batch, computed in k equal parts, one after the other; k has to divide the number of rows.

    The parts are combined by what counted in them. So the result is the gradient of the whole batch up to rounding,
    also with `where`, `weights` and class weights. The loss has to be a mean of values, and no layer may use statistics
    of the batch. Part i draws from `fold_in(key, i)`, and each part passes the state on to the next.

    Args:
        gradient: what `autodiff` or `backprop` returned.
        k: how many parts.

    Derivation. Let L = Σ_n w_n l_n / W with W = Σ_n w_n over the batch. W does not depend on the parameters θ, so
    ∂L/∂θ = Σ_parts (Σ_{n in part} w_n ∂l_n/∂θ) / W. With W from the whole batch each part gives one summand.

    Raises:
        ConfigError: `k` is not a positive integer, or the gradient is that of your own engine, of a loss that is not a
            mean of values, or of a model with `batch_norm`.
        ShapeError: when it runs, if k does not divide the number of rows, or not all arrays have the same rows.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> gradient = fn.gradients.backprop(fn.layers.dense(1, use_bias=False), fn.losses.mean_squared_error)
    >>> batch = jnp.array([[3.0], [1.0]]), jnp.array([[5.0], [0.0]])
    >>> for one in (gradient, fn.gradients.accumulated(gradient, 2)):
    ...     print(one({"kernel": jnp.array([[2.0]])}, (), batch).grads["kernel"])
    [[5.]]
    [[5.]]
    """
    k = check_count("k", k)
    parts = parts_of(gradient)
    if parts is None:
        raise ConfigError(refusal(gradient))

    def combined(params, state, batch, key=None, /):
        totals = parts.totals(params, state, batch, key)
        computed = _in_turn(parts.share(totals), k)(params, state, batch, key)
        return parts.penalized(computed._replace(counted=totals), params)

    return combined


def _in_turn(gradient: GradientFn, k: int) -> GradientFn:
    """The sum of the gradients of k parts."""

    def summed(params, state, batch, key=None, /):
        rows = equal_rows(batch, "batches of graphs cannot be cut")
        fix = "choose another number of parts"
        check_multiple("the rows of the batch", rows, k, "the number of parts", fix)
        divided, shared = apart(map_rows(lambda leaf: leaf.reshape(k, -1, *leaf.shape[1:]), batch))

        def step(carry, entry):
            total, state, _ = carry
            i, part = entry
            computed = gradient(
                params, state, together(part, shared), None if key is None else jax.random.fold_in(key, i)
            )
            total = jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, (computed.loss, computed.grads))
            predicted, whole = apart(computed.prediction)
            return (total, computed.state, whole), predicted

        one = together(jax.tree.map(lambda leaf: leaf[0], divided), shared)
        first = jax.eval_shape(gradient, params, state, one, key)
        start = jax.tree.map(_zeros, (first.loss, first.grads))
        whole = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), apart(first.prediction)[1])
        entries = (jnp.arange(k, dtype=jnp.int32), divided)
        (total, state, whole), predicted = jax.lax.scan(step, (start, state, whole), entries)
        loss, grads = jax.tree.map(lambda t, like: t.astype(like.dtype), total, (first.loss, first.grads))
        predicted = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), predicted)
        prediction = together(predicted, whole)
        return Gradient(loss, grads, state, prediction)

    return summed


def _zeros(like):
    """The start of a sum, which is kept in float32 for 16-bit numbers."""
    return jnp.zeros(like.shape, like.dtype if like.dtype.itemsize > 2 else jnp.float32)


def refusal(gradient: GradientFn) -> str:
    """The error message that says why a gradient is not computed in parts."""
    made = getattr(gradient, "made", None)
    if made is None or made.constructor not in (*_ENGINES, accumulated):
        return f"expected a gradient of autodiff or backprop, got {spelled(gradient)}; split the batch in your engine."
    if made.constructor is accumulated:
        return f"expected a gradient whose parts add up, got {spelled(gradient)}."
    loss, mixing = made.arguments["loss"], _mixing(made.arguments["model"])
    if mixing:
        got = f"{mixing[0]}, which computes statistics of its batch in training"
        fix = "use group_norm or layer_norm, or layers.held around it"
        return f"expected layers that take each row by itself, got {got}; {fix}."
    fix = "the mean of its parts is not its value on the batch"
    return f"expected a loss that is a mean of values, got {spelled(loss)}; {fix}."
