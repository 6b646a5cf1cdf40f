"""Augmentation: random changes of images, drawn anew for each batch.

These are pure functions of a key and a batch of images (batch, height, width, channels). They keep shapes and dtypes,
so all run under `jit`, for example in a training step. Each image gets a draw of its own, and the same key gives the
same result. To use several, write a function that gives each a key of its own:

    def augment(key, images):
        crop_key, flip_key = jax.random.split(key)
        return random_flip(flip_key, random_crop(crop_key, images))

Random numbers are drawn in float32 and int32 in every mode, so a key gives the same draws with 64-bit numbers.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnet.checks import (
    check_count,
    check_floating,
    check_key,
    check_shape,
    describe,
    is_array,
    nonnegative,
    positive,
)
from funcnet.errors import ConfigError, DataError, DtypeError, ShapeError
from funcnet.made import leading
from funcnet.types import Array, Key

__all__ = ["channel_statistics", "cutout", "mixup", "random_crop", "random_flip", "random_shift", "standardize"]


def random_crop(key: Key, images: Any, padding: int = 4) -> Array:
    """Put a border of zeros around each image and cut it out at a random place, which moves it by whole pixels.

    Args:
        images: (batch, height, width, channels), of any dtype.
        padding: width of the border, and the most that an image moves in each direction.

    Raises:
        ConfigError, DtypeError, ShapeError.

    References: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> image = jnp.arange(1, 10).reshape(1, 3, 3, 1)
    >>> fn.data.random_crop(jax.random.key(1), image, padding=1)[0, :, :, 0]
    Array([[2, 3, 0],
           [5, 6, 0],
           [8, 9, 0]], dtype=int32)
    """
    with leading("random_crop"):
        check_key(key)
        images = _as_images(images)
        padding = check_count("padding", padding, 0)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1, jnp.int32)
    return _windows(images, padding, corners, images.shape[1:3])


def random_flip(key: Key, images: Any) -> Array:
    """Exchange left and right in each image, or leave it as it is, with equal chances.

    Do not use it for digits and letters, because a mirror turns them into others.

    Args:
        images: (batch, height, width, channels), of any dtype.

    Raises:
        DtypeError, ShapeError.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> images = jnp.tile(jnp.arange(3), (4, 1)).reshape(4, 1, 3, 1)
    >>> fn.data.random_flip(jax.random.key(0), images)[:, 0, :, 0]
    Array([[0, 1, 2],
           [0, 1, 2],
           [2, 1, 0],
           [2, 1, 0]], dtype=int32)
    """
    with leading("random_flip"):
        check_key(key)
        images = _as_images(images)
    flipped = jax.random.uniform(key, (len(images), 1, 1, 1), jnp.float32) < 0.5
    return jnp.where(flipped, images[:, :, ::-1], images)


def random_shift(key: Key, images: Any, most: float = 2.0) -> Array:
    """Move each image, by fractions of a pixel too: y[i, j] = x[i + a, j + b], with a, b uniform in [−most, most].

    Between pixels, x is interpolated linearly in both directions. Beyond its border it is 0. This suits small images,
    for which a whole pixel, as in `random_crop`, is a large step.

    Args:
        images: (batch, height, width, channels), floating-point numbers.
        most: the largest shift, in pixels.

    Raises:
        ConfigError, DtypeError, ShapeError.

    >>> import jax, jax.numpy as jnp, numpy as np, funcnet as fn
    >>> image = jnp.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], jnp.float32).reshape(1, 3, 4, 1)
    >>> np.asarray(fn.data.random_shift(jax.random.key(0), image, most=0.5)[0, :, :, 0]).round(2)
    array([[0.21, 0.23, 0.  , 0.  ],
           [0.26, 0.29, 0.  , 0.  ],
           [0.  , 0.  , 0.  , 0.  ]], dtype=float32)
    """
    with leading("random_shift"):
        check_key(key)
        images = _as_images(images)
        check_floating("images", images)
        most = nonnegative("most", most)
    shifts = jax.random.uniform(key, (len(images), 2), jnp.float32, -most, most)
    whole = jnp.floor(shifts)
    padding = math.ceil(most)
    _, height, width, _ = images.shape
    near = _windows(images, padding, whole.astype(jnp.int32) + padding, (height + 1, width + 1))
    a, b = jnp.moveaxis(shifts - whole, 1, 0).astype(images.dtype)[..., None, None, None]
    rows = (1 - a) * near[:, :-1] + a * near[:, 1:]
    return (1 - b) * rows[:, :, :-1] + b * rows[:, :, 1:]


def cutout(key: Key, images: Any, size: int) -> Array:
    """Put a square of zeros into each image. Its centre is any pixel, and the part outside the image is lost.

    Standardize before, not after, so that 0 is the mean.

    Args:
        images: (batch, height, width, channels), of any dtype.
        size: side of the square, in pixels; at most the shorter side of the images.

    Raises:
        ConfigError, DtypeError, ShapeError.

    References: DeVries, Taylor, "Improved regularization of convolutional neural networks with Cutout", arXiv
    1708.04552, 2017.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.data.cutout(jax.random.key(1), jnp.ones((1, 3, 4, 1)), size=2)[0, :, :, 0]
    Array([[1., 1., 0., 0.],
           [1., 1., 0., 0.],
           [1., 1., 1., 1.]], dtype=float32)
    """
    with leading("cutout"):
        check_key(key)
        images = _as_images(images)
        batch, height, width, _ = images.shape
        if check_count("size", size) > min(height, width):
            raise ConfigError(f"expected size of at most {min(height, width)}, the images' shorter side, got {size}.")
    centres = jax.random.randint(key, (batch, 2), 0, jnp.array([height, width], jnp.int32), jnp.int32)
    top, left = (centres - int(size) // 2).T[..., None]
    rows, columns = jnp.arange(height, dtype=jnp.int32), jnp.arange(width, dtype=jnp.int32)
    in_rows = (rows >= top) & (rows < top + int(size))
    in_columns = (columns >= left) & (columns < left + int(size))
    return jnp.where(in_rows[:, :, None, None] & in_columns[:, None, :, None], 0, images)


def mixup(key: Key, images: Any, targets: Any, alpha: float = 0.2) -> tuple[Array, Array]:
    """Mix each image with another of the batch, and likewise its target: λ x + (1 − λ) x′ and λ t + (1 − λ) t′.

    The partners are a random permutation of the batch, and each pair has its own λ ~ Beta(alpha, alpha).

    Args:
        images: (batch, …), floating-point numbers: images, or anything else.
        targets: (batch, …), floating-point numbers: one-hot rows, or values.
        alpha: near 0, λ is near 0 or 1 and pairs hardly mix; at 1, λ is uniform.

    Raises:
        ConfigError, ShapeError; DtypeError, also for integer labels, which cannot be mixed.

    References: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond empirical risk minimization", ICLR 2018.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> targets = jax.nn.one_hot(jnp.array([0, 1, 2]), 3)
    >>> images, mixed = fn.data.mixup(jax.random.key(1), jnp.ones((3, 2, 2, 1)), targets, alpha=1.0)
    >>> jnp.allclose(mixed.sum(-1), 1), (mixed > 0).sum(-1)
    (Array(True, dtype=bool), Array([2, 2, 2], dtype=int32))
    """
    with leading("mixup"):
        check_key(key)
        images, targets = jnp.asarray(images), jnp.asarray(targets)
        check_floating("images", images)
        check_floating("targets", targets, "make labels one-hot rows by jax.nn.one_hot(labels, classes)")
        if not images.shape[:1] == targets.shape[:1] != ():
            raise ShapeError(f"expected as many targets as images, got shapes {targets.shape} and {images.shape}.")
        alpha = positive("alpha", alpha)
    order_key, share_key = jax.random.split(key)
    partners = jax.random.permutation(order_key, jnp.arange(len(images), dtype=jnp.int32))
    shares = jax.random.beta(share_key, alpha, alpha, (len(images),), jnp.float32)

    def mixed(x):
        share = shares.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        return share * x + (1 - share) * x[partners]

    return mixed(images), mixed(targets)


def standardize(images: Any, mean: Any, std: Any) -> Array:
    """(images − mean) / std, channel by channel.

    For the test images, also use the mean and std of the training images.

    Args:
        images: (batch, height, width, channels), floating-point numbers.
        mean, std: (channels,), as from `channel_statistics`, or one number for all channels.

    Raises:
        DtypeError, ShapeError; ConfigError for an std that is not positive.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> images = jnp.array([[1.0, 10.0], [3.0, 30.0]]).reshape(2, 1, 1, 2)
    >>> fn.data.standardize(images, *fn.data.channel_statistics(images))[:, 0, 0]
    Array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """
    with leading("standardize"):
        images = _as_images(images)
        check_floating("images", images)
        mean, std = _per_channel("mean", mean, images), _per_channel("std", std, images)
        if not isinstance(std, Tracer) and not (np.asarray(std) > 0).all():
            raise ConfigError(f"expected std to be positive, got {np.asarray(std).tolist()}.")
    return (images - mean) / std


def channel_statistics(images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation √(Σ (x − mean)² / n) of each channel, over all images and pixels.

    It runs on the host, in float64, for a thousand images at a time. Call it once, for the training images.

    Args:
        images: (n, height, width, channels), floating-point numbers.

    Returns: mean (channels,) and std (channels,), NumPy arrays of the images' dtype.

    Raises:
        DtypeError, ShapeError; DataError for a channel that is constant or not finite.

    >>> import numpy as np, funcnet as fn
    >>> fn.data.channel_statistics(np.array([[0.0, 1.0], [4.0, 3.0]]).reshape(1, 2, 2, 1))
    (array([2.]), array([1.58113883]))
    """
    with leading("channel_statistics"):
        _check_images(images)
        check_floating("images", images)
    images = np.asarray(images)
    parts = [images[start : start + 1000] for start in range(0, len(images), 1000)]
    pixels = math.prod(images.shape[:3])
    mean = np.sum([part.sum((0, 1, 2), np.float64) for part in parts], 0) / pixels
    std = np.sqrt(np.sum([np.square(part - mean).sum((0, 1, 2)) for part in parts], 0) / pixels)
    if len(wrong := np.flatnonzero(~(np.isfinite(std) & (std > 0)))):
        i = wrong[0]
        got = f"mean {mean[i]} and standard deviation {std[i]} in channel {i}; leave it out"
        raise DataError(f"channel_statistics: expected channels that vary and are finite, got {got}.")
    return mean.astype(images.dtype), std.astype(images.dtype)


def _windows(images, padding, corners, size):
    """For each image the window of `size` at its corner, in the image with a border of zeros.

    Corners are in 0 … 2 · padding. If a window is larger than the image, the far border is wider by the difference.
    """
    _, height, width, channels = images.shape
    far = [(padding, padding + large - small) for large, small in zip(size, (height, width), strict=True)]
    padded = jnp.pad(images, ((0, 0), *far, (0, 0)))

    def window(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, jnp.int32(0)), (*size, channels))

    return jax.vmap(window)(padded, corners)


def _as_images(images):
    _check_images(images)
    return jnp.asarray(images)


def _check_images(images):
    if not is_array(images):
        raise DtypeError(f"expected images to be an array, got {describe(images)}.")
    if len(images.shape) != 4 or 0 in images.shape:
        raise ShapeError(
            f"expected images of shape (batch, height, width, channels), got {images.shape}; reshape them."
        )


def _per_channel(what, value, images):
    value = jnp.asarray(value, images.dtype)
    if value.ndim:
        check_shape(what, value, f"{images.shape[3:]}", "give one number per channel, or one for all")
    return value
