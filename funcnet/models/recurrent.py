"""Recurrent models."""

from collections.abc import Callable

from funcnet import layers
from funcnet.checks import check_count, check_kind, fraction
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["recurrent_classifier"]


@constructor
def recurrent_classifier(
    classes: int,
    *,
    features: tuple[int, ...] = (64,),
    recurrence: Callable[[int], Layer] = layers.lstm,
    bidirectional: bool = False,
    dropout: float = 0.0,
) -> Layer:
    """Classifier of sequences: recurrent layers, one vector from each sequence, and a dense layer.

    The vector is the last position of the last recurrence. With `bidirectional` it is the mean over time, because at
    the last position the second direction has seen only this position.

    Args:
        classes: number of classes.
        features: widths of the recurrent layers, one after the other.
        recurrence: a constructor, such as `layers.gru` or `lambda features: layers.rnn(features, activation="relu")`.
        bidirectional: whether each recurrent layer runs in both directions, whose outputs are side by side.
        dropout: share of the numbers dropped after each recurrent layer in training, which then needs a key.

    Input (batch, time, in), also as a `Padded`. Output (batch, classes), logits.

    Raises:
        ConfigError: `classes` is not a positive integer, `features` is not a tuple of such, `recurrence` does not make
            a layer, or `dropout` is outside [0, 1).

    References: Graves, Schmidhuber, "Framewise Phoneme Classification with Bidirectional LSTM", Neural Networks 2005.

    >>> import funcnet as fn
    >>> fn.models.recurrent_classifier(10)
    serial(lstm(64), last(), dense(10))
    >>> fn.models.recurrent_classifier(3, features=(8, 8), recurrence=fn.layers.gru, bidirectional=True)
    serial(bidirectional(gru(8)), bidirectional(gru(8)), mean_over(), dense(3))
    """
    check_kind("features", features, tuple, "a tuple of widths", "write for example features=(64,)")
    check_kind("recurrence", recurrence, Callable, "a constructor of a layer", "write for example layers.gru")
    check_kind("bidirectional", bidirectional, bool, "True or False")
    dropout = fraction("dropout", dropout)

    def block(width):
        inner = recurrence(check_count("each of features", width))
        check_kind("recurrence(features)", inner, Layer, "a layer", "write for example layers.gru")
        inner = layers.bidirectional(inner) if bidirectional else inner
        return [inner, layers.dropout(dropout)] if dropout else [inner]

    readout = layers.mean_over() if bidirectional else layers.last()
    recurrent = [layer for width in features for layer in block(width)]
    return layers.serial(*recurrent, readout, layers.dense(check_count("classes", classes)))
