"""The options of a run as a file, `config.toml`, which `--config` and `--resume` read back."""

import dataclasses
import hashlib
import json
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

from funcnet.cli.options import NOT_KEPT, Train
from funcnet.errors import ConfigError, nearest, translated
from funcnet.reading import plain_file

__all__ = ["is_sealed", "kept", "read_config", "write_config"]


def read_config(path: Path) -> dict[str, Any]:
    """The values of a TOML file for `Train`'s options, written as `learning_rate` or `learning-rate`.

    Raises:
        ConfigError: the file is missing or not TOML, a key is not an option (the nearest one is named), or a value has
            the wrong type.
    """
    try:
        with plain_file(path, links=True) as file:
            given = tomllib.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected a readable TOML file: {error}.") from error
    hints = typing.get_type_hints(Train, include_extras=False)
    values = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in hints or name == "config":
            near = nearest(name, hints.keys() - {"config"})
            hint = f"; did you mean {near}?" if near else f"; the options are {', '.join(sorted(hints))}."
            raise ConfigError(f"{path}: unknown option {key} of funcnet train{hint}")
        values[name] = _typed(f"{path}: {key}", value, hints[name])
    return values


def _typed(where: str, value: Any, hint: Any) -> Any:
    """`value` as the type `hint` asks for, or a `ConfigError`."""
    (kind,) = [one for one in typing.get_args(hint) if one is not type(None)] if _is_optional(hint) else [hint]
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if value in choices:
            return value
        raise ConfigError(f"{where}: expected one of {', '.join(map(str, choices))}, got {value!r}.")
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list) and all(type(entry) is choices[0] for entry in value):
            return tuple(value)
        entries = "integers" if choices[0] is int else "texts"
        raise ConfigError(f"{where}: expected a list of {entries}, got {value!r}.")
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if type(value) is kind:
        return value
    wanted = "a number" if kind is float else f"a value of type {kind.__name__}"
    raise ConfigError(f"{where}: expected {wanted}, got {value!r}.")


def _is_optional(hint):
    return type(None) in typing.get_args(hint)


def kept(options: Train) -> dict[str, Any]:
    """The options that are kept with a run, as JSON holds them."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in plain.items()
        if name not in NOT_KEPT
    }


def write_config(options: Train, path: Path) -> None:
    """`options` as a TOML file that `read_config` reads back. It is written as a whole or not at all, and sealed."""
    from funcnet.checkpoints.files import write_whole  # only now: it imports jax

    lines = b"".join(_line(name, value) for name, value in kept(options).items() if value is not None)
    write_whole(path, _seal(lines) + lines)


def is_sealed(path: Path) -> bool:
    """Whether a file is as `write_config` wrote it."""
    with plain_file(path, links=True) as file:
        first, _, rest = file.read().partition(b"\n")
    return first + b"\n" == _seal(rest)


def _seal(lines: bytes) -> bytes:
    return f"# sha256 of the lines below: {hashlib.sha256(lines).hexdigest()}\n".encode()


def _line(name: str, value: Any) -> bytes:
    with translated(UnicodeError, ConfigError, f"{name}: expected text in UTF-8, got {value!r}", "rename it"):
        return f"{name} = {_toml(value)}\n".encode()


def _toml(value: Any) -> str:
    """A list, a truth value, a string or a number as TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # TOML writes strings and truth values as JSON does, but for DEL, and numbers as Python's repr does.
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")
    return repr(value)
