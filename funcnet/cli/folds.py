"""`funcnet train --folds 5`: five runs, each with another part of the rows held out, and what they have in common."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from funcnet import checkpoints
from funcnet.checks import check_count
from funcnet.cli import config_file, options
from funcnet.cli.failing import begun
from funcnet.cli.folders import CONFIG, WEIGHTS, fold_folder, is_first
from funcnet.cli.tables import new_table, print_table
from funcnet.errors import ConfigError
from funcnet.made import leading
from funcnet.reading import shown

__all__ = ["check_folds", "train_folds"]

_SCORES = {"accuracy": ("accuracy", "{:.2%}"), "r_squared": ("R²", "{:.4f}")}


def check_folds(chosen: options.Train) -> None:
    """The options of folds must fit each other."""
    if chosen.folds is None:
        if chosen.fold is not None:
            raise ConfigError(f"--fold {chosen.fold}: expected --folds too, got none; write --folds 5 --fold 1.")
        return
    with leading("--folds"):
        check_count("folds", chosen.folds, least=2)
    if chosen.split == "ordered" or chosen.time is not None:
        raise ConfigError("--folds: expected rows in any order, got rows in the order of time; leave it out.")
    if chosen.fold is not None:
        with leading("--fold"):
            check_count("fold", chosen.fold, most=chosen.folds)


def train_folds(chosen: options.Train, train: Callable[[options.Train], int], stopped: Callable[[], bool]) -> int:
    """Train each fold in a folder of its own, those that are not finished, and compare them."""
    if chosen.resume is not None:
        return _train_in(chosen.resume, chosen, train, stopped)
    with begun(chosen) as folder:
        return _train_in(folder, chosen, train, stopped)


def _train_in(folder, chosen, train, stopped):
    if is_first():
        config_file.write_config(chosen, folder / CONFIG)
    for fold in range(1, chosen.folds + 1):
        own = fold_folder(folder, fold)
        if (own / WEIGHTS).exists():
            continue
        print(f"\nfold {fold} of {chosen.folds}", flush=True)
        begun = (own / CONFIG).exists()
        place = {"output": None, "resume": own} if begun else {"output": own, "resume": None}
        code = train(dataclasses.replace(chosen, fold=fold, **place))
        if code or stopped():
            print(f"the folds that are missing: funcnet train --resume {shown(folder)}")
            return code
    if is_first():
        _show(folder, [facts["held_out"] for facts in _facts(folder, chosen.folds)])
    return 0


def _facts(folder: Path, folds: int) -> Iterator[dict[str, Any]]:
    for fold in range(1, folds + 1):
        *_, facts = checkpoints.load_weights(fold_folder(folder, fold) / WEIGHTS)
        yield facts or {}


def _show(folder, found):
    """A row for each fold, and the mean with the standard deviation √(Σ (s − mean)² / (folds − 1))."""
    name = next(name for name in _SCORES if name in found[0])
    words, form = _SCORES[name]
    table = new_table(f"{folder}: held-out rows of {len(found)} folds", "fold", "loss", words, "one answer for all")
    for fold, one in enumerate(found, 1):
        table.add_row(str(fold), f"{one['loss']:.4f}", form.format(one[name]), form.format(one["baseline"]))
    columns = [np.array([one[key] for one in found]) for key in ("loss", name, "baseline")]
    for title, value in (("mean", np.mean), ("standard deviation", lambda a: np.std(a, ddof=1))):
        numbers = [value(column) for column in columns]
        table.add_row(title, f"{numbers[0]:.4f}", *(form.format(number) for number in numbers[1:]))
    print()
    print_table(table)
