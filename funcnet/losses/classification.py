"""Losses on classes, each with its hand-derived gradient below it.

Prefer the losses on logits, the numbers before the sigmoid or softmax. In their formulas exp and log cancel, instead of
overflowing or underflowing one after the other. At prediction apply `jax.nn.softmax` or `jax.nn.sigmoid` outside.

The gradients are given for one value. The weight c of the value is a factor of its gradient. With `reduction="mean"`
1/N is another factor, where N = Σ c is how much counts. Without weights N is the number of marked values.

`class_weights`, one number w ≥ 0 per class, are for classes with few examples. A row counts by the weight of its class,
in the loss and in N. With values v and labels y the mean is Σ c w_y v / Σ c w_y. If the target t has a weight for each
class (one-hot, or any distribution), each class counts by its own w, t_k → w_k t_k. In N the row counts as
Σ_k w_k t_k. So a one-hot row gives exactly the numbers of its label. N uses t before label smoothing.

A label or target that names no class raises an error where its value can be read. Under `jit` it cannot be read, so the
loss and the gradient of its row are NaN. Rows outside `where` may hold anything, so padding and unlabelled rows are
ignored.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import check_choice, nonnegative, positive, unit_interval
from funcnet.losses.checks import (
    check_class_labels,
    check_class_probabilities,
    check_class_targets,
    check_probabilities,
    check_unit_interval,
)
from funcnet.losses.loss import loss, prepare
from funcnet.losses.targets import as_class_weights, as_distribution, as_unit_interval, within_unit_interval
from funcnet.types import Array

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "multiclass_hinge",
    "negative_log_likelihood", "softmax_cross_entropy",
]  # fmt: skip


def _by_class(target, prediction, class_weights):
    """Σ_k w_k t_k of each row."""
    t = as_distribution(target, prediction)
    return (t * as_class_weights(class_weights, t.shape[-1], t)).sum(-1)


def _by_side(target, prediction, class_weights):
    """(1 − y) w₀ + y w₁ of each element."""
    y = as_unit_interval(target, prediction)
    w = as_class_weights(class_weights, 2, y)
    return (1 - y) * w[0] + y * w[1]


def _share(by):
    """How much each value counts in the mean, by the weights of the classes."""

    def share(prediction, target, *, class_weights=None, **options):
        del options
        return None if class_weights is None else by(target, prediction, class_weights)

    return share


def _prepare_classes(function, prediction, target, reduction, where, weights, class_weights, label_smoothing=0.0):
    """The prediction, the target w t after smoothing, and the reduction."""
    p, t, over = prepare(function, prediction, target, reduction, where, weights, convert=as_distribution)
    smooth = _smoothed(t, label_smoothing, p.shape[-1])
    if class_weights is None:
        return p, smooth, over
    return (
        p,
        smooth * as_class_weights(class_weights, p.shape[-1], p),
        over._replace(share=_by_class(t, p, class_weights)),
    )


def _prepare_sides(function, prediction, target, reduction, where, weights, class_weights, label_smoothing=0.0):
    """The prediction, the weights (1 − y) w₀ and y w₁ of the classes, after smoothing, and the reduction."""
    p, y, over = prepare(function, prediction, target, reduction, where, weights, convert=as_unit_interval)
    smooth = _smoothed(y, label_smoothing, 2)
    if class_weights is None:
        return p, 1 - smooth, smooth, over
    w = as_class_weights(class_weights, 2, p)
    return p, (1 - smooth) * w[0], smooth * w[1], over._replace(share=_by_side(y, p, class_weights))


def _smoothed(target, label_smoothing, classes):
    smoothing = unit_interval("label_smoothing", label_smoothing)
    return (1 - smoothing) * target + smoothing / classes if smoothing else target


@loss(check=check_probabilities, takes="probabilities", share=_share(_by_side))
def binary_cross_entropy(
    prediction: Any,
    target: Any,
    *,
    class_weights: Any = None,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Binary cross-entropy of probabilities, −w₁ y log p − w₀ (1 − y) log(1 − p) for each element; w is 1 by default.

    If p = σ(z), use `binary_cross_entropy_with_logits` on z instead. It needs no clamp.

    Args:
        prediction: p, of any shape, in [0, 1].
        target: y, of the same shape, in [0, 1]; the same dtype, or integers or booleans.
        class_weights: w₀ and w₁, of the classes 0 and 1; in the mean an element counts as (1 − y) w₀ + y w₁.
        reduction: "mean", "sum" or "none".
        where, weights: which values count, and by how much; over leading axes of the prediction.

    Both p and 1 − p are clamped to at least ε, the machine epsilon of their dtype, so that the logarithms are finite.

    Gradient. From ∂(log p)/∂p = 1/p and ∂(log(1 − p))/∂p = −1/(1 − p) follows
        ∂/∂p = −w₁ y / p + w₀ (1 − y) / (1 − p),
    with the clamped p and 1 − p. The gradient treats the clamp itself as the identity ("straight-through"). So at p = 0
    and y = 1 the slope is −1/ε, and descent still leads away from the error.

    Raises:
        ShapeError: prediction and target differ in shape, or `where` or `weights` does not lie over leading axes.
        DtypeError: the prediction is not floating-point, or the target has another floating dtype.
        LabelError: a target outside [0, 1].
        DataError: a prediction outside [0, 1], which is NaN under `jit`; or a weight that is negative or not finite.
        ConfigError: an unknown reduction.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> p, y = jnp.array([0.5, 0.25]), jnp.array([1, 0])
    >>> fn.losses.binary_cross_entropy.gradient(p, y, reduction="sum")
    Array([-2.       ,  1.3333334], dtype=float32)
    """
    p, no, yes, over = _prepare_sides(
        binary_cross_entropy, prediction, target, reduction, where, weights, class_weights
    )
    p = within_unit_interval(p)
    return over.reduce(-yes * jnp.log(_straight_through(p, over)) - no * jnp.log(_straight_through(1 - p, over)))


@binary_cross_entropy.hand_gradient
def _(prediction, target, *, class_weights=None, reduction="mean", where=None, weights=None):
    p, no, yes, over = _prepare_sides(
        binary_cross_entropy, prediction, target, reduction, where, weights, class_weights
    )
    p = within_unit_interval(p)
    return over.spread(no / _clamped(1 - p, over) - yes / _clamped(p, over))


def _clamped(p, over):
    # The epsilon of the caller's dtype, so that 1/ε is finite there too.
    return jnp.clip(p, float(jnp.finfo(over.dtype).eps), 1)


def _straight_through(p, over):
    return jax.lax.stop_gradient(_clamped(p, over)) + (p - jax.lax.stop_gradient(p))


@loss(check=check_unit_interval, takes="logits", share=_share(_by_side))
def binary_cross_entropy_with_logits(
    prediction: Any,
    target: Any,
    *,
    pos_weight: float = 1.0,
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Binary cross-entropy of logits z, with p = σ(z): (1 − y) softplus(z) + a y softplus(−z) for each element.

    This equals −(1 − y) log(1 − p) − a y log p, because log σ(z) = −softplus(−z) and 1 − σ(z) = σ(−z).

    Args: as for `binary_cross_entropy`, but the prediction is z, any number, and
        pos_weight: a, the weight of class 1 relative to class 0. It does not count in the mean.
        label_smoothing: e; y becomes (1 − e) y + e/2.
        class_weights: w₀ and w₁, factors of the two terms. They count in the mean.

    Gradient. softplus′ = σ, so ∂/∂z = w₀ (1 − y) σ(z) − a w₁ y σ(−z). With a = w₀ = w₁ = 1 this is σ(z) − y, but
    without the cancellation where p is near y.

    Raises: as `binary_cross_entropy`; ConfigError also if a is not positive or e is not in [0, 1].

    >>> import jax.numpy as jnp, funcnet as fn
    >>> z, y = jnp.array([0.0, -1e4]), jnp.array([1, 1])
    >>> fn.losses.binary_cross_entropy_with_logits(z, y, reduction="none")
    Array([6.931472e-01, 1.000000e+04], dtype=float32)
    >>> fn.losses.binary_cross_entropy_with_logits.gradient(z, y, reduction="none")
    Array([-0.5, -1. ], dtype=float32)
    """
    pos_weight = positive("pos_weight", pos_weight)
    z, no, yes, over = _prepare_sides(
        binary_cross_entropy_with_logits, prediction, target, reduction, where, weights, class_weights, label_smoothing
    )
    # Not max(z, 0) − z y + log1p(e^−|z|), whose autodiff is off by ½ at z = 0, where a network of zeros starts.
    return over.reduce(_term(no, jnp.logaddexp(z, 0)) + _term(pos_weight * yes, jnp.logaddexp(-z, 0)))


@binary_cross_entropy_with_logits.hand_gradient
def _(
    prediction, target, *, pos_weight=1.0, label_smoothing=0.0, class_weights=None, reduction="mean", where=None,
    weights=None,
):  # fmt: skip
    pos_weight = positive("pos_weight", pos_weight)
    z, no, yes, over = _prepare_sides(
        binary_cross_entropy_with_logits, prediction, target, reduction, where, weights, class_weights, label_smoothing
    )
    return over.spread(no * jax.lax.logistic(z) - pos_weight * yes * jax.lax.logistic(-z))


@loss(check=check_class_targets, axes=-1, takes="logits", share=_share(_by_class))
def softmax_cross_entropy(
    prediction: Any,
    target: Any,
    *,
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Cross-entropy of logits z, with p = softmax(z): −Σ_k t_k log p_k for each row; −log p_y for the label y.

    Args:
        prediction: z, (batch, …, classes), floating-point.
        target: integer labels (batch, …), or a distribution t of the shape of the prediction, such as one-hot rows.
        label_smoothing: e; t becomes (1 − e) t + e/C with C classes.
        class_weights: w, (classes,). After smoothing t_k becomes w_k t_k. In the mean a row counts as Σ_k w_k t_k of
            the target as given, which is w_y for the label y.
        reduction: "mean" (over rows), "sum" or "none".
        where, weights: which values count, and by how much; over leading axes of (batch, …).

    A class of weight 0 adds 0, even if its logit is −∞.

    Gradient. log p_j = z_j − log Σ_i e^(z_i), so ∂(log p_j)/∂z_k = δ_jk − p_k, and
        ∂/∂z_k = −Σ_j t_j (δ_jk − p_k) = p_k Σ_j t_j − t_k,
    which is p − t where the weights sum to 1.

    Raises:
        ShapeError: the target has neither shape, there is one class, or `where` or `weights` does not lie over leading
            axes.
        DtypeError: the prediction is not floating-point, or the target has another floating dtype.
        LabelError: a label is not the number of a class, or the target has another number of classes, or negative
            numbers.
        DataError: a weight that is negative or not finite.
        ConfigError: an unknown reduction, or e not in [0, 1].

    Warns:
        LabelWarning: a row of the target does not sum to 1.

    References: Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990; for
    label smoothing Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> z, y = jnp.array([[0.0, 0.0], [0.0, 200.0]]), jnp.array([0, 0])
    >>> fn.losses.softmax_cross_entropy(z, y, reduction="none")
    Array([  0.6931472, 200.       ], dtype=float32)
    >>> fn.losses.softmax_cross_entropy.gradient(z, y, reduction="none")
    Array([[-0.5,  0.5],
           [-1. ,  1. ]], dtype=float32)
    """
    z, t, over = _prepare_classes(
        softmax_cross_entropy, prediction, target, reduction, where, weights, class_weights, label_smoothing
    )
    return over.reduce(_cross_entropy(t, jax.nn.log_softmax(z)))


@softmax_cross_entropy.hand_gradient
def _(
    prediction, target, *, label_smoothing=0.0, class_weights=None, reduction="mean", where=None, weights=None
):  # fmt: skip
    z, t, over = _prepare_classes(
        softmax_cross_entropy, prediction, target, reduction, where, weights, class_weights, label_smoothing
    )
    is_one = over.share is None and np.ndim(target) < z.ndim
    return over.spread((1 if is_one else t.sum(-1, keepdims=True)) * jax.nn.softmax(z) - t)


def _cross_entropy(t, log_p):
    return -_term(t, log_p).sum(-1)


def _term(weight, value):
    """weight · value, and 0 for the weight 0, where the value may be infinite: 0 log 0 = 0."""
    return jnp.where(weight == 0, 0, weight * value)


@loss(check=check_class_targets, axes=-1, takes="log-probabilities", share=_share(_by_class))
def negative_log_likelihood(
    prediction: Any,
    target: Any,
    *,
    class_weights: Any = None,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Negative log-likelihood of log-probabilities l: −Σ_k t_k l_k for each row; −l_y for the label y.

    Args: as for `softmax_cross_entropy`, without `label_smoothing`. The prediction is l, the output of
    `layers.log_softmax`.

    Gradient. l_k occurs once in the sum, so ∂(−Σ_j t_j l_j)/∂l_k = −t_k.

    Raises: as `softmax_cross_entropy`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> l, y = jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([1])
    >>> fn.losses.negative_log_likelihood(l, y), fn.losses.negative_log_likelihood.gradient(l, y)
    (Array(0.6931472, dtype=float32), Array([[-0., -1.]], dtype=float32))
    """
    log_p, t, over = _prepare_classes(
        negative_log_likelihood, prediction, target, reduction, where, weights, class_weights
    )
    return over.reduce(_cross_entropy(t, log_p))


@negative_log_likelihood.hand_gradient
def _(prediction, target, *, class_weights=None, reduction="mean", where=None, weights=None):
    _, t, over = _prepare_classes(negative_log_likelihood, prediction, target, reduction, where, weights, class_weights)
    return over.spread(-t)


@loss(check=check_class_probabilities, axes=-1, takes="class probabilities", share=_share(_by_class))
def cross_entropy(
    prediction: Any,
    target: Any,
    *,
    class_weights: Any = None,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Cross-entropy of probabilities, −Σ_k t_k log p_k for each row; −log p_y for the label y.

    If p = softmax(z), use `softmax_cross_entropy` on z instead. It needs no clamp.

    Args: as for `softmax_cross_entropy`, without `label_smoothing`. The prediction is p, in [0, 1], the output of
    `layers.softmax`.

    Each p_k is clamped to at least ε, the machine epsilon of its dtype, so that the logarithms are finite. So the loss
    of a row is at most −log ε, which is 15.9 in float32. Rows need not sum to 1 exactly, and they are not divided by
    their sums. But the loss has a meaning only for distributions: where every p_k is 1 it is 0 for any label.

    Gradient. p_k occurs once in the sum, and ∂(log p_k)/∂p_k = 1/p_k, so
        ∂/∂p_k = −t_k / p_k,
    with the clamped p_k. The gradient treats the clamp itself as the identity ("straight-through"), as that of
    `binary_cross_entropy`. So at p_y = 0 the slope is −1/ε, and descent still leads away from the error.

    Raises: as `softmax_cross_entropy`; DataError also for a prediction outside [0, 1], which is NaN under `jit`.

    Warns: as `softmax_cross_entropy`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> p, y = jnp.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]), jnp.array([0, 1])
    >>> fn.losses.cross_entropy(p, y, reduction="none")
    Array([ 0.6931472, -0.       ], dtype=float32)
    >>> fn.losses.cross_entropy.gradient(p, y, reduction="none")
    Array([[-2., -0., -0.],
           [-0., -1., -0.]], dtype=float32)
    """
    p, t, over = _prepare_classes(cross_entropy, prediction, target, reduction, where, weights, class_weights)
    # Without `_term`: no logarithm is infinite, and a NaN shows even where t is 0.
    return over.reduce(-(t * jnp.log(_straight_through(within_unit_interval(p), over))).sum(-1))


@cross_entropy.hand_gradient
def _(prediction, target, *, class_weights=None, reduction="mean", where=None, weights=None):
    p, t, over = _prepare_classes(cross_entropy, prediction, target, reduction, where, weights, class_weights)
    return over.spread(-t / _clamped(within_unit_interval(p), over))


@loss(check=check_class_labels, axes=-1, takes="logits", share=_share(_by_class))
def multiclass_hinge(
    prediction: Any,
    target: Any,
    *,
    margin: float = 1.0,
    variant: str = "weston_watkins",
    class_weights: Any = None,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Multiclass hinge loss of scores s: every wrong class should score at least the margin m less than the label y.

    Write x_j = s_j − s_y + m for j ≠ y. Then for each row the value is
        "weston_watkins"   Σ_j max(0, x_j)
        "crammer_singer"   max(0, max_j x_j)
    times the weight w_y of the label's class, 1 by default.

    Args:
        prediction: s, (batch, …, classes), floating-point.
        target: integer labels y (batch, …).
        margin: m.
        variant: one of the two above.
        class_weights: w, (classes,); in the mean a row counts as w_y.
        reduction: "mean" (over rows), "sum" or "none".
        where, weights: which values count, and by how much; over leading axes of (batch, …).

    Gradient. ∂x_j/∂s_j = 1 and ∂x_j/∂s_y = −1. Let a_j = ∂value/∂x_j. It is 1 where x_j > 0 and 0 elsewhere, also at
    the kink. For "crammer_singer" only the largest x_j counts. If several are largest, they share the 1 equally. Then
        ∂/∂s_j = a_j for j ≠ y,   ∂/∂s_y = −Σ_j a_j,
    both times w_y.

    Raises:
        ShapeError: the target has another shape, or `where` or `weights` does not lie over leading axes.
        DtypeError: the prediction is not floating-point.
        LabelError: a label is not the number of a class.
        DataError: a weight that is negative or not finite.
        ConfigError: an unknown reduction or variant, or m is negative.

    References: Weston, Watkins, "Support Vector Machines for Multi-Class Pattern Recognition", ESANN 1999;
    Crammer, Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", JMLR 2001.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> s, y = jnp.array([[2.0, 1.5, 3.0, 0.0]]), jnp.array([0])
    >>> fn.losses.multiclass_hinge(s, y), fn.losses.multiclass_hinge(s, y, variant="crammer_singer")
    (Array(2.5, dtype=float32), Array(2., dtype=float32))
    >>> fn.losses.multiclass_hinge.gradient(s, y)
    Array([[-2.,  1.,  1.,  0.]], dtype=float32)
    """
    x, _, over = _prepare_excess(prediction, target, margin, variant, class_weights, reduction, where, weights)
    values = _ramp(x.max(-1)) if variant == "crammer_singer" else _ramp(x).sum(-1)
    return over.reduce(values if over.share is None else values * over.share)


@multiclass_hinge.hand_gradient
def _(
    prediction, target, *, margin=1.0, variant="weston_watkins", class_weights=None, reduction="mean", where=None,
    weights=None,
):  # fmt: skip
    x, t, over = _prepare_excess(prediction, target, margin, variant, class_weights, reduction, where, weights)
    active = jnp.where(x <= 0, 0, jnp.ones_like(x))
    if variant == "crammer_singer":
        largest = (x == x.max(-1, keepdims=True)).astype(x.dtype)
        active = active * largest / largest.sum(-1, keepdims=True)
    slopes = active - t * active.sum(-1, keepdims=True)
    return over.spread(slopes if over.share is None else slopes * over.share[..., None])


def _prepare_excess(prediction, target, margin, variant, class_weights, reduction, where, weights):
    """x, with −∞ for the label itself; the one-hot target; the reduction, whose share is w_y."""
    margin = nonnegative("margin", margin)
    check_choice("variant", variant, ("weston_watkins", "crammer_singer"))
    s, t, over = prepare(multiclass_hinge, prediction, target, reduction, where, weights, convert=as_distribution)
    own = jnp.where(t == 0, 0, t * s).sum(-1, keepdims=True)
    if class_weights is not None:
        over = over._replace(share=_by_class(t, s, class_weights))
    # Infinite scores that are equal do not exceed each other; ∞ − ∞ would be NaN.
    excess = jnp.where((s == own) & jnp.isinf(s), 0, s - own + margin)
    return jnp.where(t == 1, -jnp.inf, excess), t, over


def _ramp(x):
    return jnp.where(x <= 0, 0, x)  # max(0, x), whose autodiff at 0 is 0; NaN stays NaN
