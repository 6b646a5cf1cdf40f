"""Sequences of several lengths as one batch."""

import jax
import numpy as np
import pytest

from funcnet import data, layers, losses, optimizers, training
from funcnet.data.sequences import _rounded
from funcnet.errors import ConfigError, DataError, ShapeError


def test_values_and_where_by_hand():
    found = data.padded([np.ones((2, 3), np.float16), np.zeros((0, 3), np.float16), 2 * np.ones((3, 3), np.float16)])
    assert (found.values.shape, found.values.dtype) == ((3, 3, 3), np.float16)
    assert found.where.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert found.values[:, :, 0].tolist() == [[1, 1, 0], [0, 0, 0], [2, 2, 2]]
    fixed = data.padded([[1, 2], [3]], length=5)
    assert fixed.values.tolist() == [[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]]
    assert data.padded([jax.numpy.arange(3)]).values.tolist() == [[0, 1, 2]]


def test_lengths_are_rounded_up_to_few():
    lengths = [_rounded(n) for n in range(33)]
    assert sorted({*lengths}) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert all(n <= found <= max(1, 1.5 * n) for n, found in enumerate(lengths))


def test_batches_of_many_lengths_compile_few_programs():
    random = np.random.default_rng(0)
    model = layers.serial(layers.rnn(2), layers.last(), layers.dense(2))
    shapes = set()
    for longest in (5, 6, 8, 7):
        rows = [random.normal(size=(n, 3)).astype(np.float32) for n in (longest, 1, 0, longest - 1)]
        x = data.padded(rows)
        shapes.add(x.values.shape)
        *_, last = training.fit(
            model,
            losses.softmax_cross_entropy,
            optimizers.sgd(0.1),
            (x, np.array([0, 1, 0, 1])),
            epochs=1,
            batch_size=2,
        )
        assert last.step == 2
    assert shapes == {(4, 6, 3), (4, 8, 3)}


@pytest.mark.parametrize(
    "sequences, options, error, message",
    [
        ([], {}, DataError, r"padded: expected a list of sequences, got a list \[\]; give"),
        ("abc", {}, DataError, "padded: expected a list of sequences, got 'abc'"),
        (3, {}, DataError, "padded: expected a list of sequences, got 3"),
        ([1, 2], {}, DataError, "padded: expected sequence 0 with an axis of time, got 1"),
        ([["a"], [1.0]], {}, ShapeError, "padded: expected sequences that differ in their time alone, got"),
        (
            [np.ones((2, 3)), np.ones((2, 4))],
            {},
            ShapeError,
            r"got float64\[time, 3\], float64\[time, 4\]; make them alike",
        ),
        ([np.ones(2), np.ones(2, int)], {}, ShapeError, r"got float64\[time\], int64\[time\]; make them alike"),
        ([np.ones(5)], {"length": 4}, ShapeError, "expected sequences of at most 4 times, got one of 5; cut it"),
        ([np.ones(5)], {"length": 0}, ConfigError, "padded: expected length to be a positive integer, got 0"),
    ],
)
def test_what_is_no_batch_of_sequences(sequences, options, error, message):
    with pytest.raises(error, match=message):
        data.padded(sequences, **options)
