"""Convolution and its two gradients as functions of arrays: the mathematics of the layers in `conv.py`.

    y[n, o, f]  = Σ_{k, c} xp[n, s o + d k, c] W[k, c, f]        xp: x with its zeros beside it
    dx[n, i, c] = Σ_{o, k: s o + d k = i + lo} Σ_f g[n, o, f] W[k, c, f]
    dW[k, c, f] = Σ_{n, o} xp[n, s o + d k, c] g[n, o, f]

Here o, k and i run over all spatial axes. With groups, each group of channels of x meets only its own group of
features. So all three formulas split into one problem per group.

**How each is computed on a CPU, and why.** On other platforms the vendor's kernels are good, and each formula is one
XLA convolution. `docs/speed.md` has the measurements.

- XLA compiles a convolution well if its operands are in the usual order (batch, size, channels). The operands of
  autodiff are not, and in the body of a loop XLA does not correct that. So the operands are transposed here to the
  usual order.
- For many features dW is a product of two matrices, dW = Pᵀ g with the windows of x as rows of P. For a 3 × 3 kernel P
  is nine times as large as x. It is made for a few images at a time, so that it stays in the cache. It is made with the
  channels first, because a transposed operand would slow the product down. It is made one axis at a time, so that it is
  copied in long runs.
- For few features that product is too narrow. There dW is a convolution of x with g in which batch and channels are
  exchanged.
- XLA's convolutions in groups are slow, so each group is a convolution of its own. With one channel per group there is
  no sum over channels, and plain multiplication and addition are fastest.
"""

import math
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax

from funcnet.dtypes import at_least_float32, widen
from funcnet.layers.convolution.windows import Window, taps, unfold
from funcnet.numerics import by_platform
from funcnet.types import Array

__all__ = ["convolve", "input_gradient", "kernel_gradient", "kernel_gradient_per_example"]

#: Bytes of windows that are made at a time: about what the caches hold beside the product's other operands.
CHUNK_BYTES = 2**22

#: With fewer features than this a convolution is faster than a product of matrices.
NARROW = 32


@partial(jax.jit, static_argnames=("window", "groups"), inline=True)
def convolve(x: Array, kernel: Array, window: Window, groups: int = 1) -> Array:
    """y: (batch, *size, in) and (*window, in/groups, features) -> (batch, *places, features)."""

    def whole(x, kernel, groups=1):
        order = _order(window)
        return lax.conv_general_dilated(
            x, kernel, window.strides, window.padding, (1,) * len(window.size), window.dilation, order, groups
        )

    def channelwise(x, kernel):
        padded = _padded(_repeated(x, kernel.shape[-1] // groups), window)
        return reduce(jnp.add, (tap * kernel[k][0] for k, tap in taps(padded, window)))

    return _in_groups(whole, whole, channelwise, groups, x.shape[-1] == groups, x, kernel)


@partial(jax.jit, static_argnames=("window", "groups"), inline=True)
def input_gradient(dy: Array, kernel: Array, window: Window, groups: int = 1) -> Array:
    """dx: (batch, *places, features) and (*window, in/groups, features) -> (batch, *size, in).

    With k′ = K − 1 − k in the formula at the head of this file, dx is a convolution with stride 1. Its operands are the
    flipped kernel, and g with s − 1 zeros between its numbers.
    """
    axes = range(len(window.size))
    spans = [d * (k - 1) for k, d in zip(window.window, window.dilation, strict=True)]
    # With the zeros between its numbers g has (places − 1) s + 1 of them, and the result must have `size`.
    before = [span - lo for span, (lo, _) in zip(spans, window.padding, strict=True)]
    after = [
        n + lo - 1 - (places - 1) * s
        for n, (lo, _), places, s in zip(window.size, window.padding, window.places, window.strides, strict=True)
    ]

    def whole(dy, kernel, groups=1):
        *sides, share, features = kernel.shape
        turned = jnp.flip(kernel, axes)
        if groups > 1:  # a reshape would keep XLA from taking the flip into the convolution
            turned = turned.reshape(*sides, share, groups, features // groups)
            turned = jnp.swapaxes(turned, -1, -3).reshape(*sides, features // groups, groups * share)
        else:
            turned = jnp.swapaxes(turned, -1, -2)
        padding, order = tuple(zip(before, after, strict=True)), _order(window)
        return lax.conv_general_dilated(
            dy, turned, (1,) * len(axes), padding, window.strides, window.dilation, order, groups
        )

    def channelwise(dy, kernel):
        between = [s - 1 for s in window.strides]
        spread = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *zip(before, after, between, strict=True), (0, 0, 0)))
        single = window._replace(strides=(1,) * len(axes), places=window.size)
        turned = jnp.flip(kernel, axes)
        wide = reduce(jnp.add, (tap * turned[k][0] for k, tap in taps(spread, single)))
        return wide.reshape(*wide.shape[:-1], groups, wide.shape[-1] // groups).sum(-1)

    return _in_groups(whole, whole, channelwise, groups, kernel.shape[-2] == 1, dy, kernel)


@partial(jax.jit, static_argnames=("window", "groups"), inline=True)
def kernel_gradient(x: Array, dy: Array, window: Window, groups: int = 1) -> Array:
    """dW: (batch, *size, in) and (batch, *places, features) -> (*window, in/groups, features)."""

    def whole(x, dy, groups=1):
        letters = "DHW"[-len(window.size) :]
        return _swapped(x, dy, window, (f"C{letters}N", f"I{letters}O", f"{letters}NC"), groups)

    def alone(x, dy):
        if dy.shape[-1] >= NARROW:
            return _in_chunks(x, dy, window)
        exchanged = _swapped(jnp.swapaxes(x, 0, -1), jnp.moveaxis(dy, 0, -2), window, _order(window))
        return jnp.moveaxis(exchanged, 0, -2)

    def channelwise(x, dy):
        padded = _padded(_repeated(x, dy.shape[-1] // groups), window)
        sums = [(tap * dy).sum(window.axes).sum(0) for _, tap in taps(padded, window)]
        return jnp.stack(sums).reshape(*window.window, 1, dy.shape[-1])

    return _in_groups(whole, alone, channelwise, groups, x.shape[-1] == groups, x, dy)


def kernel_gradient_per_example(x: Array, dy: Array, window: Window, groups: int = 1) -> Array:
    """dW of each example: the shapes of `kernel_gradient` -> (batch, *window, in/groups, features)."""
    pairs = zip(jnp.split(x, groups, -1), jnp.split(dy, groups, -1), strict=True)
    one = jax.vmap(lambda x, dy: _product(x, dy, window))
    return jnp.concatenate([one(*_chunks(*pair, 1)) for pair in pairs], -1).astype(dy.dtype)


def _order(window: Window) -> tuple[str, str, str]:
    """The usual order: batch, size, channels."""
    letters = "DHW"[-len(window.size) :]
    return f"N{letters}C", f"{letters}IO", f"N{letters}C"


def _in_groups(
    whole: Callable[..., Array],
    alone: Callable[..., Array],
    channelwise: Callable[..., Array],
    groups: int,
    single: bool,
    a: Array,
    b: Array,
) -> Array:
    """The result, computed in the way that suits this platform and these groups. All arrays have their channels last.

    Args:
        whole: (a, b, groups) -> result, in one XLA convolution.
        alone: (a, b) -> result of one group, on a CPU.
        channelwise: (a, b) -> result, on a CPU, if each group has a single channel.
        single: whether each group has a single channel.
    """

    def on_cpu(a, b):
        if groups == 1:
            return alone(a, b)
        if single:
            return channelwise(widen(a), widen(b)).astype(a.dtype)  # sums, which half precision would round
        pairs = zip(jnp.split(a, groups, -1), jnp.split(b, groups, -1), strict=True)
        return jnp.concatenate([alone(*pair) for pair in pairs], -1)

    if groups == 1 and alone is whole:
        return whole(a, b)
    return by_platform(a, b, cpu=on_cpu, default=lambda a, b: whole(a, b, groups))


def _swapped(x: Array, dy: Array, window: Window, order: tuple[str, str, str], groups: int = 1) -> Array:
    """dW as the convolution of x with g, with strides and dilation exchanged. In `order` the batch is the channels."""
    padding = tuple(
        (lo, (places - 1) * s + d * (k - 1) + 1 - n - lo) for n, k, s, d, (lo, _), places in zip(*window, strict=True)
    )
    return lax.conv_general_dilated(
        x, dy, window.dilation, padding, (1,) * len(padding), window.strides, order, batch_group_count=groups
    )


def _in_chunks(x: Array, dy: Array, window: Window) -> Array:
    """dW as a sum of products, one for each chunk of images."""
    windows = math.prod((*window.window, *window.places, x.shape[-1])) * x.dtype.itemsize
    about = max(2, CHUNK_BYTES // windows)  # the product of one image is too small for two cores
    chunks = _chunks(x, dy, _images_at_a_time(len(x), about))
    if len(chunks[0]) == 1:
        return _product(chunks[0][0], chunks[1][0], window).astype(dy.dtype)

    def add(total, chunk):
        x, dy = chunk
        return total + _product(x, dy, window), None

    start = jnp.zeros((*window.window, x.shape[-1], dy.shape[-1]), at_least_float32(dy.dtype))
    total, _ = lax.scan(add, start, chunks)
    return total.astype(dy.dtype)


def _images_at_a_time(batch: int, about: int) -> int:
    """The divisor of `batch` nearest to `about`, if it is within a factor of √2, else `about` itself.

    With `about` itself the last chunk must be filled up.
    """

    def distance(n):
        return abs(math.log2(n / about))

    nearest = min((n for n in range(1, batch + 1) if batch % n == 0), key=distance, default=about)
    return nearest if distance(nearest) <= 0.5 else about


def _chunks(x: Array, dy: Array, most: int) -> tuple[Array, Array]:
    """x and dy as (n, chunk, *size, channels), with at most `most` images per chunk.

    Images of zeros, whose windows add nothing, fill up the last chunk.
    """
    batch = len(x)
    n = -(-batch // most)
    more = -batch % n if n else 0
    x, dy = (jnp.pad(a, ((0, more), *((0, 0),) * (a.ndim - 1))) if more else a for a in (x, dy))
    chunk = len(x) // n if n else 0
    return x.reshape(n, chunk, *x.shape[1:]), dy.reshape(n, chunk, *dy.shape[1:])


def _product(x: Array, dy: Array, window: Window) -> Array:
    """dW of one chunk, P g with the windows as columns of P, in float32 or wider."""
    dy = dy.reshape(-1, dy.shape[-1])
    columns = unfold(jnp.moveaxis(_padded(x, window), -1, 0), window)
    columns = columns.reshape(math.prod(window.window) * x.shape[-1], len(dy))
    total = jnp.matmul(columns, dy, preferred_element_type=at_least_float32(dy.dtype))
    return total.reshape(*window.window, x.shape[-1], dy.shape[-1])


def _padded(x: Array, window: Window) -> Array:
    """x with its zeros around it."""
    return jnp.pad(x, ((0, 0), *window.padding, (0, 0)))


def _repeated(x: Array, times: int) -> Array:
    """Each channel, repeated once for each of its features."""
    return jnp.repeat(x, times, -1) if times > 1 else x
