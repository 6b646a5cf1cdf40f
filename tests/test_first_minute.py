"""The first minute of a command: something on the screen at once, what it does meanwhile, programs that are kept."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
from filelock import FileLock
from rich.progress import Progress

import funcnet as fn
from funcnet.training import progress
from funcnet.training.reports import Position, Reports

ASKED = """
from funcnet.cli.cache import keep_programs
import jax
keep_programs()
print(jax.config.jax_compilation_cache_dir)
"""


def environment(**more):
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_C", "JAX_PERS", "FUNCNET"))}
    return {**mine, **{name: str(value) for name, value in more.items()}}


def kept_in(**more):
    """The folder that a process keeps its programs in, and what it says on stderr."""
    call = [sys.executable, "-c", ASKED]
    process = subprocess.run(call, env=environment(**more), capture_output=True, text=True, check=True)
    return process.stdout.strip(), process.stderr


def test_a_terminal_shows_something_before_jax_is_there(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "funcnet.cli", "summary", "--model", "linear"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environment(FUNCNET_CACHE="off", TERM="xterm"),
    )  # fmt: skip
    os.close(theirs)
    first = os.read(ours, 4096).decode()
    while "loading jax" not in first:
        first += os.read(ours, 4096).decode()
    assert b"dense(10)" in process.communicate()[0]
    assert process.returncode == 0
    os.close(ours)


def test_elsewhere_nothing_of_it_is_written():
    call = [sys.executable, "-m", "funcnet.cli", "summary", "--model", "linear"]
    process = subprocess.run(call, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert "loading" not in process.stdout


def test_programs_are_kept_where_only_the_user_writes(tmp_path):
    folder, said = kept_in(XDG_CACHE_HOME=tmp_path)
    assert said == ""
    assert folder.startswith(str(tmp_path / "funcnet" / "programs-"))
    assert (tmp_path / "funcnet").stat().st_mode & 0o777 == 0o700
    old, foreign = tmp_path / "funcnet" / "programs-000000000000", tmp_path / "funcnet" / "mine"
    for path in (old, foreign):
        path.mkdir()
        os.utime(path, (0, 0))
    assert kept_in(XDG_CACHE_HOME=tmp_path) == (folder, "")
    assert (old.exists(), foreign.exists()) == (False, True)


def test_another_folder_or_none(tmp_path):
    assert kept_in(FUNCNET_CACHE=tmp_path)[0].startswith(str(tmp_path / "programs-"))
    assert kept_in(FUNCNET_CACHE="off") == ("None", "")
    assert kept_in(FUNCNET_CACHE=tmp_path, JAX_COMPILATION_CACHE_DIR=tmp_path / "own") == (str(tmp_path / "own"), "")


def test_a_folder_that_cannot_be_used_is_named_and_harms_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, problem in {"file": "File exists", "open": "expected a folder that only you can write to"}.items():
        folder, said = kept_in(FUNCNET_CACHE=tmp_path / name)
        assert folder == "None"
        assert said.startswith("funcnet: compiled programs are not kept: ")
        assert problem in said
        assert str(tmp_path / name) in said


def test_damaged_programs_are_compiled_anew(tmp_path):
    call = [sys.executable, "-m", "funcnet.cli", "check", "mean_squared_error", "--most", "4"]
    for damage in (False, True):
        process = subprocess.run(call, env=environment(FUNCNET_CACHE=tmp_path), capture_output=True, text=True)
        assert (process.returncode, process.stderr) == (0, ""), damage
        entries = [path for path in tmp_path.glob("programs-*/*") if path.name.endswith("-cache")]
        assert entries
        for path in entries:
            path.write_bytes(path.read_bytes()[:50])


def test_programs_that_were_left_unfinished_are_removed(tmp_path):
    folder = Path(kept_in(FUNCNET_CACHE=tmp_path)[0])
    for name in ("whole-cache", "whole-atime", "half-cache"):  # jax writes the time of a program last
        (folder / name).write_bytes(b"12345678")
    assert kept_in(FUNCNET_CACHE=tmp_path) == (str(folder), "")
    assert sorted(os.listdir(folder)) == [".lockfile", "whole-atime", "whole-cache"]


def test_a_folder_that_another_process_does_not_let_go_of_is_not_used(tmp_path):
    folder = Path(kept_in(FUNCNET_CACHE=tmp_path)[0])
    with FileLock(folder / ".lockfile"):
        used, said = kept_in(FUNCNET_CACHE=tmp_path)
    assert used == "None"
    assert f"'{folder / '.lockfile'}' could not be acquired; FUNCNET_CACHE=off is quiet." in said


# Ctrl-C


BUSY = """
import hashlib, signal
from funcnet import training
from funcnet.cli.answering import answering
signal.signal(signal.SIGINT, signal.SIG_DFL)
with answering(), training.stop_on_signals():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # as in a compilation, no handler of Python runs for minutes
"""


def test_ctrl_c_is_answered_while_a_program_compiles_and_a_second_one_ends_it():
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "busy\n"
    time.sleep(0.5)  # until it is busy
    process.send_signal(signal.SIGINT)
    words = "funcnet: SIGINT: stopping after the work under way; a second one ends it at once\n"
    assert process.stderr.readline() == words
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "")
    assert process.returncode in (130, -signal.SIGINT)  # the latter if Python had still handled the first one


# The bar


def test_fit_says_how_far_it_is_between_reports():
    x = jnp.ones((6, 1))
    reports = fn.training.fit(
        fn.layers.dense(1), fn.losses.mean_squared_error, fn.optimizers.sgd(0.1), (x, x), epochs=2, batch_size=2
    )
    assert (reports.position.step, reports.position.steps) == (0, 6)
    assert [(report.step, reports.position.step) for report in reports] == [(3, 3), (6, 6)]
    batches = fn.training.fit(
        fn.layers.dense(1), fn.losses.mean_squared_error, fn.optimizers.sgd(0.1), [(x, x)], epochs=1
    )
    assert batches.position.steps is None
    list(batches)


@pytest.mark.parametrize(
    "steps, seen",
    [
        (8, {(0, "compiling"), (3, "epoch 1/1"), (8, "epoch 1/1  loss 1")}),
        (None, {(0, "compiling"), (0, "step 3"), (1, "epoch 1/1  loss 1")}),
    ],
)
def test_a_bar_moves_with_the_steps(monkeypatch, steps, seen):
    shown, update = set(), Progress.update

    def watched(self, task, *, completed, description):
        shown.add((completed, description))
        update(self, task, completed=completed, description=description)

    monkeypatch.setattr(Progress, "update", watched)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    position = Position(0, steps)

    def slow():
        position.step = 3
        for _ in range(100):  # until the thread that draws has looked
            time.sleep(0.05)
            if len(shown) == 2:
                break
        yield fn.Report(1, 8, {"loss": 1.0}, None)
        position.step = 8

    list(progress(Reports(slow(), "fit", 1, position)))
    assert shown == seen


@pytest.mark.parametrize("width", ["60", "80"])
def test_a_narrow_terminal_shows_the_score(width, monkeypatch, capsys):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", width)
    metrics = {"loss": 0.0017834, "accuracy": 0.98765, "validation_loss": 1.0}
    reports = (fn.Report(i, 100 * i, metrics, None) for i in (1, 30))
    list(progress(reports, epochs=30))
    numbers = {"60": "loss 0.00178  accuracy 0.988", "80": "loss 0.001783  accuracy 0.9877"}[width]
    lines = [re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]", capsys.readouterr().out)]
    shown = [line for line in lines if f"epoch 30/30  {numbers} ━" in line]
    assert shown
    assert max(map(len, shown)) <= int(width)


def test_a_narrow_terminal_keeps_the_bar(monkeypatch, capsys):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", "40")
    reports = (fn.Report(i, i, {"loss": 0.12345, "accuracy": 0.5, "validation_loss": 1.0}, None) for i in (1, 2))
    list(progress(reports, epochs=2))
    last = re.split(r"[\r\n]", capsys.readouterr().out.rstrip())[-2:]
    shown = [re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", line) for line in last]
    assert any("epoch 2/2" in line and "━" in line and len(line) <= 40 for line in shown), shown
