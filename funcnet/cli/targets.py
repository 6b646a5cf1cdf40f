"""What a TARGET of `funcnet check` stands for: an entry of the catalogue, or a layer or loss of the user's own."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from funcnet.catalogue import CATALOGUE, Entry
from funcnet.cli.imports import imported
from funcnet.errors import ConfigError, nearest
from funcnet.made import leading
from funcnet.types import Layer

__all__ = ["parse_shape", "parse_shapes", "resolve"]

DTYPES = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "int8", "int16", "uint8", "bool")
RETURNS = "a Layer, a loss with a gradient, or a tuple (layer, x) or (loss, prediction, target)"


def parse_shapes(texts: Sequence[str]) -> Any:
    """One input, or several: a dictionary if they have names, else a tuple.

    Raises:
        ConfigError: a text is not a shape, only some inputs have names, or a name occurs twice.

    >>> parse_shapes(["image=8,28", "text=8,12:int32"])["text"]
    ShapeDtypeStruct(shape=(8, 12), dtype=int32)
    """
    pairs = [text.rpartition("=") for text in texts]
    names = [name for name, equals, _ in pairs if equals]
    if not names:
        shapes = [parse_shape(text) for text in texts]
        return shapes[0] if len(shapes) == 1 else tuple(shapes)
    if len(set(names)) < len(texts) or "" in names:
        given, fix = " --shape ".join(texts), "--shape image=8,28,28,1 --shape text=8,12:int32"
        raise ConfigError(f"--shape {given}: expected a name for each input, and no name twice: {fix}.")
    return {name: parse_shape(text) for name, _, text in pairs}


def parse_shape(text: str) -> jax.ShapeDtypeStruct:
    """`"8,4"` -> a float32 input of that shape; `"8,12:int32"` -> an input of another dtype.

    Raises:
        ConfigError: anything but positive integers between commas, or an unknown dtype.

    >>> parse_shape("8,4")
    ShapeDtypeStruct(shape=(8, 4), dtype=float32)
    """
    sizes, colon, dtype = text.partition(":")
    words = sizes.split(",")
    if not all(word.strip().isascii() and word.strip().isdigit() and int(word) > 0 for word in words):
        raise ConfigError(f"--shape {text}: expected positive integers between commas, the batch first: --shape 8,4.")
    if colon and dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise ConfigError(f"--shape {text}: expected a dtype among {known}, got {dtype!r}: --shape 8,12:int32.")
    return jax.ShapeDtypeStruct(tuple(map(int, words)), dtype or "float32")


def resolve(target: str, shape: Any) -> Entry:
    """The target and its input.

    Args:
        target: a name in the catalogue, `module:attribute`, or `path/to/file.py:attribute`.
        shape: the shape of the input, or several shapes, for a layer or a loss alone; `None` if none was given.

    Raises:
        ConfigError: no such name, module, file or attribute; code that raises on import; something that has no
            gradient to check; no shape where one is needed.
    """
    with leading(target):
        return _resolved(target, shape)


def _resolved(target: str, shape: Any) -> Entry:
    if ":" not in target:
        if target not in CATALOGUE:
            near = nearest(target, CATALOGUE)
            hint = f"did you mean {near}?" if near else "write your own as module:attribute or file.py:attribute."
            raise ConfigError(f"expected a layer, model, loss or penalty of the library; {hint}")
        return CATALOGUE[target]
    return _entry(imported(target, _made), shape)


def _made(found: Any) -> Any:
    """The object, or what it returns: only a loss and a layer are called by nobody."""
    if callable(found) and not isinstance(found, Layer) and not hasattr(found, "gradient"):  # a loss has the field
        return _call(found)
    return found


def _call(function: Any) -> Any:
    """What the function returns. It must not need arguments."""
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        got = f"one that takes {inspect.signature(function)}; write one that returns {RETURNS}"
        raise ConfigError(f"expected a function without arguments, got {got}.") from error
    return function()


def _entry(found: Any, shape: Any) -> Entry:
    match found:
        case Layer():
            return Entry(found, _drawn("a Layer", "(layer, x)", shape))
        case (Layer(), x):
            return Entry(found[0], x)
        case (loss, x) if getattr(loss, "gradient", None) is not None:
            return Entry(loss, x)
        case (loss, prediction, goal) if getattr(loss, "gradient", None) is not None:
            return Entry(loss, prediction, goal)
    if getattr(found, "gradient", None) is None:
        raise ConfigError(f"expected {RETURNS}, or a function that returns one, got {found!r}.")
    x = _drawn("a loss", "(loss, prediction, target)", shape)
    random = np.random.default_rng(0)
    return Entry(found, x, jax.tree.map(lambda leaf: random.normal(size=leaf.shape), x))


def _drawn(what: str, tuple_: str, shape: Any) -> Any:
    if shape is None:
        fix = f"add --shape 8,4; or name a function that returns {tuple_}"
        raise ConfigError(f"{what} alone needs the shape of its input, the batch first: {fix}.")
    return shape
