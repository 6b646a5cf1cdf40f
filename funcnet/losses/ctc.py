"""The loss of sequences of labels that nobody has aligned with the input, with its hand-derived gradient below it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import (
    as_shaped,
    check_count,
    check_integers,
    check_kind,
    check_one_array,
    check_shape,
    check_values,
    check_where,
    is_concrete,
)
from funcnet.errors import LabelError
from funcnet.losses.loss import loss, prepare
from funcnet.losses.targets import as_labels
from funcnet.trees import to_the_front, unpadded, values_of
from funcnet.types import Array, Padded

__all__ = ["ctc"]


def _check(prediction: Any, target: Any, where: Any, blank: int = 0, zero_infinity: bool = False) -> None:
    """Shapes, and where they can be read the labels, and whether there are enough positions for them."""
    p, labels = values_of(prediction), values_of(target)
    check_shape("prediction", p, "(batch, time, classes)", "put the classes on the last axis")
    check_one_array("target", labels, "losses.weighted_sum has a loss for each entry")
    labels, (rows, time, classes) = as_shaped(labels), p.shape
    check_shape("target", labels, f"({rows}, length)", "give one sequence of labels for each row of prediction")
    check_integers("target", labels)
    _check_positions("prediction", prediction, (rows, time))
    _check_positions("target", target, labels.shape)
    _, _, counts = unpadded(target, None, where)
    wanted, fix = f"label in 0..{classes - 1}", "number the classes from 0, and pad with a Padded"
    check_values(LabelError, wanted, labels, counts, lambda t: (t >= 0) & (t < classes), fix)
    wanted, fix = f"labels other than the blank, {blank}", "pad with a Padded, or choose another blank="
    check_values(LabelError, wanted, labels, counts, lambda t: t != blank, fix)
    if not zero_infinity:
        _check_lengths(prediction, target, where, labels, (rows, time))


def _check_positions(what, x, shape):
    if isinstance(x, Padded):
        check_shape(f"the mask of {what}", x.where, f"{shape}", "mark each position")
        check_where(x.where, shape)


def _check_lengths(prediction, target, where, labels, shape):
    """Check that each row has a position for each label, and one more between two equal labels."""
    heard = prediction.where if isinstance(prediction, Padded) else np.ones(shape, bool)
    written = target.where if isinstance(target, Padded) else np.ones(labels.shape, bool)
    if not (is_concrete(heard) and is_concrete(written)):
        return

    def fits(labels):
        front, there = to_the_front(np, labels, np.asarray(written))
        return np.asarray(heard).sum(1) >= there.sum(1) + _repeats(front, there).sum(1)

    fix = "give longer inputs, pool less over time, or set zero_infinity=True"
    wanted = "a position of prediction for each label, and one more between two equal labels"
    check_values(LabelError, wanted, labels, where, fits, fix)


def _repeats(labels, there):
    """Which labels equal the one before them, so that a blank must stand between the two."""
    return (labels[:, 1:] == labels[:, :-1]) & there[:, 1:]


@loss(check=_check, axes=1, takes="logits", sequences=True)
def ctc(
    prediction: Any,
    target: Any,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: str = "mean",
    where: Any = None,
    weights: Any = None,
) -> Array:
    """Connectionist temporal classification: −log P(labels) for each sequence, summed over all alignments.

    The network reads T positions and says at each of them a label or *blank*. An alignment π is one class for each
    position. It reads as the sequence that remains after equal neighbours are merged and blanks are removed:
    "aa–ab" reads as "aab". With y = softmax(z),
        P(labels) = Σ_{π} Π_t y_t(π_t), over all alignments π that read as the labels.
    So nobody has to say which label is where.

    Args:
        prediction: z, (batch, time, classes), floating-point; an array, or a `Padded` whose padding is skipped.
        target: integer labels (batch, length), none of which is the blank; a `Padded`, or an array whose labels all
            count.
        blank: the class that stands for "no label here".
        zero_infinity: whether a row that has too few positions for its labels has the loss 0 and the gradient 0. It
            counts in the mean all the same.
        reduction: "mean" (over sequences, whatever their lengths), "sum" or "none".
        where, weights: which sequences count, and by how much; (batch,).

    A label needs one position, and two equal labels one more between them, for a blank. A row with fewer positions has
    no alignment. Where the lengths can be read this is an error. Under `jit` such a row has the loss ∞ and the
    gradient NaN. The loss of no labels is −Σ_t log y_t(blank), and 0 without a position.

    Gradient. Let l_0 … l_{n−1} be the labels of a row. An alignment goes through states: in the state "blank i" it has
    said i labels and a blank stands last, and in the state "label i" it says l_i. Before the first position it is in
    "blank 0", with probability 1. Write B_t(i) and A_t(i) for the probability of all beginnings of alignments that
    are in these states at position t, y_t(−) for that of the blank, and y_t(l_i) for that of the label. Then
        B_t(i) = (B_{t−1}(i) + A_{t−1}(i−1)) y_t(−)
        A_t(i) = (A_{t−1}(i) + B_{t−1}(i) + [l_i ≠ l_{i−1}] A_{t−1}(i−1)) y_t(l_i)
    and P = B_T(n) + A_T(n−1). Write b_t(i) and a_t(i) for the probability of all ends of alignments after position t
    that begin in these states: b_T(n) = a_T(n−1) = 1, the others are 0, and the steps are the same ones reversed,
        b_{t−1}(i) = b_t(i) y_t(−) + a_t(i) y_t(l_i)
        a_{t−1}(i) = a_t(i) y_t(l_i) + b_t(i+1) y_t(−) + [l_{i+1} ≠ l_i] a_t(i+1) y_t(l_{i+1}).
    The products B_t(i) b_t(i) / P and A_t(i) a_t(i) / P are the shares of the alignments that are in a state at
    position t. Each alignment has one factor y_t(k) at position t, so ∂P/∂(log y_t(k)) = P γ_t(k), where γ_t(k) is the
    sum of these shares over the states of class k. These sum to 1 over k. With ∂(log y_j)/∂z_k = δ_jk − y_k,
        ∂(−log P)/∂z_t(k) = −Σ_j γ_t(j) (δ_jk − y_t(k)) = y_t(k) − γ_t(k).
    All products are computed as sums of logarithms, and at each position the highest one is subtracted: the shares are
    those of a softmax over the states. A padded position leaves the states as they are, and its gradient is 0.

    Raises:
        ShapeError: the prediction is not (batch, time, classes), the target has another batch or more axes, or a mask
            or weights do not fit.
        DtypeError: the prediction is not floating-point.
        LabelError: a label is not the number of a class, or it is the blank, which under `jit` makes the row NaN; or
            a row has too few positions for its labels.
        DataError: a weight that is negative or not finite.
        ConfigError: an unknown reduction, or `blank` is not a class, or `zero_infinity` is not a bool.

    References: Graves, Fernández, Gomez, Schmidhuber, "Connectionist Temporal Classification", ICML 2006, equations 6
    to 16, with blanks and labels in two arrays, and b_t and a_t without the factor of position t.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> z = jnp.zeros((1, 2, 2))  # two positions, and half of the probability for each class
    >>> jnp.exp(-fn.losses.ctc(z, jnp.array([[1]]))).round(4)  # "11", "1–" and "–1" read as "1"
    Array(0.75, dtype=float32)
    >>> (6 * fn.losses.ctc.gradient(z, jnp.array([[1]]))[0, 0]).round(4)  # two of the three have "1" here: 1/2 − 2/3
    Array([ 1., -1.], dtype=float32)
    >>> words = fn.Padded(jnp.array([[1, 0]]), jnp.array([[True, False]]))
    >>> jnp.exp(-fn.losses.ctc(z, words)).round(4)
    Array(0.75, dtype=float32)
    """
    rows, over = _prepare(prediction, target, blank, zero_infinity, reduction, where, weights)
    _, log_p = _beginnings(rows, _spoken(rows, blank))
    return over.reduce(jnp.where(rows.hopeless, 0.0 if zero_infinity else jnp.inf, -log_p))


@ctc.hand_gradient
def _(prediction, target, *, blank=0, zero_infinity=False, reduction="mean", where=None, weights=None):
    rows, over = _prepare(prediction, target, blank, zero_infinity, reduction, where, weights)
    spoken = _spoken(rows, blank)
    beginnings, log_p = _beginnings(rows, spoken)
    shares = _shares(rows, beginnings, spoken)
    in_blanks, in_labels = jnp.split(shares, [rows.labels.shape[1] + 1], axis=2)
    # A product, because additions to single places have no fixed order on a GPU.
    of_class = jax.nn.one_hot(rows.labels, rows.z.shape[-1], dtype=rows.z.dtype)
    shares = jnp.einsum("tbi,bik->btk", in_labels, of_class, precision="highest")
    shares = shares.at[..., blank].add(in_blanks.sum(-1).T)
    slopes = jnp.where(log_p[:, None, None] == -jnp.inf, jnp.nan, jax.nn.softmax(rows.z) - shares)
    slopes = jnp.where(rows.hopeless[:, None, None], 0 if zero_infinity else jnp.nan, slopes)
    return over.spread(jnp.where(rows.heard.T[..., None], slopes, 0))


class _Rows(NamedTuple):
    """The arguments of the loss. Masks are 0 and labels come first in each row, with anything after them."""

    z: Array  #: (batch, time, classes), NaN in rows whose loss or gradient is not a number
    labels: Array  #: (batch, length)
    heard: Array  #: (time, batch), where the prediction has a position
    same: Array  #: (batch, length − 1), where a label equals the one before it
    length: Array  #: (batch,), how many labels there are
    hopeless: Array  #: (batch,), the rows that have no alignment


def _prepare(prediction, target, blank, zero_infinity, reduction, where, weights):
    check_kind("zero_infinity", zero_infinity, bool, "True or False")
    classes = np.shape(values_of(prediction))[-1:] or (1,)
    blank = check_count("blank", blank, 0, classes[0] - 1)
    z, labels, over = prepare(
        ctc, prediction, target, reduction, where, weights,
        convert=_as_labels, blank=blank, zero_infinity=zero_infinity,
    )  # fmt: skip
    heard, written = _there(prediction, z.shape[:2], over.mask), _there(target, labels.shape, over.mask)
    labels, written = to_the_front(jnp, labels, written)
    wrong = (written & ((labels < 0) | (labels == blank))).any(1)
    length, repeats = written.sum(1), _repeats(labels, written)
    hopeless = heard.sum(1) < length + repeats.sum(1)
    if zero_infinity:
        length = jnp.where(hopeless, 0, length)  # so that it has a loss, which is then left out
    else:
        wrong |= hopeless
    z = jnp.where(heard[..., None], z, 0)
    z = z + jnp.where(wrong, jnp.nan, 0)[:, None, None].astype(z.dtype)  # not a choice, whose derivative would be 0
    return _Rows(z, jnp.maximum(labels, 0), heard.T, repeats, length, hopeless), over


def _as_labels(target, prediction):
    """The labels, and −1 for those that name no class."""
    labels, valid = as_labels(target, prediction.shape[-1])
    return jnp.where(valid, labels, -1)


def _there(x, shape, mask):
    """Which positions exist, in rows that count."""
    there = jnp.asarray(x.where) if isinstance(x, Padded) else jnp.ones(shape, bool)
    return there if mask is None else there & mask[:, None]


def _spoken(rows, blank):
    """Of each position: whether it is there, log y_t of the blank and of each label, with −∞ beyond the last label."""
    log_y = jax.nn.log_softmax(rows.z)
    exists = jnp.arange(rows.labels.shape[1]) < rows.length[:, None]
    of_labels = jnp.where(exists[:, None], jnp.take_along_axis(log_y, rows.labels[:, None], axis=2), -jnp.inf)
    return rows.heard, jnp.moveaxis(log_y[..., blank, None], 1, 0), jnp.moveaxis(of_labels, 1, 0)


# The states are a pair: the logarithms for "blank i", (batch, length + 1), and for "label i", (batch, length).


def _states(rows, blanks, labels):
    def log(these):
        return jnp.where(these, 0.0, -jnp.inf).astype(rows.z.dtype)

    places = jnp.arange(rows.labels.shape[1] + 1)
    return log(places == blanks[:, None]), log(places[:-1] == labels[:, None])


def _first(rows):
    return _states(rows, jnp.zeros_like(rows.length), jnp.full_like(rows.length, -1))


def _last(rows):
    return _states(rows, rows.length, rows.length - 1)


@partial(jax.jit, inline=True)  # so that outside jit the loop is not compiled at each call
def _beginnings(rows, spoken):
    """log B_t and log A_t of all positions, less the highest of each position, and log P of each row.

    The loss and its gradient read the same parts of it. So where both are computed, XLA runs one loop for both.
    """
    first = _first(rows)
    _, (states, most) = jax.lax.scan(partial(_onward, rows), first, spoken)
    blanks, labels = (one[-1] for one in states) if len(rows.heard) else first
    return states, most.sum(0) + _log_sum(_at(blanks, rows.length), _at(labels, rows.length - 1))


@partial(jax.jit, inline=True)
def _shares(rows, beginnings, spoken):
    """The shares of the alignments that are in each state, (time, batch, states)."""

    def back(ends, step):
        beginnings, spoken = step
        blanks, labels = (begun + end for begun, end in zip(beginnings, ends, strict=True))
        shares = jax.nn.softmax(jnp.concatenate([blanks, labels], 1))
        return _backward(rows, ends, spoken), shares

    return jax.lax.scan(back, _last(rows), (beginnings, spoken), reverse=True)[1]


def _onward(rows, states, step):
    """log B_t and log A_t, less their highest, which is also given."""
    (blanks, labels), (heard, of_blank, of_labels) = states, step
    new_blanks = _log_sum(blanks, _shifted(labels, 1)) + of_blank
    new_labels = _log_sum(labels, blanks[:, :-1], _passed(rows, labels[:, :-1], front=1)) + of_labels
    states = _where(heard, (new_blanks, new_labels), states)
    states, most = _lowered(states)
    return states, (states, most)


def _backward(rows, ends, step):
    """log b_{t−1} and log a_{t−1}, less their highest."""
    (blanks, labels), (heard, of_blank, of_labels) = ends, step
    blanks, labels = blanks + of_blank, labels + of_labels
    new_blanks = _log_sum(blanks, _shifted(labels, 0, 1))
    new_labels = _log_sum(labels, blanks[:, 1:], _passed(rows, labels[:, 1:], back=1))
    return _lowered(_where(heard, (new_blanks, new_labels), ends))[0]


def _lowered(states):
    """The states without their highest, and the highest, (batch,). So float32 keeps its digits in long sequences."""
    most = jax.lax.stop_gradient(jnp.concatenate(states, 1).max(1))
    most = jnp.where(most == -jnp.inf, 0, most)
    return tuple(one - most[:, None] for one in states), most


def _passed(rows, labels, front=0, back=0):
    """Steps from one label to the next without a blank, which two equal labels do not allow."""
    return _shifted(jnp.where(rows.same, -jnp.inf, labels), front, back)


def _shifted(states, front=0, back=0):
    """With so many impossible states at the ends."""
    return jnp.pad(states, ((0, 0), (front, back)), constant_values=-jnp.inf)


def _where(heard, new, old):
    return tuple(jnp.where(heard[:, None], a, b) for a, b in zip(new, old, strict=True))


def _at(states, place):
    """The state at this place of each row; the place −1 is impossible."""
    return jnp.take_along_axis(_shifted(states, 1), place[:, None] + 1, axis=1)[:, 0]


def _log_sum(*terms):
    """log Σ e^x, −∞ if all terms are, with the derivative 0 there."""
    most = jax.lax.stop_gradient(jnp.stack(jnp.broadcast_arrays(*terms)).max(0))
    most = jnp.where(most == -jnp.inf, 0, most)
    total = sum(jnp.exp(x - most) for x in terms)
    return jnp.where(total == 0, -jnp.inf, most + jnp.log(jnp.where(total == 0, 1, total)))
