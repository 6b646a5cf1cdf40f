"""Cutting a data set into parts."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from funcnet.checks import is_number, listed
from funcnet.data.batching import Seed, generator
from funcnet.data.checks import as_trees, count_rows
from funcnet.errors import ConfigError, DataError, LabelError
from funcnet.made import leading
from funcnet.trees import map_rows

__all__ = ["split"]


def split(
    x: Any,
    target: Any = None,
    where: Any = None,
    weights: Any = None,
    *,
    fractions: Sequence[float] = (0.8, 0.2),
    seed: Seed = 0,
    stratified: bool = False,
    groups: Any = None,
    shuffle: bool = True,
) -> tuple[tuple[Any, ...], ...]:
    """Shuffle the rows and cut them into parts. Each row is in exactly one part.

    Args:
        x, target: trees of arrays with n rows; the target may be `None`.
        where, weights: what counts in the loss, and by how much, with n rows too.
        fractions: the share of each part; they sum to 1. Part i ends at the row nearest to n times the sum of the first
            i shares.
        seed: an integer or a tuple of integers. The same seed gives the same parts.
        stratified: give each part its share of every class, for one target (n,) of integers or texts. The counts are
            within one row of the share for classes of no more than average size.
        groups: (n,) of integers or texts, such as the patient of each picture. Rows of one group stay in one part, so
            the parts have about their shares.
        shuffle: whether to shuffle. Otherwise the parts are in the order of the rows, for rows in the order of time.

    Returns: `(x, target)` of each part, with `where` and `weights` if they are given, as `training.fit` takes it.

    Raises:
        ConfigError: `fractions` that are not positive or do not sum to 1, an impossible seed, or two of `stratified`,
            `groups` and `shuffle=False`.
        DataError: arrays of different lengths, or a part would be empty.
        LabelError: `stratified` with targets that are not integers or texts of shape (n,).

    >>> import funcnet as fn
    >>> train, test = fn.data.split(*fn.data.digits(), stratified=True)
    >>> train[0].shape, test[0].shape
    ((1438, 64), (359, 64))
    """
    with leading("split"):
        if isinstance(where, Sequence) and any(map(is_number, where)):
            raise ConfigError(f"expected fractions by name, got {where!r} as where; write fractions={where!r}.")
        data = as_trees((x, target, where, weights))
        n = count_rows(data)
        shares = fractions if isinstance(fractions, Sequence) else ()
        if not all(is_number(share) and share > 0 for share in shares) or not math.isclose(sum(shares), 1):
            raise ConfigError(f"expected fractions to be positive numbers with the sum 1, got {fractions!r}.")
        edges = np.rint(np.cumsum((0.0, *fractions)) * n).astype(int)
        if 0 in np.diff(edges):
            parts = listed([f"{share:.3g}" for share in fractions])
            got = f"{n} row{'s' * (n != 1)} in all; take more rows, or fewer or larger parts"
            raise DataError(f"expected at least one row for each of {len(shares)} parts, {parts}, got {got}.")
        if sum((stratified, groups is not None, not shuffle)) > 1:
            raise ConfigError("expected one of stratified=True, groups and shuffle=False, got two; choose one.")
        order = generator(seed).permutation(n) if shuffle else np.arange(n)
        if stratified:
            order = _evenly(order, _labels(data[1])[order])
        parts = [order[start:stop] for start, stop in pairwise(edges)]
        if groups is not None:
            parts = _together(order, _entries("groups", groups, n)[order], edges)
    return tuple(map_rows(lambda leaf, rows=rows: leaf[rows], data) for rows in parts)


def _labels(target):
    leaves = jax.tree.leaves(target)
    labels = np.asarray(leaves[0] if len(leaves) == 1 else np.nan)  # several targets have no classes
    if labels.ndim != 1 or labels.dtype.kind not in "biuOUT":
        fix = "give classes as integers" if labels.ndim < 2 else "one-hot rows become labels by target.argmax(-1)"
        got = f"{labels.dtype} and shape {labels.shape}; {fix}"
        raise LabelError(f"expected target of integers or texts and shape (n,) for stratified=True, got {got}.")
    return labels


def _entries(what, values, n):
    values = np.asarray(values)
    if values.shape != (n,) or values.dtype.kind not in "biuOUT":
        got = f"{values.dtype} of shape {values.shape}"
        raise DataError(f"expected {what} to be integers or texts of shape ({n},), got {got}.")
    return values


def _together(order, groups, edges):
    """The rows of each part. One group after the other goes to the part that lacks the largest share of its rows."""
    names, first, inverse, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    wanted = np.diff(edges)
    have, part = np.zeros(len(wanted)), np.empty(len(names), int)
    for name in np.argsort(first):  # in the order in which the shuffled rows name them
        part[name] = np.argmax((wanted - have) / wanted)
        have[part[name]] += counts[name]
    if not have.all():
        raise DataError(f"expected groups for each of {len(have)} parts, got {len(names)} groups; take smaller ones.")
    return [order[part[inverse] == i] for i in range(len(have))]


def _evenly(order, labels):
    """`order`, sorted so that each class is spread evenly: row i of its m rows is at (i + ½)/m of the way."""
    place = np.empty(len(order))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[np.argsort(place, kind="stable")]
