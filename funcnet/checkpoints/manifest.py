"""The manifest of a checkpoint: what it holds, and the hash of every byte of it.

The text is JSON in one exact form. Its first entry is its own SHA-256, and the text must be, byte for byte, what
`render` makes of its content. So no bit of it can change unnoticed, not even in white space.
"""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxlib.version import __version__ as jaxlib_version

from funcnet.errors import CheckpointError, ConfigError, DtypeError, translated

__all__ = [
    "MOST_BYTES", "VERSION", "File", "Leaf", "Manifest", "Spread", "as_json", "environment", "parse", "plain_metrics",
    "render", "sha256",
]  # fmt: skip

VERSION = 1
MOST_BYTES = 1 << 28  #: of a manifest: enough for a million leaves, and read in seconds


class File(NamedTuple):
    """The file of tensors: a header, and then the tensors one after the other. Any other file is all header.

    The header and each tensor have their own hash, so every byte is hashed once. Another hash of the whole file would
    cost the same time again.
    """

    bytes: int
    header_bytes: int
    header_sha256: str


class Leaf(NamedTuple):
    """One tensor of the file."""

    shape: tuple[int, ...]
    dtype: str  #: NumPy's name
    start: int  #: where its bytes begin in the file
    bytes: int
    sha256: str
    key: str | None  #: for a PRNG key its implementation, `"threefry2x32"`


class Spread(NamedTuple):
    """A tensor that was spread over several processes: a folder with one file per part."""

    folder: str
    shape: tuple[int, ...]
    dtype: str


class Manifest(NamedTuple):
    """All that is known about a checkpoint besides its tensors."""

    step: int
    epoch: int
    metrics: dict[str, Any]
    cursor: Any  #: the position of an iterator of batches
    metadata: Any  #: the caller's own
    environment: dict[str, Any]
    files: dict[str, File]
    leaves: dict[str, Leaf]
    spread: dict[str, Spread]
    not_finite: list[str]  #: the paths of tensors with NaN or infinite numbers
    partial: bool = False  #: as of the report


def sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def environment() -> dict[str, Any]:
    """What the numbers may depend on besides the code: versions, the kind of device, flags of the compiler."""
    return {
        "funcnet": version("funcnet"),
        "jax": jax.__version__,
        "jaxlib": jaxlib_version,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def render(name: str, manifest: Manifest) -> bytes:
    """The text of a manifest.

    Raises:
        ConfigError: JSON cannot hold the metrics, the cursor or the metadata, or the text is too long.
    """
    content = manifest._asdict()
    for part in ("files", "leaves", "spread"):
        content[part] = {key: entry._asdict() for key, entry in content[part].items()}
    for part in ("metrics", "cursor", "metadata"):
        as_json(name, part, content[part])
    text = _seal({"format": VERSION, **content})
    if len(text) > MOST_BYTES:
        got = f"{len(text):,}; keep large metadata in a file of their own"
        raise ConfigError(f"{name}: expected a manifest of at most {MOST_BYTES:,} bytes, got {got}.")
    return text


def as_json(name: str, what: str, value: Any) -> str:
    """A value from the user as JSON text, or a ConfigError if JSON cannot hold it."""
    problem = f"{name}: expected {what} that JSON can hold, got an error"
    with translated((TypeError, ValueError, RecursionError), ConfigError, problem):
        text = json.dumps(value)
        if json.dumps(json.loads(text)) != text:
            raise ValueError("two keys of a dictionary have the same text")
    return text


def plain_metrics(name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics as numbers, and lists of numbers, of Python.

    Raises:
        DtypeError: a metric is not made of numbers, or the loss is not a single one.
    """
    with translated(ValueError, DtypeError, f"{name}: expected metrics of numbers, got an error"):
        plain = {metric: np.asarray(value).tolist() for metric, value in metrics.items()}
    wrong = _wrong_metrics(plain)
    if wrong:
        got = f"{metrics[wrong[0]]!r}; leave it out"
        raise DtypeError(f"{name}: expected metric {wrong[0]!r} to be {_wanted(wrong[0])}, got {got}.")
    return plain


def _wrong_metrics(metrics: dict[str, Any]) -> list[str]:
    """The names of metrics that are not made of numbers. The loss is one number, because training is judged by it."""
    return [name for name, value in metrics.items() if not (_is_number if name == "loss" else _are_numbers)(value)]


def _wanted(metric: str) -> str:
    return "a number" if metric == "loss" else "a number or an array of numbers"


def _are_numbers(value: Any) -> bool:
    return all(map(_are_numbers, value)) if isinstance(value, list) else _is_number(value)


def _is_number(value: Any) -> bool:
    """Whether a NumPy array can hold it."""
    return type(value) is float or (type(value) in (bool, int) and -(2**63) <= value < 2**64)


def _seal(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, indent=1)
    return json.dumps({"sha256": sha256(text.encode()), **content}, indent=1).encode()


def parse(name: str, data: bytes) -> Manifest:
    """The manifest of a text.

    Raises:
        CheckpointError: the text is damaged, or of another version.
    """
    try:
        content = json.loads(data)
        sealed = _seal({key: value for key, value in content.items() if key != "sha256"})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name} is damaged or not a manifest: {error!r}") from error
    if sealed != data:
        raise CheckpointError(f"{name} is damaged: its content does not have the SHA-256 recorded in it")
    form = content.pop("format", None)
    if form != VERSION:
        raise CheckpointError(f"{name} has format version {form!r}, expected {VERSION}; update funcnet")
    del content["sha256"]
    try:
        files = {file: File(**entry) for file, entry in content.pop("files").items()}
        leaves = {path: Leaf(**entry) for path, entry in content.pop("leaves").items()}
        leaves = {path: leaf._replace(shape=tuple(leaf.shape)) for path, leaf in leaves.items()}
        spread = {path: Spread(**entry) for path, entry in content.pop("spread", {}).items()}
        spread = {path: entry._replace(shape=tuple(entry.shape)) for path, entry in spread.items()}
        counts = [content["step"], content["epoch"]]
        counts += [count for file in files.values() for count in (file.bytes, file.header_bytes)]
        counts += [count for leaf in leaves.values() for count in (leaf.start, leaf.bytes, *leaf.shape)]
        counts += [count for entry in spread.values() for count in entry.shape]
        if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
            raise ValueError("a size or a count is not an integer from 0 to 2⁶³ − 1")
        if sorted(entry.folder for entry in spread.values()) != sorted(map(str, range(len(spread)))):
            raise ValueError("the folders of spread tensors are not numbered from 0 on")
        for part in ("metrics", "environment"):
            if not isinstance(content[part], dict):
                raise ValueError(f"{part}: not a dictionary")
        if wrong := _wrong_metrics(content["metrics"]):
            raise ValueError(f"metric {wrong[0]!r} is not {_wanted(wrong[0])}")
        not_finite = content.pop("not_finite", [])
        if not isinstance(not_finite, list) or any(path not in {*leaves, *spread} for path in not_finite):
            raise ValueError("the tensors that are not finite are not a list of their paths")
        if type(content.setdefault("partial", False)) is not bool:
            raise ValueError("partial: not true or false")
        return Manifest(**content, files=files, leaves=leaves, spread=spread, not_finite=not_finite)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name} lacks an entry, or holds one of the wrong kind: {error!r}") from error
