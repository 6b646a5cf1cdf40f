"""Cross-entropy of an output layer of many classes, whose logits are never whole, with its gradient below it."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_count, describe, is_array
from funcnet.dtypes import at_least_float32
from funcnet.errors import DtypeError, ShapeError, StructureError
from funcnet.losses.checks import check_class_labels
from funcnet.losses.loss import loss, prepare
from funcnet.losses.targets import as_labels
from funcnet.numerics import blocked, rows_at_a_time, unblocked
from funcnet.trees import values_of
from funcnet.types import Array, Whole

__all__ = ["linear_cross_entropy"]


def _features(prediction):
    """The features of a prediction, an array or a `Padded`."""
    if not (isinstance(prediction, tuple) and len(prediction) == 2 and isinstance(prediction[1], Whole)):
        fix = "end the model with layers.deferred"
        raise StructureError(f"expected prediction to be (features, Whole(kernel)), got {describe(prediction)}; {fix}.")
    return prediction[0]


def _check(prediction, target, where):
    features, kernel = values_of(prediction[0]), prediction[1].array
    if not is_array(kernel) or len(kernel.shape) != 2 or kernel.shape[:1] != features.shape[-1:]:
        got = kernel.shape if is_array(kernel) else describe(kernel)
        wanted = f"({features.shape[-1] if features.ndim else 'features'}, classes)"
        raise ShapeError(f"expected a kernel of shape {wanted} beside the features, got {got}; transpose it.")
    if kernel.dtype != features.dtype:
        fix = "convert it with .astype"
        raise DtypeError(f"expected a kernel of dtype {features.dtype}, as the features, got {kernel.dtype}; {fix}.")
    logits = jax.ShapeDtypeStruct((*features.shape[:-1], kernel.shape[1]), features.dtype)
    check_class_labels(logits, target, where)


@loss(check=_check, axes=-1, main=_features)
def linear_cross_entropy(
    prediction: Any,
    target: Any,
    *,
    block: int | None = None,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Cross-entropy of the logits z = x W of an output layer, −log softmax(z)_y, computed in blocks of rows.

    The loss is that of `softmax_cross_entropy` for labels, after `dense(classes, use_bias=False)`. But the product is a
    part of the loss, and the logits of a few rows at a time are all that exists of them. With 50 257 classes they
    would be the largest array of a language model by far, and autodiff would keep several of that size.

    Args:
        prediction: (x, Whole(W)), the output of `layers.deferred`: x, (batch, …, features), an array or a `Padded`, and
            W, (features, classes), of its dtype.
        target: integer labels (batch, …).
        block: how many rows at a time; by default as many as have about four million logits.
        reduction: "mean" (over rows), "sum" or "none".
        where, weights: which values count, and by how much; over leading axes of (batch, …).

    A block has all classes of its rows, and not some classes of all rows: so its softmax is complete, and each product
    is computed once.

    Gradient. Write g = ∂L/∂z = c (p − e_y) of a row with the factor c, as for `softmax_cross_entropy`, where p =
    softmax(z) and e_y is 1 at the label. From z = x W follows
        dx = g Wᵀ,   dW = Σ xᵀ g,
    where the sum runs over the blocks. The gradient is the pair (dx, dW) of arrays. It is computed from the logits of
    a block when they are there, and so is the one of autodiff, which computes each block again.

    Raises:
        StructureError: the prediction is not such a pair.
        ShapeError: features, kernel or target do not fit, or `where` or `weights` does not lie over leading axes.
        DtypeError: the features are not floating-point, or the kernel is of another dtype.
        LabelError: a label is not the number of a class; under `jit` it makes the loss and the gradient NaN.
        DataError: a weight that is negative or not finite.
        ConfigError: an unknown reduction, or `block` is not a positive integer.

    References: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025, which cuts the classes
    into blocks too.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> x, kernel, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.eye(2), jnp.array([0, 0])
    >>> plain = fn.losses.softmax_cross_entropy(x @ kernel, y)
    >>> bool(jnp.allclose(fn.losses.linear_cross_entropy((x, fn.Whole(kernel)), y), plain))
    True
    >>> dx, dkernel = fn.losses.linear_cross_entropy.gradient((x, fn.Whole(kernel)), y)
    >>> dx.shape, dkernel.shape
    ((2, 2), (2, 2))
    """
    x, kernel, labels, over, block = _prepare(prediction, target, reduction, where, weights, block)

    def values(kernel, rows):
        x, labels = rows
        z = _logits(x, kernel)
        return jax.nn.logsumexp(z, axis=-1) - jnp.take_along_axis(z, labels[:, None], axis=1)[:, 0]

    again = jax.checkpoint(values, prevent_cse=False)  # so that autodiff keeps no logits either
    found = jax.lax.map(partial(again, kernel), (blocked(x, block), blocked(labels, block)))
    return over.reduce(unblocked(found, len(x)).reshape(over.shape))


@linear_cross_entropy.hand_gradient
def _(prediction, target, *, block=None, reduction="mean", where=None, weights=None):
    x, kernel, labels, over, block = _prepare(prediction, target, reduction, where, weights, block)
    wide = at_least_float32(over.dtype)
    factors = over._replace(dtype=wide).spread(jnp.ones(over.shape, wide)).reshape(-1)

    def step(dkernel, rows):
        x, labels, factors = rows
        p = jax.nn.softmax(_logits(x, kernel))
        slopes = factors[:, None] * (p - jax.nn.one_hot(labels, p.shape[-1], dtype=p.dtype))
        slopes = slopes.astype(kernel.dtype)
        dkernel = dkernel + jnp.matmul(x.T, slopes, preferred_element_type=wide)
        return dkernel, slopes @ kernel.T

    rows = tuple(blocked(one, block) for one in (x, labels, factors))
    dkernel, dx = jax.lax.scan(step, jnp.zeros(kernel.shape, wide), rows)
    shape = values_of(prediction[0]).shape
    return unblocked(dx, len(x)).reshape(shape), dkernel.astype(kernel.dtype)


def _prepare(prediction, target, reduction, where, weights, block):
    """Features (n, width) and labels (n,) of all rows, the kernel, the reduction, and how many rows are a block."""
    x, labels, over = prepare(
        linear_cross_entropy, prediction, target, reduction, where, weights, convert=_as_labels(prediction)
    )  # fmt: skip
    kernel = jnp.asarray(prediction[1].array)
    # NaN where a label names no class. It is added, because a choice would have the derivative 0.
    x = x + jnp.where(labels < 0, jnp.nan, 0)[..., None].astype(x.dtype)
    n = math.prod(over.shape)
    block = rows_at_a_time(kernel.shape[1]) if block is None else check_count("block", block)
    return x.reshape(n, -1).astype(kernel.dtype), kernel, jnp.maximum(labels, 0).reshape(n), over, block


def _as_labels(prediction):
    def convert(target, features):
        del features
        labels, valid = as_labels(target, prediction[1].array.shape[1])
        return jnp.where(valid, labels, -1)

    return convert


def _logits(x, kernel):
    """z of a block, in float32 for half precision."""
    return jnp.matmul(x, kernel, preferred_element_type=at_least_float32(x.dtype))
