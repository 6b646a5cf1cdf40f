"""The rows of a run: those it trains on, those that are watched, and those that are held out."""

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet import data
from funcnet.checks import fraction, listed
from funcnet.cli import options
from funcnet.cli.applying import check_shares
from funcnet.cli.phases import phase
from funcnet.cli.sources import Source, in_options, read_source
from funcnet.data.cells import as_text
from funcnet.data.preparation import Preparation
from funcnet.data.preparing import class_names, found_task
from funcnet.errors import ConfigError, DataError
from funcnet.made import leading
from funcnet.reading import shown

__all__ = [
    "Pair",
    "Parts",
    "Rows",
    "check_classes",
    "count_of",
    "fingerprint",
    "prepared",
    "read_parts",
    "rows_as_bytes",
]

Pair = tuple[Any, Any]  #: rows and their targets


class Parts(NamedTuple):
    """The rows as they were read, told apart by what they are for. No row is in two parts."""

    training: Pair
    validation: Pair | None  #: early stopping chooses by these
    test: Pair | None  #: no choice is made by these
    task: str
    classes: tuple[str | None, ...] | None  #: the names of all classes
    name: str  #: of the data

    def __repr__(self) -> str:
        named = {"to train on": self.training, "to choose the epoch": self.validation, "held out": self.test}
        counts = [f"{count_of(pair):,} {words}" for words, pair in named.items() if pair is not None]
        return f"rows      {', '.join(counts)}"

    @property
    def sha256(self) -> str:
        """The hash of the training rows. A run must continue with the rows that it began with."""
        return fingerprint(*self.training)

    def preparation(self) -> Preparation:
        """What the training rows determine."""
        with in_options(self.name):
            return data.prepare(*self.training, task=self.task, classes=self.classes)


class Rows(NamedTuple):
    """The parts as a network and a loss take them."""

    training: Pair
    validation: Pair | None
    test: Pair | None

    @property
    def named(self) -> dict[str, Pair]:
        """The parts that there are. The last one is that on which the fewest choices were made."""
        pairs = {"training": self.training, "validation": self.validation, "held out": self.test}
        return {name: pair for name, pair in pairs.items() if pair is not None}

    @property
    def watched(self) -> Pair | None:
        """The rows that validate each report."""
        return self.test if self.validation is None else self.validation


def read_parts(chosen: options.Train) -> Parts:
    """Read what `--data` names, and split it as the options say."""
    with phase(f"reading {shown(chosen.data)}"):
        source = read_source(chosen)
    with in_options(chosen.data):
        task, classes = chosen.task or source.task or found_task(source.target), None
        if task == "classes":
            check_classes(source.target)
            targets = [source.target, *([] if source.test is None else [source.test[1]])]
            classes = class_names({name: np.concatenate([one[name] for one in targets]) for name in source.target})
        training, test = _without_test(source, chosen, task)
        training, validation = _split(training, "--validation", _validation(chosen), source, chosen, task)
    pairs = (None if part is None else (part[0], part[2]) for part in (training, validation, test))
    return Parts(*pairs, task, classes, chosen.data)  # type: ignore[arg-type]  # the first is there


def check_classes(target: Any) -> None:
    """Classes are one column of texts, whole numbers or truth values. Other numbers are not their names."""
    if len(target) != 1:
        raise DataError(f"expected one target of classes, got {listed([*target])}; choose one of them.")
    ((name, values),) = target.items()
    if values.dtype.kind == "f":
        first = next(iter(values[values % 1 != 0]), values[0])
        got = f"{first:g}; round the numbers in the file, or use --task regression"
        raise DataError(f"--task classes: expected texts or whole numbers in {name!r}, got {got}.")


def prepared(parts: Parts, preparation: Preparation) -> Rows:
    """The parts as numbers."""
    with in_options(parts.name):
        return Rows(*(None if pair is None else preparation.rows(*pair) for pair in parts[:3]))  # type: ignore[arg-type]


def _without_test(source: Source, chosen, task):
    """The rows for training with their groups, and the test rows."""
    everything = (source.x, source.groups, source.target)
    if source.test is not None:
        check_shares(chosen)
        x, target = source.test
        return everything, (x, None, target)
    if chosen.fold is None:
        return _split(everything, "--test", chosen.test, source, chosen, task)
    shares = (1 / chosen.folds,) * chosen.folds
    folds = _cut(everything, shares, source, chosen, task)
    rest = [fold for i, fold in enumerate(folds) if i != chosen.fold - 1]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *rest), folds[chosen.fold - 1]


def _validation(chosen):
    if chosen.patience is not None and chosen.validation == 0:
        raise ConfigError("--patience: expected rows to choose by, got --validation 0; write --validation 0.1.")
    if chosen.validation is not None:
        return chosen.validation
    return 0.0 if chosen.patience is None else 0.1


def _split(rows, option, share, source, chosen, task):
    """The rows without a share of them, and this share, or `None` for 0."""
    with leading(option):
        share = fraction(option[2:], share)
    if share == 0:
        return rows, None
    return _cut(rows, (1 - share, share), source, chosen, task)


def _cut(rows, shares, source, chosen, task):
    x, groups, target = rows
    how: dict[str, Any] = {"seed": chosen.seed}
    if groups is not None:
        how["groups"] = np.array([as_text(group) for group in groups], str)
    elif source.ordered or chosen.split == "ordered":
        how["shuffle"] = False
    elif task == "classes" and chosen.split == "stratified":
        how["stratified"] = True
    parts = data.split((x, groups), target, fractions=shares, **how)
    return [(x, groups, target) for (x, groups), target in parts]


def count_of(pair: Pair) -> int:
    """The number of rows."""
    return len(next(iter(pair[1].values())))


def rows_as_bytes(inputs: Any) -> list[bytes]:
    """What tells each row from others, of `Preparation.inputs`."""
    leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(inputs)]
    return [b"".join(leaf[row].tobytes() for leaf in leaves) for row in range(len(leaves[0]))]


def fingerprint(x: Any, target: Any) -> str:
    """The SHA-256 of rows and their targets: arrays, or columns by name."""
    digest = hashlib.sha256()
    for tree in (x, target):
        for name, array in tree.items() if isinstance(tree, dict) else [("", tree)]:
            texts = array.dtype.kind in "OUT"
            array = np.array([repr(value).encode() for value in array]) if texts else array
            digest.update(f"{name}{array.dtype.str} {array.shape} ".encode(errors="surrogatepass"))
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
