"""The fully connected (affine) layer."""

import math

import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_count, check_floating, check_shape
from funcnet.layers.layer import layer
from funcnet.made import constructor
from funcnet.types import Layer, Rules

__all__ = ["dense", "kernel_square", "within_examples"]


@constructor
def dense(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Fully connected layer, y = x W + b.

    Rows are examples. So the seeds' W x, in which columns are examples, is `x @ kernel` here.

    Args:
        features: width of the output.
        use_bias: whether to add b.
        kernel_init, bias_init: `(key, shape, dtype) -> array`.

    Input (batch, …, in), output (batch, …, features).
    Params: `kernel` (in, features), `bias` (features,), in the dtype of `x`.

    Backward. Write g = ∂L/∂y. Since y_nk = Σ_j x_nj W_jk + b_k, ∂y_nk/∂W_jk = x_nj, ∂y_nk/∂b_k = 1 and ∂y_nk/∂x_nj =
    W_jk. Summed over every y that a number reaches,
        dW = xᵀ g,   db = Σ_n g_n,   dx = g Wᵀ.
    Further axes between batch and features count as batch. Kept: x.

    Per example: dW_i = x_iᵀ g_i, where the sum runs over the further axes alone. With two axes this is x_i ⊗ g_i. Its
    squared norm is Σ_nm (x_in · x_im) (g_in · g_im) over pairs of rows of the example. With two axes this is ‖x_i‖²
    ‖g_i‖². The norm is computed in this way if the rows are few compared with `in` × `features`.

    Raises:
        ConfigError: `features` is not a positive integer.
        ShapeError: `x` has fewer than two axes, or another width than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 1986.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.dense(2)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> y, state, residuals = layer.forward(params, state, jnp.ones((1, 3)))
    >>> dparams, dx = layer.backward(params, residuals, jnp.array([[1.0, 2.0]]))
    >>> dparams["kernel"]
    Array([[1., 2.],
           [1., 2.],
           [1., 2.]], dtype=float32)
    """
    features = check_count("features", features)

    def leaves(x):
        _check_input(x)
        return {"kernel": (kernel_init, (x.shape[-1], features)), "bias": use_bias and (bias_init, (features,))}

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        y = x @ params["kernel"]
        return (y + params["bias"] if use_bias else y), state, x

    def backward(params, x, dy):
        rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, features)
        return {"kernel": rows.T @ drows, "bias": drows.sum(0)}, dy @ params["kernel"].T

    def per_example(params, x, dy):
        del params
        rows, drows = within_examples(x), within_examples(dy)
        return {"kernel": jnp.einsum("bni,bnk->bik", rows, drows), "bias": drows.sum(1)}

    def per_example_square(params, x, dy):
        del params
        square = kernel_square(*(within_examples(a).astype(jnp.result_type(float)) for a in (x, dy)))
        return square + jnp.sum(jnp.square(within_examples(dy).sum(1)), 1) if use_bias else square

    return layer(forward, backward, leaves=leaves, rules=Rules(per_example, per_example_square, positionwise=1))


def kernel_square(rows, drows):
    """‖Σ_n x_n g_nᵀ‖² of each example, (batch,), by the cheaper of two ways."""
    n, size = rows.shape[1], rows.shape[2] * drows.shape[2]
    if n * n > size:
        return jnp.sum(jnp.square(jnp.einsum("bni,bnk->bik", rows, drows)), (1, 2))
    square = jnp.sum(_gram(rows) * _gram(drows), (1, 2))
    return jnp.maximum(square, 0)  # for n > 1 rounding can turn a norm of 0 into a negative number


def within_examples(x):
    """(batch, …, width) as (batch, n, width)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _gram(rows):
    """The products of each example's rows with one another, (batch, n, n)."""
    return jnp.einsum("bni,bmi->bnm", rows, rows)


def _check_input(x):
    check_floating("x", x)
    check_shape("x", x, "(batch, …, features)", "add the batch axis with x[None]")
