"""Pooling: the largest number or the mean of each window of an image, or of the whole image.

The passes are written as selections and sums of slices, because a CPU is slow at the gradient of XLA's own windowed
maximum, which searches for the largest number of every window once more and then adds to scattered places. A TPU is
fast at it, and slow at slices with strides. So there it is taken, with one gather written as a windowed sum. Where no
gradient is taken, the windowed maximum is the fastest everywhere.
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnet.checks import check_kind
from funcnet.dtypes import widen
from funcnet.errors import ConfigError
from funcnet.layers.convolution.windows import (
    Padding,
    Window,
    check_image,
    check_padding,
    check_sizes,
    per_axis,
    place,
    taps,
    window_size,
)  # fmt: skip
from funcnet.layers.layer import parameterless
from funcnet.made import constructor
from funcnet.numerics import by_platform, valued_by
from funcnet.trees import keep_shape, kept_shape
from funcnet.types import Layer

__all__ = ["avg_pool", "global_avg_pool", "global_max_pool", "max_pool"]


@constructor
def max_pool(
    window: int | tuple[int, ...], *, strides: int | tuple[int, ...] | None = None, padding: Any = "VALID"
) -> Layer:
    """The largest number of each window, y_p = max_{i ∈ W(p)} x_i, channel by channel.

    Args:
        window: the size along each spatial axis. An integer means a square, a tuple means one, two or three axes.
        strides: the step from one window to the next. The default is the window's size, so that windows touch and do
            not overlap.
        padding: −∞ around x. `"VALID"` means none. `"SAME"` gives ⌈n/s⌉ places and puts an odd one at the end, as XLA
            does. Otherwise an integer, or a tuple with an integer or a pair (before, after) for each axis, smaller than
            the window.

    Input (batch, *size, channels), output (batch, *places, channels) with ⌊(n + lo + hi − k) / s⌋ + 1 places per axis.
    A window with a NaN gives NaN, and its gradient goes to the NaN, or on a TPU to some number of the window.

    Backward. Write g = ∂L/∂y. y_p is the one number x_{m(p)}, where m(p) is the place of the maximum, and to first
    order no other number of the window changes it. So ∂y_p/∂x_i = [i = m(p)], which is 1 if i = m(p), else 0, and dx_i
    = Σ_{p: i ∈ W(p)} [i = m(p)] g_p. At a tie m(p) is the first place in row-major order, which takes all of g_p. The
    sum is computed from the side of x. If x is cut into blocks of s numbers, every block is reached by the same q =
    ⌈k/s⌉ windows per axis. So for n axes dx is the sum of qⁿ comparisons of m with a constant. For windows that touch
    it is a single one. Kept: m (one byte per window, for windows of up to 128 numbers), and x. A TPU finds m in x once
    more, and compiled programs for other platforms do not hold x.

    Raises:
        ConfigError: `window` or `strides` are not positive integers, or `padding` is not smaller than the window.
        ShapeError: `x` has other axes, or is smaller than the window.
        DtypeError: `x` is not floating-point.

    References: Ranzato, Huang, Boureau, LeCun, "Unsupervised Learning of Invariant Feature Hierarchies", CVPR 2007.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> pool = fn.layers.max_pool(2)
    >>> y, _, residuals = pool.forward((), (), jnp.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1))
    >>> pool.backward((), residuals, jnp.ones_like(y))[1].reshape(2, 2)
    Array([[0., 1.],
           [0., 0.]], dtype=float32)
    """
    fit = _geometry(window, strides, padding)

    def forward(x, *, key, train):
        del key, train
        y, index = _largest(x, fit(x))
        return y, (x, index)

    def backward(residuals, dy):
        x, index = residuals
        return _to_largest(dy, x, index, fit(x))

    def apply(x, *, key, train):
        del key, train
        return _applied(x, fit(x))

    return parameterless(forward, backward, apply=apply)


@constructor
def avg_pool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Any = "VALID",
    count_include_pad: bool = True,
) -> Layer:
    """The mean of each window, y_p = 1/n_p Σ_{i ∈ W(p)} x_i, channel by channel.

    Args:
        window, strides: as for `max_pool`.
        padding: as for `max_pool`, with zeros.
        count_include_pad: whether n_p counts the padding. If so, it is the same for all windows.

    Input (batch, *size, channels), output (batch, *places, channels). Half precision is summed in float32.

    Backward. With g = ∂L/∂y, ∂y_p/∂x_i = [i ∈ W(p)] / n_p, so dx_i = Σ_{p: i ∈ W(p)} g_p / n_p. Each window gives all
    its numbers an equal share. The sum is computed as for `max_pool`, without the comparison. Kept: the shape of x.

    Raises: as for `max_pool`.

    References: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE
    86, 1998, section II.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> y, _ = fn.layers.avg_pool((2,), padding="SAME").apply((), (), jnp.array([1.0, 2.0, 4.0]).reshape(1, 3, 1))
    >>> y.ravel()
    Array([1.5, 2. ], dtype=float32)
    """
    fit = _geometry(window, strides, padding)
    check_kind("count_include_pad", count_include_pad, bool, "True or False")

    def shares(w, total):
        count = math.prod(w.window) if count_include_pad else jnp.asarray(_counts(w), total.dtype)
        return total / count

    def forward(x, *, key, train):
        del key, train
        w = fit(x)
        return shares(w, _sums(widen(x), w)).astype(x.dtype), keep_shape(x)

    def backward(shape, dy):
        w = fit(kept_shape(shape))
        return _to_all(shares(w, dy), w)

    return parameterless(forward, backward)


@constructor
def global_avg_pool() -> Layer:
    """The mean of each channel over the whole image, y_c = 1/n Σ_i x_ic: (batch, *size, channels) -> (batch, channels).

    Backward. With g = ∂L/∂y, ∂y_c/∂x_ic = 1/n, so dx_ic = g_c / n. Kept: the shape of x.

    Raises:
        ShapeError: `x` does not have one to three spatial axes, or one of them is empty.
        DtypeError: `x` is not floating-point.

    References: Lin, Chen, Yan, "Network In Network", ICLR 2014, section 3.2.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.global_avg_pool().apply((), (), jnp.arange(8.0).reshape(1, 2, 2, 2))[0]
    Array([[3., 4.]], dtype=float32)
    """

    def forward(x, *, key, train):
        del key, train
        check_sizes(x)
        return jnp.mean(x, tuple(range(1, x.ndim - 1))), keep_shape(x)

    def backward(shape, dy):
        x = kept_shape(shape)
        share = dy / math.prod(x.shape[1:-1])
        return jnp.broadcast_to(jnp.expand_dims(share, tuple(range(1, x.ndim - 1))), x.shape)

    return parameterless(forward, backward)


@constructor
def global_max_pool() -> Layer:
    """The largest number of each channel, y_c = max_i x_ic: (batch, *size, channels) -> (batch, channels).

    Backward. As for `max_pool` with the whole image as its window. With g = ∂L/∂y, dx_ic = [i = m_c] g_c, where m_c is
    the place of the maximum. At a tie it is the first one in row-major order. Kept: m, and the shape of x.

    Raises: as for `global_avg_pool`.

    References: Oquab, Bottou, Laptev, Sivic, "Is Object Localization for Free?", CVPR 2015.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.global_max_pool().apply((), (), jnp.arange(8.0).reshape(1, 2, 2, 2))[0]
    Array([[6., 7.]], dtype=float32)
    """

    def forward(x, *, key, train):
        del key, train
        check_sizes(x)
        pixels = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
        index = lax.argmax(pixels, 1, jnp.int32)
        # Read at the index, because at a tie the derivative of `max` would be shared.
        y = jnp.take_along_axis(pixels, index[:, None], 1, mode="promise_in_bounds")[:, 0]
        return y, (index, keep_shape(x))

    def backward(residuals, dy):
        index, shape = residuals
        x = kept_shape(shape)
        at = np.arange(math.prod(x.shape[1:-1]), dtype=np.int32)[:, None]
        return jnp.where(index[:, None] == at, dy[:, None], 0).reshape(x.shape)

    return parameterless(forward, backward)


# Shapes.


def _geometry(window: Any, strides: Any, padding: Any) -> Callable[[Any], Window]:
    """The function that places the window in an image."""
    window = window_size("window", window)
    strides = window if strides is None else per_axis("strides", strides, len(window))
    padding = check_padding(padding, len(window))
    _check_no_window_of_padding(window, padding)

    def fit(x):
        check_image(x, len(window))
        return place(x.shape[1:-1], window, strides, padding)

    return fit


def _check_no_window_of_padding(window: tuple[int, ...], padding: Padding) -> None:
    if isinstance(padding, str):
        return
    for k, pair in zip(window, padding, strict=True):
        if max(pair) >= k:
            raise ConfigError(f"expected padding smaller than the window of {k}, got {pair}; take a larger window.")


def _around(pairs):
    """What `lax.pad` takes: these pairs before and after each spatial axis, and nothing between the numbers."""
    return ((0, 0, 0), *((lo, hi, 0) for lo, hi in pairs), (0, 0, 0))


def _windows(w: Window):
    """What XLA's windowed operations take: size, strides and padding of all axes."""
    return (1, *w.window, 1), (1, *w.strides, 1), ((0, 0), *w.padding, (0, 0))


# Forward passes. Each is compiled as a whole, because outside of jit each slice would be a program of its own.


@partial(jax.jit, static_argnames="w", inline=True)
def _maxima(x, w: Window):
    """The largest number of each window."""
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, *_windows(w))


@partial(jax.jit, static_argnames="w", inline=True)
def _applied(x, w: Window):
    """The same, but for autodiff, which sees `_largest`."""

    def selected(y):
        # XLA would give the maxima and what is before and behind them to YNNPACK as one, which does not take
        # selections. With the constants of an exported program that rounds otherwise than with arguments.
        return jnp.where(jnp.isnan(y), jnp.nan, y)

    def maxima(x):
        return by_platform(_maxima(x, w), cpu=selected, default=lambda y: y)

    return valued_by(maxima, lambda x: _largest(x, w)[0])(x)


@partial(jax.jit, static_argnames="w", inline=True)
def _largest(x, w: Window):
    """The largest number of each window, and its index within the window in row-major order, or zeros on a TPU."""

    def windowed(x):
        y = _maxima(x, w)
        return y, jnp.zeros(y.shape, _index_dtype(w))

    return by_platform(x, tpu=windowed, default=partial(_largest_of_taps, w=w))


def _index_dtype(w):
    return np.min_scalar_type(-math.prod(w.window))


def _largest_of_taps(x, w):
    dtype = _index_dtype(w)
    padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), _around(w.padding))
    (_, y), *others = taps(padded, w)
    index, first = jnp.zeros(y.shape, dtype), _first_in_image(w)
    for m, (_, a) in enumerate(others, 1):
        # Not `maximum`, whose derivative is shared at a tie. A NaN counts as the largest number, and stays. The first
        # number of the image is taken even if it is −∞, as the padding before it is.
        take = (a > y) | jnp.isnan(a)
        take = take | (first == m) if (first == m).any() else take
        y, index = jnp.where(take, a, y), jnp.where(take, np.array(m, dtype), index)
    return y, index


@partial(jax.jit, static_argnames="w", inline=True)
def _sums(x, w: Window):
    """The sum of each window."""

    def windowed(x):
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *_windows(w))

    return by_platform(x, tpu=windowed, default=partial(_sums_of_taps, w=w))


def _sums_of_taps(x, w):
    """One axis after the other: n k additions per number instead of kⁿ."""
    x = lax.pad(x, jnp.zeros((), x.dtype), _around(w.padding))
    for axis, k, s, o in zip(w.axes, w.window, w.strides, w.places, strict=True):
        x = reduce(jnp.add, [lax.slice_in_dim(x, i, i + (o - 1) * s + 1, s, axis) for i in range(k)])
    return x


def _counts(w: Window) -> np.ndarray:
    """How many numbers each window holds that are not padding, (*places, 1)."""
    counts = []
    for n, k, s, o, (lo, _) in zip(w.size, w.window, w.strides, w.places, w.padding, strict=True):
        start = np.arange(o) * s - lo
        counts.append(np.minimum(start + k, n) - np.maximum(start, 0))
    return reduce(np.multiply.outer, counts)[..., None]


def _first_in_image(w: Window) -> np.ndarray:
    """The index within each window of its first number that is not padding, (*places, 1)."""
    starts = [
        np.maximum(lo - np.arange(o) * s, 0) for s, o, (lo, _) in zip(w.strides, w.places, w.padding, strict=True)
    ]
    return np.ravel_multi_index(np.meshgrid(*starts, indexing="ij"), w.window)[..., None]


# Backward.


@partial(jax.jit, static_argnames="w", inline=True)
def _to_largest(dy, x, index, w: Window):
    """dx, to which each window adds its dy at the first of its largest numbers."""

    def searched(dy, x, index):
        del index
        size, strides, padding = _windows(w)
        return lax.select_and_scatter_add_p.bind(
            dy, x, select_prim=lax.ge_p, window_dimensions=size, window_strides=strides, padding=padding
        )

    return by_platform(dy, x, index, tpu=searched, default=lambda dy, x, index: _spread(dy, w, index))


@partial(jax.jit, static_argnames="w", inline=True)
def _to_all(dy, w: Window):
    """dx, to which each window adds its dy at all its numbers.

    With s − 1 zeros between its numbers, dy is summed over windows of the same size with stride 1, turned around.
    """

    def windowed(dy):
        zero = np.zeros((), dy.dtype)
        before = [k - 1 - lo for k, (lo, _) in zip(w.window, w.padding, strict=True)]
        after = [
            n + lo - 1 - (o - 1) * s for n, s, o, (lo, _) in zip(w.size, w.strides, w.places, w.padding, strict=True)
        ]
        between = [s - 1 for s in w.strides]
        spread = lax.pad(dy, zero, ((0, 0, 0), *zip(before, after, between, strict=True), (0, 0, 0)))
        size, _, _ = _windows(w)
        return lax.reduce_window(spread, zero, lax.add, size, (1,) * len(size), "VALID")

    return by_platform(dy, tpu=windowed, default=partial(_spread, w=w))


def _spread(dy, w, index=None):
    """dx, to which each window adds its dy, either at the number that `index` names or at all its numbers.

    The padded image is cut into blocks of s numbers. A block is reached by the windows that begin in it and in the q −
    1 blocks before it, where q = ⌈k/s⌉. Number r of the block is number a s + r of the window that begins a blocks
    before.
    """
    reach = [-(-k // s) for k, s in zip(w.window, w.strides, strict=True)]
    blocks = [o + q - 1 for o, q in zip(w.places, reach, strict=True)]
    beside = _around((q - 1, q - 1) for q in reach)
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), beside)
    index = None if index is None else lax.pad(index, jnp.array(-1, index.dtype), beside)

    def each(a, shift):
        """For every block the entry of the window that begins `shift` blocks before, (batch, b₁, 1, b₂, 1, …)."""
        starts = [q - 1 - back for q, back in zip(reach, shift, strict=True)]
        stops = [start + b for start, b in zip(starts, blocks, strict=True)]
        a = lax.slice(a, (0, *starts, 0), (a.shape[0], *stops, a.shape[-1]))
        return jnp.expand_dims(a, tuple(range(2, 2 * len(blocks) + 1, 2)))

    def term(shift):
        at = _numbers(w, shift)
        reached = at >= 0 if index is None else each(index, shift) == at.astype(index.dtype)
        return jnp.where(reached, each(dy, shift), 0)

    dx = reduce(jnp.add, map(term, np.ndindex(*reach)))
    lengths = [b * s for b, s in zip(blocks, w.strides, strict=True)]
    dx = dx.reshape(dy.shape[0], *lengths, dy.shape[-1])
    cut = [(-lo, lo + n - length) for (lo, _), n, length in zip(w.padding, w.size, lengths, strict=True)]
    return lax.pad(dx, jnp.zeros((), dx.dtype), _around(cut))


def _numbers(w: Window, shift) -> np.ndarray:
    """For each number of a block, its index in the window that begins `shift` blocks before, (s₁, 1, s₂, 1, …).

    It is −2 where the window does not reach, because −1 is the padding of `index`.
    """
    at = np.meshgrid(*(a * s + np.arange(s) for a, s in zip(shift, w.strides, strict=True)), indexing="ij")
    within = np.all([i < k for i, k in zip(at, w.window, strict=True)], 0)
    numbers = np.where(within, np.ravel_multi_index(at, w.window, mode="clip"), -2)
    return numbers.reshape([length for s in w.strides for length in (s, 1)])
