"""Losses: pure functions of prediction and target, each with its gradient derived by hand."""

from funcnet.losses.checks import (
    check_class_labels, check_class_probabilities, check_class_targets, check_equal_shapes, check_masks,
    check_probabilities, check_unit_interval,
)  # fmt: skip
from funcnet.losses.classification import (
    binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, multiclass_hinge, negative_log_likelihood,
    softmax_cross_entropy,
)  # fmt: skip
from funcnet.losses.ctc import ctc
from funcnet.losses.linear import linear_cross_entropy
from funcnet.losses.loss import HandDerived, Loss, hand_derived, loss, partial, prepare
from funcnet.losses.overlap import dice
from funcnet.losses.penalties import l1_penalty, l2_penalty
from funcnet.losses.reduction import Reduction
from funcnet.losses.regression import (
    half_squared_error, huber, log_cosh, mean_absolute_error, mean_squared_error, root_mean_squared_error, smooth_l1,
)  # fmt: skip
from funcnet.losses.sums import share, weighted_sum

__all__ = [
    "HandDerived", "Loss", "Reduction", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "check_class_labels", "check_class_probabilities", "check_class_targets", "check_equal_shapes", "check_masks",
    "check_probabilities", "check_unit_interval", "cross_entropy", "ctc", "dice", "half_squared_error",
    "hand_derived", "huber", "l1_penalty", "l2_penalty", "linear_cross_entropy", "log_cosh", "loss",
    "mean_absolute_error", "mean_squared_error", "multiclass_hinge", "negative_log_likelihood", "partial", "prepare",
    "root_mean_squared_error", "share", "smooth_l1", "softmax_cross_entropy", "weighted_sum",
]  # fmt: skip
