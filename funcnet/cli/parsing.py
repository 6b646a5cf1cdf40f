"""Command lines as options, with errors that name the option which may have been meant."""

import contextlib
import dataclasses
import difflib
import io
import sys
import typing
from collections.abc import Sequence
from typing import Any

import tyro

from funcnet.cli import options
from funcnet.errors import ConfigError
from funcnet.reading import shown

__all__ = ["parsed"]

_COMMANDS = tuple(typing.get_args(member)[1].name for member in typing.get_args(options.Command))


def parsed(kind: Any, arguments: Sequence[str], prog: str, **more: Any) -> Any:
    """The options of a command, or of the command that the first argument names.

    Raises:
        ConfigError: an option or a command that there is not. For a wrong value tyro ends the program.
    """
    first = arguments[0] if arguments else "--help"
    if kind is options.Command and not first.startswith("-") and first not in _COMMANDS:
        fix = _nearest(first, _COMMANDS) or f"the commands are {', '.join(_COMMANDS)}."
        raise ConfigError(f"funcnet: unknown command {first!r}; {fix}")
    found, unknown = _parsed(kind, arguments, prog=prog, **more)
    if unknown:
        name = next((one for one in unknown if one.startswith("-")), unknown[0])
        command = f"funcnet {type(found).__name__.lower()}"
        fix = _suggestion(name, found) or f"{command} --help lists the options."
        raise ConfigError(f"{command}: unknown option {name!r}; {fix}")
    return found


def _parsed(kind, arguments, **more):
    """What tyro makes of arguments. It repeats wrong ones as they are, also what steers a terminal."""
    if all(map(str.isprintable, arguments)):
        return tyro.cli(kind, args=arguments, return_unknown_args=True, **more)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=arguments, return_unknown_args=True, **more)
    finally:
        sys.stderr.write(shown(said.getvalue()))


def _suggestion(name: str, found: Any) -> str:
    """The options that may have been meant: similar ones, with these initials, or with this word in them."""
    known = [field.name.replace("_", "-") for field in dataclasses.fields(found)]
    word = name.lstrip("-").partition("=")[0].replace("_", "-")
    with_initials = [one for one in known if "".join(part[0] for part in one.split("-")) == word]
    with_word = [one for one in known if len(word) > 2 and word in one.split("-")]
    likely = dict.fromkeys([*with_initials, *difflib.get_close_matches(word, known, n=1), *with_word])
    return f"did you mean {' or '.join(f'--{one}' for one in [*likely][:3])}?" if likely else ""


def _nearest(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {near[0]}?" if near else ""
