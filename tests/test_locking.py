"""One process writes into a folder at a time, and what it has not written yet when its program ends is written."""

import os
import re
import signal
import socket
import subprocess
import sys

import jax.numpy as jnp
import pytest

import funcnet as fn
from funcnet.checkpoints import save, saving, steps, verify
from funcnet.checkpoints.locking import HOLDER, held
from funcnet.cli import main
from funcnet.errors import CheckpointError, MissingExtraError

WRITER = """
import sys, pathlib
from funcnet.checkpoints.locking import held
with held("train", pathlib.Path(sys.argv[1])):
    print("holds it", flush=True)
    sys.stdin.read()
"""


def report(step, value=0.0):
    return fn.Report(step, step, {}, {"a": jnp.full(3, value)})


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path, capsys):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "holds it\n"
    half_written = tmp_path / "00000001.tmp-01234567"  # which a start takes away if nobody writes it
    half_written.mkdir()
    got = f"process {writer.pid} on {re.escape(socket.gethostname())} since 20..-..-.. ..:..:..[+]00:00"
    refused = f"expected no other process to write there, got {got}; wait for its end, or choose another folder"
    for name, call in {"save": save, "saving": saving}.items():
        with pytest.raises(CheckpointError, match=rf"checkpoints.{name}\('.*'\): {refused}"):
            call(tmp_path, report(1)) if call is save else call(iter([]), tmp_path)
    assert main(["train", "--model", "linear", "--output", str(tmp_path)]) == 5
    assert re.match(f"funcnet: {re.escape(str(tmp_path))}: {refused}", capsys.readouterr().err)
    for put in (lambda path: None, os.mkfifo):  # as before it is written, and a pipe, which would never end
        (tmp_path / HOLDER).unlink(missing_ok=True)
        put(tmp_path / HOLDER)
        with pytest.raises(CheckpointError, match="got one that has just begun; wait for its end"):
            saving(iter([]), tmp_path)
    assert half_written.exists()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    saving(iter([]), tmp_path)
    assert os.listdir(tmp_path) == [".lock"]


def test_a_process_shares_its_lock_and_gives_it_back(tmp_path):
    with held("train", tmp_path):
        reports = saving(iter([report(1), report(2)]), tmp_path)
        next(reports)
        save(tmp_path, report(7))
        reports.close()
        save(tmp_path, report(8))
        assert (tmp_path / HOLDER).exists()
    never_read = saving(iter([report(9)]), tmp_path)
    assert (tmp_path / HOLDER).exists()
    del never_read
    assert not (tmp_path / HOLDER).exists()
    assert steps(tmp_path) == [1, 7, 8]


def test_the_package_that_locks(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingExtraError, match=r"save\('.*'\): expected the package filelock.*funcnet\[checkpoint\]"):
        save(tmp_path, report(1))


ENDING = """
import sys, jax.numpy as jnp, funcnet as fn
def reports(size):
    for step in range(100):
        yield fn.Report(step, step, {}, {"a": jnp.ones(size)})
between, written = (fn.checkpoints.saving(reports(size), sys.argv[1] + name, every=every)
                    for name, size, every in (("/between", 3, 50), ("/written", 3_000_000, 1)))
for number in range(3):
    next(between), next(written)
"""


def test_a_program_that_ends_has_its_last_reports_on_disk(tmp_path):
    """One that is not due yet, and one that is being written."""
    done = subprocess.run([sys.executable, "-c", ENDING, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name, found in {"between": [2], "written": [0, 1, 2]}.items():
        assert [(verdict.step, verdict.problem) for verdict in verify(tmp_path / name)] == [(n, None) for n in found]
