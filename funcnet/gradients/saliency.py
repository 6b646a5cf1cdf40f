"""Class saliency: which pixels a score depends on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnet.checks import describe
from funcnet.errors import LabelError, ShapeError
from funcnet.layers.checks import check_floating
from funcnet.made import leading
from funcnet.types import Array, Layer, Params, State

__all__ = ["saliency"]


def saliency(model: Layer, params: Params, state: State, x: Any, classes: Any = None) -> Array:
    """How strongly the score of a class changes with each pixel, |∂s_c / ∂x|, at most over the channels.

    Args:
        model: gives scores (batch, classes); logits rather than probabilities, in which a class also gains where
            another loses.
        params, state: of the model, which runs in evaluation mode.
        x: images (batch, *size, channels).
        classes: for each image the class c, (batch,), or one for all; by default the predicted one, the first of equal
            scores.

    Returns:
        (batch, *size), for `plotting.saliency`.

    Derivation. In evaluation mode the scores of image i depend on x_i alone, so ∂/∂x_i Σ_j s_j[c_j] = ∂s_i[c_i] / ∂x_i.
    One backward pass for dy_i = the one-hot row of c_i gives the gradients of the whole batch.

    Raises:
        ShapeError: x has no axes of size, the model gives no scores (batch, classes), or `classes` are not (batch,).
        DtypeError: x is not floating.
        LabelError: `classes` are no integers, or outside 0 … classes − 1.

    References: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification
    Models and Saliency Maps", arXiv 1312.6034, section 3.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> model = fn.models.softmax_regression(2)
    >>> params = ((), {"kernel": jnp.array([[1.0, 0.0], [-3.0, 2.0]]), "bias": jnp.zeros(2)})
    >>> fn.gradients.saliency(model, params, ((), ()), jnp.array([[[[1.0], [0.0]]]]))
    Array([[[1., 3.]]], dtype=float32)
    """
    with leading("saliency"):
        check_floating(x)
    if x.ndim < 3:
        raise ShapeError(
            f"saliency: expected x of shape (batch, *size, channels), got {x.shape}; "
            "reshape rows of pixels, and begin the model with flatten() if it takes rows."
        )
    scores, _, residuals = model.forward(params, state, x)
    if getattr(scores, "ndim", None) != 2 or len(scores) != len(x):
        raise ShapeError(
            f"saliency: expected the model to give scores of shape ({len(x)}, classes), got {describe(scores)}."
        )
    classes = scores.argmax(-1) if classes is None else _checked(classes, *scores.shape)
    _, dx = model.backward(params, residuals, jax.nn.one_hot(classes, scores.shape[1], dtype=scores.dtype))
    return jnp.max(jnp.abs(dx), -1)


def _checked(classes: Any, batch: int, count: int) -> Array:
    """One class for each image."""
    classes = jnp.asarray(classes)
    if classes.shape not in ((), (batch,)):
        raise ShapeError(f"saliency: expected classes of shape ({batch},) or one for all, got {classes.shape}.")
    if not jnp.issubdtype(classes.dtype, jnp.integer):
        raise LabelError(f"saliency: expected classes to be integers, got dtype {classes.dtype}.")
    if not isinstance(classes, Tracer):
        wrong = np.asarray(classes)[(classes < 0) | (classes >= count)]
        if wrong.size:
            raise LabelError(f"saliency: class {wrong[0]}, expected 0..{count - 1}; number the classes from 0.")
    return jnp.broadcast_to(classes, (batch,))
