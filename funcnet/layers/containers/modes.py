"""A layer that always runs in evaluation mode."""

from funcnet.layers.containers.container import around, placed
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["held"]


@constructor
def held(inner: Layer) -> Layer:
    """`inner` always as in evaluation: no dropout, fixed running statistics, and the state unchanged.

    Around a trained trunk it keeps the statistics of batch normalisation fixed, while the layers after it are trained.
    The parameters of `inner` still have gradients. `optimizers.frozen` keeps them as they are.

    Backward. y = f(x) at evaluation, so (dW, dx) = backward(W, r, g) of `inner`, where r are its residuals at
    evaluation.
    Kept: r.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.held(fn.layers.dropout(0.5))
    >>> layer.apply((), (), jnp.ones(3), train=True)[0]
    Array([1., 1., 1.], dtype=float32)
    """
    run = placed(inner)

    def apply(params, state, x, *, key=None, train=False):
        del key, train
        return run.apply(params, state, x)

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        return run.forward(params, state, x)

    return around("held", inner, run.init, apply, forward, run.backward)
