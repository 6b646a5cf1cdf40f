"""The progress bar: reports pass through unchanged, lines in a file, a bar in a terminal, the end."""

import io
import sys
from contextlib import closing

import jax.numpy as jnp
import pytest
from rich.console import Console

from funcnet import layers, losses, optimizers, training
from funcnet.errors import ConfigError, MissingExtraError
from funcnet.training import progress
from funcnet.training.reports import Position, Reports
from funcnet.types import Report

RUN = layers.dense(1), losses.mean_squared_error, optimizers.sgd(0.1), (jnp.ones((4, 2)), jnp.zeros((4, 1)))


def reports(n, closed=None):
    try:
        for i in range(n):
            matrix = jnp.ones((2, 2))
            yield Report(i + 1, 5 * i + 5, {"loss": jnp.array(2.0 / (i + 1)), "confusion": matrix, "a": 0.5}, None)
    finally:
        if closed is not None:
            closed.append(True)


def test_lines_now_and_then():
    file, given = io.StringIO(), list(reports(4))
    assert list(progress(iter(given), every=1000.0, file=file)) == given
    assert file.getvalue() == "epoch 1  step 5  loss 2  a 0.5\nepoch 4  step 20  loss 0.5  a 0.5\n"
    file = io.StringIO()
    list(progress(reports(3), epochs=3, every=0.0, file=file))
    assert [line.split("  ")[0] for line in file.getvalue().splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    file = io.StringIO()
    assert list(progress(iter(()), file=file)) == []
    assert file.getvalue() == ""


def test_fit_says_how_many_epochs_there_are():
    file = io.StringIO()
    *_, last = progress(training.fit(*RUN, epochs=3), every=0.0, file=file)
    assert last.epoch == 3
    assert [line.split("  ")[0] for line in file.getvalue().splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_network_of_many_arrays_is_told_before_it_compiles(monkeypatch, terminal):
    """300 layers take minutes. `fit` counts the arrays, and whatever shows its reports tells."""
    with closing(training.fit(*RUN, epochs=1)) as run:
        assert run.position.arrays == 2
    for arrays, told in ((200, False), (201, True)):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=150, force_jupyter=False)
        monkeypatch.setattr("rich.console.Console", lambda file, console=console: console)
        shown = progress(Reports(reports(2), "fit", 2, Position(0, 10, arrays)))
        next(shown)
        said = f"compiling a network with {arrays} arrays of parameters, which may take minutes"
        assert (said in file.getvalue()) == told
        shown.close()


@pytest.mark.parametrize("total", [None, 3])
def test_a_bar_in_a_terminal(monkeypatch, total):
    file = io.StringIO()
    terminal = Console(file=file, force_terminal=True, width=100, force_jupyter=False)
    monkeypatch.setattr("rich.console.Console", lambda file: terminal)
    seen = [report.epoch for report in progress(reports(3), epochs=total)]
    assert seen == [1, 2, 3]
    text = file.getvalue()
    assert "compiling" in text
    assert (f"epoch 3/{total}" if total else "epoch 3  ") in text
    assert "loss 0.6667" in text
    assert ("remaining" in text) == bool(total)


def test_it_closes_the_run_that_it_shows():
    closed = []
    shown = progress(reports(9, closed), file=io.StringIO())
    next(shown)
    shown.close()
    assert closed == [True]
    closed.clear()
    shown = progress(reports(9, closed), file=io.StringIO())
    next(shown)
    with pytest.raises(KeyError, match="mine"):
        shown.throw(KeyError("mine"))
    assert closed == [True]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 0}, "^progress: expected epochs to be a positive integer, got 0"),
        ({"every": -1}, "^progress: expected every to be a finite number >= 0, got -1"),
    ],
)
def test_impossible_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        progress(reports(1), **options)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(MissingExtraError, match=r"^progress: .*pip install 'funcnet\[cli\]'"):
        progress(reports(1))
