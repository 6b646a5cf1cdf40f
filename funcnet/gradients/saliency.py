"""Class saliency: which pixels a score depends on."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_floating, check_integers, check_one_array, check_shape, check_values
from funcnet.errors import LabelError
from funcnet.made import leading
from funcnet.types import Array, Layer, Params, State

__all__ = ["saliency"]


def saliency(model: Layer, params: Params, state: State, x: Any, classes: Any = None) -> Array:
    """How strongly the score of a class changes with each pixel, |∂s_c / ∂x|, the maximum over the channels.

    Args:
        model: gives scores (batch, classes). Logits are better than probabilities, because the probability of a class
            also rises when that of another class falls.
        params, state: of the model, which runs in evaluation mode.
        x: images (batch, *size, channels).
        classes: the class c of each image, (batch,), or one class for all. By default it is the predicted class,
            the first of equal scores.

    Returns:
        (batch, *size), for `plotting.saliency`.

    Derivation. In evaluation mode the scores of image i depend on x_i alone, so ∂/∂x_i Σ_j s_j[c_j] = ∂s_i[c_i] / ∂x_i.
    One backward pass for dy_i = the one-hot row of c_i gives the gradients of the whole batch.

    Raises:
        ShapeError: x is not (batch, *size, channels), the scores are not (batch, classes), or `classes` are not
            (batch,).
        DtypeError: x is not floating-point.
        LabelError: `classes` are not integers, or outside 0 … classes − 1.

    References: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification
    Models and Saliency Maps", arXiv 1312.6034, section 3.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> model = fn.models.softmax_regression(2)
    >>> params = ((), {"kernel": jnp.array([[1.0, 0.0], [-3.0, 2.0]]), "bias": jnp.zeros(2)})
    >>> fn.gradients.saliency(model, params, ((), ()), jnp.array([[[[1.0], [0.0]]]]))
    Array([[[1., 3.]]], dtype=float32)
    """
    with leading("saliency"):
        check_floating("x", x)
        fix = "reshape rows of pixels, and begin the model with flatten() if it takes rows"
        check_shape("x", x, "(batch, size, …, channels)", fix)
        scores, _, residuals = model.forward(params, state, x)
        check_one_array("the model's scores", scores, "give the model one output")
        check_shape("the model's scores", scores, f"({len(x)}, classes)", "end the model with a dense layer")
        classes = scores.argmax(-1) if classes is None else _checked(classes, *scores.shape)
    _, dx = model.backward(params, residuals, jax.nn.one_hot(classes, scores.shape[1], dtype=scores.dtype))
    return jnp.max(jnp.abs(dx), -1)


def _checked(classes: Any, batch: int, count: int) -> Array:
    """One class for each image."""
    classes = jnp.asarray(classes)
    if classes.ndim:
        check_shape("classes", classes, f"({batch},)", "give one per image, or one for all")
    check_integers("classes", classes)
    wanted, fix = f"classes in 0..{count - 1}", "number the classes from 0"
    check_values(LabelError, wanted, classes, None, lambda one: (one >= 0) & (one < count), fix)
    return jnp.broadcast_to(classes, (batch,))
