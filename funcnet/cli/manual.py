"""The help of the commands in Chinese. The English one is tyro's, which cannot measure Chinese characters."""

import ast
import dataclasses
import inspect
import json
import os
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import tyro

from funcnet.cli import options

__all__ = ["is_chinese", "page", "texts_of"]

_KINDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


def is_chinese() -> bool:
    """Whether `FUNCNET_LANG`, or without it the locale, asks for Chinese, and the terminal can show it."""
    names = ("FUNCNET_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    language = next((value for name in names if (value := os.environ.get(name))), "")
    try:
        "中".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeError:
        return False
    return language.lower().startswith("zh")


def page(arguments: Sequence[str], description: str) -> Any:
    """The help of the command that the arguments name, or of all commands, as rich prints it."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    chinese = json.loads(resources.files("funcnet.cli").joinpath("chinese.json").read_text("utf-8"))
    commands = {typing.get_args(one)[1].name: typing.get_args(one)[0] for one in typing.get_args(options.Command)}
    kind = commands.get(arguments[0]) if arguments else None
    if kind is None:
        usage, (about, example) = "funcnet {命令} …", (description, "funcnet train --help")
        rows = [(name, chinese[_about(one)[0]]) for name, one in commands.items()]
    else:
        usage, (about, example) = f"funcnet {arguments[0]} [选项]", _about(kind)
        rows = [(name, chinese[text] + after) for name, text, after in _entries(kind)]
    table = _table([*rows, ("-h, --help", "显示这份说明并退出。")])
    head = f"用法：{usage}\n\n{chinese[' '.join(about.split())]}\n\n例：{example}\n"
    return Group(Text(head), Padding(table, (0, 0, 0, 2)))


def texts_of(kind: type) -> dict[str, str]:
    """What the options of a command mean: the string below each field."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found


def _about(kind: type) -> tuple[str, str]:
    """What a command does, and an example of it."""
    about, _, example = (inspect.getdoc(kind) or "").partition("\n\nExample: ")
    return about, example


def _entries(kind: Any):
    """`(name with values, text, default)` of each option, those without a name first."""
    texts, hints = texts_of(kind), typing.get_type_hints(kind, include_extras=True)
    fields = sorted(dataclasses.fields(kind), key=lambda field: not _is_positional(hints[field.name]))
    for field in fields:
        hint, default = hints[field.name], field.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        after = "" if shown in (None, "", False, dataclasses.MISSING) else f"（默认 {shown}）"
        yield _name(field.name, hint), texts[field.name], after


def _name(name: str, hint: Any) -> str:
    """An option as it is written, with what may follow it."""
    said, values = _said(hint), _values(_plain(hint))
    if _is_positional(hint):
        return said.get("metavar", values)
    names = [*said.get("aliases", ()), "--" + said.get("name", name.replace("_", "-"))]
    return f"{', '.join(names)} {values}".rstrip()


def _values(kind: Any) -> str:
    several = typing.get_origin(kind) is tuple
    kind = _plain(typing.get_args(kind)[0] if several else kind)
    choices = typing.get_args(kind)
    one = "" if kind is bool else "{" + ",".join(choices) + "}" if choices else _KINDS[kind]
    return f"{one} …" if several else one


def _plain(hint: Any) -> Any:
    """A type without what is said about it, and without `None`."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = [one for one in typing.get_args(hint) if one is not type(None)]
    return hint


def _said(hint: Any) -> dict[str, Any]:
    """What `tyro.conf.arg` says of a field."""
    said = [one for one in getattr(hint, "__metadata__", ()) if hasattr(one, "metavar")]
    names = ("name", "metavar", "aliases")
    return {name: getattr(one, name) for one in said for name in names if getattr(one, name) is not None}


def _is_positional(hint: Any) -> bool:
    return typing.get_args(tyro.conf.Positional[int])[1] in getattr(hint, "__metadata__", ())


def _table(rows):
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(ratio=2)
    table.add_column(ratio=5)
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def _text(words):
    from rich.text import Text

    return Text(words, overflow="fold")
