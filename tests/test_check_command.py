"""`funcnet check`: names of the catalogue, targets of the user's own, what it prints and writes, its errors."""

import io
import json
import re
import sys

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from funcnet import checking
from funcnet.catalogue import CATALOGUE
from funcnet.checking import Score
from funcnet.cli import check as command
from funcnet.cli import main, options
from funcnet.cli.targets import parse_shape, parse_shapes, resolve
from funcnet.errors import ConfigError

# The command.

MINE = """
from dataclasses import dataclass

import jax, jax.numpy as jnp, numpy as np
import funcnet as fn


@dataclass
class Numbers:
    x: "np.ndarray"


@fn.constructor
def mine(features, change):
    inner = fn.layers.dense(features)
    return fn.layers.layer(inner.forward, lambda *a: change(*inner.backward(*a)), init=inner.init)


def mistaken(change):
    return mine(3, change)


def double(dparams, dx):
    return dparams, 2 * dx


right = fn.layers.serial(fn.layers.dense(3), fn.layers.tanh())
wrong = fn.layers.serial(fn.layers.tanh(), mistaken(double))
towers = fn.layers.each(image=fn.layers.flatten(), text=fn.layers.identity())
pair = fn.layers.each(fn.layers.tanh(), fn.layers.dense(2))


@fn.losses.loss()
def underived(prediction, target, *, reduction="mean", where=None, weights=None):
    p, t, over = fn.losses.prepare(underived, prediction, target, reduction, where, weights)
    return over.reduce(p - t)


lacking = mistaken(lambda p, dx: ({"kernel": p["kernel"]}, dx))
loss = fn.losses.huber
penalty = fn.losses.l2_penalty
array = np.ones(3)


def with_input():
    return right, Numbers(np.ones((2, 4), np.float32)).x


def with_target():
    return fn.losses.softmax_cross_entropy, np.zeros((3, 4)), np.array([0, 1, 3])


def hidden():
    @fn.constructor
    def versine():
        return fn.layers.elementwise(lambda x: (1 - jnp.cos(x)) / (x * x), lambda x, y: -x / 12, keep="x")

    return versine(), 1e-9 * np.arange(1.0, 7.0).reshape(2, 3)


def with_params():
    return penalty, {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}


def with_argument(features):
    return fn.layers.dense(features)


def broken():
    return 1 / 0


class Group:
    layer = right
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a file of layers, where the command is called."""
    (tmp_path / "own_targets.py").write_text(MINE)
    (tmp_path / "does_not_parse.py").write_text("x = (\n")
    (tmp_path / "does_not_import.py").write_text("import json\nimport nonesuch\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_targets", "does_not_parse", "does_not_import"):
        sys.modules.pop(name, None)


def output_of(capsys, *arguments):
    code = main(["check", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_what_is_not_decided_fails_in_other_words(capsys):
    code, out, _ = output_of(capsys, "own_targets:hidden", "tanh")
    assert code == 1
    assert re.search(r"NOT DECIDED +own_targets:hidden +1 ", out)
    assert "x, backprop / autodiff in both: rounding could hide a mistake in 6 of 6 elements" in out
    assert "1 of 2 not decided" in out
    code, out, _ = output_of(capsys, "own_targets:hidden", "--json")
    assert code == 1
    (found,) = json.loads(out)
    assert (found["ok"], found["verdict"], found["report"]["verdict"]) == (False, "NOT DECIDED", "not decided")


def test_names_of_the_library(capsys):
    code, out, _ = output_of(capsys, "tanh", "l2_penalty", "--seed", "3", "--most", "5")
    assert code == 0
    assert re.search(r"ok +tanh +1 +\d\.\de(-1\d|\+00) +\d\.\de-1\d", out)
    assert re.search(r"ok +l2_penalty +2 ", out)
    assert "all 2 agree" in out


def test_a_wrong_layer_is_shown_in_full_and_placed(capsys, folder):
    code, out, _ = output_of(
        capsys, "own_targets:right", "own_targets:wrong", "--shape", "2,4", "--html", str(folder / "page.html")
    )
    assert code == 1
    assert re.search(r"ok +own_targets:right +3 ", out)
    assert re.search(r"WRONG +own_targets:wrong +3 +6\.\de-01|WRONG +own_targets:wrong +3 +1\.0e\+00", out)
    assert re.search(r"WRONG +both +float64 +x +backprop / autodiff +8 of 8", out)
    assert "wrong formula: serial[1] mine(3, double)" in out
    assert "1 of 2 wrong" in out
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "wrong formula: serial[1] mine(3, double)" in page
    assert page.index("own_targets:wrong</td>") < page.index("own_targets:right</td>")
    assert "<svg" in page


def test_a_gradient_that_lacks_a_leaf_is_wrong(capsys):
    code, out, _ = output_of(capsys, "own_targets.py:lacking", "--shape", "2,4", "--html", "page.html")
    assert code == 1
    assert "WRONG" in out
    assert "params/bias is missing" in out


def test_a_page_needs_no_matplotlib(capsys, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert output_of(capsys, "tanh", "--html", "page.html")[0] == 0
    assert "<svg" not in (folder / "page.html").read_text(encoding="utf-8")


def test_without_targets_the_whole_catalogue(capsys, monkeypatch):
    monkeypatch.setattr(command, "CATALOGUE", {name: CATALOGUE[name] for name in ("identity", "relu")})
    code, out, _ = output_of(capsys)
    assert code == 0
    assert "all 2 agree" in out


def test_mutants(capsys):
    code, out, _ = output_of(capsys, "mean_squared_error", "l1_penalty", "--mutants")
    assert code == 0
    assert re.search(r"target +leaves +autodiff +numeric +kinks +caught +made +equivalent", out)
    caught = re.findall(r"ok +\w+ +\d.* (\d+) +(\d+) +\d+ *$", out, re.M)
    assert len(caught) == 2
    assert all(int(a) == int(b) > 5 for a, b in caught)


def test_a_missed_mutant_fails(capsys, monkeypatch):
    def score(target, x, y, **options):
        return Score(str(target), 7, ("training x: zeroed",), ())

    monkeypatch.setattr(checking, "mutation_score", score)
    code, out, _ = output_of(capsys, "identity", "--mutants")
    assert code == 1
    assert re.search(r"MISSED +identity .* 7 +8 +0", out)
    assert "missed mutant: training x: zeroed" in out


def test_a_bar_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    entries = {name: CATALOGUE[name] for name in ("dense", "relu")}
    assert dict(command._behind_a_bar(entries, console)) == entries
    assert "0/2" in console.file.getvalue()
    assert "2/2 relu" in console.file.getvalue()


# Targets.


@pytest.mark.parametrize("place", ["own_targets", "own_targets.py", "{folder}/own_targets.py"])
def test_a_target_is_found_in_a_module_or_a_file(folder, place):
    entry = resolve(f"{place.format(folder=folder)}:right", jax.ShapeDtypeStruct((5, 2), jnp.float32))
    assert str(entry.target) == "serial(dense(3), tanh())"
    assert entry.x == jax.ShapeDtypeStruct((5, 2), jnp.float32)


@pytest.mark.parametrize(
    "name, target, x_shape, y_shape",
    [
        ("with_input", "serial(dense(3), tanh())", (2, 4), None),
        ("with_target", "softmax_cross_entropy", (3, 4), (3,)),
        ("loss", "huber", (5, 2), (5, 2)),
        ("Group.layer", "serial(dense(3), tanh())", (5, 2), None),
    ],
)
def test_what_a_target_may_be(name, target, x_shape, y_shape):
    entry = resolve(f"own_targets:{name}", jax.ShapeDtypeStruct((5, 2), jnp.float32))
    assert str(entry.target) == target
    assert entry.x.shape == x_shape
    assert (None if entry.y is None else entry.y.shape) == y_shape


def test_a_penalty_of_your_own(capsys):
    code, out, _ = output_of(capsys, "own_targets:with_params", "--mutants")
    assert code == 0
    assert re.search(r"ok +own_targets:with_params +2 ", out)


@pytest.mark.parametrize("text, shape", [("8,4", (8, 4)), ("3", (3,)), ("2, 3, 4", (2, 3, 4))])
def test_shapes(text, shape):
    assert parse_shape(text) == jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    "texts, shapes",
    [
        (["8,12:int32"], jax.ShapeDtypeStruct((8, 12), jnp.int32)),
        (["8:bool"], jax.ShapeDtypeStruct((8,), bool)),
        (["8:bfloat16"], jax.ShapeDtypeStruct((8,), jnp.bfloat16)),
        (["8,4", "8,2:int8"], (jax.ShapeDtypeStruct((8, 4), jnp.float32), jax.ShapeDtypeStruct((8, 2), jnp.int8))),
        (["text=8,12:int32", "image=8,2"], {"text": jax.ShapeDtypeStruct((8, 12), jnp.int32),
                                            "image": jax.ShapeDtypeStruct((8, 2), jnp.float32)}),
        (["image=8,2"], {"image": jax.ShapeDtypeStruct((8, 2), jnp.float32)}),
    ],
)  # fmt: skip
def test_several_shapes_and_dtypes(texts, shapes):
    assert parse_shapes(texts) == shapes


@pytest.mark.parametrize("texts", [["image=8,2", "8,4"], ["image=8,2", "image=8,4"], ["=8,4"]])
def test_names_are_for_all_inputs_and_differ(texts):
    message = f"--shape {' --shape '.join(texts)}: expected a name for each input, and no name twice: --shape image="
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_shapes(texts)


def test_an_unknown_dtype_is_named():
    message = "--shape 8,4:int23: expected a dtype among float32, float64, .*, got 'int23': --shape 8,12:int32"
    with pytest.raises(ConfigError, match=message):
        parse_shape("8,4:int23")


@pytest.mark.parametrize("text", ["", "8x4", "8,", "0,4", "-1,4", "(8,4)", "8,4.0", "²", ":int32"])
def test_other_shapes_are_named(text):
    with pytest.raises(ConfigError, match=re.escape(f"--shape {text}: expected positive integers between commas")):
        parse_shape(text)


@pytest.mark.parametrize(
    "target, message",
    [
        ("dens", "dens: expected a layer, model, loss or penalty of the library; did you mean dense?"),
        ("zzzz", "write your own as module:attribute or file.py:attribute"),
        ("missing.py:layer", "missing.py:layer: expected a file, got missing.py, which is not a file"),
        ("nonesuch:layer", "nonesuch:layer: expected a module, got nonesuch: the module nonesuch was not found"),
        ("json.nonesuch:layer", "expected a module, got json.nonesuch: the module json.nonesuch was not found"),
        ("does_not_import:layer", "got ModuleNotFoundError: No module named 'nonesuch' (does_not_import.py, line 2)"),
        ("does_not_parse.py:layer", "got SyntaxError: '(' was never closed (does_not_parse.py, line 1)"),
        ("own_targets:rihgt", "expected an attribute of the module, got 'rihgt'; did you mean right?"),
        ("own_targets:zzzz", "expected an attribute of the module, got 'zzzz'; it has "),
        ("own_targets:with_argument", "expected a function without arguments, got one that takes (features)"),
        ("own_targets:broken", "got ZeroDivisionError: division by zero (own_targets.py, line "),
        ("own_targets:array", "expected a Layer, a loss with a gradient, or a tuple (layer, x)"),
        ("own_targets:right", "a Layer alone needs the shape of its input, the batch first: add --shape 8,4"),
        ("own_targets:loss", "a loss alone needs the shape of its input"),
        ("own_targets:underived", "expected a Layer, a loss with a gradient, or a tuple (layer, x)"),
    ],
)
def test_bad_targets_are_named(target, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve(target, None)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["dens"], "funcnet: dens: expected a layer"),
        (["own_targets:right", "--shape", "8x4"], "funcnet: --shape 8x4: expected positive integers"),
        (["dense", "--shape", "8,4"], "--shape 8,4: expected a TARGET of your own"),
        (["own_targets:towers", "--shape", "image=8,4", "--shape", "8,4"], "expected a name for each input"),
        (["dense", "--html", "nowhere/page.html"], "--html nowhere/page.html: expected a folder that exists"),
        (["dense", "--html", "."], "--html .: expected a file, got a folder"),
        (["dense", "--seeds", "0"], "expected seeds to be a positive integer, got 0"),
    ],
)
def test_usage_errors(capsys, arguments, message):
    code, out, err = output_of(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_several_inputs(capsys):
    inputs = ["--shape", "image=3,2,2", "--shape", "text=3,4:int32"]
    code, out, _ = output_of(capsys, *inputs, "own_targets:towers")  # the target may stand behind them
    assert code == 0
    assert re.search(r"ok +own_targets:towers +1 ", out)  # integers have no gradient
    code, out, _ = output_of(capsys, "own_targets:pair", "--shape", "3,4", "--shape", "3,5", "--mutants")
    assert code == 0
    assert re.search(r"ok +own_targets:pair +4 ", out)


def test_an_input_that_does_not_fit_is_the_layers_to_name(capsys):
    code, _, err = output_of(capsys, "own_targets:right", "--shape", "4")
    assert code == 2
    assert "dense(3): expected x of shape" in err


def test_help_names_the_command():
    assert options.Check().targets == ()
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--help"])
