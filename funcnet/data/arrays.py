"""Arrays in `.npz` and `.npy` files, and rows of numbers in a `.csv` file."""

import contextlib
import os
import zipfile
from collections.abc import Callable
from io import BufferedReader
from typing import Any, BinaryIO

import numpy as np

from funcnet.checks import describe, is_floating, listed
from funcnet.data.checks import as_array, checked_data
from funcnet.data.files import StrPath
from funcnet.errors import ConfigError, DataError, nearest
from funcnet.made import leading, within
from funcnet.reading import plain_file

__all__ = ["checked_rows", "load_array", "problem_of", "read_npz", "read_rows"]

# The names that files give to the rows and to their targets, and the endings of those that are for testing.
_ROWS = ("x", "X", "images", "inputs", "features", "data")
_TARGETS = ("target", "targets", "y", "Y", "labels", "label")
_PARTS = ("_train", ""), ("_test",)
_OF_TABLES = "save it as columns of a table, such as a .csv file"
_FIXES = dict.fromkeys("OUSTmM", _OF_TABLES) | {"c": "give the real and the imaginary parts as columns of their own"}


def checked_rows(x: Any) -> np.ndarray:
    """Rows as networks take them, in float32. They must be finite floating-point numbers."""
    frame = not isinstance(x, np.ndarray) and hasattr(x, "__array__")
    if frame:
        x = as_array("x", x)
    if not is_floating(x):
        kind = getattr(getattr(x, "dtype", None), "kind", None)
        fix = _FIXES.get(kind or "", "convert it with x.astype(np.float32), and scale images to [0, 1]")
        if frame and kind in ("O", "U", "T"):
            fix = "the columns of a frame are given by read_table(frame, target=…)"
        raise DataError(f"expected x of floating-point numbers, got {describe(x)}; {fix}.")
    (x, _) = checked_data((x, None))
    return np.asarray(x, np.float32)


def read_rows(path: StrPath | BinaryIO) -> np.ndarray:
    """The rows of a `.npy` file, or of a `.csv` file of numbers without a header. An open file is such a `.csv`."""
    name = _name(path)
    as_text = hasattr(path, "read") or name.lower().endswith(".csv")

    def read(file):
        return np.loadtxt(file, delimiter=",", ndmin=2) if as_text else load_array(file)

    with leading(name):
        return checked_rows(_read(path, "a readable .npy or .csv file of numbers", read))


def load_array(file: BufferedReader) -> np.ndarray:
    """The array of an open `.npy` file. NumPy takes a file that begins with other bytes for a pickle."""
    start = file.peek(6)
    if start.startswith(b"PK"):
        raise DataError("expected one array, as np.save writes it, got several; save x alone as .npy.")
    if not start.startswith(b"\x93NUMPY"):
        raise ValueError("it is empty or of another kind; save it with np.save, and unpack a .csv.gz")
    return np.load(file, allow_pickle=False)


def problem_of(error: Exception) -> str:
    """What NumPy says about a file, without the advice to unpickle it, and what to do."""
    if "pickle" in str(error):
        return "an array holds Python objects; make numbers of them"
    fix = "; it is damaged, so save or fetch it again" if isinstance(error, zipfile.BadZipFile) else ""
    return str(error).rstrip(".") + fix


def read_npz(path: StrPath, x: str | None = None, target: str | None = None) -> tuple[Any, Any]:
    """The `(rows, target)` of a `.npz` file for training, and those for testing if it has them, else `None`.

    Args:
        path: the file.
        x, target: the names of two of its arrays, if they are not found by names that are usual.

    Raises:
        DataError: the file is damaged, has no such arrays, or rows for testing without their targets.
    """
    name = os.fspath(path)

    def read(file):
        if not file.peek(2).startswith(b"PK"):
            raise ValueError("it is empty or of another kind; save it with np.savez")
        with np.load(file, allow_pickle=False) as arrays:
            names = _names(arrays.files, x, target)
            return [[(one, _array(arrays, one)) for one in pair] for pair in names]  # others may be large

    with leading(name):
        parts = _read(path, "a readable .npz file", read)
        pairs = [_pair(*part) for part in parts]
        shapes = {part[0][0]: rows.shape[1:] for part, (rows, _) in zip(parts, pairs, strict=True)}
        if len({*shapes.values()}) > 1:
            got = " and ".join(f"{shape} in {one}" for one, shape in shapes.items())
            raise DataError(f"expected rows of one shape for training and testing, got {got}; give both the same.")
    return pairs[0], pairs[1] if len(pairs) > 1 else None


def _pair(x, target):
    """Rows and their targets, from arrays with their names."""
    (name, rows), (of, labels) = x, target
    with within(f"{name}:") if name != "x" else contextlib.nullcontext():
        rows = checked_rows(rows)
    if labels.ndim == 0 or len(labels) != len(rows):
        got = f"an array {labels.shape}; make them equally long"
        raise DataError(f"expected one target in {of} for each of the {len(rows)} rows of {name}, got {got}.")
    return rows, labels.astype(labels.dtype.newbyteorder("="))


def _array(arrays: Any, name: str) -> np.ndarray:
    try:
        found = arrays[name]
    except Exception as error:  # of many kinds
        raise ValueError(f"{name}: {problem_of(error)}") from error
    if not isinstance(found, np.ndarray):  # NumPy returns the bytes of a member that is not an array
        raise ValueError(f"{name} is not an array")
    return found


def _read(path: Any, wanted: str, read: Callable[[Any], Any]) -> Any:
    opened = contextlib.nullcontext(path) if hasattr(path, "read") else plain_file(path, links=True)
    try:
        with opened as file:
            return read(file)
    except (DataError, ConfigError):
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds of errors for a damaged file
        raise DataError(f"expected {wanted}: {problem_of(error)}.") from error


def _name(path: Any) -> str:
    return os.fspath(path) if isinstance(path, str | os.PathLike) else "the open file"


def _names(found, x, target):
    """The names of the arrays for training, and then those for testing if there are such."""
    given = {"--x": x, "--target": target}
    for option, name in given.items():
        if name is not None and name not in found:
            near = nearest(name, found)
            fix = f"did you mean {near}?" if near else "choose one of them."
            raise DataError(f"expected {option} to be one of the arrays {listed(sorted(found))}, got {name!r}; {fix}")
    if x is not None and target is not None:
        return [(x, target)]
    pairs = []
    for endings in _PARTS if x is None and target is None else _PARTS[:1]:
        rows = [name for name in found if name == x or (x is None and _is(name, _ROWS, endings))]
        labels = [name for name in found if name == target or (target is None and _is(name, _TARGETS, endings))]
        if len(rows) == len(labels) == 1:
            pairs.append((rows[0], labels[0]))
        elif rows or labels:
            raise _lacking(found, pairs)
    if not pairs:
        raise _lacking(found, pairs)
    return pairs


def _lacking(found, pairs):
    """The error for an array without its partner: the pair for training or, where this is found, for testing."""
    ends = [name.replace("train", "test") if "train" in name else f"{name}_test" for pair in pairs for name in pair]
    wanted, got = " and ".join(ends or ("x", "target")), listed(sorted(found)) or "none"
    return DataError(f"expected the arrays {wanted}, got {got}; name two with --x and --target.")


def _is(name, known, endings):
    return any(name == word + ending or name == ending[1:] + "_" + word for word in known for ending in endings)
