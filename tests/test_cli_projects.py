"""A network of one's own in a file, a new project, and folds."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from funcnet import checkpoints, data
from funcnet.cli import config_file, main, options
from funcnet.cli.new import FILES

QUICK = ("--epochs", "1", "--batch-size", "128")
NET = """
import funcnet as fn
from helpers import width

def net(outputs):
    return fn.layers.serial(fn.layers.dense(width), fn.layers.relu(), fn.layers.dense(outputs))

ten = fn.layers.dense(10)
three = fn.layers.dense(3)
many = lambda a, b: a
word = "no layer"

def wrong():
    return 1 / 0
"""


def funcnet(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("helpers", "my_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "my_model.py").write_text(NET)
    (tmp_path / "helpers.py").write_text("width = 7\n")
    return tmp_path


def test_a_network_from_a_file(folder, capsys):
    code, out, err = funcnet(capsys, "summary", "--model", "my_model.py:net")
    assert (code, err) == (0, "")
    assert " 535 " in out  # 64·7 + 7 + 7·10 + 10
    code, out, err = funcnet(capsys, "train", "--model", "my_model.py:net", *QUICK)
    assert (code, err) == (0, "")
    results = funcnet(capsys, "evaluate", "runs/001", "--json")
    # The run keeps the file: later changes, and the loss of it, change nothing.
    (folder / "my_model.py").write_text(NET.replace("width)", "width + 1)"))
    assert funcnet(capsys, "evaluate", "runs/001", "--json") == results
    code, out, err = funcnet(capsys, "train", "--resume", "runs/001", "--epochs", "2")
    assert (code, err) == (
        0, "funcnet: my_model.py has changed; runs/001/model.py, its copy of before, is used\n",
    )  # fmt: skip
    (folder / "my_model.py").unlink()
    assert funcnet(capsys, "report", "runs/001", "--most", "0")[0] == 0
    assert funcnet(capsys, "export", "runs/001", "--platforms", "cpu")[0] == 0
    (folder / "runs/001/model.py").write_text(NET.replace("width)", "width + 1)"))
    code, _, err = funcnet(capsys, "evaluate", "runs/001")
    assert code == 5
    assert "runs/001/model.py: expected the file that the run was trained with, got another; put it back" in err


@pytest.mark.parametrize(
    "name, message",
    [
        ("nets", r"my_model.py:nets: expected an attribute of the module, got 'nets'; did you mean net\?"),
        ("three", r"expected outputs of shape \(10,\), one for each class, got \(3,\); end it with layers.dense\(10\)"),
        ("many", r"expected a function of the number of outputs, got one that takes \(a, b\)"),
        ("word", "expected a layer, or a function that returns one, got str"),
        ("wrong", r"got ZeroDivisionError: division by zero \(my_model.py, line 14\); correct that first"),
    ],
)
def test_what_is_no_network_is_named(folder, capsys, name, message):
    code, out, err = funcnet(capsys, "train", "--model", f"my_model.py:{name}", *QUICK)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert not (folder / "runs").exists()


def test_a_layer_and_a_module_will_do(folder, capsys, monkeypatch):
    for model in ("my_model.py:ten", "my_model:ten"):
        code, out, err = funcnet(capsys, "summary", "--model", model)
        assert (code, err) == (0, "")
        assert " 650 " in out


def test_a_new_project_trains_and_passes_its_test_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = funcnet(capsys, "new", "first")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(FILES)
    assert len((tmp_path / "first" / "README.md").read_text().splitlines()) == 10
    assert (tmp_path / "first" / "README.md").read_text().startswith("# first\n")
    assert "\n    pip install pytest && pytest " in (tmp_path / "first" / "README.md").read_text()
    code, _, err = funcnet(capsys, "new", "first")
    assert (code, err) == (
        2, "funcnet: first: expected a folder that is new or empty, got one with files; nothing is written.\n",
    )  # fmt: skip
    monkeypatch.chdir(tmp_path / "first")
    command = re.search(r"funcnet (train --config train.toml)\n", out)[1].split()
    assert funcnet(capsys, *command, "--epochs", "1")[::2] == (0, "")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # the options of this run may choose tests
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    process = subprocess.run(call, capture_output=True, text=True, check=False)
    assert "2 passed" in process.stdout, process.stdout
    assert funcnet(capsys, "check", "my_model.py:gain", "--shape", "8,5")[0] == 0


# Folds


@pytest.fixture
def noise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", x=random.random((30, 2)), y=random.permutation(30) % 2)
    return ["--data", "noise.npz", "--model", "linear", "--epochs", "1", "--batch-size", "4"]


def test_each_row_is_held_out_once(noise, capsys):
    code, out, err = funcnet(capsys, "train", *noise, "--folds", "3", "--output", "run")
    assert (code, err) == (0, "")
    found = [checkpoints.load_weights(f"run/fold-{fold}/weights.safetensors")[2] for fold in (1, 2, 3)]
    assert len({facts["data_sha256"] for facts in found}) == 3
    scores = [facts["held_out"]["accuracy"] for facts in found]
    assert f"│ mean               │ {np.mean([facts['held_out']['loss'] for facts in found]):.4f} │" in out
    assert f"│   {np.mean(scores):.2%} │" in out
    assert f"│   {np.std(scores, ddof=1):.2%} │" in out or f"│    {np.std(scores, ddof=1):.2%} │" in out
    assert all(data.Preparation.from_json(facts["preparation"]).size == 20 for facts in found)
    code, _, err = funcnet(capsys, "evaluate", "run")
    assert (code, err) == (5, "funcnet: run: expected one run, got several folds; choose one, run/fold-1.\n")
    assert funcnet(capsys, "evaluate", "run/fold-2")[0] == 0


def test_folds_that_are_missing_are_trained_by_resume(noise, capsys):
    assert funcnet(capsys, "train", *noise, "--folds", "2", "--output", "run")[0] == 0
    _, whole, _ = funcnet(capsys, "train", "--resume", "run")
    second = Path("run/fold-2")
    for path in second.glob("*.*"):
        if path.name != "config.toml":
            path.unlink()
    code, out, err = funcnet(capsys, "train", "--resume", "run")
    assert (code, err) == (0, "")
    assert "fold 2 of 2" in out
    assert "fold 1 of 2" not in out
    assert out.endswith(whole.lstrip("\n"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--folds", "1"], "--folds: expected folds to be an integer >= 2, got 1"),
        (["--fold", "2"], "--fold 2: expected --folds too, got none; write --folds 5 --fold 1"),
        (["--folds", "2", "--fold", "3"], "--fold: expected fold to be .*, got 3"),
        (["--folds", "2", "--split", "ordered"], "--folds: expected rows in any order"),
    ],
)
def test_impossible_folds(noise, capsys, arguments, message):
    code, out, err = funcnet(capsys, "train", *noise, *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err), err


# Where a run begins


def test_the_weights_of_another_run(noise, capsys):
    random = np.random.default_rng(1)
    np.savez("three.npz", x=random.random((30, 2)), y=np.arange(30) % 3)
    own = ["--data", "noise.npz", "--model", "mlp", "--hidden", "3", "--batch-size", "8", "--epochs", "1"]
    assert funcnet(capsys, "train", *own, "--output", "first")[0] == 0
    more = ["--data", "three.npz", "--batch-size", "8", "--epochs", "1", "--from", "first", "--freeze", "0/.*"]
    code, out, err = funcnet(capsys, "train", *more, "--output", "second")
    assert (code, err) == (0, "")
    assert "from      first: 2 of 4 arrays; new are 3/bias (3,), 3/kernel (3, 3)\n" in out
    assert "\nfrozen    9 of 21 parameters, 2 of 4 arrays\n" in out
    before, after = (checkpoints.load_weights(f"{name}/weights.safetensors")[0] for name in ("first", "second"))
    for name in ("0/kernel", "0/bias"):  # taken, and frozen
        np.testing.assert_array_equal(after[name], before[name])
    assert after["3/kernel"].shape == (3, 3)
    code, out, err = funcnet(capsys, "train", *own[:2], *own[4:], "--model", "linear", "--from", "first")
    assert (code, out) == (2, "")
    assert "--from first: expected arrays of the same shape, got none; give its --model" in err
    code, _, err = funcnet(capsys, "train", "--from", "nowhere")
    assert (code, err) == (5, "funcnet: nowhere: expected a folder that funcnet train wrote, with config.toml.\n")
    code, _, err = funcnet(capsys, "train", *own, "--freeze", "zero/.*")
    assert code == 2
    assert err.startswith(
        "funcnet: --freeze 'zero/.*': expected some of the arrays of parameters to match, got 0 of 4: 0/"
    )
    code, _, err = funcnet(capsys, "train", *own, "--freeze", "[")
    assert (code, err.startswith("funcnet: --freeze '[': expected '[' to be a regular expression")) == (2, True)
    assert not Path("runs").exists()


def test_a_rate_is_found_and_trained_with(noise, capsys):
    code, out, err = funcnet(capsys, "train", "--model", "linear", "--epochs", "1", "--find-rate", "--output", "run")
    assert (code, err) == (0, "")
    said = re.search(r"^Take a learning rate of (\S+): the loss falls fastest at ", out)
    rate = config_file.read_config(Path("run/config.toml"))["learning_rate"]
    assert f"{rate:.2g}" == said[1]
    assert rate != options.Train().learning_rate
    assert Path("run/rates.png").stat().st_size > 1000
    assert "plots     run/curves.png  run/confusion.png  run/rates.png\n" in out


def test_a_start_that_fails_leaves_nothing(noise, capsys):
    for arguments in (["--accumulate", "3"], ["--epochs", "0"], ["--batch-size", "99"], ["--clip-norm", "0"]):
        assert funcnet(capsys, "train", *noise, *arguments)[0] in (2, 4), arguments
        assert not Path("runs").exists(), arguments
