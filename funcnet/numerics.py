"""What the numbers of several rooms share: roots and norms that are right, with their derivatives, at 0 and beyond the
root of the largest number; rows in blocks; and forms that suit one platform, or values without derivatives.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.types import Array

__all__ = [
    "blocked", "by_platform", "inverse_root", "power_of_two", "root", "rows_at_a_time", "unblocked", "valued_by",
]  # fmt: skip


def root(x: Any) -> Array:
    """√x, whose derivative at 0 is 0.

    It is infinite there, and autodiff would multiply it by the 0 of a square below the root, which gives NaN.

    >>> jax.grad(lambda x: root(x**2))(0.0)
    Array(0., dtype=float32, weak_type=True)
    """
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def inverse_root(square: Any, epsilon: float) -> Array:
    """1 / √(square + ε) of a mean square; NaN where the square is infinite, because numbers were too large to square.

    The result would be 0 there, and a layer would go on with zeros in silence.

    >>> inverse_root(jnp.array([3.0, jnp.inf]), 1.0)
    Array([0.5, nan], dtype=float32)
    """
    return jnp.where(square == jnp.inf, jnp.nan, jax.lax.rsqrt(square + epsilon))


def power_of_two(arrays: Iterable[Any], dtype: Any) -> Array:
    """A power of two near the largest |x| of all numbers, to divide by before squaring; 1 if that is 0 or not finite.

    The square of 2e19 is infinite in float32, and that of 1e-23 is 0. Division by a power of two rounds nothing.

    >>> power_of_two([jnp.array([3.0, -5.0]), jnp.array([])], jnp.float32)
    Array(2., dtype=float32)
    """
    found = [jnp.max(jnp.abs(array).astype(dtype), initial=0) for array in arrays]
    size = jnp.max(jnp.stack(found)) if found else jnp.zeros((), dtype)
    size = jax.lax.stop_gradient(jnp.where((size > 0) & (size < jnp.inf), size, 1))
    # It and its reciprocal are normal numbers: XLA may multiply by the reciprocal, and CPUs take subnormal ones for 0.
    return jnp.ldexp(jnp.ones((), dtype), jnp.maximum(jnp.frexp(size)[1] - 2, jnp.finfo(dtype).minexp))


def by_platform(*args: Any, default: Callable[..., Any], **forms: Callable[..., Any]) -> Any:
    """The result of the form for the platform that a program is lowered for, or else of `default`.

    The machine that traces chooses nothing: a program for a TPU can be lowered on a CPU. The form for a CPU runs in the
    scope `cpu_only`, whose name no program for another platform has.

    Args:
        args: arrays, or trees of them.
        default, forms: functions of `args` that agree, up to rounding. `forms` are named `cpu`, `cuda`, `rocm`, `tpu`.

    >>> by_platform(jnp.arange(3.0), cpu=lambda x: x + x, default=lambda x: 2 * x)
    Array([0., 2., 4.], dtype=float32)
    """
    named = {**forms, "cpu": jax.named_scope("cpu_only")(forms["cpu"])} if "cpu" in forms else forms
    return jax.lax.platform_dependent(*args, default=default, **named)


def valued_by(values: Callable[[Any], Any], definition: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`definition`, whose values come from a faster form where no derivative is taken.

    Autodiff of the faster form would give other slopes at kinks or ties, so it sees the definition alone.

    >>> relu = valued_by(lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x <= 0, 0, x))
    >>> relu(-1.0), jax.grad(relu)(0.0).item(), jax.grad(lambda x: jnp.maximum(x, 0))(0.0).item()
    (Array(0., dtype=float32, weak_type=True), 0.0, 0.5)
    """
    function = jax.custom_jvp(values)
    function.defjvp(lambda primals, tangents: jax.jvp(definition, primals, tangents))
    return function


def blocked(rows: Array, size: int) -> Array:
    """Rows (n, …) in equal blocks of at most `size`, (blocks, rows, …), with zeros after the last row.

    >>> blocked(jnp.arange(5), 3)
    Array([[0, 1, 2],
           [3, 4, 0]], dtype=int32)
    """
    blocks = -(-len(rows) // size) or 1
    size = -(-len(rows) // blocks)
    padded = jnp.pad(rows, [(0, blocks * size - len(rows))] + [(0, 0)] * (rows.ndim - 1))
    return padded.reshape(blocks, size, *rows.shape[1:])


def rows_at_a_time(width: int) -> int:
    """How many rows of so many numbers are a block: of four million numbers, and at least eight rows.

    A block of 16 MB is small beside the parameters of such a layer, and its products still run at full speed.
    """
    return max(8, 2**22 // max(width, 1))


def unblocked(blocks: Array, n: int) -> Array:
    """The first n rows of blocks.

    >>> unblocked(jnp.array([[0, 1, 2], [3, 4, 0]]), 5)
    Array([0, 1, 2, 3, 4], dtype=int32)
    """
    return blocks.reshape(-1, *blocks.shape[2:])[:n]
