"""Weights in one safetensors file: named by path, hashed, written completely or not at all.

A safetensors file holds plain tensors, so nothing in it can run. Other tools read it too. What the format lacks is
added to its metadata under one key, `funcnet`: a version, the caller's metadata, and a SHA-256 over this metadata and
the tensors. It is needed because safetensors itself does not notice a flipped bit.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from funcnet.checkpoints.files import write_whole
from funcnet.checkpoints.manifest import as_json
from funcnet.checkpoints.tensors import as_tensors, from_bytes, read_header, restore_tree, safetensors_module
from funcnet.checks import describe
from funcnet.errors import CheckpointError, ConfigError, StructureError, translated
from funcnet.made import leading
from funcnet.reading import plain_file
from funcnet.rendering import text_table
from funcnet.trees import Select, check_matches, flatten_with_paths, map_with_paths, selector
from funcnet.types import Params, State

__all__ = ["load_weights", "save_weights", "weights_table"]

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
    path: str | os.PathLike[str],
    like: tuple[Params, State] | None = None,
    *,
    select: Select | None = None,
    rename: Callable[[str], str] | None = None,
) -> tuple[Params, State, dict[str, Any] | None]:
    """Read what `save_weights` wrote, after checking it against its hash, or any other safetensors file.

    Args:
        path: the file.
        like: the trees to restore, `(params, state)`, of arrays or `jax.ShapeDtypeStruct`s, for example from
            `jax.eval_shape(model.init, key, x)`. Without it both come back as flat dictionaries, from path to NumPy
            array.
        select: which leaves come from the file: a regular expression that matches the whole path of a leaf, such as
            `"trunk/.*"`, or a function of the path. The others stay as they are in `like`.
        rename: for a file of another origin, from the name of a tensor to the path of a leaf. A dot in a name counts
            as a slash where such a leaf is wanted.

    A file of another origin has no hash and no state. All its tensors are params, unless their names begin with
    `state/`. `weights_table` shows which leaf gets which tensor.

    Returns:
        `(params, state, metadata)`.

    Raises:
        CheckpointError: the file is missing or damaged, or its leaves are not those of `like`: the message lists the
            missing, unexpected and mis-shaped ones.
        ConfigError: `select` matches no leaf, or `rename` gives two tensors one path.
        StructureError: `like` is not a pair, or has only the shape of a leaf that stays.
        MissingExtraError: without `pip install 'funcnet[checkpoint]'`.

    >>> import tempfile, jax.numpy as jnp, funcnet as fn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fn.checkpoints.save_weights(f"{folder}/model.safetensors", ({"bias": jnp.zeros(2)},))
    ...     fn.checkpoints.load_weights(f"{folder}/model.safetensors")
    ({'0/bias': array([0., 0.], dtype=float32)}, {}, None)
    """
    name = f"load_weights({os.fspath(path)!r})"
    with leading(name):
        whole, tensors, metadata = _found(name, path, like, rename)
        leaves = flatten_with_paths(whole)
        if select is not None:
            chosen = selector("select", select)
            check_matches(
                select, [_place(leaf) for leaf, _ in leaves] or [_place(tensor) for tensor in sorted(tensors)]
            )
            tensors = {tensor: array for tensor, array in tensors.items() if chosen(_place(tensor))}
            leaves = [(leaf, array) for leaf, array in leaves if chosen(_place(leaf))]
    if like is None:
        return _part(tensors, "params"), _part(tensors, "state"), metadata
    try:
        loaded = restore_tree(name, "the model", dict(leaves), "the weights in the file", tensors, keys={})
    except CheckpointError as error:
        raise CheckpointError(f"{str(error)[:-1]}; weights_table shows every leaf.") from None

    def kept(leaf, array):
        if isinstance(array, jax.ShapeDtypeStruct):
            got = f"its shape at {leaf}; give the arrays of model.init, which select leaves as they are"
            raise StructureError(f"{name}: expected like with the values of what stays, got {got}.")
        return array

    both = map_with_paths(lambda leaf, array: loaded[leaf] if leaf in loaded else kept(leaf, array), whole)
    return both["params"], both["state"], metadata


def weights_table(
    path: str | os.PathLike[str], like: tuple[Params, State], *, rename: Callable[[str], str] | None = None
) -> str:
    """A table of the leaves of a model and the tensors in a file that `load_weights` would give them.

    Raises: as `load_weights`, if the file cannot be read.

    >>> import tempfile, jax.numpy as jnp, funcnet as fn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/model.safetensors"
    ...     fn.checkpoints.save_weights(path, {"kernel": jnp.zeros((3, 2)), "scale": jnp.ones(2)})
    ...     print(fn.checkpoints.weights_table(path, ({"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, ())))
    leaf           of the model  in the file
    ----------------------------------------------------
    params/bias    (3,)                       missing
    params/kernel  (2, 3)        (3, 2)       transposed
    params/scale                 (2,)         unused
    """
    name = f"weights_table({os.fspath(path)!r})"
    with leading(name):
        whole, tensors, _ = _found(name, path, like, rename)
    wanted = dict(flatten_with_paths(whole))
    rows = [("leaf", "of the model", "in the file", "")]
    for leaf in sorted({*wanted, *tensors}):
        shapes = [tree[leaf].shape if leaf in tree else None for tree in (wanted, tensors)]
        model, file = ("" if shape is None else str(shape) for shape in shapes)
        rows.append((leaf, model, file, _verdict(*shapes)))
    return text_table(rows)


def _verdict(model, file):
    if model is None or file is None:
        return "unused" if model is None else "missing"
    if model == file:
        return "matches"
    return "transposed" if model == file[::-1] else "another shape"


def _found(name, path, like, rename):
    """The wanted tree, the tensors of the file under the paths of its leaves, and the metadata."""
    if not (like is None or (isinstance(like, tuple) and len(like) == 2)):
        raise StructureError(f"expected like to be the pair (params, state), got {describe(like)}.")
    whole = {} if like is None else {"params": like[0], "state": like[1]}
    tensors, metadata, own = _read(name, Path(path))
    if own and rename is None:
        return whole, tensors, metadata
    wanted, found = {leaf for leaf, _ in flatten_with_paths(whole)}, {}
    for tensor, array in tensors.items():
        given = tensor if rename is None else rename(tensor)
        leaf = given if given.startswith(("params/", "state/")) else f"params/{given}"
        slashed = leaf.replace(".", "/")
        found[slashed if slashed in wanted else leaf] = array
    if len(found) < len(tensors):
        got = f"{len(found)} for {len(tensors)} tensors"
        raise ConfigError(f"expected rename to give each tensor a path of its own, got {got}.")
    return whole, found, metadata


def _place(leaf):
    """The path of a leaf in params or state."""
    return leaf.partition("/")[2]


def _digest(tensors: dict[str, np.ndarray], metadata: str) -> str:
    names = sorted(tensors)
    head = [metadata, *([name, str(tensors[name].dtype), tensors[name].shape] for name in names)]
    digest = hashlib.sha256(json.dumps(head).encode())
    for name in names:
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _read(name: str, path: Path) -> tuple[dict[str, np.ndarray], Any, bool]:
    """The tensors, the metadata, and whether `save_weights` wrote them. The caller leads the errors with its name."""
    safetensors = safetensors_module(name)
    kinds = safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError
    with translated(OSError, CheckpointError, "the file cannot be read"), plain_file(path, links=True) as file:
        try:
            head, header = read_header(file)
            notes = header.get("__metadata__", {})
            tensors = from_bytes(safetensors, head + file.read())
            if "funcnet" not in notes:
                if any('"sha256"' in text for text in notes.values()):
                    raise ValueError("its record is under another name")
                return tensors, notes or None, False
            record = json.loads(notes["funcnet"])
            version, sha256, text = record["version"], record["sha256"], json.dumps(record["metadata"])
        except kinds as error:
            got = f"one that is damaged or no safetensors file: {error!r}"
            raise CheckpointError(f"expected a file of weights, got {got}.") from error
    if version != _VERSION:
        raise CheckpointError(f"expected format version {_VERSION}, got {version!r}; update funcnet.")
    if sha256 != _digest(tensors, text):
        raise CheckpointError("the file is damaged: its content does not have the SHA-256 recorded in it.")
    return tensors, record["metadata"], True


def _part(tensors: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The tensors below `part`, with paths that begin there."""
    split = {path: path.partition("/") for path in sorted(tensors)}
    return {rest: tensors[path] for path, (head, _, rest) in split.items() if head == part}
