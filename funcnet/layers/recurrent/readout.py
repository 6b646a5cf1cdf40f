"""One vector from each sequence: its last position, and the mean or the maximum over time."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from funcnet.checks import check_floating
from funcnet.dtypes import widen
from funcnet.layers.layer import parameterless
from funcnet.layers.sequences import opened_times, zeroed
from funcnet.made import constructor
from funcnet.trees import keep_shape, kept_shape
from funcnet.types import Layer

__all__ = ["last", "max_over", "mean_over"]


@constructor
def last() -> Layer:
    """The last position of each sequence, y = x_T, where T is the last position that is there.

    Input (batch, time, …), also as a `Padded`. Output (batch, …). A sequence without a position gives zeros.

    After a recurrence with `reverse=True` the last position has seen only itself. There `mean_over` or `max_over` reads
    all of them.

    Backward. y is x_T, so with g = ∂L/∂y, dx_T = g, and dx_t = 0 at all other times. Kept: T, and the shape of x.

    Raises:
        ShapeError: `x` has fewer than two axes.
        DtypeError: `x` is not floating-point.

    References: Sutskever, Vinyals, Le, "Sequence to Sequence Learning with Neural Networks", NeurIPS 2014.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> x = fn.Padded(jnp.arange(6.0).reshape(2, 3), jnp.array([[True, True, False], [True, True, True]]))
    >>> fn.layers.last().apply((), (), x)[0]
    Array([1., 5.], dtype=float32)
    """

    def forward(x, *, key, train):
        del key, train
        values, where = _floating(x)
        time = values.shape[1]
        index = jnp.full(values.shape[:1], time - 1, jnp.int32)
        if where is not None:
            index = jnp.max(jnp.where(where, jnp.arange(time, dtype=jnp.int32), -1), 1, initial=-1)
        return _read(values, index), (index, keep_shape(values))

    return parameterless(forward, _written, trees=True)


@constructor
def max_over() -> Layer:
    """The largest number of each feature over time, y_c = max_t x_tc.

    Input (batch, time, …), also as a `Padded`, whose empty positions are left out. Output (batch, …). A sequence
    without a position gives zeros.

    Backward. With g = ∂L/∂y, dx_tc = [t = m_c] g_c, where m_c is the time of the maximum. At a tie it is the first one,
    as for `max_pool`. Kept: m, and the shape of x.

    Raises:
        ShapeError: `x` has fewer than two axes.
        DtypeError: `x` is not floating-point.

    References: Collobert and others, "Natural Language Processing (Almost) from Scratch", JMLR 2011, section 3.3.2.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> x = fn.Padded(jnp.array([[-2.0, -1.0, 5.0]]), jnp.array([[True, True, False]]))
    >>> fn.layers.max_over().apply((), (), x)[0]
    Array([-1.], dtype=float32)
    """

    def forward(x, *, key, train):
        del key, train
        values, where = _floating(x)
        if values.shape[1] == 0:
            return jnp.zeros((values.shape[0], *values.shape[2:]), values.dtype), (None, keep_shape(values))
        seen, found = values, True
        if where is not None:
            seen = jnp.where(_over(where, values), values, -jnp.inf)
            found = _over(jnp.any(where, 1), values[:, 0])
        index = lax.argmax(seen, 1, jnp.int32)
        # A sequence of −∞ alone has its maximum at its first position, which padding may precede.
        if where is not None:
            first = lax.argmax(where, 1, jnp.int32)
            index = jnp.where(seen.max(1) == -jnp.inf, _over(first, index), index)
        index = jnp.where(found, index, -1)
        return _read(values, index), (index, keep_shape(values))

    return parameterless(forward, _written, trees=True)


@constructor
def mean_over() -> Layer:
    """The mean over time, y = 1/n Σ_t x_t.

    Input (batch, time, …), also as a `Padded`, whose empty positions are left out: n is the number of the others.
    Output (batch, …). A sequence without a position gives zeros.

    Backward. y reaches L, and each x_t that counts reaches y with the slope 1/n. With g = ∂L/∂y, dx_t = g / n there,
    else 0. Kept: where there is something, and the shape of x.

    Raises:
        ShapeError: `x` has fewer than two axes.
        DtypeError: `x` is not floating-point.

    References: Iyyer, Manjunatha, Boyd-Graber, Daumé, "Deep Unordered Composition Rivals Syntactic Methods for Text
    Classification", ACL 2015.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> x = fn.Padded(jnp.array([[2.0, 4.0, 99.0]]), jnp.array([[True, True, False]]))
    >>> fn.layers.mean_over().apply((), (), x)[0]
    Array([3.], dtype=float32)
    """

    def forward(x, *, key, train):
        del key, train
        values, where = _floating(x)
        y = jnp.sum(widen(zeroed(where, values)) * _share(values, where), 1)
        return y.astype(values.dtype), (where, keep_shape(values))

    def backward(residuals, dy):
        where, shape = residuals
        x = kept_shape(shape)
        dx = jnp.broadcast_to(widen(dy)[:, None] * _share(x, where), x.shape)
        return zeroed(where, dx.astype(dy.dtype))

    return parameterless(forward, backward, trees=True)


def _floating(x):
    values, where = opened_times(x)
    check_floating("x", values)
    return values, where


def _share(x, where):
    """1/n of each row, with the axes of x."""
    n = jnp.full(x.shape[:1], x.shape[1]) if where is None else jnp.sum(where, 1)
    share = 1 / jnp.maximum(n, 1).astype(widen(jnp.zeros((), x.dtype)).dtype)
    return share.reshape(-1, *(1,) * (x.ndim - 1))


def _over(a: Any, x: Any) -> Any:
    """`a` with axes of 1 after its own, as many as x has."""
    return a.reshape(a.shape + (1,) * (x.ndim - a.ndim))


def _read(values, index):
    """The numbers at these times, one time per row or per number, and zeros where it is −1."""
    if values.shape[1] == 0:
        return jnp.zeros((values.shape[0], *values.shape[2:]), values.dtype)
    index = _over(index, values[:, 0])
    # Read at the index, because at a tie the derivative of `max` would be shared.
    at = jnp.broadcast_to(jnp.maximum(index, 0)[:, None], (values.shape[0], 1, *values.shape[2:]))
    found = jnp.take_along_axis(values, at, 1, mode="promise_in_bounds")[:, 0]
    return jnp.where(index >= 0, found, 0)


def _written(residuals, dy):
    """dx, with dy at the times that were read."""
    index, shape = residuals
    x = kept_shape(shape)
    if x.shape[1] == 0:
        return jnp.zeros(x.shape, x.dtype)
    time = jnp.arange(x.shape[1], dtype=jnp.int32).reshape(1, -1, *(1,) * (x.ndim - 2))
    return jnp.where(_over(index, dy)[:, None] == time, dy[:, None], 0)
