"""What `--data` names: a bundled or downloaded set, a table, a folder of pictures, or arrays in a file."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funcnet import data
from funcnet.checks import check_values, listed
from funcnet.cli.applying import check_applies
from funcnet.data.arrays import read_npz
from funcnet.data.cells import is_missing, is_number_text, whole
from funcnet.data.preparation import Preparation
from funcnet.data.tables import Columns, open_table
from funcnet.errors import ConfigError, DataError, FuncnetError, LabelError, nearest
from funcnet.made import leading

__all__ = ["IMAGE_SETS", "Source", "check_row_shape", "in_options", "read_like", "read_source"]

IMAGE_SETS = {
    "mnist": data.mnist, "fashion_mnist": data.fashion_mnist, "cifar10": data.cifar10, "cifar100": data.cifar100,
}  # fmt: skip
_SETS = ("digits", *IMAGE_SETS)
_TABLES = (".csv", ".tsv", ".parquet", ".npy")
_USUAL_TARGETS = ("target", "label", "class", "y")
_ISO = re.compile(r"\d{4}-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?)?")

# How errors about reading name an option in Python, and how the command line does.
_SPELLINGS = {
    r"drop=\('(.*?)',\)": r"--drop '\1'", r"categories=\('(.*?)',\)": r"--categories '\1'",
    r"image_size=(\d+)": r"--image-size \1", r"image_size": "--image-size",
    r"split with stratified=True, or ": "", r"stratified=True": "--split stratified",
    r"most_categories": "--most-categories", r"task='(.*?)'": r"--task \1",
    r", or write (header|encoding)=[^;]*?(?=\.$)": "", r", or give the encoding.*(?=\.$)": "",
}  # fmt: skip


class Source(NamedTuple):
    """Rows and targets as they were read, before anything is known of them."""

    x: Any  #: an array, or columns by name
    target: Columns
    test: tuple[Any, Columns] | None = None  #: the test rows that a set of images brings
    task: str | None = None  #: where it does not follow from the target
    groups: np.ndarray | None = None  #: (n,) texts: rows of one group stay in one part
    ordered: bool = False  #: whether the rows are in the order of time


def read_source(chosen: Any) -> Source:
    """The rows that the options name."""
    name, path = chosen.data, Path(chosen.data)
    kind = _kind(name, path)
    check_applies(chosen, kind)
    if kind == "digits":
        x, target = data.digits()
        return Source(x, _columns(target), task="classes")
    if kind == "set":
        (x, target), (test_x, test_target) = IMAGE_SETS[name](chosen.folder, download=chosen.download)
        return Source(x, _columns(target), (test_x, _columns(test_target)), "classes")
    with in_options():
        return {"pictures": _of_pictures, "table": _of_table, "arrays": _of_arrays}[kind](path, chosen)


def _kind(name, path):
    """What kind of data it is, as `check_applies` calls it."""
    if name in _SETS:
        return "digits" if name == "digits" else "set"
    if path.is_dir():
        return "pictures"
    if path.exists() and path.suffix.lower() in (*_TABLES, ".npz"):
        return "arrays" if path.suffix.lower() == ".npz" else "table"
    kinds = "a .csv, .tsv, .parquet, .npz or .npy file, or a folder of pictures"
    got = "another kind of file; save it as .csv or .npz." if path.exists() else f"no such file{_nearest(path)}"
    raise DataError(f"{name}: expected {listed(_SETS)}, {kinds}, got {got}")


def read_like(chosen: Any, preparation: Preparation, path: Path) -> tuple[Any, Any]:
    """`(x, target)` of other rows, of the kind that a run was trained on."""
    with in_options():
        if preparation.row_shape is None:
            return preparation.read(path, target=True)
        (x, target), _ = read_npz(path, chosen.x, *_first(chosen.target))
        check_row_shape(str(path), x, preparation)
        return x, _array_target(path, target)


def check_row_shape(name: str, x: Any, preparation: Preparation) -> None:
    """Rows of an array must have the shape of those that were trained on."""
    if preparation.row_shape is not None and x.shape[1:] != preparation.row_shape:
        raise DataError(f"{name}: expected rows of shape {preparation.row_shape}, got an array of shape {x.shape}.")


def _of_pictures(path, chosen):
    x, target = data.image_folder(path, image_size=chosen.image_size, target=chosen.target)
    return Source(x, target)


def _of_table(path, chosen):
    apart = tuple(name for name in (chosen.group, chosen.time) if name is not None)
    if len(apart) > 1:
        raise ConfigError(f"--group {chosen.group}: expected --group or --time, got both; choose one.")
    kept = {"drop": chosen.drop, "categories": (*chosen.categories, *apart)}
    x, target = data.read_table(path, target=chosen.target or _usual_target(path), **kept)
    with leading(str(path)):
        for name in apart:
            if name not in x:
                option = "--group" if chosen.time is None else "--time"
                got = f"{name!r}, which is the target or left out; choose another"
                raise ConfigError(f"expected {option} to be one of the other columns, got {got}.")
        groups, times = (_taken(x, name) for name in (chosen.group, chosen.time))
        if not x:
            raise DataError(f"expected a column besides {listed([*target, *apart])}, got none; add one.")
        if times is None:
            return Source(x, target, groups=groups)
        order = np.argsort(_sortable(chosen.time, times), kind="stable")
        x, target = (Columns((name, values[order]) for name, values in one.items()) for one in (x, target))
        return Source(x, target, ordered=True)


def _taken(x, name):
    """A column that says how rows are split, taken out of those that are learnt from."""
    return None if name is None else x.pop(name)


def _usual_target(path):
    """The target if one column has a name that targets usually have."""
    with leading(str(path)):
        table = open_table(path)
        found = [name for name in table.columns if name.lower() in _USUAL_TARGETS]
        if len(found) == 1:
            return found
        raise ConfigError(f"expected a target; write --target NAME with one of {listed([*table.columns])}.")


def _sortable(name, times):
    """The entries of a column of times as numbers, or as texts that sort by time."""
    if any(map(is_missing, times)):
        row = next(i for i, value in enumerate(times) if is_missing(value))
        raise DataError(f"expected a time in column {name!r} of every row, got none in row {row}; leave it out.")
    if all(map(is_number_text, times)):
        return times.astype(np.float64)
    wrong = [value for value in times if not _ISO.fullmatch(value)]
    if wrong:
        fix = "write numbers, or dates as 2026-11-27"
        raise DataError(f"expected times that sort in column {name!r}, got {wrong[0]!r}; {fix}.")
    return times.astype(str)


def _of_arrays(path, chosen):
    with leading(str(path)):
        names = _first(chosen.target)
    (x, target), test = read_npz(path, chosen.x, *names)
    pair = None if test is None else (test[0], _array_target(path, test[1]))
    return Source(x, _array_target(path, target), pair)


def _first(names):
    if len(names) > 1:
        raise ConfigError(f"--target {' '.join(names)}: expected one array of the .npz file, got {len(names)}.")
    return names


def _array_target(path, target):
    """An array (n,) or (n, outputs) as columns. One-hot rows are classes."""
    with leading(str(path)):
        if target.dtype.kind not in "biufUT" or target.ndim > 2 or 0 in target.shape:
            got = f"{target.dtype} of shape {target.shape}"
            raise DataError(f"expected target to hold numbers or texts of shape (n,) or (n, outputs), got {got}.")
        if target.dtype.kind == "f":
            check_values(LabelError, "targets that are finite", target, None, np.isfinite, "leave these rows out")
        if target.ndim == 1:
            return _columns(whole(target))
        if target.shape[1] > 1 and np.isin(target, (0, 1)).all() and (target.sum(1) == 1).all():
            return _columns(target.argmax(1))
        return Columns((f"target {i}", target[:, i]) for i in range(target.shape[1]))


def _columns(target):
    return Columns(target=target)


@contextlib.contextmanager
def in_options(name: str = "") -> Iterator[None]:
    """Errors name options as the command line does, and the data by their `name`."""
    try:
        yield
    except FuncnetError as error:
        text = f"{name}: {error.args[0]}" if name else str(error.args[0])
        for python, option in _SPELLINGS.items():
            text = re.sub(python, option, text)
        error.args = (text, *error.args[1:])
        raise


def _nearest(path):
    """The file that the user may have meant."""
    near = ""
    with contextlib.suppress(OSError):
        near = nearest(path.name, [*(entry.name for entry in path.parent.iterdir()), *_SETS])
    return f"; did you mean {near if near in _SETS else path.with_name(near)}?" if near else "."
