"""Initializers: `(key, shape, dtype) -> array`."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from funcnet.types import Array, Key

__all__ = ["Initializer", "lecun_normal", "zeros"]


class Initializer(Protocol):
    def __call__(self, key: Key, shape: tuple[int, ...], dtype: Any, /) -> Array: ...


def zeros(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    """All zeros."""
    del key
    return jnp.zeros(shape, dtype)


def lecun_normal() -> Initializer:
    def initializer(key, shape, dtype):
        return jax.random.normal(key, shape, dtype) / shape[0] ** 0.5

    return initializer
