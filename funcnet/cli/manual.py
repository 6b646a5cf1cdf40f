"""The help of the commands in Chinese. The English one is tyro's, which cannot measure Chinese characters."""

import ast
import dataclasses
import inspect
import json
import os
import sys
import textwrap
import typing
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from funcnet.cli import options
from funcnet.cli.declared import Option, about, declared

__all__ = ["is_chinese", "page", "texts_of"]

_KINDS = {bool: "", int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


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
        usage, (words, example) = "funcnet {命令} …", (description, "funcnet train --help")
        rows = [(name, chinese[about(one)[0]]) for name, one in commands.items()]
    else:
        usage, (words, example) = f"funcnet {arguments[0]} [选项]", about(kind)
        rows = [(name, chinese[text] + after) for name, text, after in _entries(kind)]
    table = _table([*rows, ("-h, --help", "显示这份说明并退出。")])
    head = f"用法：{usage}\n\n{chinese[' '.join(words.split())]}\n\n例：{example}\n"
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


def _entries(kind: Any):
    """`(name with values, text, default)` of each option, those without a name first."""
    texts = texts_of(kind)
    for option in declared(kind):
        default = " ".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
        after = "" if default in (None, "", False, dataclasses.MISSING) else f"（默认 {default}）"
        yield _name(option), texts[option.field], after


def _name(option: Option) -> str:
    """An option as it is written, with what may follow it."""
    one = "{" + ",".join(option.choices) + "}" if option.choices else _KINDS[option.kind]
    values = f"{one} …" if option.several else one
    if option.positional:
        return option.names[0] if option.names[0].isupper() else values
    return f"{', '.join(option.names)} {values}".rstrip()


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
