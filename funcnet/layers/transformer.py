"""The block of a transformer: attention and two dense layers, each with a shortcut and a norm."""

from funcnet import initializers
from funcnet.checks import check_count, check_kind, fraction
from funcnet.layers.activations import gelu
from funcnet.layers.attention import attention
from funcnet.layers.containers import residual, serial
from funcnet.layers.containers.container import check_layers
from funcnet.layers.dense import dense
from funcnet.layers.dropout import dropout as dropped
from funcnet.layers.gating import glu
from funcnet.layers.normalization import layer_norm
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["transformer_block"]


@constructor
def transformer_block(
    features: int,
    heads: int,
    *,
    hidden: int | None = None,
    pre_norm: bool = True,
    causal: bool = False,
    kv_heads: int | None = None,
    window: int | None = None,
    rotary: float | None = None,
    dropout: float = 0.0,
    use_bias: bool = True,
    activation: Layer = gelu(),
    norm: Layer = layer_norm(),
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    out_init: initializers.Initializer | None = None,
) -> Layer:
    """Attention and two dense layers, each with a shortcut around it and a norm.

    With the norm N, attention A and M(x) = W₂ f(W₁ x), the norm is inside of the shortcuts (pre-norm) or behind them
    (post-norm, as in the first transformers):
        pre:   h = x + A(N(x)),    y = h + M(N(h)),
        post:  h = N(x + A(x)),    y = N(h + M(h)).
    It is a `serial` of `residual`s, so its layers can be seen and replaced.

    Args:
        features: width of input and output.
        heads, causal, kv_heads, window, rotary: as for `attention`.
        hidden: width between the dense layers. The default is 4 · features.
        pre_norm: where the norms stand.
        dropout: the share dropped in training, of the weights of attention, of f, and of the output of A and M.
        use_bias: whether attention and the dense layers have biases.
        activation: f. For `glu(…)`, W₁ has twice the width.
        norm: N, for example `rms_norm()`.
        kernel_init, out_init: `(key, shape, dtype) -> array`, the second one for W_o of attention and W₂. Its default
            is the first one.

    Input and output (batch, time, features), or `Padded`. Params are those of the `serial`.

    Backward. By the chain rule, as for `serial` and `residual`. With g = ∂L/∂y, for pre-norm
        dh = g + backward_N(backward_M(g)),   dx = dh + backward_N(backward_A(dh)),
    and for post-norm with s = backward_N(g): dh = s + backward_M(s), r = backward_N(dh), dx = r + backward_A(r).
    Kept: what the layers inside keep.

    Raises:
        ConfigError: an option has an impossible value.
        ShapeError: `x` does not have three axes or the width `features`.

    References: Vaswani et al., "Attention Is All You Need", NeurIPS 2017. Xiong et al., "On Layer Normalization in the
    Transformer Architecture", ICML 2020.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> block = fn.layers.transformer_block(8, 2, causal=True)
    >>> params, state = block.init(jax.random.key(0), jnp.ones((2, 5, 8)))
    >>> block.apply(params, state, jnp.ones((2, 5, 8)))[0].shape
    (2, 5, 8)
    """
    features, rate = check_count("features", features), fraction("dropout", dropout)
    hidden = 4 * features if hidden is None else check_count("hidden", hidden)
    check_kind("pre_norm", pre_norm, bool, "True or False")
    check_layers((activation, norm), ["activation", "norm"])
    twice = 2 if activation.made.constructor is glu else 1
    drops = (dropped(rate),) if rate else ()
    looks = attention(
        heads, kv_heads=kv_heads, causal=causal, window=window, rotary=rotary, dropout=rate, use_bias=use_bias,
        kernel_init=kernel_init, out_init=out_init,
    )  # fmt: skip
    wide = dense(twice * hidden, use_bias=use_bias, kernel_init=kernel_init)
    narrow = dense(features, use_bias=use_bias, kernel_init=out_init or kernel_init)
    parts = ((looks, *drops), (wide, activation, *drops, narrow, *drops))
    if pre_norm:
        return serial(*(residual(serial(norm, *part)) for part in parts))
    return serial(*(layer for part in parts for layer in (residual(serial(*part)), norm)))
