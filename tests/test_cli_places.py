"""The command line in odd places: names that steer a terminal or are too long, full disks, ASCII terminals."""

import os
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from funcnet.cli import config_file, main, options, tables
from funcnet.errors import ConfigError
from funcnet.reading import shown

LONG = "n" * 300
HOSTILE = "a\x1b[31m[/b]\x7f\udcff"
ESCAPED = r"a\x1b[31m[/b]\x7f\udcff"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", f"{LONG}.npz"], ["train", "--output", LONG], ["train", "--resume", LONG],
        ["train", "--config", LONG], ["train", "--data", "mnist", "--folder", LONG], ["evaluate", LONG],
        ["predict", LONG, "rows.npy"], ["report", LONG], ["export", LONG], ["summary", "--data", LONG],
        ["checkpoints", "list", LONG], ["check", "relu", "--html", LONG], ["check", f"{LONG}.py:x"],
        ["launch", "-n", "1", "--", "train", "--output", LONG],
    ],
)  # fmt: skip
def test_a_name_that_is_too_long_is_named(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.zeros((1, 2)))
    assert main(arguments) in (2, 4)
    assert LONG in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", HOSTILE], ["train", "--resume", HOSTILE], ["train", "--config", HOSTILE],
        ["evaluate", HOSTILE], ["predict", "run", HOSTILE], ["report", HOSTILE], ["export", HOSTILE],
        ["summary", "--data", HOSTILE], ["checkpoints", "list", HOSTILE], ["check", HOSTILE],
        ["check", "relu", "--html", f"{HOSTILE}/page.html"],
    ],
)  # fmt: skip
def test_a_name_cannot_steer_the_terminal(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (2, 4, 5)
    said = capsys.readouterr().err
    assert ESCAPED in said
    assert said.replace("\n", "").isprintable()


def test_titles_show_names_as_they_are(capsys):
    Console(width=80).print(tables.new_table(HOSTILE, "a heading wider than the title " * 2))
    assert ESCAPED in capsys.readouterr().out


def test_what_is_shown():
    assert shown("Größe 語\n") == "Größe 語\n"
    assert shown("\r\u202e\x9b\udc80") == r"\r\u202e\x9b\udc80"


def test_text_that_a_file_of_options_can_hold(tmp_path):
    file = tmp_path / "config.toml"
    config_file.write_config(options.Train(data='\x7f\x1b\n"\\ü'), file)
    assert config_file.read_config(file)["data"] == '\x7f\x1b\n"\\ü'
    with pytest.raises(ConfigError, match=r"data: expected text in UTF-8, got 'a\\udcff': .*; rename it"):
        config_file.write_config(options.Train(data="a\udcff"), tmp_path / "other.toml")
    assert not (tmp_path / "other.toml").exists()


def run(*arguments, **process):
    command = [sys.executable, "-m", "funcnet.cli", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, **process)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_a_full_disk_behind_the_output_is_named(arguments):
    with open("/dev/full", "w") as full:
        done = run(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (2, "funcnet: [Errno 28] No space left on device; free some space.\n")


def test_an_ascii_terminal_gets_escapes(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    done = run("summary", "--model", "mlp", "--data", "ü.npz", env=environment, stdout=subprocess.PIPE, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(r"funcnet: \xfc.npz: expected")


def test_a_working_folder_that_is_gone_is_named(tmp_path, monkeypatch, capsys):
    place = tmp_path / "gone"
    place.mkdir()
    monkeypatch.chdir(place)
    place.rmdir()
    assert main(["check", "layers.py:mine"]) == 2
    assert "change to a folder that exists" in capsys.readouterr().err
