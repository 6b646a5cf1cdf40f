"""The geometry of windows that slide over an image: what convolution and pooling share.

An image has the shape (batch, *size, channels) with one, two or three spatial axes. Take an axis of n numbers with lo +
hi zeros around it. A window of k numbers that are d apart, moved in steps of s, fits
    ⌊(n + lo + hi − d (k − 1) − 1) / s⌋ + 1
times. Without dilation and with P zeros on each side this is the textbook's H₂ = (H₁ − F + 2P)/S + 1.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnet.checks import check_count, check_floating, check_shape, describe, is_count
from funcnet.errors import ConfigError, ShapeError
from funcnet.types import Array

__all__ = [
    "AXES", "Padding", "Window", "check_image", "check_padding", "check_sizes", "per_axis", "place", "taps", "unfold",
    "window_size",
]  # fmt: skip

#: The names of the spatial axes, by how many there are.
AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}

#: `"SAME"`, `"VALID"`, or the zeros before and after for each spatial axis.
Padding = str | tuple[tuple[int, int], ...]


class Window(NamedTuple):
    """A window and its places in an image. Each field has one entry per spatial axis."""

    size: tuple[int, ...]  #: of the image
    window: tuple[int, ...]  #: numbers in the window
    strides: tuple[int, ...]  #: from one place to the next
    dilation: tuple[int, ...]  #: from one number of the window to the next
    padding: tuple[tuple[int, int], ...]  #: before and after the image
    places: tuple[int, ...]  #: how often it fits

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of an image."""
        return tuple(range(1, len(self.size) + 1))


def per_axis(what: str, value: Any, axes: int) -> tuple[int, ...]:
    """One positive integer for each spatial axis. A single one holds for all of them."""
    if isinstance(value, tuple):
        if len(value) != axes:
            wanted = f"an integer or {axes} of them, one for each of {', '.join(AXES[axes])}"
            raise ConfigError(f"expected {what} to be {wanted}, got {value!r}.")
        return tuple(check_count(f"each of {what}", one) for one in value)
    return (check_count(what, value),) * axes


def window_size(what: str, value: Any) -> tuple[int, ...]:
    """The window's size along each axis. An integer means a square, a tuple of one to three means as many axes."""
    if isinstance(value, tuple):
        if len(value) not in AXES:
            raise ConfigError(f"expected {what} to be an integer or a tuple of one to three, got {value!r}.")
        return per_axis(what, value, len(value))
    return per_axis(what, value, 2)


def check_padding(padding: Any, axes: int) -> Padding:
    """`padding` as `"SAME"` or `"VALID"`, or as one pair for each spatial axis."""
    if padding in ("SAME", "VALID"):
        return padding
    if is_count(padding, 0):
        return ((int(padding), int(padding)),) * axes
    if isinstance(padding, tuple) and len(padding) == axes:
        pairs = [(one, one) if is_count(one, 0) else one for one in padding]
        if all(_is_pair(pair) for pair in pairs):
            return tuple((int(lo), int(hi)) for lo, hi in pairs)
    wanted = f'"SAME", "VALID", an integer >= 0, or one integer or pair (before, after) per {", ".join(AXES[axes])}'
    raise ConfigError(f"expected padding to be {wanted}; got {describe(padding)}.")


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and all(is_count(n, 0) for n in pair)


def check_image(x: Any, axes: int) -> None:
    """`x` is floating-point and has a batch axis, `axes` spatial axes, and channels."""
    check_floating("x", x)
    fix = "use reshape, or give the window one size per axis, for example (5,) for a sequence"
    check_shape("x", x, f"(batch, {', '.join(AXES[axes])}, channels)", fix)


def check_sizes(x: Any) -> None:
    """`x` is floating-point and has a batch axis, one to three spatial axes, none of them empty, and channels."""
    check_floating("x", x)
    if x.ndim - 2 not in AXES or 0 in x.shape[1:-1]:
        wanted = "(batch, *size, channels) with one to three spatial axes, none of them empty"
        raise ShapeError(f"expected x of shape {wanted}, got {x.shape}; give it that shape with reshape.")


def place(
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padding: Padding,
    dilation: tuple[int, ...] | None = None,
) -> Window:
    """The window in an image of this size. ShapeError if it does not fit even once.

    `"SAME"` gives ⌈n/s⌉ places, with an odd zero at the end. `"VALID"` has no zeros.
    """
    dilation = dilation or (1,) * len(size)
    spans = tuple(d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True))
    if padding == "SAME":
        missing = [max((-(-n // s) - 1) * s + span - n, 0) for n, s, span in zip(size, strides, spans, strict=True)]
        pairs = tuple((one // 2, one - one // 2) for one in missing)
    else:
        pairs = ((0, 0),) * len(size) if isinstance(padding, str) else padding
    for axis, n, span, (lo, hi) in zip(AXES[len(size)], size, spans, pairs, strict=True):
        if span > n + lo + hi:
            padded = f" with padding {lo} + {hi}" if lo + hi else ""
            wanted = f"{axis} at least {span - lo - hi}, so that the window of {span} fits"
            fix = 'use larger images, a smaller window, or padding="SAME"'
            raise ShapeError(f"expected x of {wanted}, got {n}{padded}; {fix}.")
    places = tuple(
        (n + lo + hi - span) // s + 1 for n, span, s, (lo, hi) in zip(size, spans, strides, pairs, strict=True)
    )
    return Window(size, window, strides, dilation, pairs, places)


def taps(padded: Array, window: Window) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each number k of the window, row by row: k, and what is there at every place, (batch, *places, channels)."""
    for k in np.ndindex(*window.window):
        starts = [d * i for d, i in zip(window.dilation, k, strict=True)]
        stops = [start + (o - 1) * s + 1 for start, o, s in zip(starts, window.places, window.strides, strict=True)]
        batch, channels = padded.shape[0], padded.shape[-1]
        yield k, lax.slice(padded, (0, *starts, 0), (batch, *stops, channels), (1, *window.strides, 1))


def unfold(padded: Array, window: Window) -> Array:
    """The numbers in the window at every place: (channels, batch, *size) -> (prod(window) channels, batch, *places).

    It is made one axis at a time, the last axis first. So all copies except the first move long runs of numbers. A CPU
    does this faster than putting the `taps` side by side.
    """
    for axis in reversed(range(len(window.size))):
        padded = lax.optimization_barrier(padded)  # if XLA fused them, it would make the copies number by number
        k, s, d, o = (of[axis] for of in (window.window, window.strides, window.dilation, window.places))
        seen = [lax.slice_in_dim(padded, d * i, d * i + (o - 1) * s + 1, s, 2 + axis) for i in range(k)]
        padded = jnp.concatenate(seen)
    return padded
