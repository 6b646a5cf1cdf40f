"""The report of a gradient check in words and as a page, and the check as a line of a test file."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import metadata

import jax
import jax.numpy as jnp
import pytest
from matplotlib.figure import Figure

from funcnet import layers, plotting
from funcnet.checking import GradientReport, Row, Score, check_gradients, gradient_test
from funcnet.checking.page import Outcome, page
from funcnet.errors import GradientError

X = jax.ShapeDtypeStruct((3, 4), jnp.float32)
RIGHT = Row(
    target="serial", mode="training", dtype="float64", leaf="params/0/kernel", engines=("backprop", "autodiff"),
    size=12, checked=12, kinks=0, error=2e-16, worst=(1, 0), values=(0.5, 0.5), ulps=1.0, verdict="right",
)  # fmt: skip
OPEN = RIGHT._replace(leaf="x", error=3e-4, verdict="not decided", reason="rounding could hide a mistake")
WRONG = RIGHT._replace(
    leaf="params/1/bias", error=0.01, values=(1.01, 1.0), ulps=4.5e13, verdict="wrong", reason="3 of 12 elements",
)  # fmt: skip
NUMERIC = RIGHT._replace(engines=("backprop", "numeric"), error=3e-12, kinks=2)
GOOD = GradientReport((RIGHT, NUMERIC), (), "numeric derivatives at all 12 elements")
BAD = GradientReport((RIGHT, WRONG), ("serial[1] dense(3)", "serial[0] <b>"), "every element compared")


class Reader(HTMLParser):
    """The cells of each table's rows, the texts of marked elements, and whether every tag is closed in its order."""

    VOID = {"meta", "use", "path", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.marked, self.tags = [], [], {}, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes).get("class")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][0] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open:
            self.marked.setdefault(self.open[-1][1] or self.open[-1][0], []).append(data)


def test_a_row_in_words():
    assert WRONG.cells() == {
        "": "WRONG", "mode": "training", "dtype": "float64", "leaf": "params/1/bias",
        "engines": "backprop / autodiff", "checked": "12 of 12", "kinks": "", "error": "1.0e-02",
        "worst element": "[1, 0]", "values": "1.01 / 1", "ulps": "4.5e+13",
    }  # fmt: skip
    assert RIGHT._replace(worst=None, values=None, ulps=float("inf")).cells()["ulps"] == "∞"


def test_a_report_in_words():
    lines = str(BAD).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["ok", "WRONG", "params/1/bias,", "wrong", "serial:"]
    assert lines[-2] == "wrong formula: serial[1] dense(3) (then serial[0] <b>)"
    assert lines[-1] == "serial: every element compared; FAILED"
    with pytest.raises(GradientError, match=r"serial: the hand-derived gradient is wrong\.\n"):
        BAD.raise_if_failed()


def test_what_is_not_decided_is_said_in_other_words():
    report = GradientReport((RIGHT, OPEN), (), "every element compared")
    assert (report.verdict, report.ok, report.worst) == ("not decided", False, OPEN)
    assert report.reasons == ["x, backprop / autodiff in training: rounding could hide a mistake"]
    assert [line.split()[0] for line in str(report).splitlines()[2:4]] == ["ok", "NOT"]
    assert str(report).splitlines()[-1] == "serial: every element compared; NOT DECIDED"
    with pytest.raises(GradientError, match=r"serial: it is not decided whether the hand-derived gradient is right; "):
        report.raise_if_failed()
    assert [report.to_dict()[name] for name in ("ok", "verdict")] == [False, "not decided"]
    read = Reader(report.to_html())
    assert read.marked["wrong"] == ["it is not decided whether the hand-derived gradient is right"]
    assert GradientReport((OPEN, WRONG), (), "").verdict == "wrong"
    assert GradientReport((OPEN,), ("dense(3)",), "").verdict == "wrong"
    outcomes = [Outcome("fine", GOOD), Outcome("open", report), Outcome("bad", BAD), Outcome("worse", BAD)]
    assert [outcome.verdict() for outcome in outcomes] == ["ok", "NOT DECIDED", "WRONG", "WRONG"]
    assert Reader(page(outcomes)).marked["wrong"][0] == "2 of 4 wrong, 1 of 4 not decided"


def test_a_page_says_what_is_wrong_and_where():
    read = Reader(BAD.to_html())
    assert [row[0] for row in read.rows[1:]] == ["WRONG", "ok"]  # failing rows first
    assert read.rows[0] == list(WRONG.cells())
    assert read.rows[1] == list(WRONG.cells().values())
    assert read.marked["wrong"] == ["the hand-derived gradient is wrong"]
    assert read.marked["place"] == [
        "wrong formula: serial[1] dense(3) (then serial[0] <b>)",  # escaped
        "params/1/bias, backprop / autodiff in training: 3 of 12 elements",
    ]
    assert read.marked["h1"] == ["Gradients of serial"]
    environment, sampling = read.marked["quiet"]
    assert sampling == "every element compared"
    for words in (f"funcnet {metadata.version('funcnet')}", f"jax {jax.__version__}", "cpu"):
        assert words in environment
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC$", environment)


def test_a_good_page_is_quiet():
    read = Reader(GOOD.to_html())
    assert read.marked["ok"] == ["all gradients agree"]
    assert "wrong" not in read.marked
    assert "place" not in read.marked


def test_a_page_stands_by_itself():
    figure = plotting.gradient_errors(BAD)
    assert isinstance(figure, Figure)
    read = Reader(BAD.to_html(figure))
    names = {tag for tag, _ in read.tags}
    assert "svg" in names
    assert not names & {"script", "link", "img", "iframe"}
    addresses = [
        value for _, given in read.tags for key, value in given.items() if key in ("href", "xlink:href", "src")
    ]
    assert [address for address in addresses if not address.startswith("#")] == []
    assert "<?xml" not in BAD.to_html(figure)


def test_a_notebook_shows_the_same_table():
    assert Reader(BAD._repr_html_()).rows == Reader(BAD.to_html()).rows
    assert "<html" not in BAD._repr_html_()


SCORE = Score("serial", 3, ("training dy shuffled",), ("training x: zeroed",))
OUTCOMES = [
    Outcome("fine", GOOD, SCORE._replace(missed=())),
    Outcome("missed", GOOD, SCORE),
    Outcome("<broken>", problem="broken.backward: params/bias is missing"),
    Outcome("mistaken", BAD, SCORE._replace(missed=())),
]


def test_outcomes_in_a_line():
    assert [outcome.ok for outcome in OUTCOMES] == [True, False, False, False]
    assert [tuple(outcome.cells().values()) for outcome in OUTCOMES] == [
        ("ok", "fine", "1", "2.0e-16", "3.0e-12", "2", "3", "3", "1"),
        ("MISSED", "missed", "1", "2.0e-16", "3.0e-12", "2", "3", "4", "1"),
        ("WRONG", "<broken>", "0", "", "", ""),
        ("WRONG", "mistaken", "2", "1.0e-02", "", "", "3", "3", "1"),
    ]
    assert list(OUTCOMES[0].cells())[1:] == [
        "target", "leaves", "autodiff", "numeric", "kinks", "caught", "made", "equivalent",
    ]  # fmt: skip


def test_a_page_of_several_targets():
    read = Reader(page(OUTCOMES[2:] + OUTCOMES[:2]))
    assert read.marked["h1"] == ["Gradients of 4 targets"]
    assert read.marked["wrong"][0] == "2 of 4 wrong, 1 of 4 missed"
    assert [row[:2] for row in read.rows[1:5]] == [
        ["WRONG", "<broken>"], ["WRONG", "mistaken"], ["MISSED", "missed"], ["ok", "fine"],
    ]  # fmt: skip
    assert {len(row) for row in read.rows[:5]} == {9}
    assert read.marked["place"] == [
        "broken.backward: params/bias is missing",
        "wrong formula: serial[1] dense(3) (then serial[0] <b>)",
        "params/1/bias, backprop / autodiff in training: 3 of 12 elements",
        "missed: training dy shuffled",
    ]
    assert ["open" in given for tag, given in read.tags if tag == "details"] == [True, True, True, False]


def test_one_missed_mutant_is_named_as_such():
    assert Reader(page([OUTCOMES[1]])).marked["wrong"] == ["a mutant was missed"]
    assert "serial: 3 of 4 mutants caught, 1 equivalent" in page([OUTCOMES[1]])


def test_a_real_report_is_a_page():
    report = check_gradients(layers.tanh(), X, engines=("backprop", "autodiff"), modes=("training",))
    read = Reader(report.to_html())
    assert len(read.rows) == 2
    assert read.marked["h1"] == ["Gradients of tanh()"]


# In a test file of the user's.

TEST_FILE = """
import jax, jax.numpy as jnp
import funcnet as fn

x = jax.ShapeDtypeStruct((3, 4), jnp.float32)


@fn.constructor
def wave():
    return fn.layers.elementwise(jnp.sin, lambda x, y: -jnp.cos(x), keep="x")


wrong = wave()
options = {"engines": ("backprop", "autodiff"), "modes": ("training",)}

test_tanh = fn.checking.gradient_test(fn.layers.tanh(), x, **options)
test_loss = fn.checking.gradient_test(fn.losses.mean_squared_error, x, jnp.ones((3, 4)), engines=options["engines"])
test_wave = fn.checking.gradient_test(wrong, x, **options)
"""


def test_a_check_is_one_line_of_a_test_file(tmp_path):
    (tmp_path / "test_mine.py").write_text(TEST_FILE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-v",
        "--rootdir",
        str(tmp_path),
        "test_mine.py",
    ]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    for name, fate in (("tanh", "PASSED"), ("loss", "PASSED"), ("wave", "FAILED")):
        assert re.search(rf"test_mine\.py::test_{name} {fate}", done.stdout)
    assert "GradientError: wave(): the hand-derived gradient is wrong." in done.stdout
    assert re.search(r"E +WRONG +training +float64 +x +backprop / autodiff", done.stdout)
    assert "def raise_if_failed" not in done.stdout  # the table, not the library's source


def test_a_gradient_test_says_what_it_tests():
    test = gradient_test(layers.dense(2), X)
    assert test.__doc__ == "The gradients by hand agree with autodiff and numeric derivatives."
