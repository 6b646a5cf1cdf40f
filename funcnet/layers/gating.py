"""Gates: a layer that decides how much of its own input passes."""

import jax
import jax.numpy as jnp

from funcnet.checks import check_count, spell
from funcnet.errors import ShapeError
from funcnet.layers.activations import relu, sigmoid
from funcnet.layers.checks import check_dy, check_floating, within
from funcnet.layers.combinators import check_layers, serial
from funcnet.layers.dense import dense
from funcnet.layers.layer import layer
from funcnet.layers.pooling import global_avg_pool
from funcnet.types import Layer

__all__ = ["gated", "squeeze_excitation"]


def gated(inner: Layer) -> Layer:
    """The input times gates that a layer computes from it, y = x ⊙ f(x).

    Args:
        inner: makes of `x` gates of its shape, or with 1 for some of its axes, or with fewer axes: those missing stand
            behind the batch. So (batch, channels) gates whole channels of an image, (batch, height, width, 1) its
            pixels.

    Params and state are those of `inner`.

    Backward. Write a = f(x) and g = ∂L/∂y. From y = x ⊙ a by the product rule ∂L/∂a = Σ g ⊙ x, summed over all that a
    gate reaches, and dx = g ⊙ a + backward_f(∂L/∂a). Kept: x, a, and what `inner` keeps.

    Raises:
        ConfigError: `inner` is no `Layer`.
        ShapeError: the gates do not fit `x`.
        DtypeError: `x` is not floating-point.

    References: Dauphin, Fan, Auli, Grangier, "Language Modeling with Gated Convolutional Networks", ICML 2017.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.gated(fn.layers.sigmoid())
    >>> layer.apply((), (), jnp.array([[0.0, 4.0]]))[0]
    Array([[0.      , 3.928055]], dtype=float32)
    """
    name = spell(gated, inner)
    check_layers("gated", (inner,))

    def init(key, x):
        with within("gated"):
            params, state = inner.init(key, x)
            gates = jax.eval_shape(inner.apply, params, state, x)[0]
        _spread_shape(name, gates, x)
        return params, state

    def forward(params, state, x, *, key=None, train=False):
        check_floating(name, x)
        with within("gated"):
            gates, state, residuals = inner.forward(params, state, x, key=key, train=train)
        return x * gates.reshape(_spread_shape(name, gates, x)), state, (x, gates, residuals)

    def backward(params, kept, dy):
        x, gates, residuals = kept
        check_dy(name, dy, x.shape, x.dtype)
        shape = _spread_shape(name, gates, x)
        shared = tuple(axis for axis, n in enumerate(shape) if n == 1)
        dgates = jnp.sum(x * dy, shared).reshape(gates.shape)
        dparams, dx = inner.backward(params, residuals, dgates)
        return dparams, dy * gates.reshape(shape) + dx

    return layer(init, forward, backward, name=name, sublayers=(inner,), rebuild=gated)


def squeeze_excitation(channels: int, reduction: int = 16) -> Layer:
    """Channels weighed by what all of the image says, y = x ⊙ σ(W₂ relu(W₁ mean(x) + b₁) + b₂).

    It is `gated` around `global_avg_pool`, `dense`, `relu`, `dense` and `sigmoid`.

    Args:
        channels: of the image.
        reduction: the hidden layer has ⌊channels / reduction⌋ features, and at least one.

    Input and output (batch, *size, channels). Params are those of the `serial` within.

    Backward. In rows, write m = mean(x), u = m W₁ + b₁, h = relu(u), z = h W₂ + b₂, a = σ(z) and g = ∂L/∂y. x reaches L
    directly, g ⊙ a, and through the gates, layer by layer in reverse:
        da = Σ_places g ⊙ x,     dz = da ⊙ a (1 − a),           dW₂ = hᵀ dz,   db₂ = Σ_batch dz,
        dh = dz W₂ᵀ,             du = dh where u > 0, else 0,   dW₁ = mᵀ du,   db₁ = Σ_batch du,
        dm = du W₁ᵀ,             dx = g ⊙ a + dm / n  at each of the n places.
    Kept: x, a, and what the layers within keep.

    Raises:
        ConfigError: `channels` or `reduction` is no positive integer.
        ShapeError: `x` has other axes, or another number of channels.

    References: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, equations 2 to 4.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> block = fn.layers.squeeze_excitation(32)
    >>> block
    gated(serial(global_avg_pool(), dense(2), relu(), dense(32), sigmoid()))
    >>> params, state = block.init(jax.random.key(0), jnp.ones((1, 8, 8, 32)))
    >>> block.apply(params, state, jnp.ones((5, 8, 8, 32)))[0].shape
    (5, 8, 8, 32)
    """
    name = spell(squeeze_excitation, channels, reduction=reduction)
    channels = check_count(name, "channels", channels)
    hidden = max(channels // check_count(name, "reduction", reduction), 1)
    return gated(serial(global_avg_pool(), dense(hidden), relu(), dense(channels), sigmoid()))


def _spread_shape(name, gates, x):
    """The shape of the gates with all axes of `x`, 1 where a gate is shared."""
    missing = (1,) * (x.ndim - gates.ndim)
    shape = (*gates.shape[:1], *missing, *gates.shape[1:])
    fits = len(shape) == x.ndim and all(a in (1, n) for a, n in zip(shape, x.shape, strict=True))
    if not fits or shape[:1] != x.shape[:1] or gates.dtype != x.dtype:
        raise ShapeError(
            f"{name}: expected gates of the shape and dtype of x, {x.shape} {x.dtype}, with 1 for an axis or without "
            f"axes behind the batch, got {gates.shape} {gates.dtype}; end the inner layer with a dense that fits."
        )
    return shape
