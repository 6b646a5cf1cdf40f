"""The options of a command as its dataclass declares them, and what a command line gives to each.

Nothing here imports jax: `funcnet --help` must answer at once.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tyro

from funcnet.errors import either, nearest

__all__ = ["Option", "about", "declared", "lacking", "problem"]


class Option(NamedTuple):
    """One option of a command, or what stands without a name."""

    field: str
    names: tuple[str, ...]  #: `--batch-size`, or `RUN` for what stands without a name
    kind: Any  #: of one value: int, float, str, bool or Path
    choices: tuple[str, ...]  #: all values, if there are only some
    several: bool  #: whether several values may follow
    default: Any  #: `dataclasses.MISSING` if it must be given
    positional: bool


def declared(command: Any) -> list[Option]:
    """The options of a command, those without a name first."""
    hints = typing.get_type_hints(command, include_extras=True)
    found = [_option(field, hints[field.name]) for field in dataclasses.fields(command)]
    return sorted(found, key=lambda option: not option.positional)


def about(command: type) -> tuple[str, str]:
    """What a command does, and an example of it."""
    words, _, example = (inspect.getdoc(command) or "").partition("\n\nExample: ")
    return words, example


def problem(command: Any, arguments: Sequence[str]) -> str:
    """What is wrong with the values of a command line, as the end of an error; empty if nothing is found.

    >>> from funcnet.cli.options import Check
    >>> problem(Check, ["dense", "--seeds", "two"])
    "expected --seeds to be an integer, got 'two'; funcnet check --help describes it."
    """
    given = [*_given(declared(command), arguments)]
    for option, name, values in given:
        wrong = next((value for value in values if not _fits(option, value)), None)
        if wrong is not None:
            near = nearest(wrong, option.choices)
            fix = f"did you mean {near}?" if near else _help(command)
            return f"expected {name} to be {_wanted(option)}, got {wrong!r}; {fix}"
    for option in declared(command):
        if option.default is dataclasses.MISSING and option not in [one for one, *_ in given]:
            return f"expected {option.names[0]}, got none; write for example {about(command)[1]}."
    return lacking(command, arguments)


def lacking(command: Any, arguments: Sequence[str]) -> str:
    """The end of an error if an option has no value behind it; tyro would treat it as not given."""
    for option, name, values in _given(declared(command), arguments):
        if not values and option.kind is not bool and option.default in ((), None):
            return f"expected a value after {name}, got none; {_help(command)}"
    return ""


def _help(command):
    return f"funcnet {command.__name__.lower()} --help describes it."


def _given(known: list[Option], arguments: Sequence[str]) -> Iterator[tuple[Option, str, list[str]]]:
    """`(option, name, values)` in their order. What no option takes is left out."""
    named = {name: option for option in known for name in option.names if not option.positional}
    places = [option for option in known if option.positional]
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        option = named.get(name.replace("_", "-"))
        if option is not None:
            values = [value] if equals else _taken(option, rest)
            yield option, name, values
        elif places and not _is_option(name):
            yield places[0], places[0].names[0], [name + equals + value]
            places = places if places[0].several else places[1:]


def _taken(option, rest):
    """The values after an option, taken off the arguments that are left."""
    most = len(rest) if option.several else option.kind is not bool
    count = next((i for i, word in enumerate(rest[:most]) if _is_option(word)), most)
    values, rest[:count] = rest[:count], []
    return values


def _is_option(word):
    return re.match(r"--?[^\d.]", word) is not None  # -1 is a value, and - the standard input


def _fits(option, value):
    if option.choices:
        return value in option.choices or (option.default is None and value == "None")
    if option.kind not in (int, float):
        return True
    try:
        option.kind(value)
    except ValueError:
        return option.default is None and value == "None"
    return True


def _wanted(option):
    if not option.choices:
        return {int: "an integer", float: "a number"}[option.kind]
    return either(option.choices)


def _option(field, hint) -> Option:
    said, kind = _said(hint), _plain(hint)
    several = typing.get_origin(kind) is tuple
    kind = _plain(typing.get_args(kind)[0] if several else kind)
    positional = typing.get_args(tyro.conf.Positional[int])[1] in getattr(hint, "__metadata__", ())
    own = said.get("metavar", field.name) if positional else "--" + said.get("name", field.name.replace("_", "-"))
    names = (*said.get("aliases", ()), own)
    return Option(field.name, names, kind, typing.get_args(kind), several, field.default, positional)


def _plain(hint):
    """A type without what is said about it, and without `None`."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = [one for one in typing.get_args(hint) if one is not type(None)]
    return hint


def _said(hint):
    """What `tyro.conf.arg` says of a field."""
    said = [one for one in getattr(hint, "__metadata__", ()) if hasattr(one, "metavar")]
    names = ("name", "metavar", "aliases")
    return {name: getattr(one, name) for one in said for name in names if getattr(one, name) is not None}
