"""What all of funcnet asks about dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["as_jax_has", "at_least_float32", "is_key", "widen"]


def as_jax_has(dtype: Any) -> np.dtype:
    """The dtype that jax gives to numbers of this dtype of NumPy: in native byte order, and no long double.

    >>> as_jax_has(">f8"), as_jax_has(np.longdouble)
    (dtype('float32'), dtype('float32'))
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    narrower = {np.dtype(np.longdouble): np.dtype(float), np.dtype(np.clongdouble): np.dtype(complex)}
    return jax.dtypes.canonicalize_dtype(narrower.get(dtype, dtype))


def at_least_float32(dtype: Any) -> Any:
    """The dtype in which to compute with numbers of this floating dtype.

    In float16 the square of 256 is infinite, and a mean in bfloat16 keeps two digits.

    >>> at_least_float32(jnp.bfloat16), at_least_float32(jnp.float32)
    (dtype('float32'), dtype('float32'))
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)  # NumPy arrays may be float64, which JAX may not have enabled
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def widen(x: Any) -> jax.Array:
    """`x` in the dtype in which to compute with it; what has that dtype stays as it is.

    >>> widen(jnp.ones(1, jnp.float16))
    Array([1.], dtype=float32)
    """
    return jnp.asarray(x, at_least_float32(x.dtype))


def is_key(value: Any) -> bool:
    """Whether it is an array of typed PRNG keys, or describes one.

    >>> is_key(jax.random.key(0)), is_key(jax.random.PRNGKey(0))
    (True, False)
    """
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
