"""Local response normalisation: each number divided by the strength of the channels around it."""

from functools import reduce

import jax.numpy as jnp
from jax import lax

from funcnet.checks import check_count, check_floating, check_shape, nonnegative, positive
from funcnet.dtypes import widen
from funcnet.layers.layer import parameterless
from funcnet.made import constructor
from funcnet.types import Layer, Rules

__all__ = ["local_response_norm"]


@constructor
def local_response_norm(size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Layer:
    """Each number divided by the strength of the channels around it, y_c = x_c u_c^(−β).

    u_c = k + α/size Σ_{j ∈ W(c)} x_j² with the channels W(c) = c − ⌊size/2⌋ … c + ⌊(size − 1)/2⌋, as far as they exist.
    The sum is divided by `size` also at the first and last channels, where some do not exist. So α multiplies a mean,
    as in torch. In the paper α multiplies the sum.

    Args:
        size: number of channels in a window.
        alpha, beta, k: the constants of the formula.

    Input and output (batch, …, channels).

    Backward. Write g = ∂L/∂y. x_i is in y_i itself and in every u_c with i ∈ W(c), where ∂u_c/∂x_i = 2 α/size x_i and
    ∂y_c/∂u_c = −β x_c u_c^(−β−1) = −β y_c / u_c. So
        dx_i = g_i u_i^(−β) − 2 α β/size x_i Σ_{c: i ∈ W(c)} g_c y_c / u_c,
    and i ∈ W(c) for c = i − ⌊(size − 1)/2⌋ … i + ⌊size/2⌋, the mirrored window. Kept: x, and u in float32 or wider.

    Raises:
        ConfigError: `size` is not a positive integer, `alpha` or `beta` is negative, or `k` is not positive.
        ShapeError: `x` has fewer than two axes.
        DtypeError: `x` is not floating-point.

    References: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
    NeurIPS 2012, section 3.3.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.local_response_norm(2, alpha=2.0, beta=1.0).apply((), (), jnp.array([[1.0, 1.0, 3.0]]))[0]
    Array([[0.5       , 0.33333334, 0.27272728]], dtype=float32)
    """
    size = check_count("size", size)
    alpha, beta = nonnegative("alpha", alpha), nonnegative("beta", beta)
    k = positive("k", k)
    before, after = size // 2, (size - 1) // 2

    def forward(x, *, key, train):
        del key, train
        check_floating("x", x)
        check_shape("x", x, "(batch, …, channels)", "add the batch axis with x[None]")
        wide = widen(x)
        u = k + alpha / size * _channel_sums(jnp.square(wide), before, after)
        return (wide * power(u)).astype(x.dtype), (x, u)

    def power(u):
        """u^(−β), NaN where a square is infinite, because 0 would go unseen."""
        return jnp.where(u == jnp.inf, jnp.nan, jnp.power(u, -beta))

    def backward(residuals, dy):
        x, u = widen(residuals[0]), residuals[1]
        scaled = widen(dy) * power(u)
        dx = scaled - 2 * alpha * beta / size * x * _channel_sums(scaled * x / u, after, before)
        return dx.astype(dy.dtype)

    return parameterless(forward, backward, rules=Rules(positionwise=1))


def _channel_sums(a, before, after):
    """Σ of a over the channels c − before … c + after, as far as they exist."""
    padded = jnp.pad(a, (*((0, 0),) * (a.ndim - 1), (before, after)))
    slices = [lax.slice_in_dim(padded, i, i + a.shape[-1], axis=-1) for i in range(before + after + 1)]
    return reduce(jnp.add, slices)
