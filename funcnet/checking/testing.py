"""A gradient check as one line of a test file."""

from collections.abc import Callable
from typing import Any

from funcnet.checking.check import check_gradients

__all__ = ["gradient_test"]


def gradient_test(target: Any, x: Any, y: Any = None, **options: Any) -> Callable[[], None]:
    """A test function for pytest, which checks the gradients of a layer, a model or a loss when it runs.

    Args:
        target, x, y, options: as for `check_gradients`.

    Returns:
        A function without arguments. It raises `GradientError` with the report if a gradient is wrong. Give it a name
        that begins with `test_`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> test_dense = fn.checking.gradient_test(fn.layers.dense(2), jax.ShapeDtypeStruct((3, 4), jnp.float32))
    >>> test_dense()
    """

    def test() -> None:
        """The gradients by hand agree with autodiff and numeric derivatives."""
        check_gradients(target, x, y, **options).raise_if_failed()

    return test
