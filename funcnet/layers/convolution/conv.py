"""Convolution layers. The mathematics, as functions of arrays, is in `gradients.py`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_count, check_multiple
from funcnet.dtypes import widen
from funcnet.errors import ConfigError, ShapeError
from funcnet.layers.convolution.gradients import convolve, input_gradient, kernel_gradient, kernel_gradient_per_example
from funcnet.layers.convolution.windows import Padding, Window, check_image, check_padding, per_axis, place, window_size
from funcnet.layers.layer import cell, layer
from funcnet.made import constructor
from funcnet.types import Array, Layer, Rules

__all__ = ["conv", "conv_transpose", "depthwise_conv"]


@constructor
def conv(
    features: int,
    kernel_size: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Any = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Convolution, y[o] = Σ_k x[s o + d k − lo] W[k] + b, where x[…] W[k] is a matrix product over the channels.

    As in all such libraries the kernel is not flipped, so this is a cross-correlation.

    Args:
        features: channels of the output.
        kernel_size: the size k along each axis. An integer means k × k on images. A tuple of one, two or three integers
            means as many spatial axes.
        strides: the step s from one place of the kernel to the next.
        padding: zeros around x. `"SAME"` gives ⌈n/s⌉ places and puts an odd zero at the end. `"VALID"` means no zeros.
            `"CAUSAL"`, for sequences, means d (k − 1) zeros before and none after, so y[o] sees nothing behind x[s o].
            Otherwise an integer, or a tuple with an integer or a pair (lo, hi) for each axis.
        dilation: the distance d from one number of the kernel to the next.
        groups: number of groups into which channels and features are divided. Each group of channels reaches only its
            own group of features.
        use_bias: whether to add b.
        kernel_init, bias_init: `(key, shape, dtype) -> array`.

    Input (batch, *size, in), output (batch, *places, features). An axis of n numbers has ⌊(n + lo + hi − d (k − 1) −
    1)/s⌋ + 1 places, which is the textbook's (H₁ − F + 2P)/S + 1.
    Params: `kernel` (*kernel_size, in/groups, features), `bias` (features,), in the dtype of `x`.

    Backward. Write g = ∂L/∂y, and xp for x with its zeros. Then y[n, o, f] = Σ_kc xp[n, s o + d k, c] W[k, c, f] +
    b[f]. In y[n, o, f], W[k, c, f] appears once, times xp[n, s o + d k, c]. b[f] appears once. x[n, i, c] appears once
    for each k with s o + d k = i + lo, times W[k, c, f]. Summed over every y that a number reaches,
        dW[k, c, f] = Σ_n,o xp[n, s o + d k, c] g[n, o, f],   db = Σ_n,o g[n, o],
        dx[n, i, c] = Σ_{o, k: s o + d k = i + lo} Σ_f g[n, o, f] W[k, c, f].
    dW is a convolution of x with g. dx is a convolution of g with the flipped kernel, with s − 1 zeros between the
    places of g. The gradient at the zeros around x is left out. Kept: x.

    Per example: the same dW and db without the sum over n.

    A causal convolution with strides of 1 also runs one position at a time. The carry is the last d (k − 1) inputs.

    Raises:
        ConfigError: an option is invalid, or `groups` does not divide `features`.
        ShapeError: `x` has another number of axes or of channels than the params, `groups` does not divide its
            channels, or the kernel is larger than the padded input.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE
    1998; Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", 2016.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> images = jnp.ones((2, 8, 8, 3))
    >>> layer = fn.layers.conv(4, 3, strides=2)
    >>> params, state = layer.init(jax.random.key(0), images)
    >>> y, state, residuals = layer.forward(params, state, images)
    >>> dparams, dx = layer.backward(params, residuals, jnp.ones_like(y))
    >>> params["kernel"].shape, y.shape, dx.shape
    ((3, 3, 3, 4), (2, 4, 4, 4), (2, 8, 8, 3))
    """
    features, groups = check_count("features", features), check_count("groups", groups)
    check_multiple("features", features, groups, "the number of groups", "choose a multiple", ConfigError)
    options = _options(kernel_size, strides, padding, dilation, causal=True)
    return _sliding(options, padding, lambda channels: (features, groups), kernel_init, use_bias and bias_init)


@constructor
def depthwise_conv(
    kernel_size: int | tuple[int, ...],
    *,
    multiplier: int = 1,
    strides: int | tuple[int, ...] = 1,
    padding: Any = "SAME",
    dilation: int | tuple[int, ...] = 1,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Convolution of each channel separately: `conv` with as many groups as channels.

    A `conv(features, 1)` after it mixes the channels at each place. The two together are a depthwise-separable
    convolution.

    Args:
        kernel_size, strides, padding, dilation, use_bias, kernel_init, bias_init: as for `conv`.
        multiplier: number m of features for each channel. Feature m c + j is the j-th feature of channel c.

    Input (batch, *size, in), output (batch, *places, m in).
    Params: `kernel` (*kernel_size, 1, m in), `bias` (m in,), in the dtype of `x`.

    Backward. As for `conv`, without sums over channels. With c the channel of feature f,
        dW[k, f] = Σ_n,o xp[n, s o + d k, c] g[n, o, f],   db = Σ_n,o g[n, o],
        dx[n, i, c] = Σ_{f of c} Σ_{o, k: s o + d k = i + lo} g[n, o, f] W[k, f].
    Kept: x.

    Raises:
        ConfigError, ShapeError, DtypeError: as for `conv`.

    References: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> images = jnp.ones((2, 8, 8, 3))
    >>> layer = fn.layers.depthwise_conv(3, multiplier=2)
    >>> params, state = layer.init(jax.random.key(0), images)
    >>> params["kernel"].shape, layer.apply(params, state, images)[0].shape
    ((3, 3, 1, 6), (2, 8, 8, 6))
    """
    multiplier = check_count("multiplier", multiplier)
    options = _options(kernel_size, strides, padding, dilation, causal=True)
    sizes = lambda channels: (multiplier * channels, channels)  # noqa: E731
    return _sliding(options, padding, sizes, kernel_init, use_bias and bias_init)


@constructor
def conv_transpose(
    features: int,
    kernel_size: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Any = "SAME",
    dilation: int | tuple[int, ...] = 1,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Transposed convolution, y[i] = Σ_{o, k: s o + d k = i + lo} x[o] W[k] + b. It enlarges images.

    Each number of x adds the kernel, times this number, to y. Its neighbour does so s places further on. This is the
    map by which the gradient of a `conv` with the same options goes back to its input.

    Args:
        features: channels of the output.
        kernel_size, strides, dilation, use_bias, kernel_init, bias_init: as for `conv`.
        padding: what is cut from the full image of (n − 1) s + d (k − 1) + 1 numbers along each axis. `"VALID"` cuts
            nothing. `"SAME"` leaves n s numbers, and cuts an odd one at the end. Otherwise an integer, or a tuple with
            an integer or a pair (lo, hi) for each axis.

    Input (batch, *n, in), output (batch, *size, features). An axis of n numbers becomes one of (n − 1) s + d (k − 1) +
    1 − lo − hi.
    Params: `kernel` (*kernel_size, in, features), `bias` (features,), in the dtype of `x`.

    Backward. Write g = ∂L/∂y. x[n, o, c] reaches y[n, s o + d k − lo, f] through W[k, c, f] for all k and f, so
        dx[n, o, c] = Σ_kf g[n, s o + d k − lo, f] W[k, c, f],
        dW[k, c, f] = Σ_n,o x[n, o, c] g[n, s o + d k − lo, f],   db = Σ_n,i g[n, i]
    with g = 0 outside the image. dx is a convolution of g. dW is the dW of a convolution in which x and g are
    exchanged. Kept: x.

    Raises:
        ConfigError, ShapeError, DtypeError: as for `conv`. ShapeError also if `padding` leaves nothing.

    References: Zeiler, Krishnan, Taylor, Fergus, "Deconvolutional Networks", CVPR 2010; Dumoulin, Visin, "A guide to
    convolution arithmetic for deep learning", 2016.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> images = jnp.ones((2, 4, 4, 3))
    >>> layer = fn.layers.conv_transpose(5, 3, strides=2)
    >>> params, state = layer.init(jax.random.key(0), images)
    >>> params["kernel"].shape, layer.apply(params, state, images)[0].shape
    ((3, 3, 3, 5), (2, 8, 8, 5))
    """
    features = check_count("features", features)
    window_at = partial(_enlarged, *_options(kernel_size, strides, padding, dilation))

    def leaves(x):
        kernel = (*window_at(x).window, x.shape[-1], features)
        return {"kernel": (kernel_init, kernel), "bias": use_bias and (bias_init, (features,))}

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        y = input_gradient(x, jnp.swapaxes(params["kernel"], -1, -2), window_at(x))
        return (y + params["bias"] if use_bias else y), state, x

    def backward(params, x, dy):
        window = window_at(x)
        dkernel = jnp.swapaxes(kernel_gradient(dy, x, window), -1, -2)
        dx = convolve(dy, jnp.swapaxes(params["kernel"], -1, -2), window)
        return {"kernel": dkernel, "bias": _over_all(dy, window)}, dx

    def per_example(params, x, dy):
        del params
        window = window_at(x)
        dkernel = jnp.swapaxes(kernel_gradient_per_example(dy, x, window), -1, -2)
        return {"kernel": dkernel, "bias": dy.sum(window.axes)}

    return layer(forward, backward, leaves=leaves, rules=Rules(per_example))


def _sliding(options, padding, sizes, kernel_init, bias_init):
    """`_convolution` with such a window, and with a cell if it is causal and has a place at each position."""
    made = _convolution(partial(_laid, *options), sizes, kernel_init, bias_init)
    window, strides, _, dilation = options
    if padding != "CAUSAL" or strides != (1,):
        return made
    inner = _convolution(partial(_laid, window, strides, "VALID", dilation), sizes, kernel_init, bias_init)
    return made._replace(rules=made.rules._replace(cell=_stepping(inner, dilation[0] * (window[0] - 1))))


def _stepping(inner, n):
    """The cell of a causal convolution: `inner`, which has no zeros around its input, over the last n inputs and x."""

    def init(key, x):
        return inner.init(key, jax.ShapeDtypeStruct((x[1].shape[0], n + 1, x[1].shape[1]), x[1].dtype))

    def start(params, state, x, length):
        return jnp.zeros((x.shape[0], n, x.shape[1]), x.dtype)

    def forward(params, state, x, *, key=None, train=False):
        seen = jnp.concatenate([x[0], x[1][:, None]], 1)
        y, state, residuals = inner.forward(params, state, seen, key=key, train=train)
        return (seen[:, 1:], y[:, 0]), state, residuals

    def backward(params, residuals, dy):
        dparams, dseen = inner.backward(params, residuals, dy[1][:, None])
        dseen = dseen.at[:, 1:].add(dy[0])
        return dparams, (dseen[:, :-1], dseen[:, -1])

    return cell(forward, backward, init, start)


def _convolution(window_at, sizes, kernel_init, bias_init):
    """`conv` with the features and groups `sizes(channels)` and the window `window_at(x)`.

    A false `bias_init` means no bias.
    """

    def leaves(x):
        window, (features, groups) = window_at(x), sizes(x.shape[-1])
        check_multiple(
            "the channels of x", x.shape[-1], groups, "the number of groups", "choose groups that divide them"
        )
        kernel = (*window.window, x.shape[-1] // groups, features)
        return {"kernel": (kernel_init, kernel), "bias": bias_init and (bias_init, (features,))}

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        y = convolve(x, params["kernel"], window_at(x), sizes(x.shape[-1])[1])
        return (y + params["bias"] if bias_init else y), state, x

    def backward(params, x, dy):
        window, (_, groups) = window_at(x), sizes(x.shape[-1])
        dkernel, dx = kernel_gradient(x, dy, window, groups), input_gradient(dy, params["kernel"], window, groups)
        return {"kernel": dkernel, "bias": _over_all(dy, window)}, dx

    def per_example(params, x, dy):
        del params
        window, (_, groups) = window_at(x), sizes(x.shape[-1])
        return {"kernel": kernel_gradient_per_example(x, dy, window, groups), "bias": dy.sum(window.axes)}

    return layer(forward, backward, leaves=leaves, rules=Rules(per_example))


def _options(kernel_size, strides, padding, dilation, causal=False):
    """The options of a window, checked, with one entry for each spatial axis."""
    window = window_size("kernel_size", kernel_size)
    axes = len(window)
    strides, dilation = per_axis("strides", strides, axes), per_axis("dilation", dilation, axes)
    if causal and padding == "CAUSAL":
        if axes > 1:
            fix = 'write for example conv(16, (3,), padding="CAUSAL")'
            raise ConfigError(f'expected a window of one axis for padding="CAUSAL", got {window}; {fix}.')
        padding = ((dilation[0] * (window[0] - 1), 0),)
    return window, strides, check_padding(padding, axes), dilation


def _laid(
    window: tuple[int, ...], strides: tuple[int, ...], padding: Padding, dilation: tuple[int, ...], x: Array
) -> Window:
    """The window placed in `x`."""
    check_image(x, len(window))
    return place(x.shape[1:-1], window, strides, padding, dilation)


def _enlarged(
    window: tuple[int, ...], strides: tuple[int, ...], padding: Padding, dilation: tuple[int, ...], x: Array
) -> Window:
    """The window in the output of a transposed convolution, at as many places as `x` has."""
    check_image(x, len(window))
    spans = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
    if padding == "SAME":
        size = tuple(n * s for n, s in zip(x.shape[1:-1], strides, strict=True))
    else:
        cuts = [(0, 0)] * len(window) if isinstance(padding, str) else padding
        size = tuple(
            (n - 1) * s + span - lo - hi
            for n, s, span, (lo, hi) in zip(x.shape[1:-1], strides, spans, cuts, strict=True)
        )
    if min(size) < 1:
        got = f"{padding} for x of shape {x.shape}"
        raise ShapeError(f"expected padding that leaves an image, got {got}; choose a smaller one.")
    return place(size, window, strides, padding, dilation)


def _over_all(dy, window):
    """The sum over places and examples, in two steps, because one sum over all axes compiles worse."""
    return widen(dy).sum(window.axes).sum(0).astype(dy.dtype)
