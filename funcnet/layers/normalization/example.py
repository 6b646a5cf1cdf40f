"""Normalisation within each example: over its features, or over its places and a group of its channels.

All are one computation on a view of x, (rows, n, groups, width). Each mean and each variance is that of n × width
numbers. A layer norm has one row per vector of features, n = 1 and one group. A group norm has one row per example, and
n is its number of places. An instance norm is a group norm with groups of one channel.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_count, check_multiple, positive
from funcnet.dtypes import at_least_float32
from funcnet.errors import ShapeError
from funcnet.layers.layer import layer
from funcnet.layers.normalization import affine
from funcnet.made import constructor
from funcnet.numerics import inverse_root
from funcnet.types import Layer, Rules

__all__ = ["group_norm", "instance_norm", "layer_norm", "rms_norm"]


@constructor
def layer_norm(
    *,
    epsilon: float = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: initializers.Initializer = initializers.ones,
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Each vector of features normalised to mean 0 and variance 1, y = s ⊙ (x − m) / √(v + ε) + b.

    m and v are the mean and the variance, Σ (x − m)² / n, of the n features along the last axis.

    Args:
        epsilon: ε > 0.
        use_scale, use_bias: whether to multiply by s, and whether to add b.
        scale_init, bias_init: `(key, shape, dtype) -> array`.

    Input (batch, …, features), output of the shape and dtype of `x`. Statistics are in float32 or wider.
    Params: `scale`, `bias` (features,), in the dtype of `x`.

    Backward. Write g = ∂L/∂y, r = 1/√(v + ε), x̂ = (x − m) r, d = s ⊙ g = ∂L/∂x̂. Since y = s ⊙ x̂ + b, db = Σ g and ds
    = Σ g ⊙ x̂, summed over all vectors. Within a vector x_i reaches L
        through x̂_i itself:  d_i r,
        through m:           ∂L/∂m = −r Σ_j d_j and ∂m/∂x_i = 1/n make −r mean(d),
        through v:           ∂L/∂v = Σ_j d_j (x_j − m) · (−r³/2) and ∂v/∂x_i = 2 (x_i − m) / n make −r x̂_i mean(d ⊙ x̂),
    where v adds nothing through m, because Σ_j (x_j − m) = 0. Together
        dx = r (d − mean(d) − x̂ mean(d ⊙ x̂)).
    Kept: x, m, r. Per example: the sums for ds and db run over its vectors alone.

    Raises:
        ConfigError: ε is not a positive number.
        ShapeError: `x` has fewer than two axes, a single feature, or other features than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Ba, Kiros, Hinton, "Layer Normalization", arXiv 1607.06450.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer, x = fn.layers.layer_norm(), jnp.array([[1.0, 2.0, 3.0]])
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> layer.apply(params, state, x)[0].round(4)
    Array([[-1.2247,  0.    ,  1.2247]], dtype=float32)
    """
    return _norm(_by_vector, epsilon, use_scale and scale_init, use_bias and bias_init, positionwise=1)


@constructor
def rms_norm(
    *, epsilon: float = 1e-5, use_scale: bool = True, scale_init: initializers.Initializer = initializers.ones
) -> Layer:
    """Each vector of features normalised to mean square 1, y = s ⊙ x / √(mean(x²) + ε).

    Args:
        epsilon: ε > 0.
        use_scale: whether to multiply by s.
        scale_init: `(key, shape, dtype) -> array`.

    Input (batch, …, features), output of the shape and dtype of `x`. Mean squares are in float32 or wider.
    Params: `scale` (features,), in the dtype of `x`.

    Backward. Write g = ∂L/∂y, q = mean(x²), r = 1/√(q + ε), x̂ = x r, d = s ⊙ g = ∂L/∂x̂. Then ds = Σ g ⊙ x̂ over all
    vectors. x_i reaches L through x̂_i itself, which gives d_i r, and through q. There ∂L/∂q = Σ_j d_j x_j · (−r³/2)
    and ∂q/∂x_i = 2 x_i / n give −r x̂_i mean(d ⊙ x̂). Together
        dx = r (d − x̂ mean(d ⊙ x̂)),
    which is dx of the layer norm without the term of the mean. Kept: x, r. Per example: the sum for ds runs over its
    vectors alone.

    Raises:
        ConfigError: ε is not a positive number.
        ShapeError: `x` has fewer than two axes, or other features than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Zhang, Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019, equation 4.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer, x = fn.layers.rms_norm(), jnp.array([[3.0, -3.0]])
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> layer.apply(params, state, x)[0].round(4)
    Array([[ 1., -1.]], dtype=float32)
    """
    return _norm(_by_vector, epsilon, use_scale and scale_init, centre=False, positionwise=1)


@constructor
def group_norm(
    groups: int = 32,
    *,
    epsilon: float = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: initializers.Initializer = initializers.ones,
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Each group of an example's channels normalised to mean 0 and variance 1, y = s (x − m) / √(v + ε) + b.

    m and v are the mean and the variance, Σ (x − m)² / n, of the n numbers that an example has in a group. A group is
    all places of channels/groups neighbouring channels. s and b have one number per channel. Nothing depends on the
    other examples. So batches may be small, and training and evaluation compute the same.

    Args:
        groups: number of groups into which the channels are divided. 1 normalises the example as a whole.
        epsilon: ε > 0.
        use_scale, use_bias: whether to multiply by s, and whether to add b.
        scale_init, bias_init: `(key, shape, dtype) -> array`.

    Input (batch, …, channels), for example images with any number of axes. Output of the shape and dtype of `x`.
    Statistics are in float32 or wider. Params: `scale`, `bias` (channels,), in the dtype of `x`.

    Backward. Write g = ∂L/∂y, r = 1/√(v + ε), x̂ = (x − m) r, d = s g = ∂L/∂x̂. In a group, as derived for `layer_norm`,
        dx = r (d − mean(d) − x̂ mean(d x̂)).
    Let P_c = Σ g and Q_c = Σ g x̂ be the sums over the places of one channel of one example. Then
        mean(d) = Σ_c s_c P_c / n,   mean(d x̂) = Σ_c s_c Q_c / n,   with Σ_c over the channels of the group,
    and db = Σ_examples P, ds = Σ_examples Q. One pass over x and g gives all that dx needs.
    Kept: x, m, r. Per example: db is P and ds is Q.

    Raises:
        ConfigError: `groups` is not a positive integer, or ε is not a positive number.
        ShapeError: `x` has fewer than two axes, channels that `groups` does not divide, groups of a single number, or
            other channels than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Wu, He, "Group Normalization", ECCV 2018.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer, x = fn.layers.group_norm(2), jnp.array([[1.0, 3.0, 10.0, 30.0]])
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> layer.apply(params, state, x)[0].round(4)
    Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    groups = check_count("groups", groups)

    def by_group(x):
        channels = x.shape[-1]
        check_multiple("the channels of x", channels, groups, "the number of groups", "choose groups that divide them")
        return x.shape[0], math.prod(x.shape[1:-1]), groups, channels // groups

    return _norm(by_group, epsilon, use_scale and scale_init, use_bias and bias_init)


@constructor
def instance_norm(
    *,
    epsilon: float = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: initializers.Initializer = initializers.ones,
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Each channel of each example normalised to mean 0 and variance 1 over its places, y = s (x − m) / √(v + ε) + b.

    It is a `group_norm` with as many groups as channels. See there for the formula, the arguments and the errors.

    Input (batch, *size, channels), output of the shape and dtype of `x`. Params: `scale`, `bias` (channels,).

    Backward. As for `group_norm` with one channel in a group, where s is a constant. With P = Σ g and Q = Σ g x̂ over
    the n places, dx = s r (g − P/n − x̂ Q/n), db = Σ_examples P and ds = Σ_examples Q. Kept: x, m, r.

    References: Ulyanov, Vedaldi, Lempitsky, "Instance Normalization: The Missing Ingredient for Fast Stylization",
    arXiv 1607.08022.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer, x = fn.layers.instance_norm(), jnp.array([[[1.0, 10.0], [3.0, 30.0]]])
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> layer.apply(params, state, x)[0].round(4)
    Array([[[-1., -1.],
            [ 1.,  1.]]], dtype=float32)
    """
    return _norm(_by_channel, epsilon, use_scale and scale_init, use_bias and bias_init)


def _by_vector(x):
    return math.prod(x.shape[:-1]), 1, 1, x.shape[-1]


def _by_channel(x):
    return x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1], 1


def _norm(
    view_of: Callable[[Any], tuple[int, int, int, int]],
    epsilon: float,
    scale_init: Any,
    bias_init: Any = False,
    *,
    centre: bool = True,
    positionwise: int | None = None,
) -> Layer:
    """The norm of a view of x, for deviations from the mean or, without `centre`, from zero.

    A false `scale_init` means no scale, and a false `bias_init` means no bias.
    """
    epsilon = positive("epsilon", epsilon)

    def leaves(x):
        declared = affine.leaves(x, scale_init, bias_init)
        _, n, _, width = view_of(x)
        if centre and n * width < 2:
            fix = "the variance of one number is 0; use larger images or more channels, or leave the norm out"
            raise ShapeError(f"expected two numbers or more for each mean, got x of shape {x.shape}; {fix}.")
        return declared

    def view(array, x, first=0):
        return array.reshape(view_of(x)[first:]).astype(at_least_float32(x.dtype))

    def deviations(x, mean):
        return view(x, x) - mean if centre else view(x, x)

    def scale_of(params, x):
        return view(params["scale"], x, first=2) if scale_init else 1

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        n = view_of(x)[1]
        mean = _mean(_sums(view(x, x)), n) if centre else None
        deviation = deviations(x, mean)
        r = inverse_root(_mean(_sums(jnp.square(deviation)), n), epsilon)
        y = deviation * (r * scale_of(params, x))
        y = y + view(params["bias"], x, first=2) if bias_init else y
        return y.reshape(x.shape).astype(x.dtype), state, (x, mean, r)

    def sums(residuals, dy):
        """P = Σ g and Q = Σ g x̂ over the places of each row and channel."""
        x, mean, r = residuals
        g = view(dy, x)
        p, q = _sums(g), _sums(g * deviations(x, mean)) * r
        if view_of(x)[1] > 1:  # or XLA would sum g over places and rows at once for db, in another pass over x and g
            p = jax.lax.optimization_barrier(p)
        return p, q

    def by_example(x, rows):
        """(rows, 1, groups, width) -> (batch, rows of an example, channels)"""
        rows_of_one = view_of(jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))[0]
        return rows.reshape(x.shape[0], rows_of_one, x.shape[-1])

    def backward(params, residuals, dy):
        x, mean, r = residuals
        p, q = sums(residuals, dy)
        n, scale = view_of(x)[1], scale_of(params, x)
        dx = scale * view(dy, x) - deviations(x, mean) * (r * _mean(scale * q, n))  # d − x̂ mean(d x̂)
        if centre:
            dx = dx - _mean(scale * p, n)  # − mean(d)
        dparams = affine.gradients(x, *(affine.totals(by_example(x, rows)) for rows in (q, p)))
        return dparams, (r * dx).reshape(x.shape).astype(x.dtype)

    def per_example(params, residuals, dy):
        del params
        x, (p, q) = residuals[0], sums(residuals, dy)
        return affine.gradients(x, *(affine.within_examples(by_example(x, rows)) for rows in (q, p)))

    return layer(forward, backward, leaves=leaves, rules=Rules(per_example, positionwise=positionwise))


def _sums(view):
    """Sums over the places: (rows, n, groups, width) -> (rows, 1, groups, width)."""
    return view.sum(1, keepdims=True)


def _mean(sums, n):
    """The mean of the n × width numbers of a row and group, from their sums over the places: (rows, 1, groups, 1)."""
    return sums.sum(3, keepdims=True) / (n * sums.shape[3])
