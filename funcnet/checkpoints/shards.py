"""Arrays that are spread over several processes: each writes its parts with orbax, and none ever holds the whole."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from funcnet.checkpoints.files import names_below, sync_file, sync_folder
from funcnet.checkpoints.manifest import File, Spread
from funcnet.checkpoints.tensors import is_finite
from funcnet.errors import CheckpointError, extra, translated
from funcnet.made import leading
from funcnet.reading import plain_file, size_of

__all__ = [
    "SHARDS", "are_spread", "load", "not_finite", "on_first", "orbax_module", "problem_with", "spread_entries",
    "write_parts",
]  # fmt: skip

SHARDS = "shards"
_DESCRIPTION = ".zarray"  # what orbax writes beside the parts of an array: its shape, its dtype and how it is split


def orbax_module(name: str) -> Any:
    with leading(name), extra("checkpoint", "orbax-checkpoint"):  # for arrays that are spread over several processes
        import orbax.checkpoint
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns about options chosen here, and logs each step
    return orbax.checkpoint


def are_spread(leaf: Any) -> bool:
    """Whether no process has the whole array."""
    return isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def on_first(name: str, action: Callable[[], Any]) -> None:
    """Process 0 acts while the others wait. If it fails, all fail."""
    problem = None
    if jax.process_index() == 0:
        try:
            action()
        except Exception as error:
            problem = error
    if multihost_utils.broadcast_one_to_all(np.array(problem is not None)):
        raise problem or CheckpointError(f"{name}: process 0 could not do its part; its own message says why.")


def spread_entries(arrays: dict[str, jax.Array]) -> dict[str, Spread]:
    """What the manifest says about the arrays. Folders have numbers, because not every path can be a folder's name."""
    return {
        path: Spread(str(number), array.shape, str(array.dtype)) for number, (path, array) in enumerate(arrays.items())
    }


def not_finite(arrays: dict[str, jax.Array]) -> list[str]:
    """The paths of arrays with NaN or infinite numbers. Each process looks at the parts that it has."""
    here = [all(is_finite(part.data) for part in array.addressable_shards) for array in arrays.values()]
    everywhere = multihost_utils.process_allgather(np.array(here, bool)).reshape(-1, len(arrays)).all(0)
    return [path for path, finite in zip(arrays, everywhere, strict=True) if not finite]


def write_parts(name: str, folder: Path, arrays: dict[str, jax.Array]) -> dict[str, File]:
    """All processes write and flush their parts in `folder / SHARDS`. The result is the files with their hashes."""
    orbax = orbax_module(name)
    if not folder.is_dir():
        got = f"process {jax.process_index()} does not see {folder.name}, which process 0 made"
        raise CheckpointError(f"{name}: expected a folder on a disk that all processes share; {got}.")
    tree = {entry.folder: arrays[path] for path, entry in spread_entries(arrays).items()}
    with translated((OSError, ValueError), CheckpointError, f"{name}: the parts of the arrays cannot be written"):
        with _pytrees(orbax) as checkpointer:
            checkpointer.save((folder / SHARDS).absolute(), tree)
        return _hash_together(folder)


def _pytrees(orbax: Any) -> Any:
    # One folder per array and one file per part, not one store for all, so that a damaged file shows whose it is.
    return orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=False))


def _hash_together(folder: Path) -> dict[str, File]:
    """Each process hashes a share of the files, and flushes them to the disk."""
    names = _names(folder)
    count, mine = jax.process_count(), names[jax.process_index() :: jax.process_count()]
    found = np.zeros((-(-len(names) // count), 32 + 8), np.uint8)
    for row, name in zip(found, mine, strict=False):
        sync_file(folder / name)
        with open(folder / name, "rb") as file:
            entry = _entry(file)
        row[:] = np.frombuffer(bytes.fromhex(entry.header_sha256) + entry.bytes.to_bytes(8, "little"), np.uint8)
    for place in {(folder / name).parent for name in mine}:
        sync_folder(place)
    told = multihost_utils.process_allgather(found)
    files = {}
    for number, name in enumerate(names):
        row = told[number % count, number // count].tobytes()
        size = int.from_bytes(row[32:], "little")
        files[name] = File(size, size, row[:32].hex())
    return files


def _names(folder: Path) -> list[str]:
    return [name for name in names_below(folder) if name.split("/")[0] == SHARDS]


def _entry(file: BufferedReader) -> File:
    size = size_of(file)
    return File(size, size, hashlib.file_digest(file, "sha256").hexdigest())


def problem_with(folder: Path, files: dict[str, File], spread: dict[str, Spread]) -> str | None:
    """What is wrong with the files of the parts, after all of their bytes are read; `None` if nothing is."""
    owners = {f"{SHARDS}/{entry.folder}": path for path, entry in spread.items()}
    there = {*_names(folder)}
    for name in sorted({*files, *there}):
        owner = owners.get(os.path.dirname(name))
        whose = f"{name}, a part of tensor {owner}," if owner is not None else name
        if name not in files:
            return f"{whose} is not in the manifest"
        if name not in there:
            return f"{whose} is missing"
        try:
            with plain_file(folder / name, links=False) as file:
                if size_of(file) != files[name].bytes:
                    return f"{whose} has {size_of(file)} bytes, expected {files[name].bytes}"
                if _entry(file) != files[name]:
                    return f"{whose} does not have the SHA-256 recorded in the manifest"
        except OSError as error:
            return f"{whose} cannot be read: {error}"
    for path, entry in spread.items():
        if not _is_described(folder, entry):
            return f"{SHARDS}/{entry.folder}/{_DESCRIPTION} does not describe tensor {path} as the manifest does"
    return None


def _is_described(folder: Path, entry: Spread) -> bool:
    """Whether the array's own description is that of the manifest.

    orbax makes room for what the description says, and the process ends if there is not so much.
    """
    try:
        with plain_file(folder / SHARDS / entry.folder / _DESCRIPTION, links=False) as file:
            array = json.loads(file.read())
        shape, same_dtype = tuple(array["shape"]), jnp.dtype(array["dtype"]) == jnp.dtype(entry.dtype)
        fits = all(0 < part <= max(axis, 1) for part, axis in zip(array["chunks"], shape, strict=True))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    return shape == entry.shape and same_dtype and fits


def load(name: str, folder: Path, spread: dict[str, Spread], like: dict[str, Any]) -> dict[str, Any]:
    """The arrays. Each process reads what the leaf of `like` places on it, or the whole if that is bound nowhere."""
    if not spread:
        return {}
    orbax = orbax_module(name)
    if any(getattr(like.get(path), "shape", None) != entry.shape for path, entry in spread.items()):
        # The caller names what does not fit, for which nothing needs to be read.
        return {path: jax.ShapeDtypeStruct(entry.shape, jnp.dtype(entry.dtype)) for path, entry in spread.items()}
    arguments = {entry.folder: _wanted(orbax, entry, like.get(path)) for path, entry in spread.items()}
    # orbax may raise anything for files that it did not write.
    with translated(Exception, CheckpointError, f"{name}: {SHARDS} cannot be read"), _pytrees(orbax) as checkpointer:
        restored = checkpointer.restore(
            (folder / SHARDS).absolute(), args=orbax.args.PyTreeRestore(restore_args=arguments)
        )
    return {path: restored[entry.folder] for path, entry in spread.items()}


def _wanted(orbax: Any, entry: Spread, leaf: Any) -> Any:
    sharding = getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None
    if sharding is None or (leaf.shape, str(leaf.dtype)) != (entry.shape, entry.dtype):
        return orbax.RestoreArgs(restore_type=np.ndarray)
    return orbax.ArrayRestoreArgs(sharding=sharding, global_shape=entry.shape, dtype=jnp.dtype(entry.dtype))
