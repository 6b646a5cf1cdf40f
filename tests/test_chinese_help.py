"""The help of the commands in Chinese has all that the English one has, and says when it does."""

import io
import json
import re
import sys
import typing
from importlib import resources

import pytest
from rich.console import Console

from funcnet.cli import DESCRIPTION, main, manual, options

CHINESE = json.loads(resources.files("funcnet.cli").joinpath("chinese.json").read_text("utf-8"))
COMMANDS = {typing.get_args(one)[1].name: typing.get_args(one)[0] for one in typing.get_args(options.Command)}


def printed(*arguments):
    file = io.StringIO()
    Console(file=file, width=80).print(manual.page(arguments, DESCRIPTION))
    return file.getvalue()


def test_every_text_is_translated_and_nothing_else():
    texts = {" ".join(DESCRIPTION.split())}
    for kind in COMMANDS.values():
        texts |= {kind.__doc__.partition("\n")[0], *manual.texts_of(kind).values()}
    missing, unused = texts - CHINESE.keys(), CHINESE.keys() - texts
    assert not missing, f"translate these texts in funcnet/cli/chinese.json: {missing}"
    assert not unused, f"these texts have changed or are gone, so bring their translation in step: {unused}"


@pytest.mark.parametrize("text", CHINESE)
def test_names_of_options_and_files_are_the_same(text):
    for word in ("--", ".csv", ".npz", ".toml", "runs/001", "mnist", "8,12:int32"):
        assert (word in text) == (word in CHINESE[text]), word


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_names_every_option(command, monkeypatch, capsys):
    """Those that the English page names."""
    page = printed(command)
    assert page.startswith(f"用法：funcnet {command} [选项]\n")
    assert "例：funcnet " + command in page
    monkeypatch.setenv("FUNCNET_LANG", "en")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    pages = [re.sub(r"--no-[a-z-]+", "", one) for one in (capsys.readouterr().out, page)]
    english, chinese = (set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", one)) for one in pages)
    assert english == chinese


def test_the_page_of_all_commands(monkeypatch, capsys):
    monkeypatch.setenv("FUNCNET_LANG", "zh")
    assert main([]) == main(["--help"]) == 0
    assert main(["launch", "-h", "--", "train", "--epochs", "1"]) == 0
    first, *others = capsys.readouterr().out.split("用法：")[1:]
    assert first == others[0]
    assert all(f"  {command} " in first for command in COMMANDS)
    assert others[1].startswith("funcnet launch [选项]")


@pytest.mark.parametrize(
    "variables, encoding, chinese",
    [
        ({"LANG": "zh_CN.UTF-8"}, "utf-8", True),
        ({"LANG": "zh_TW.UTF-8", "LC_ALL": "de_DE.UTF-8"}, "utf-8", False),
        ({"LANG": "de_DE.UTF-8", "LC_MESSAGES": "zh_CN.GBK"}, "gbk", True),
        ({"LANG": "zh_CN.UTF-8", "FUNCNET_LANG": "en"}, "utf-8", False),
        ({"LANG": "en_US.UTF-8", "FUNCNET_LANG": "zh"}, "utf-8", True),
        ({"FUNCNET_LANG": "zh"}, "ascii", False),
        ({}, "utf-8", False),
    ],
)
def test_who_gets_chinese(monkeypatch, variables, encoding, chinese):
    for name in ("FUNCNET_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert manual.is_chinese() is chinese
