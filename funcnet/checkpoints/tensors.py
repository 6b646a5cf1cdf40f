"""Trees of arrays as named tensors on the host, and back into a tree, with each array where it belongs."""

import json
from collections.abc import Collection
from io import BufferedReader
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import describe
from funcnet.dtypes import is_key
from funcnet.errors import CheckpointError, DtypeError, StructureError, extra, translated
from funcnet.made import leading
from funcnet.reading import size_of
from funcnet.trees import check_same_structure, flatten_with_paths, map_with_paths, on_host, spread

__all__ = [
    "DTYPES",
    "as_tensors",
    "from_bytes",
    "is_finite",
    "read_header",
    "restore_tree",
    "safetensors_module",
    "split_keys",
]

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip

_METADATA = "__metadata__"  # a key of the header; all other keys are names of tensors
_MOST_HEADER = 100_000_000  # the most that safetensors reads


def safetensors_module(name: str) -> Any:
    with leading(name), extra("checkpoint", "safetensors"):
        import safetensors.numpy
    return safetensors


def split_keys(tree: Any) -> tuple[Any, dict[str, str]]:
    """The tree with its typed PRNG keys as plain numbers, and the implementation of each by path."""
    keys = {path: str(jax.random.key_impl(leaf)) for path, leaf in flatten_with_paths(tree) if is_key(leaf)}
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree), keys


def as_tensors(name: str, tree: Any, *, without: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The leaves by path, without those in `without`, as NumPy arrays that nothing else will write to.

    Raises:
        DtypeError: a leaf is not an array of plain numbers.
        StructureError: two leaves have the same path, or one has a path that safetensors cannot hold.
    """
    leaves = flatten_with_paths(tree)
    tensors = {}
    for path, leaf in [(path, leaf) for path, leaf in leaves if path not in without]:
        if str(getattr(leaf, "dtype", None)) not in DTYPES.values():
            got = f"{describe(leaf)}; convert it; a typed PRNG key needs jax.random.key_data"
            raise DtypeError(f"{name}: expected {path} to be an array of plain numbers, got {got}.")
        if path == _METADATA or path.encode(errors="ignore").decode() != path:
            raise StructureError(f"{name}: expected a path that a file can hold, got {path!r}; rename the key.")
        # A jax array is viewed, not copied: a step that gets it as a donated argument does not reuse its memory while
        # the view exists. A NumPy array is copied, because its owner may change it. safetensors writes the memory as it
        # is, so it must be in C order.
        tensors[path] = (
            np.asarray(on_host(leaf), order="C") if isinstance(leaf, jax.Array) else np.array(leaf, order="C")
        )
    if len(tensors) + len(without) < len(leaves):
        twice = sorted({path for path, _ in leaves if [other for other, _ in leaves].count(path) > 1})
        raise StructureError(
            f"{name}: expected one leaf per path, got several for {', '.join(twice)}; rename the keys."
        )
    return tensors


def is_finite(tensor: Any) -> bool:
    """Whether all numbers are finite."""
    return bool(np.isfinite(tensor).all())


def read_header(file: BufferedReader) -> tuple[bytes, dict[str, Any]]:
    """The header of a safetensors file, as bytes and as the JSON in it, and not yet the tensors.

    Anything wrong with it, as well as a file of another size, raises ValueError, LookupError, TypeError, AttributeError
    or RecursionError.
    """
    length = file.read(8)
    size = int.from_bytes(length, "little")
    if size > _MOST_HEADER:
        raise ValueError(f"its header has {size} bytes")
    text = file.read(size)
    header = json.loads(text)
    end = max((entry["data_offsets"][1] for tensor, entry in header.items() if tensor != _METADATA), default=0)
    if len(length) + size + end != size_of(file):
        raise ValueError("its tensors do not fill it")
    return length + text, header


def from_bytes(safetensors: Any, data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file. Anything wrong with it raises SafetensorError, ValueError or KeyError."""
    return {
        name: np.frombuffer(view["data"], jnp.dtype(DTYPES[view["dtype"]])).reshape(view["shape"])
        for name, view in safetensors.deserialize(data)
    }


def restore_tree(
    name: str, wanted_name: str, like: Any, stored_name: str, tensors: dict[str, np.ndarray], keys: dict[str, str]
) -> Any:
    """The tensors in the tree of `like`, each on the devices of its leaf of `like` if that is bound to devices.

    Raises:
        CheckpointError: the leaves are not those of `like`; all that differ are listed.
    """
    plain = jax.tree.map(lambda leaf: jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf, like)
    try:
        with leading(name):
            check_same_structure(wanted_name, dict(flatten_with_paths(plain)), stored_name, tensors)
    except StructureError as error:
        raise CheckpointError(str(error)) from None
    restored = map_with_paths(lambda path, _: _array(name, path, tensors[path], keys.get(path)), like)
    problems = []
    for (path, leaf), array in zip(flatten_with_paths(like), jax.tree.leaves(restored), strict=True):
        stored = array.dtype if path in keys else tensors[path].dtype
        if stored != leaf.dtype:
            problems.append(f"{path} has dtype {stored}, expected {leaf.dtype}")
        elif stored != array.dtype:  # jnp.array narrows silently
            problems.append(f"{path} has dtype {stored}, which needs jax.enable_x64(True)")
    if problems:
        raise CheckpointError(f"{name}: {stored_name} do not fit {wanted_name}: {'; '.join(problems)}.")
    return jax.tree.map(_placed, restored, like)


def _array(name: str, path: str, tensor: np.ndarray, implementation: str | None) -> jax.Array:
    if isinstance(tensor, jax.Array):  # already on the devices where it belongs
        return tensor
    array = jnp.array(tensor)  # a copy, because the tensor's memory may be the file's
    if implementation is None:
        return array
    problem = f"{name}: {path} is not a PRNG key of implementation {implementation!r}"
    with translated((TypeError, ValueError), CheckpointError, problem):
        return jax.random.wrap_key_data(array, impl=implementation)


def _placed(array: jax.Array, leaf: Any) -> jax.Array:
    # An array that was never put on a particular device stays free to follow others.
    sharding = getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None
    if sharding is None or array.sharding == sharding:
        return array
    return jax.device_put(array, sharding) if sharding.is_fully_addressable else spread(array, sharding)
