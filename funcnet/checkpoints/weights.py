"""Weights in one safetensors file: named by path, hashed, written completely or not at all.

A safetensors file holds plain tensors, so nothing in it can run. Other tools read it too. What the format lacks is
added to its metadata under one key, `funcnet`: a version, the caller's metadata, and a SHA-256 over this metadata and
the tensors. It is needed because safetensors itself does not notice a flipped bit.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from funcnet.checkpoints.files import write_whole
from funcnet.checkpoints.manifest import as_json
from funcnet.checkpoints.tensors import as_tensors, from_bytes, read_header, restore_tree, safetensors_module
from funcnet.checks import describe
from funcnet.errors import CheckpointError, StructureError, translated
from funcnet.reading import plain_file
from funcnet.types import Params, State

__all__ = ["load_weights", "save_weights"]

_VERSION = 1


def save_weights(
    path: str | os.PathLike[str], params: Params, state: State = (), metadata: dict[str, Any] | None = None
) -> None:
    """Write params and state to one safetensors file, which appears complete or not at all.

    Tensors are named by path, `params/0/kernel` and `state/1/mean`. An older file of that name is replaced.

    Args:
        path: the file; its folder must exist.
        params, state: pytrees of arrays.
        metadata: anything that JSON can hold, such as the call that makes the model.

    Raises:
        CheckpointError: the file cannot be written.
        ConfigError: JSON cannot hold the metadata.
        DtypeError: a leaf is not an array, or of a dtype that the file cannot hold.
        StructureError: two leaves have the same path, as in `{"a/b": …, "a": {"b": …}}`.
        MissingExtraError: without `pip install 'funcnet[checkpoint]'`.

    >>> import tempfile, jax.numpy as jnp, funcnet as fn
    >>> params = ({"kernel": jnp.ones((2, 3))}, ())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fn.checkpoints.save_weights(f"{folder}/model.safetensors", params, metadata={"epoch": 3})
    ...     fn.checkpoints.load_weights(f"{folder}/model.safetensors", like=(params, ()))
    (({'kernel': Array([[1., 1., 1.],
           [1., 1., 1.]], dtype=float32)}, ()), (), {'epoch': 3})
    """
    name = f"save_weights({os.fspath(path)!r})"
    safetensors = safetensors_module(name)
    tensors = as_tensors(name, {"params": params, "state": state})
    text = as_json(name, "metadata", metadata)
    record = {"version": _VERSION, "sha256": _digest(tensors, text), "metadata": json.loads(text)}
    with translated(OSError, CheckpointError, f"{name}: the file cannot be written"):
        write_whole(Path(path), safetensors.numpy.save(tensors, {"funcnet": json.dumps(record)}))


def load_weights(
    path: str | os.PathLike[str], like: tuple[Params, State] | None = None
) -> tuple[Params, State, dict[str, Any] | None]:
    """Read what `save_weights` wrote, after checking it against its hash.

    Args:
        path: the file.
        like: the trees to restore, `(params, state)`, of arrays or `jax.ShapeDtypeStruct`s, for example from
            `jax.eval_shape(model.init, key, x)`. Without it both come back as flat dictionaries, from path to NumPy
            array.

    Returns:
        `(params, state, metadata)`.

    Raises:
        CheckpointError: the file is missing, damaged or not one of `save_weights`, or its leaves are not those of
            `like`: the message lists the missing, unexpected and mis-shaped ones.
        StructureError: `like` is not a pair.
        MissingExtraError: without `pip install 'funcnet[checkpoint]'`.

    >>> import tempfile, jax.numpy as jnp, funcnet as fn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fn.checkpoints.save_weights(f"{folder}/model.safetensors", ({"bias": jnp.zeros(2)},))
    ...     fn.checkpoints.load_weights(f"{folder}/model.safetensors")
    ({'0/bias': array([0., 0.], dtype=float32)}, {}, None)
    """
    name = f"load_weights({os.fspath(path)!r})"
    if not (like is None or (isinstance(like, tuple) and len(like) == 2)):
        raise StructureError(f"{name}: expected like to be the pair (params, state), got {describe(like)}.")
    tensors, metadata = _read(name, Path(path))
    if like is None:
        return _part(tensors, "params"), _part(tensors, "state"), metadata
    restored = restore_tree(
        name, "the model", {"params": like[0], "state": like[1]}, "the weights in the file", tensors, keys={}
    )
    return restored["params"], restored["state"], metadata


def _digest(tensors: dict[str, np.ndarray], metadata: str) -> str:
    names = sorted(tensors)
    head = [metadata, *([name, str(tensors[name].dtype), tensors[name].shape] for name in names)]
    digest = hashlib.sha256(json.dumps(head).encode())
    for name in names:
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _read(name: str, path: Path) -> tuple[dict[str, np.ndarray], Any]:
    safetensors = safetensors_module(name)
    kinds = safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError
    problem = f"{name}: the file cannot be read"
    with translated(OSError, CheckpointError, problem), plain_file(path, links=True) as file:
        try:
            head, header = read_header(file)
            record = json.loads(header["__metadata__"]["funcnet"])
            version, sha256, text = record["version"], record["sha256"], json.dumps(record["metadata"])
            tensors = from_bytes(safetensors, head + file.read())
        except kinds as error:
            got = f"one that is damaged or of another origin: {error!r}"
            raise CheckpointError(f"{name}: expected a file of save_weights, got {got}.") from error
    if version != _VERSION:
        raise CheckpointError(f"{name}: expected format version {_VERSION}, got {version!r}; update funcnet.")
    if sha256 != _digest(tensors, text):
        raise CheckpointError(f"{name}: the file is damaged: its content does not have the SHA-256 recorded in it.")
    return tensors, record["metadata"]


def _part(tensors: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The tensors below `part`, with paths that begin there."""
    split = {path: path.partition("/") for path in sorted(tensors)}
    return {rest: tensors[path] for path, (head, _, rest) in split.items() if head == part}
