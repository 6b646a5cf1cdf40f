"""Losses on numbers, each with its hand-derived gradient below it.

In all of them r = p − t is the residual of prediction p and target t, elementwise. The gradients are given for one
value. The weight c of the value is a factor of its gradient. With `reduction="mean"` 1/N is another factor, where
N = Σ c is how much counts. Without weights N is the number of marked values.
"""

import math
from typing import Any

import jax.numpy as jnp

from funcnet.checks import positive
from funcnet.losses.loss import loss, prepare
from funcnet.losses.reduction import check_only_mean
from funcnet.numerics import power_of_two, root
from funcnet.types import Array

__all__ = [
    "half_squared_error", "huber", "log_cosh", "mean_absolute_error", "mean_squared_error", "root_mean_squared_error",
    "smooth_l1",
]  # fmt: skip


@loss()
def mean_squared_error(
    prediction: Any, target: Any, *, reduction: str = "mean", where: Any = None, weights: Any = None
) -> Array:
    """Squared error, r² for each element; the mean is over all elements, including features.

    Args:
        prediction: (batch, …), floating-point.
        target: of the same shape; the same dtype, or integers or booleans.
        reduction: "mean", "sum" or "none".
        where, weights: which values count, and by how much; over leading axes of the prediction.

    Gradient. ∂r²/∂p = 2 r, because ∂r/∂p = 1.

    Raises:
        ShapeError: prediction and target differ in shape, or `where` or `weights` does not lie over leading axes.
        DtypeError: the prediction is not floating-point, or the target has another floating dtype.
        DataError: a weight that is negative or not finite.
        ConfigError: an unknown reduction.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> p, t = jnp.array([[1.0, 5.0]]), jnp.array([[0.0, 2.0]])
    >>> fn.losses.mean_squared_error(p, t), fn.losses.mean_squared_error.gradient(p, t)
    (Array(5., dtype=float32), Array([[1., 3.]], dtype=float32))
    """
    p, t, over = prepare(mean_squared_error, prediction, target, reduction, where, weights)
    return over.reduce(jnp.square(p - t))


@mean_squared_error.hand_gradient
def _(prediction, target, *, reduction="mean", where=None, weights=None):
    p, t, over = prepare(mean_squared_error, prediction, target, reduction, where, weights)
    return over.spread(2 * (p - t))


@loss(axes=1)
def half_squared_error(
    prediction: Any, target: Any, *, reduction: str = "mean", where: Any = None, weights: Any = None
) -> Array:
    """Half the sum of squared errors of an example, ½ Σ r² over all axes but the first: one value for each example.

    Args: as for `mean_squared_error`; `where` and `weights` are of shape (batch,).

    Gradient. ∂(½ Σ r²)/∂p = r. The ½ cancels the 2.

    Raises: as `mean_squared_error`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> p, t = jnp.array([[1.0, 5.0]]), jnp.array([[0.0, 2.0]])
    >>> fn.losses.half_squared_error(p, t), fn.losses.half_squared_error.gradient(p, t)
    (Array(5., dtype=float32), Array([[1., 3.]], dtype=float32))
    """
    p, t, over = prepare(half_squared_error, prediction, target, reduction, where, weights)
    return over.reduce(0.5 * jnp.square(p - t).sum(tuple(range(1, p.ndim))))


@half_squared_error.hand_gradient
def _(prediction, target, *, reduction="mean", where=None, weights=None):
    p, t, over = prepare(half_squared_error, prediction, target, reduction, where, weights)
    return over.spread(p - t)


@loss()
def mean_absolute_error(
    prediction: Any, target: Any, *, reduction: str = "mean", where: Any = None, weights: Any = None
) -> Array:
    """Absolute error, |r| for each element: outliers move it less than the square.

    Args: as for `mean_squared_error`.

    Gradient. ∂|r|/∂p = sign(r); at the kink r = 0 it is 0.

    Raises: as `mean_squared_error`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> p, t = jnp.array([1.0, 5.0, 2.0, 0.0]), jnp.array([2, 2, 2, 2])
    >>> fn.losses.mean_absolute_error(p, t), fn.losses.mean_absolute_error.gradient(p, t)
    (Array(1.5, dtype=float32), Array([-0.25,  0.25,  0.  , -0.25], dtype=float32))
    """
    p, t, over = prepare(mean_absolute_error, prediction, target, reduction, where, weights)
    return over.reduce(_magnitude(p - t))


@mean_absolute_error.hand_gradient
def _(prediction, target, *, reduction="mean", where=None, weights=None):
    p, t, over = prepare(mean_absolute_error, prediction, target, reduction, where, weights)
    return over.spread(jnp.sign(p - t))


def _magnitude(r):
    return jnp.maximum(r, -r)  # |r|, whose autodiff at 0 is ½ − ½ = 0; that of jnp.abs is 1


@loss(mean=False)
def root_mean_squared_error(
    prediction: Any, target: Any, *, reduction: str = "mean", where: Any = None, weights: Any = None
) -> Array:
    """Root of the mean squared error, L = √(Σ c r² / N) over all marked elements: in the units of the target.

    Args: as for `mean_squared_error`, but the only reduction is "mean", and the mean is under the root.

    Gradient. From L² = Σ c r² / N follows 2 L ∂L/∂p = 2 c r / N, so ∂L/∂p = c r / (N L). If r = 0 everywhere, the root
    has no derivative. The gradient is then 0, as at a minimum.

    Raises: as `mean_squared_error`; ConfigError for another reduction.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> p, t = jnp.array([3.0, 4.0]), jnp.array([0.0, 0.0])
    >>> fn.losses.root_mean_squared_error(p, t), fn.losses.root_mean_squared_error.gradient(t, t)
    (Array(3.535534, dtype=float32), Array([0., 0.], dtype=float32))
    """
    p, t, over = _prepare_root(prediction, target, reduction, where, weights)
    share, size = _root(over, p - t)
    return (share * size).astype(over.dtype)


@root_mean_squared_error.hand_gradient
def _(prediction, target, *, reduction="mean", where=None, weights=None):
    p, t, over = _prepare_root(prediction, target, reduction, where, weights)
    share, size = _root(over, p - t)
    return over.spread((p - t) / size / jnp.where(share == 0, 1, share))


def _prepare_root(prediction, target, reduction, where, weights):
    check_only_mean(reduction, "the mean is under the root; mean_absolute_error has the other reductions")
    return prepare(root_mean_squared_error, prediction, target, reduction, where, weights)


def _root(over, r):
    """L / s and s, a power of two near the largest |r|. r is divided by it because r² may over- or underflow."""
    size = power_of_two([r], r.dtype)
    return root(over._replace(dtype=r.dtype).reduce(jnp.square(r / size))), size


@loss()
def huber(
    prediction: Any, target: Any, *, delta: float = 1.0, reduction: str = "mean", where: Any = None, weights: Any = None
) -> Array:
    """Huber loss for each element: ½ r² for |r| ≤ δ, δ (|r| − ½ δ) beyond. So outliers count linearly.

    Args: as for `mean_squared_error`, and
        delta: δ > 0, where the square ends. The loss is δ times `smooth_l1` with β = δ.

    Gradient. ∂(½ r²)/∂p = r and ∂|r|/∂p = sign(r), so ∂/∂p = r for |r| ≤ δ and δ sign(r) beyond,
    which is r clipped to [−δ, δ].

    Raises: as `mean_squared_error`; ConfigError if δ is not positive.

    References: Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 1964.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.huber(jnp.array([0.3, 2.0]), jnp.array([0.0, 0.0]), delta=0.5, reduction="none")
    Array([0.045, 0.875], dtype=float32)
    """
    delta = positive("delta", delta)
    p, t, over = prepare(huber, prediction, target, reduction, where, weights)
    return over.reduce(_huber(p - t, delta))


@huber.hand_gradient
def _(prediction, target, *, delta=1.0, reduction="mean", where=None, weights=None):
    delta = positive("delta", delta)
    p, t, over = prepare(huber, prediction, target, reduction, where, weights)
    return over.spread(jnp.clip(p - t, -delta, delta))


def _huber(r, delta):
    # Each branch of `where` is computed. The square sees no large number, which would overflow.
    magnitude = _magnitude(r)
    near = magnitude <= delta
    return jnp.where(near, 0.5 * jnp.square(jnp.where(near, r, 0)), delta * (magnitude - 0.5 * delta))


@loss()
def smooth_l1(
    prediction: Any, target: Any, *, beta: float = 1.0, reduction: str = "mean", where: Any = None, weights: Any = None
) -> Array:
    """Smooth absolute error for each element: r² / 2β for |r| ≤ β, |r| − ½ β beyond. Outliers have slope ±1.

    Args: as for `mean_squared_error`, and
        beta: β > 0, where the square ends.

    Gradient. ∂(r² / 2β)/∂p = r / β and ∂|r|/∂p = sign(r), so ∂/∂p = r / β for |r| ≤ β and sign(r)
    beyond, which is r / β clipped to [−1, 1].

    Raises: as `mean_squared_error`; ConfigError if β is not positive.

    References: Girshick, "Fast R-CNN", ICCV 2015, equation 3 (β = 1).

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.smooth_l1(jnp.array([0.3, 2.0]), jnp.array([0.0, 0.0]), beta=0.5, reduction="none")
    Array([0.09, 1.75], dtype=float32)
    """
    beta = positive("beta", beta)
    p, t, over = prepare(smooth_l1, prediction, target, reduction, where, weights)
    return over.reduce(_huber(p - t, beta) / beta)


@smooth_l1.hand_gradient
def _(prediction, target, *, beta=1.0, reduction="mean", where=None, weights=None):
    beta = positive("beta", beta)
    p, t, over = prepare(smooth_l1, prediction, target, reduction, where, weights)
    return over.spread(jnp.clip((p - t) / beta, -1, 1))


@loss()
def log_cosh(prediction: Any, target: Any, *, reduction: str = "mean", where: Any = None, weights: Any = None) -> Array:
    """Logarithm of the hyperbolic cosine, log cosh r for each element: ½ r² near 0, |r| − log 2 far out.

    Args: as for `mean_squared_error`.

    Gradient. ∂(log cosh r)/∂p = sinh r / cosh r = tanh r.

    Raises: as `mean_squared_error`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.log_cosh(jnp.array([0.0, 1e4]), jnp.array([0.0, 0.0]), reduction="none")
    Array([   0.   , 9999.307], dtype=float32)
    """
    p, t, over = prepare(log_cosh, prediction, target, reduction, where, weights)
    r = p - t
    magnitude = _magnitude(r)
    # Near 0, log(1 + 2 sinh²(r/2)) has no cancellation. Far out cosh would overflow, so |r| is outside the logarithm.
    near = magnitude < 1
    small = jnp.log1p(2 * jnp.square(jnp.sinh(0.5 * jnp.where(near, r, 0))))
    large = magnitude + jnp.log1p(jnp.exp(-2 * magnitude)) - math.log(2)
    return over.reduce(jnp.where(near, small, large))


@log_cosh.hand_gradient
def _(prediction, target, *, reduction="mean", where=None, weights=None):
    p, t, over = prepare(log_cosh, prediction, target, reduction, where, weights)
    return over.spread(jnp.tanh(p - t))
