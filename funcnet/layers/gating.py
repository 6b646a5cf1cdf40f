"""Gates: layers that decide how much of their own input passes."""

import jax.numpy as jnp

from funcnet.checks import check_count, check_floating, check_multiple
from funcnet.dtypes import widen
from funcnet.errors import ShapeError
from funcnet.layers.activations import relu, sigmoid
from funcnet.layers.containers import container, merged, serial
from funcnet.layers.containers.container import check_layers
from funcnet.layers.convolution import global_avg_pool
from funcnet.layers.dense import dense
from funcnet.made import constructor
from funcnet.trees import is_padded, total
from funcnet.types import Layer

__all__ = ["gated", "glu", "squeeze_excitation"]


@constructor
def gated(inner: Layer) -> Layer:
    """The input times gates that a layer computes from it, y = x ⊙ f(x).

    Args:
        inner: computes the gates from `x`. They have the shape of `x`, except that axes after the batch axis may be 1,
            and axes right after the batch axis may be missing. So (batch, channels) gates whole channels of an image,
            and (batch, height, width, 1) gates its pixels.

    Params and state are those of `inner`.

    Backward. Write a = f(x) and g = ∂L/∂y. By the product rule for y = x ⊙ a, ∂L/∂a = Σ g ⊙ x, summed over all numbers
    that a gate reaches, and dx = g ⊙ a + backward_f(∂L/∂a). Kept: x, a, and what `inner` keeps.

    Raises:
        ConfigError: `inner` is not a `Layer`.
        ShapeError: the gates do not fit `x`.
        DtypeError: `x` is not floating-point.

    References: Dauphin, Fan, Auli, Grangier, "Language Modeling with Gated Convolutional Networks", ICML 2017.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.gated(fn.layers.sigmoid())
    >>> layer.apply((), (), jnp.array([[0.0, 4.0]]))[0]
    Array([[0.      , 3.928055]], dtype=float32)
    """
    check_layers((inner,))

    def walk(run, x):
        gates = run(0, x)
        check_floating("x", x.values if is_padded(x) else x)
        return merged(lambda x, gates: x * gates.reshape(_spread_shape(gates, x)), x, gates), (x, gates)

    def back(run, kept, dy):
        x, gates = (one.values if is_padded(one) else one for one in kept)
        shape = _spread_shape(gates, x)
        shared = tuple(axis for axis, n in enumerate(shape) if n == 1)
        dgates = jnp.sum(widen(x) * widen(dy), shared).astype(x.dtype).reshape(gates.shape)
        return total([dy * gates.reshape(shape), run(0, dgates)])

    return container(inner, walk, back)


@constructor
def glu(gate: Layer = sigmoid()) -> Layer:
    """One half of the features times a gate of the other half, y = a ⊙ f(b) with x = (a, b).

    `glu(silu())` is SwiGLU, and `glu(gelu())` is GeGLU. A `dense` before it has twice the width.

    Args:
        gate: f, which keeps the shape of its input.

    Input (batch, …, 2 n), output (batch, …, n). Params and state are those of `gate`.

    Backward. With g = ∂L/∂y and h = f(b), by the product rule
        da = g ⊙ h,   db = backward_f(g ⊙ a),   dx = (da, db).
    Kept: a, h, and what `gate` keeps.

    Raises:
        ConfigError: `gate` is not a `Layer`.
        ShapeError: the width of `x` is odd, or `gate` changes the shape.
        DtypeError: `x` is not floating-point.

    References: Dauphin, Fan, Auli, Grangier, "Language Modeling with Gated Convolutional Networks", ICML 2017.
    Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.glu().apply((), (), jnp.array([[3.0, 0.0]]))[0]
    Array([[1.5]], dtype=float32)
    """
    check_layers((gate,))

    def walk(run, x):
        check_floating("x", x.values if is_padded(x) else x)
        a, h = merged(_first_half, x), run(0, merged(_second_half, x))
        return merged(_product, a, h), (a, h)

    def back(run, kept, dy):
        a, h = (one.values if is_padded(one) else one for one in kept)
        return jnp.concatenate([dy * h, run(0, dy * a)], -1)

    return container(gate, walk, back)


def _first_half(x):
    check_multiple("the width of x", x.shape[-1], 2, "as it is cut in two", "give it twice the width of y")
    return x[..., : x.shape[-1] // 2]


def _second_half(x):
    return x[..., x.shape[-1] // 2 :]


def _product(a, h):
    if (a.shape, a.dtype) != (h.shape, h.dtype):
        got = f"{h.shape} {h.dtype}; take a gate that keeps the shape"
        raise ShapeError(f"expected gates of shape {a.shape} {a.dtype}, got {got}.")
    return a * h


@constructor
def squeeze_excitation(channels: int, reduction: int = 16) -> Layer:
    """Channels weighted by gates that come from the whole image, y = x ⊙ σ(W₂ relu(W₁ mean(x) + b₁) + b₂).

    It is `gated` around `global_avg_pool`, `dense`, `relu`, `dense` and `sigmoid`.

    Args:
        channels: number of channels of the image.
        reduction: the hidden layer has ⌊channels / reduction⌋ features, and at least one.

    Input and output (batch, *size, channels). Params are those of the `serial` inside.

    Backward. With examples as rows, write m = mean(x), u = m W₁ + b₁, h = relu(u), z = h W₂ + b₂, a = σ(z) and g =
    ∂L/∂y. x reaches L directly, which gives g ⊙ a, and through the gates. The layers of the gates, in reverse, give
        da = Σ_places g ⊙ x,     dz = da ⊙ a (1 − a),           dW₂ = hᵀ dz,   db₂ = Σ_batch dz,
        dh = dz W₂ᵀ,             du = dh where u > 0, else 0,   dW₁ = mᵀ du,   db₁ = Σ_batch du,
        dm = du W₁ᵀ,             dx = g ⊙ a + dm / n  at each of the n places.
    Kept: x, a, and what the layers inside keep.

    Raises:
        ConfigError: `channels` or `reduction` is not a positive integer.
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
    channels = check_count("channels", channels)
    hidden = max(channels // check_count("reduction", reduction), 1)
    return gated(serial(global_avg_pool(), dense(hidden), relu(), dense(channels), sigmoid()))


def _spread_shape(gates, x):
    """The shape of the gates with all axes of `x`, 1 where a gate is shared."""
    missing = (1,) * (x.ndim - gates.ndim)
    shape = (*gates.shape[:1], *missing, *gates.shape[1:])
    fits = len(shape) == x.ndim and all(a in (1, n) for a, n in zip(shape, x.shape, strict=True))
    if not fits or shape[:1] != x.shape[:1] or gates.dtype != x.dtype:
        wanted = f"{x.shape} {x.dtype}, where axes after the batch axis may be 1 or missing"
        got = f"{gates.shape} {gates.dtype}; end the inner layer with a dense that fits"
        raise ShapeError(f"expected gates of the shape and dtype of x, {wanted}, got {got}.")
    return shape
