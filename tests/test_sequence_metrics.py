"""Edit distances of padded sequences, and what a network with unaligned labels says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_metrics import levenshtein, run, spoken

from funcnet import Padded
from funcnet.errors import ConfigError, DtypeError, ShapeError
from funcnet.metrics import ctc_labels, edit_distance

RANDOM = np.random.default_rng(0)
SAID, WANTED = RANDOM.integers(0, 3, (30, 6)), RANDOM.integers(0, 3, (30, 4))
THERE, WRITTEN = RANDOM.random((30, 6)) < 0.7, RANDOM.random((30, 4)) < 0.7  # with gaps
THERE[0], WRITTEN[1], THERE[2], WRITTEN[2] = False, False, False, False


def distances():
    rows = zip(SAID, THERE, WANTED, WRITTEN, strict=True)
    return np.array([levenshtein(said[there], wanted[written]) for said, there, wanted, written in rows])


@pytest.mark.parametrize("rubbish", [0, 99])
def test_padding_is_skipped(rubbish):
    said, wanted = np.where(THERE, SAID, rubbish), np.where(WRITTEN, WANTED, rubbish)
    batch = Padded(said, THERE), Padded(wanted, WRITTEN)
    where, weights = np.arange(30) % 4 != 0, np.linspace(1, 2, 30)
    for given in ({}, {"where": where}, {"where": where, "weights": weights}):
        by = given.get("where", np.ones(30)) * given.get("weights", np.ones(30))
        for normalized in (False, True):
            lengths = WRITTEN.sum(1) if normalized else np.ones(30)
            got = run(edit_distance(normalized=normalized), (*batch, given.get("where"), given.get("weights")))
            np.testing.assert_allclose(got, (by * distances()).sum() / (by * lengths).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("said", "wanted", "distance"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("flaw", "lawn", 2),
     ("intention", "execution", 5), ("aaaa", "a", 3), ("ab", "ba", 2)],
)  # fmt: skip
def test_distances_by_hand(said, wanted, distance):
    one, other = (np.array([[*word.encode()]], np.uint8).reshape(1, -1) for word in (said, wanted))
    assert run(edit_distance(), (one, other)) == distance
    assert run(edit_distance(), (other, one)) == distance


def test_ctc_labels_skip_padding():
    """A gap does not part two equal labels; a blank does."""
    best = np.array([[1, 1, 2, 0, 2], [1, 0, 1, 2, 2], [0, 0, 0, 0, 0]])
    there = np.array([[1, 1, 1, 0, 1], [1, 0, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
    scores = np.where(there[..., None], np.eye(3)[best], np.nan).astype(np.float32)
    said = jax.jit(ctc_labels)(Padded(scores, there))
    np.testing.assert_array_equal(said.values, [[1, 2, 0, 0, 0], [1, 2, 0, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(said.where.sum(1), [2, 2, 0])
    np.testing.assert_array_equal(ctc_labels(np.eye(3)[best], blank=2).values[0], [1, 0, 0, 0, 0])
    whole = ctc_labels(np.eye(3)[best])
    assert [row[there].tolist() for row, there in zip(*map(np.asarray, (whole.values, whole.where)), strict=True)] == (
        spoken(np.eye(3)[best])
    )
    assert ctc_labels(jnp.zeros((2, 0, 3))).values.shape == (2, 0)


def test_a_nan_says_nothing():
    scores = np.eye(3, dtype=np.float32)[np.array([[1, 2], [1, 1]])]
    scores[1, 1, 0] = np.nan
    metric, wanted = edit_distance(read=ctc_labels), np.array([[1, 2], [1, 2]])
    assert np.isnan(run(metric, (scores, wanted)))
    assert run(metric, (scores, wanted, np.array([True, False]))) == 0
    assert run(metric, (Padded(scores, np.array([[True, True], [True, False]])), wanted)) == 0.5


REFUSED = [
    (lambda: edit_distance(normalized=1), ConfigError, "edit_distance(normalized=1): expected normalized to be True"),
    (lambda: edit_distance(read="ctc"), ConfigError, "expected read to be a function of the prediction, such as metr"),
    (lambda: run(edit_distance(), (np.ones((2, 3, 4)), WANTED[:2])), DtypeError,
     "expected prediction to be integers, got dtype float32; read it, for example with edit_distance(read=metrics."),
    (lambda: run(edit_distance(), (SAID, WANTED[:3])), ShapeError, "expected target of shape (30, length), got (3, 4)"),
    (lambda: run(edit_distance(), (SAID[0], WANTED)), ShapeError, "expected prediction of shape (batch, length), got"),
    (lambda: run(edit_distance(), (SAID, Padded(WANTED, THERE))), ShapeError,
     "expected the mask of a Padded of shape (30, 4), got (30, 6); mark each position"),
    (lambda: ctc_labels(np.ones((2, 3), np.float32)), ShapeError, "expected prediction of shape (batch, time, class"),
    (lambda: ctc_labels(np.ones((2, 3, 4), int)), DtypeError, "expected prediction of a floating dtype, got an array"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
