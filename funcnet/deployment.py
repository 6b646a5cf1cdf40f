"""A trained model as one file that does not need funcnet.

`export_model` writes what `model.apply` computes at evaluation, parameters included, as a StableHLO program in the
format of `jax.export`. After `pip install jax flatbuffers` any program can run it, for batches of any size:

    import jax.export
    y = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read())).call(x)

The format itself does not notice damage. With a flipped bit in a parameter the program runs and gives wrong numbers. So
the file ends with a SHA-256, behind the part that jax reads. `load_exported` checks it first.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from funcnet.checks import check_count, describe
from funcnet.errors import (
    ChecksumError,
    ConfigError,
    DtypeError,
    FormatError,
    ShapeError,
    StructureError,
    extra,
    translated,
)
from funcnet.made import leading
from funcnet.reading import plain_file, size_of
from funcnet.trees import (
    equal_rows,
    flatten_with_paths,
    is_padded,
    map_leaves,
    map_rows,
    shapes,
    values_of,
    with_values,
)  # fmt: skip
from funcnet.types import Layer, Padded, Params, State

__all__ = ["export_model", "load_exported"]

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_MARK = b"funcnet export 1"  # followed by the SHA-256 of all bytes before it, the mark included
_TRAILER = len(_MARK) + hashlib.sha256().digest_size
_SAME = "each of them has a row for each example"


def export_model(
    model: Layer,
    params: Params,
    state: State,
    x: Any,
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    batch_size: int | None = None,
) -> bytes:
    """The model at evaluation, x -> y, as the bytes of a file.

    On the platform and the version of jax where it was made, its output is bit for bit that of `jax.jit(model.apply)`.
    `jax.export` promises that other versions can read the file for at least half a year.

    Args:
        model, params, state: what to export. The numbers become constants of the program.
        x: an example batch or a `jax.ShapeDtypeStruct` (a tree of them where the model takes one), batch axis first. In
            the file, a `Padded` is a dictionary with the entries `values` and `where`, as input and as output, and a
            `Whole` is its array.
        platforms: where the file will run, one or more of `"cpu"`, `"cuda"`, `"rocm"` and `"tpu"`. This machine need
            not have them.
        batch_size: `None` for batches of any size. For a model that needs to know the size, the one size of all
            batches.

    Raises:
        ConfigError: an unknown platform, or a layer whose program depends on the size of the batch.
        DtypeError: params or state that are not arrays with numbers, for example only their shapes.
        StructureError: an input or output in a tree that the file cannot hold, such as a class of your own.
        MissingExtraError: without `pip install 'funcnet[export]'`.
        Whatever the model raises for this `x`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.dense(3), fn.layers.softmax())
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> file = fn.deployment.export_model(model, params, state, jnp.ones((1, 2)), platforms=["cpu"])
    >>> jax.export.deserialize(bytearray(file)).call(jnp.ones((5, 2))).shape
    (5, 3)
    """
    with leading(f"export_model({model})"):
        _check_flatbuffers()
        platforms = _checked_platforms(platforms)
        content = _exported(model, _host_arrays(params, state), x, platforms, batch_size) + _MARK
    return content + hashlib.sha256(content).digest()


def _exported(model: Layer, numbers: Any, x: Any, platforms: tuple[str, ...], batch_size: int | None) -> bytes:
    """The file without its trailer."""
    example, x = x, shapes(x)
    equal_rows(x, _SAME)

    def evaluate(x):
        # The barrier keeps XLA from computing with the constants at compile time, which may round differently.
        params, state = jax.lax.optimization_barrier(numbers)
        x = map_leaves(_as_in, example, x)
        return _plain(model.apply(params, state, x, train=False)[0])

    jax.eval_shape(evaluate, _plain(x))  # errors that have nothing to do with exporting are raised here
    write = export.export(jax.jit(evaluate), platforms=platforms)
    if batch_size is not None:
        exported = write(_with_batch(x, check_count("batch_size", batch_size)))
    else:
        try:
            exported = write(_with_batch(x, export.symbolic_shape("batch")[0]))
        except Exception as error:  # a layer's Python code can raise anything for an unknown size
            got = f"an error: {str(error).partition(chr(10))[0]}; give the one that you need as batch_size=…"
            raise ConfigError(f"expected a model with one program for all batch sizes, got {got}") from error
    problem = "expected input and output in tuples, lists or dictionaries of arrays, got an error"
    with translated((ValueError, NotImplementedError), StructureError, problem):
        return bytes(exported.serialize())


def load_exported(path: str | os.PathLike[str]) -> Callable[[Any], Any]:
    """Read a file of `export_model`. The result is the function x -> y, compiled once for each batch size.

    The file is checked against the SHA-256 in it. This finds damage, but it does not say who made the file. Run only
    files from people whom you trust with your machine.

    Args:
        path: the file.

    Raises:
        FormatError: the file is missing or was not written by `export_model`, or this version of jax cannot read it.
        ChecksumError: the file is damaged.
        ConfigError: the file was not made for the platform of this process.
        MissingExtraError: without `pip install 'funcnet[export]'`.
        StructureError, ShapeError, DtypeError: when the function is called with an `x` that does not fit the export.

    >>> import pathlib, tempfile, jax.numpy as jnp, funcnet as fn
    >>> file = fn.deployment.export_model(fn.layers.tanh(), (), (), jnp.ones((1, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.stablehlo")
    ...     _ = path.write_bytes(file)
    ...     predict = fn.deployment.load_exported(path)
    >>> predict(jnp.zeros((3, 2)))
    Array([[0., 0.],
           [0., 0.],
           [0., 0.]], dtype=float32)
    """
    name = f"load_exported({os.fspath(path)!r})"
    with leading(name):
        _check_flatbuffers()
        exported = _deserialized(_read(path))
    call = jax.jit(exported.call)
    expected = jax.tree.unflatten(exported.in_tree, exported.in_avals)[0][0]

    def predict(x):
        x = jax.tree.map(jax.numpy.asarray, _plain(x))
        with leading(name):
            _check_input(expected, x)
        return call(x)

    return predict


def _deserialized(data: bytearray) -> export.Exported:
    try:
        exported = export.deserialize(data)
    except Exception as error:  # the file is not damaged, so another version of jax wrote it
        raise FormatError(f"jax {jax.__version__} cannot read this file: {error!r}; export it again.") from error
    here = export.default_export_platform()
    if here not in exported.platforms:
        got = f"one for {', '.join(exported.platforms)}; export it with platforms={[*exported.platforms, here]}"
        raise ConfigError(f"expected a file for {here}, on which this process runs, got {got}.")
    return exported


def _plain(tree: Any) -> Any:
    """The tree without funcnet's own classes: each `Padded` as a dictionary, and each `Whole` as its array."""

    def plain(leaf):
        return {"values": leaf.values, "where": leaf.where} if is_padded(leaf) else values_of(leaf)

    return map_leaves(plain, tree)


def _as_in(example: Any, leaf: Any) -> Any:
    """A leaf of a plain tree as it is in the example."""
    return Padded(**leaf) if is_padded(example) else with_values(example, leaf)


def _check_flatbuffers() -> None:
    """jax.export needs flatbuffers to write and to read."""
    with extra("export", "flatbuffers"):
        import flatbuffers  # noqa: F401


def _checked_platforms(platforms: Any) -> tuple[str, ...]:
    chosen = () if isinstance(platforms, str) else tuple(platforms)
    if not chosen or any(platform not in _PLATFORMS for platform in chosen) or len(set(chosen)) < len(chosen):
        wanted = f"some of {', '.join(_PLATFORMS)}, in a tuple or list"
        raise ConfigError(f"expected platforms to be {wanted}, got {platforms!r}.")
    return chosen


def _host_arrays(params: Params, state: State) -> Any:
    numbers = jax.device_get((params, state))
    for part, tree in zip(("params", "state"), numbers, strict=True):
        for path, leaf in flatten_with_paths(tree):
            if not isinstance(leaf, np.ndarray | np.generic):
                raise DtypeError(f"expected {part} of arrays with numbers, got {describe(leaf)} at {path!r}.")
    return numbers


def _with_batch(x: Any, batch: Any) -> Any:
    return _plain(map_rows(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), x))


def _read(path: str | os.PathLike[str]) -> bytearray:
    """The whole file, checked. jax ignores the trailer at its end."""
    with translated(OSError, FormatError, "the file cannot be read"), plain_file(path, links=True) as file:
        file.seek(max(0, size_of(file) - _TRAILER))
        if file.read(len(_MARK)) != _MARK:
            raise FormatError("expected a file of export_model, got one that is cut short or of another origin.")
        file.seek(0)
        data = bytearray(file.read())
    if hashlib.sha256(memoryview(data)[: len(_MARK) - _TRAILER]).digest() != data[len(_MARK) - _TRAILER :]:
        raise ChecksumError("the file is damaged: its content does not have the SHA-256 recorded in it.")
    return data


def _check_input(expected: Any, x: Any) -> None:
    wanted, given = jax.tree.structure(expected), jax.tree.structure(x)
    if wanted != given:
        raise StructureError(f"expected x to be the tree {wanted}, got {given}.")
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(x), strict=True):
        fits = [not isinstance(n, int) or n == m for n, m in zip(want.shape, got.shape, strict=False)]
        if got.ndim != want.ndim or not all(fits) or 0 in got.shape[:1]:
            raise ShapeError(f"expected x of shape {_words(want.shape)}, got {got.shape}.")
        if got.dtype != want.dtype:
            raise DtypeError(f"expected x of dtype {want.dtype}, got {got.dtype}; convert it with .astype.")
    # The rows are those of any number: what was a `Whole` has none, and a fixed batch was compared above.
    rows = jax.tree.map(lambda want, got: None if isinstance(want.shape[0], int) else got, expected, x)
    if jax.tree.leaves(rows):
        equal_rows(rows, _SAME)


def _words(shape: Any) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
