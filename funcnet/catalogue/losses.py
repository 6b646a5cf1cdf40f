"""The rows of the losses and penalties.

Every public one has a row of its own name, and a row for each further form and each further kind of target.

Predictions stay 0.01 away from every kink, so that finite differences see one branch.
"""

from typing import Any

import numpy as np

from funcnet import losses
from funcnet.catalogue.rows import Entry, LossRow
from funcnet.types import Whole

__all__ = ["LOSSES", "PENALTIES", "SUMS"]

_rng = np.random.default_rng(0)


def _off_kinks(shape):
    """Multiples of 0.1 plus 0.013 times the column: no element and no difference in a row is a multiple of 0.1."""
    return np.round(_rng.normal(size=shape), 1) + 0.013 * (1 + np.arange(shape[-1]))


def _log_shares(scores):
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


# Elementwise.
_numbers = _off_kinks((5, 4))
_cubes = _off_kinks((3, 2, 4))
_floats = np.round(_rng.normal(size=(5, 4)), 1)
_integers = _rng.integers(-2, 3, (5, 4))
_booleans = _rng.integers(0, 2, (5, 4)).astype(bool)
_probabilities = _rng.permutation(np.linspace(0.2, 0.8, 20)).reshape(5, 4)
_shares = _rng.uniform(size=(5, 4))
_sides: dict[str, Any] = {"class_weights": (0.5, 3.0)}

# By class: rows (5,) and (3, 2) of 4 classes.
_logits = _off_kinks((5, 4))
_sequences = _off_kinks((3, 2, 4))
_labels = _rng.integers(0, 4, 5)
_sequence_labels = _rng.integers(0, 4, (3, 2)).astype(np.uint8)
_one_hot = np.eye(4, dtype=bool)[_labels]
_drawn = _rng.uniform(size=(5, 4))
_distributions = _drawn / _drawn.sum(-1, keepdims=True)
_probabilities_of_classes = np.exp(_log_shares(_logits / 4))  # far from 0, where 1/p bends too much to be numeric
_by_class: dict[str, Any] = {"class_weights": (0.5, 2.0, 1.25, 0.8)}

# By sequence: three inputs of five positions, of which "3 3" needs three.
_spoken = _off_kinks((3, 5, 4))
_words = np.array([[1, 2], [3, 3], [2, 1]])

#: Losses of one array.
LOSSES: dict[str, LossRow] = {
    "mean_squared_error": LossRow(losses.mean_squared_error, _numbers, _floats),
    "mean_squared_error_int": LossRow(losses.mean_squared_error, _numbers, _integers),
    "half_squared_error": LossRow(losses.half_squared_error, _numbers, _floats),
    "half_squared_error_3d_bool": LossRow(losses.half_squared_error, _cubes, _cubes > 0.5),
    "mean_absolute_error": LossRow(losses.mean_absolute_error, _numbers, _floats),
    "mean_absolute_error_int": LossRow(losses.mean_absolute_error, _numbers, _integers),
    "root_mean_squared_error": LossRow(losses.root_mean_squared_error, _numbers, _floats),
    "smooth_l1": LossRow(losses.smooth_l1, _numbers, _floats),
    "smooth_l1_beta": LossRow(losses.smooth_l1, _numbers, _floats, {"beta": 0.4}),
    "huber": LossRow(losses.huber, _numbers, _floats),
    "huber_delta": LossRow(losses.huber, _numbers, _integers, {"delta": 0.6}),
    "log_cosh": LossRow(losses.log_cosh, _numbers, _floats),
    "binary_cross_entropy": LossRow(losses.binary_cross_entropy, _probabilities, _booleans),
    "binary_cross_entropy_shares": LossRow(losses.binary_cross_entropy, _probabilities, _shares),
    "binary_cross_entropy_class_weights": LossRow(losses.binary_cross_entropy, _probabilities, _booleans, _sides),
    "binary_cross_entropy_shares_class_weights": LossRow(losses.binary_cross_entropy, _probabilities, _shares, _sides),
    "binary_cross_entropy_with_logits": LossRow(
        losses.binary_cross_entropy_with_logits, _numbers, _booleans.astype(np.int8)
    ),
    "binary_cross_entropy_with_logits_shares": LossRow(
        losses.binary_cross_entropy_with_logits, _numbers, _shares, {"pos_weight": 3.0, "label_smoothing": 0.2}
    ),
    "binary_cross_entropy_with_logits_class_weights": LossRow(
        losses.binary_cross_entropy_with_logits, _numbers, _shares, {"pos_weight": 3.0, "label_smoothing": 0.2} | _sides
    ),
    "softmax_cross_entropy": LossRow(losses.softmax_cross_entropy, _logits, _labels),
    "softmax_cross_entropy_sequences": LossRow(losses.softmax_cross_entropy, _sequences, _sequence_labels),
    "softmax_cross_entropy_one_hot": LossRow(losses.softmax_cross_entropy, _logits, _one_hot),
    "softmax_cross_entropy_soft": LossRow(losses.softmax_cross_entropy, _logits, _distributions),
    "softmax_cross_entropy_smoothed": LossRow(losses.softmax_cross_entropy, _logits, _labels, {"label_smoothing": 0.1}),
    "softmax_cross_entropy_soft_smoothed": LossRow(
        losses.softmax_cross_entropy, _logits, _distributions, {"label_smoothing": 0.3}
    ),
    "softmax_cross_entropy_class_weights": LossRow(losses.softmax_cross_entropy, _logits, _labels, _by_class),
    "softmax_cross_entropy_smoothed_class_weights": LossRow(
        losses.softmax_cross_entropy, _logits, _labels, {"label_smoothing": 0.1} | _by_class
    ),
    "softmax_cross_entropy_one_hot_class_weights": LossRow(losses.softmax_cross_entropy, _logits, _one_hot, _by_class),
    "softmax_cross_entropy_soft_class_weights": LossRow(
        losses.softmax_cross_entropy, _logits, _distributions, _by_class
    ),
    "negative_log_likelihood": LossRow(losses.negative_log_likelihood, _log_shares(_logits), _labels),
    "negative_log_likelihood_one_hot": LossRow(losses.negative_log_likelihood, _log_shares(_logits), _one_hot),
    "negative_log_likelihood_soft": LossRow(losses.negative_log_likelihood, _log_shares(_logits), _distributions),
    "negative_log_likelihood_class_weights": LossRow(
        losses.negative_log_likelihood, _log_shares(_sequences), _sequence_labels, _by_class
    ),
    "cross_entropy": LossRow(losses.cross_entropy, _probabilities_of_classes, _labels),
    "cross_entropy_one_hot": LossRow(losses.cross_entropy, _probabilities_of_classes, _one_hot),
    "cross_entropy_soft": LossRow(losses.cross_entropy, _probabilities_of_classes, _distributions),
    "cross_entropy_class_weights": LossRow(
        losses.cross_entropy, np.exp(_log_shares(_sequences / 4)), _sequence_labels, _by_class
    ),
    "dice": LossRow(losses.dice, _probabilities_of_classes, _labels),
    "dice_shares": LossRow(losses.dice, _probabilities, _shares),
    "dice_overall": LossRow(
        losses.dice, np.exp(_log_shares(_sequences / 4)), _sequence_labels, {"per_class": False, "smoothing": 0.5}
    ),
    "dice_class_weights": LossRow(
        losses.dice, np.exp(_log_shares(_sequences / 4)), _sequence_labels, {"smoothing": 0.5} | _by_class
    ),
    "dice_overall_class_weights": LossRow(
        losses.dice, np.exp(_log_shares(_sequences / 4)), _sequence_labels, {"per_class": False} | _by_class
    ),
    "multiclass_hinge": LossRow(losses.multiclass_hinge, _logits, _labels),
    "multiclass_hinge_sequences": LossRow(losses.multiclass_hinge, _sequences, _sequence_labels, {"margin": 0.5}),
    "multiclass_hinge_crammer_singer": LossRow(
        losses.multiclass_hinge, _logits, _labels, {"margin": 1.5, "variant": "crammer_singer"}
    ),
    "multiclass_hinge_class_weights": LossRow(
        losses.multiclass_hinge, _sequences, _sequence_labels, {"margin": 0.5} | _by_class
    ),
    "ctc": LossRow(losses.ctc, _spoken, _words),
    "ctc_last_blank": LossRow(losses.ctc, _spoken[:, :4], _words[:, :1] - 1, {"blank": 3}),
}

#: Losses of several arrays.
SUMS: dict[str, Entry] = {
    "weighted_sum": Entry(
        losses.weighted_sum(digit=(1.0, losses.softmax_cross_entropy), ink=(0.5, losses.mean_squared_error)),
        {"digit": _logits, "ink": _numbers, "code": _shares},
        {"digit": _labels, "ink": _floats},
    ),
    "linear_cross_entropy": Entry(losses.linear_cross_entropy, (_numbers, Whole(_numbers[:4])), _labels),
    "linear_cross_entropy_blocks": Entry(
        losses.partial(losses.linear_cross_entropy, block=4), (_sequences, Whole(_numbers[:4])), _sequence_labels
    ),
}

_params = {"bias": _numbers[0], "kernel": _numbers}

PENALTIES: dict[str, Entry] = {
    "l1_penalty": Entry(losses.partial(losses.l1_penalty, strength=0.5), _params),
    "l2_penalty": Entry(losses.partial(losses.l2_penalty, strength=0.5), _params),
}
