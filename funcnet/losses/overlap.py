"""The loss on how far two areas overlap, for segmentation, with its hand-derived gradient below it."""

from typing import Any

import jax.numpy as jnp

from funcnet.checks import check_kind, positive
from funcnet.losses.checks import check_masks
from funcnet.losses.loss import loss, prepare
from funcnet.losses.reduction import check_only_mean
from funcnet.losses.targets import as_class_weights, as_distribution, within_unit_interval
from funcnet.types import Array

__all__ = ["dice"]


@loss(check=check_masks, axes=-1, takes="probabilities", mean=False)
def dice(
    prediction: Any,
    target: Any,
    *,
    smoothing: float = 1e-5,
    per_class: bool = True,
    class_weights: Any = None,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Soft Dice loss, one minus the share in which prediction and target overlap, for each class and then their mean.

    Write ⟨x⟩ = Σ c x / Σ c for the mean over all positions of the batch that count. For each class
        L = 1 − (2⟨p t⟩ + s) / (⟨p⟩ + ⟨t⟩ + s) = E / (S + s)   with E = ⟨p (1 − t) + t (1 − p)⟩, S = ⟨p + t⟩.
    A class counts as much as any other, however small its area is. The second form has no cancellation near 0. With
    weights w of the classes, the loss is Σ w L / Σ w.

    Args:
        prediction: p, (batch, …, classes), in [0, 1]: the output of a softmax, or of a sigmoid for each class. A single
            class is possible.
        target: integer labels (batch, …), or t of the shape of the prediction, in [0, 1].
        smoothing: s > 0, beside means and not sums, so that its effect does not depend on the size of the images. A
            class that neither the target nor the prediction has anywhere has the loss 0.
        per_class: whether the loss is the mean over the classes. Otherwise ⟨…⟩ is also summed over the classes, and a
            class counts by its area, and with weights L = Σ w E / (Σ w S + s).
        class_weights: w, (classes,), how much each class counts; 1 by default. A background that is nearly everywhere
            may get 0.
        reduction: only "mean".
        where, weights: which positions count, and by how much; over leading axes of (batch, …).

    The areas are those of the whole batch. So the loss is not a mean of values, and it has no `counted`.

    For shares 0 < t < 1 the loss is not 0 at p = t. It is smallest where p is 0 or 1.

    Gradient. ∂E/∂p = (1 − 2t) c/Σc and ∂S/∂p = c/Σc, so by the rule for quotients
        ∂L/∂p = (c/Σc) ((1 − 2t) (S + s) − E) / (S + s)² = (c/Σc) (1 − 2t − L) / (S + s),
    times w / Σ w if the loss is the mean over the classes, and times w otherwise.

    Raises:
        ShapeError: the target has neither shape, or `where` or `weights` does not lie over leading axes, or
            `class_weights` are not one for each class.
        DtypeError: the prediction is not floating-point, or the target has another floating dtype.
        LabelError: a label is not the number of a class, or a target outside [0, 1].
        DataError: a prediction outside [0, 1], which is NaN under `jit`; or a weight that is negative or not finite.
        ConfigError: another reduction, s is not positive, or `per_class` is not a bool.

    References: Milletari, Navab, Ahmadi, "V-Net", 3DV 2016, equation 2, but with sums of p and t in place of squares,
    as Sudre et al., "Generalised Dice Overlap as a Deep Learning Loss Function", DLMIA 2017, equation 1.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> p, mask = jnp.array([[1.0], [1.0], [0.0], [0.0]]), jnp.array([[1], [0], [1], [0]])  # half of each overlaps
    >>> fn.losses.dice(p, mask, smoothing=1e-9)
    Array(0.5, dtype=float32)
    >>> fn.losses.dice.gradient(p, mask, smoothing=1e-9)[:, 0]
    Array([-0.375,  0.125, -0.375,  0.125], dtype=float32)
    """
    of_class, _, _, w, over = _parts(prediction, target, smoothing, per_class, class_weights, reduction, where, weights)
    return (w * of_class if per_class else of_class).sum().astype(over.dtype)


@dice.hand_gradient
def _(
    prediction,
    target,
    *,
    smoothing=1e-5,
    per_class=True,
    class_weights=None,
    reduction="mean",
    where=None,
    weights=None,
):
    of_class, divisor, t, w, over = _parts(
        prediction, target, smoothing, per_class, class_weights, reduction, where, weights
    )
    return over.spread(w * (1 - 2 * t - of_class) / divisor)


def _parts(prediction, target, smoothing, per_class, class_weights, reduction, where, weights):
    """L and its divisor for each class, or for all together; the target; w, or w / Σ w if the classes have a mean."""
    smoothing = positive("smoothing", smoothing)
    check_kind("per_class", per_class, bool, "True or False")
    check_only_mean(reduction, "the areas are those of the whole batch")
    p, t, over = prepare(dice, prediction, target, reduction, where, weights, convert=as_distribution)
    p, t = within_unit_interval(p), within_unit_interval(t)
    apart, area = _mean(over, p * (1 - t) + t * (1 - p)), _mean(over, p + t)
    w = jnp.ones_like(area) if class_weights is None else as_class_weights(class_weights, len(area), area)
    if per_class:
        w = w / jnp.where(w.sum() == 0, 1, w.sum())
    else:
        apart, area = (w * apart).sum(), (w * area).sum()
    return apart / (area + smoothing), area + smoothing, t, w, over


def _mean(over, x):
    """⟨x⟩ of each class. What `spread` gives to each position, c x / Σ c, is added up."""
    return over._replace(dtype=x.dtype).spread(x).sum(tuple(range(x.ndim - 1)))
