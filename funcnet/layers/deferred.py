"""An output layer whose product is left to the loss."""

from funcnet.checks import check_floating, check_kind, check_shape
from funcnet.errors import ConfigError, StructureError
from funcnet.layers.layer import layer
from funcnet.made import constructor
from funcnet.trees import values_of
from funcnet.types import Layer, Whole

__all__ = ["deferred"]

_WHY = "an output layer with one leaf, such as dense(classes, use_bias=False)"


@constructor
def deferred(inner: Layer) -> Layer:
    """An output layer that does not multiply, but hands its kernel on: y = (x, Whole(W)) in place of x W.

    `losses.linear_cross_entropy` computes the product in blocks, so that the logits of many classes are never whole.
    The params and their start are those of `inner`. So a model that was trained with `deferred(inner)` predicts with
    `inner` in its place.

    Args:
        inner: a layer with one leaf, `kernel` (features, classes) as of `dense(classes, use_bias=False)`, or
            `embedding` (classes, features), which may be the leaf of an embedding too.

    Input (batch, …, features), an array or a `Padded`; output the pair of x and the kernel (features, classes).
    Params: those of `inner`.

    Backward. Write g and h for the gradients with respect to the two outputs. x and W go on as they are, so
        dx = g,   dW = h,
    and dE = hᵀ for a table E with W = Eᵀ. Kept: nothing.

    Raises:
        ConfigError: `inner` is not a layer.
        StructureError: its params are not one leaf named `kernel` or `embedding`.
        ShapeError: `x` has fewer than two axes, or another width than the kernel.
        DtypeError: `x` is not floating-point.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.deferred(fn.layers.dense(5, use_bias=False))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> (x, kernel), _ = layer.apply(params, state, jnp.ones((2, 3)))
    >>> x.shape, kernel.array.shape
    ((2, 3), (3, 5))
    """
    check_kind("inner", inner, Layer, _WHY, error=ConfigError)

    def init(key, x):
        params, state = inner.init(key, x)
        if _leaf(params) is None:
            raise StructureError(f"expected inner to be {_WHY}, got params {_named(params)}; give it no bias.")
        return params, state

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        name = _leaf(params)
        if name is None:
            fix = "the order is apply(params, state, x)"
            raise StructureError(f"expected params with one leaf, kernel or embedding, got {_named(params)}; {fix}.")
        kernel = params[name] if name == "kernel" else params[name].T
        features = values_of(x)
        check_floating("x", features)
        check_shape("x", features, f"(batch, …, {kernel.shape[0]})", "give it the width of its kernel")
        return (x, Whole(kernel)), state, None

    def backward(params, residuals, dy):
        del residuals
        (name,), (dx, dkernel) = params, dy
        return {name: dkernel if name == "kernel" else dkernel.T}, dx

    return layer(forward, backward, init=init, trees=True)


def _leaf(params):
    """The name of the one leaf; `None` for other params."""
    names = list(params) if isinstance(params, dict) else []
    return names[0] if names in (["kernel"], ["embedding"]) and params[names[0]].ndim == 2 else None


def _named(params):
    return sorted(params) if isinstance(params, dict) else params
