"""Command lines as options, with errors of one line that name what may have been meant."""

import contextlib
import io
import sys
import typing
from collections.abc import Sequence
from typing import Any

import tyro

from funcnet.cli import options
from funcnet.cli.declared import declared, lacking, problem
from funcnet.errors import ConfigError, nearest
from funcnet.reading import shown

__all__ = ["completion", "parsed"]

_SHELLS = ("bash", "zsh", "fish", "tcsh")
_COMPLETION = "--tyro-print-completion"
_COMMANDS = {typing.get_args(one)[1].name: typing.get_args(one)[0] for one in typing.get_args(options.Command)}


def parsed(kind: Any, arguments: Sequence[str], prog: str, **more: Any) -> Any:
    """The options of a command, or of the command that the first argument names.

    Raises:
        ConfigError: an option or a command that there is not, or a value that an option does not take.
    """
    command, given = kind, arguments
    if kind is options.Command and arguments[0] not in ("-h", "--help", _COMPLETION):
        command, given = _command(arguments), arguments[1:]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found, unknown = tyro.cli(kind, args=arguments, return_unknown_args=True, prog=prog, **more)
    except SystemExit as end:
        if end.code == 2 and (wrong := problem(command, given)):
            raise ConfigError(f"{_spelled(command)}: {wrong}") from None
        sys.stderr.write(shown(said.getvalue()))  # it repeats arguments as they are, also what steers a terminal
        raise
    if unknown:
        name = next((one for one in unknown if one.startswith("-")), unknown[0])
        fix = _suggestion(name, command) or f"{_spelled(command)} --help lists the options."
        raise ConfigError(f"{_spelled(command)}: unknown option {name!r}; {fix}")
    if wrong := lacking(command, given):
        raise ConfigError(f"{_spelled(command)}: {wrong}")
    return found


def completion(arguments: Sequence[str]) -> list[str]:
    """What tyro takes in place of `--completion bash`.

    Raises:
        ConfigError: a shell that it does not know, or none.
    """
    (shell, *_) = [*"=".join(arguments).split("=")[1:], ""]
    if shell not in _SHELLS:
        near = nearest(shell, _SHELLS)
        fix = f"did you mean {near}?" if near else "write funcnet --completion bash."
        raise ConfigError(f"funcnet --completion: expected {', '.join(_SHELLS)}, got {shell or 'none'}; {fix}")
    return [_COMPLETION, shell]


def _command(arguments):
    """The class of the options of the command that is named first."""
    first = arguments[0]
    if first not in _COMMANDS:
        what = "option" if first.startswith("-") else "command"
        near = nearest(first, _COMMANDS)
        fix = f"did you mean {near}?" if near else f"the commands are {', '.join(_COMMANDS)}."
        raise ConfigError(f"funcnet: unknown {what} {first!r}; {fix}")
    return _COMMANDS[first]


def _spelled(command):
    return f"funcnet {command.__name__.lower()}"


def _suggestion(name: str, command: Any) -> str:
    """The options that may have been meant: similar ones, with these initials, or with this word in them."""
    known = [option.names[-1].lstrip("-") for option in declared(command) if not option.positional]
    word = name.lstrip("-").partition("=")[0].replace("_", "-")
    with_initials = [one for one in known if "".join(part[0] for part in one.split("-")) == word]
    with_word = [one for one in known if len(word) > 2 and word in one.split("-")]
    similar = [near] if (near := nearest(word, known)) else []
    likely = dict.fromkeys([*with_initials, *similar, *with_word])
    return f"did you mean {' or '.join(f'--{one}' for one in [*likely][:3])}?" if likely else ""
