"""The command line: the main job from end to end, its files, its errors."""

import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import typing
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_files import idx_bytes
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from funcnet import checkpoints, data
from funcnet.cli import config_file, folders, main, networks, options
from funcnet.cli.parsing import parsed
from funcnet.cli.tables import confusion_table, new_table, print_json, print_lines, print_table
from funcnet.errors import ConfigError
from funcnet.parallel import forecasts

SHORT = ["--hidden", "32", "--epochs", "4", "--batch-size", "64"]
SMALL = ["--model", "mlp", *SHORT]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the main job, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "funcnet.cli",
            "train",
            *SHORT,
            "--features",
            "8",
            "--dropout",
            "0",
            "--output",
            str(folder),
        ],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return folder, process.stdout


def output_of(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_train_says_where_everything_lies(run):
    folder, printed = run
    for name in ("curves.png", "confusion.png", "weights.safetensors", "metrics.csv"):
        assert str(folder / name) in printed
        assert (folder / name).stat().st_size > 100
    assert re.search(r"held out +│ +359 +│ +\d\.\d{4} +│ +\d\d\.\d\d%", printed)
    assert "epoch 4/4" in printed


def test_metrics_hold_one_row_an_epoch(run):
    with (run[0] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert set(rows[0]) == {
        "epoch", "step", "loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate",
    }  # fmt: skip


def test_the_saved_options_read_back(run):
    values = config_file.read_config(run[0] / "config.toml")
    assert values["hidden"] == (32,)
    assert options.Train(**values) == options.Train(features=(8,), hidden=(32,), dropout=0.0, epochs=4, batch_size=64)


def test_evaluate_repeats_the_final_accuracy(run, capsys):
    folder, printed = run
    code, out, _ = output_of(capsys, "evaluate", folder)
    accuracy = re.search(r"held out.*?(\d\d\.\d\d%)", printed)
    assert code == 0
    assert accuracy
    assert accuracy[1] in out


def test_predict_names_classes(run, tmp_path, capsys):
    images, labels = data.digits()
    np.save(tmp_path / "rows.npy", images[:50])
    code, out, _ = output_of(capsys, "predict", run[0], tmp_path / "rows.npy")
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0
    assert len(rows) == 50
    assert np.mean([int(row["class"]) == label for row, label in zip(rows, labels[:50], strict=True)]) > 0.8
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)
    np.savetxt(tmp_path / "rows.csv", images[:50], delimiter=",")
    code, out, _ = output_of(capsys, "predict", run[0], tmp_path / "rows.csv", "--output", tmp_path / "classes.csv")
    with (tmp_path / "classes.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == [row["class"] for row in rows]


@pytest.mark.parametrize(
    "name, problem",
    [
        ("missing.npy", "No such file"),
        ("bad.npy", "readable"),
        ("nan.npy", "nan.npy: x[1, 0] is nan; 2 of 3 rows have such values, leave them out or fill them."),
        ("several.npz", "one array, as np.save writes it, got several; save x alone as .npy"),
        ("words.npy", "expected x of floating-point numbers, got an array of dtype <U1"),
        ("narrow.npy", "rows of shape (64,), got an array of shape (3, 5)"),
    ],
)
def test_predict_names_bad_rows(run, tmp_path, capsys, name, problem):
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    np.save(tmp_path / "narrow.npy", np.ones((3, 5)))
    np.save(tmp_path / "nan.npy", np.where(np.arange(3)[:, None] > 0, np.nan, np.ones((3, 64))))
    np.savez(tmp_path / "several.npz", x=np.ones((3, 64)))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    code, out, err = output_of(capsys, "predict", run[0], tmp_path / name)
    assert (code, out) == (4, "")
    assert problem in err
    assert name in err


BAD_ROWS = {
    "complex": (np.full((3, 64), 1j), "expected x of floating-point numbers, got an array of dtype complex128"),
    "durations": (np.ones((3, 64), "m8[s]"), "expected x of floating-point numbers, got an array of dtype timedelta64"),
    "unscaled": (np.full((3, 64), 16), "got an array of dtype int64 and shape (3, 64); convert it with x.astype"),
    "booleans": (np.ones((3, 64), bool), "expected x of floating-point numbers, got an array of dtype bool"),
    "too large": (np.full((3, 64), 1e39), "x[0, 0] is 1e+39, which float32 cannot hold; 3 of 3 rows"),
    "infinite": (np.full((3, 64), np.inf, np.float32), "x[0, 0] is inf; 3 of 3 rows"),
    "empty": (np.ones((0, 64)), "expected x with at least one row and no empty axis, got shape (0, 64)"),
}


@pytest.fixture(scope="module")
def exported(run):
    assert main(["export", str(run[0]), "--platforms", "cpu", "--output", str(run[0] / "file.stablehlo")]) == 0
    return run[0] / "file.stablehlo"


@pytest.mark.parametrize("name", BAD_ROWS)
def test_one_check_of_rows_for_all_commands(run, exported, tmp_path, capsys, name):
    rows, message = BAD_ROWS[name]
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "rows.npz", x=rows, target=np.arange(len(rows)))
    for command in (
        ["predict", run[0], tmp_path / "rows.npy"],
        ["predict", exported, tmp_path / "rows.npy"],
        ["train", *SMALL, "--data", tmp_path / "rows.npz", "--output", tmp_path / "run"],
        ["summary", "--data", tmp_path / "rows.npz"],
    ):
        code, out, err = output_of(capsys, *command)
        assert (code, out) == (4, ""), command
        assert message in err
        assert err.startswith(f"funcnet: {tmp_path / 'rows.np'}")


def test_rows_that_overflow_in_the_network_have_no_class(run, exported, tmp_path, capsys):
    rows = data.digits()[0][:3].copy()
    rows[1] = 3e38
    np.save(tmp_path / "rows.npy", rows)
    for model in (run[0], exported):
        code, out, err = output_of(capsys, "predict", model, tmp_path / "rows.npy")
        assert (code, out) == (4, "")
        assert re.search(r"rows.npy: expected rows for which the network gives numbers, got (nan|-?inf) at \[1, ", err)
        assert "scale the rows as the training data were" in err


def test_half_and_double_precision_predict_as_single(run, tmp_path, capsys):
    rows = data.digits()[0][:5]
    answers = []
    for dtype in (np.float16, np.float32, np.float64, ">f4"):
        np.save(tmp_path / "rows.npy", rows.astype(dtype))  # sixteenths, which all of them hold exactly
        answers.append(output_of(capsys, "predict", run[0], tmp_path / "rows.npy"))
    assert answers == 4 * [answers[0]]
    assert answers[0][0] == 0


@pytest.mark.parametrize(
    "target, message",
    [
        (
            np.where(np.arange(60) == 41, np.nan, 1.5),
            "targets that are finite, got nan at row 41; leave",
        ),
        (np.ones((60, 2, 2)), r"numbers or texts of shape \(n,\) or \(n, outputs\), got float64 of shape"),
        (np.ones(59), r"one target in target for each of the 60 rows of x, got an array \(59,\)"),
        (np.ones(60, complex), r"numbers or texts of shape .*, got complex128 of shape \(60,\)"),
    ],
    ids=["nan", "axes", "length", "complex"],
)
def test_labels_are_named_by_the_rows_of_the_file(tmp_path, capsys, target, message):
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((60, 4)), target=target)
    code, _, err = output_of(capsys, "train", "--model", "linear", "--data", tmp_path / "data.npz")
    assert code == 4
    assert re.search(f"^funcnet: {tmp_path}/data.npz: expected .*{message}", err)


def test_a_value_is_named_by_its_row_in_the_file(tmp_path, capsys):
    x = np.random.default_rng(0).random((60, 4))
    x[41, 2] = np.nan
    np.savez(tmp_path / "data.npz", x=x, target=np.arange(60) % 3)
    code, _, err = output_of(capsys, "train", "--model", "linear", "--data", tmp_path / "data.npz")
    assert code == 4
    assert "data.npz: x[41, 2] is nan; 1 of 60 rows" in err


@pytest.mark.parametrize("patience", [[], ["--patience", "1"]])
def test_a_class_may_occur_among_held_out_rows_alone(tmp_path, capsys, patience):
    target, rows = np.zeros(60, int), np.arange(60)
    target[data.split(rows, rows, fractions=(0.8, 0.2), seed=0)[1][0][:3]] = 1
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((60, 4)), target=target)
    options = ["--model", "linear", "--data", tmp_path / "data.npz", "--epochs", "1", "--batch-size", "8", *patience]
    options += ["--split", "random"]
    code, _, err = output_of(capsys, "train", *options, "--output", tmp_path / "run")
    assert (code, err) == (0, "")
    assert np.sum(json_of(capsys, "evaluate", tmp_path / "run")["confusion"], 1).tolist() == [9, 3]


def test_a_confusion_matrix_has_at_most_a_thousand_classes(tmp_path, capsys):
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((2600, 2)), target=np.arange(2600) % 1001)
    options = ["--data", tmp_path / "data.npz", "--epochs", "1", "--batch-size", "500", "--task", "classes"]
    code, out, _ = output_of(capsys, "train", *options, "--output", tmp_path / "run")
    assert code == 0
    assert "confusion.png" not in out
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"weights.safetensors", "curves.png"}
    assert sorted(json_of(capsys, "evaluate", tmp_path / "run")) == ["accuracy", "baseline", "loss", "rows", "run"]
    assert output_of(capsys, "evaluate", tmp_path / "run")[0] == 0


def printed_table(counts, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(confusion_table(counts, width, range(len(counts))))
    return console.export_text()


@pytest.mark.parametrize("classes", [2, 3, 10, 40])
def test_a_confusion_table_is_whole_where_it_fits(classes):
    """The width that it needs is found by printing: one character less, and it is a table of mistakes."""
    counts = np.random.default_rng(0).integers(0, 300, (classes, classes)) * 1.0
    whole = printed_table(counts, 1000)
    width = max(map(len, whole.splitlines()[1:]))
    assert printed_table(counts, max(width, 60)) == whole
    assert [int(word) for word in re.findall(r"\d+", whole.split("┩")[1])] == [
        int(number) for label, row in enumerate(counts) for number in (label, *row) if number or number is label
    ]
    assert "commonest" in printed_table(counts, width - 1)


def test_a_confusion_table_that_does_not_fit_lists_the_commonest_mistakes():
    counts = np.diag(np.full(25, 90.0))
    counts[3, 8], counts[20, 4], counts[0, 1] = 7, 12, 1
    text = printed_table(counts, 80)
    assert "the commonest mistakes of 25 classes (--json has the whole matrix)" in " ".join(text.split())
    assert re.findall(r"│ (\d+) +│ +(\d+) │ +(\d+) │", text) == [("20", "4", "12"), ("3", "8", "7"), ("0", "1", "1")]
    lines = printed_table(np.ones((1000, 1000)), 80).splitlines()
    assert sum(line.startswith("│") for line in lines) == 20


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_cell_is_cut_off_in_a_narrow_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    table = new_table("runs/001: [359] held-out rows", "", "rows", "loss", "accuracy", "one answer for all")
    table.add_row("held out", "359", "0.1134", "97.77%", "10.03%")
    table.add_row(escape("[/b] 中文"), "1", "0.1250", "", "100.00%")
    print_table(table)
    out = capsys.readouterr().out
    assert "…" not in out
    words = ("[359]", "accuracy", "359", "0.1134", "97.77%", "10.03%", "[/b]", "中文", "0.1250", "100.00%")
    assert all(word in out for word in words)
    if width < 80:
        start = ["[/b] 中文", "rows  1", "loss  0.1250", "one answer for all  100.00%"]
        assert out.split("\n\n")[2].splitlines() == start
    else:
        assert "┏" in out


@pytest.mark.parametrize("width, lines", [
    ("60", ["task      classes: target, 10 classes (0 10%, 1 10%, 2 10%,", "          3 10%)"]),
    ("100", ["task      classes: target, 10 classes (0 10%, 1 10%, 2 10%, 3 10%)"]),
    (None, ["task      classes: target, 10 classes (0 10%, 1 10%, 2 10%, 3 10%)"]),
])  # fmt: skip
def test_lines_go_on_below_their_text(width, lines, monkeypatch, capsys):
    """Also names in Chinese, which are twice as wide; a file has whole lines."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", width)
    print_lines("task      classes: target, 10 classes (0 10%, 1 10%, 2 10%, 3 10%)")
    assert capsys.readouterr().out.splitlines() == lines
    print_lines("columns   " + "城市 年龄 " * 8)
    assert all(cell_len(line) <= int(width or 100) for line in capsys.readouterr().out.splitlines())


def test_a_summary_fits_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = output_of(capsys, "summary")
    assert (code, max(map(len, out.splitlines()))) == (0, 60)


def test_an_exported_run_predicts_the_same(run, tmp_path, capsys):
    rows, _ = data.digits()
    np.save(tmp_path / "rows.npy", rows[:20])
    file = tmp_path / "digits.stablehlo"
    code, printed, _ = output_of(capsys, "export", run[0], "--output", file, "--platforms", "cpu", "tpu")
    assert (code, printed.splitlines()) == (
        0,
        [
            f"{file.stat().st_size:,} bytes for cpu, tpu -> {file}",
            f"what it takes and gives -> {tmp_path / 'preparation.json'}",
        ],
    )
    by_run = output_of(capsys, "predict", run[0], tmp_path / "rows.npy")
    assert output_of(capsys, "predict", file, tmp_path / "rows.npy") == by_run
    np.save(tmp_path / "rows.npy", rows[:20, :5])
    code, _, error = output_of(capsys, "predict", file, tmp_path / "rows.npy")
    assert (code, "expected rows of shape (64,), got an array of shape (20, 5)" in error) == (4, True)
    code, _, error = output_of(capsys, "export", run[0], "--output", tmp_path / "no" / "folder")
    assert (code, error) == (
        2,
        f"funcnet: --output {tmp_path}/no/folder: expected a folder that exists; make {tmp_path}/no first.\n",
    )


def test_both_engines_write_the_same_losses(tmp_path, capsys):
    losses = []
    for engine in ("autodiff", "backprop"):
        code, *_ = output_of(capsys, "train", *SMALL, "--engine", engine, "--output", tmp_path / engine)
        assert code == 0
        with (tmp_path / engine / "metrics.csv").open() as file:
            losses.append([float(row["loss"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "linear", "--optimizer", "sgd", "--learning-rate", "0.5", "--schedule", "step"],
        ["--model", "sigmoid", "--optimizer", "rmsprop", "--schedule", "cosine", "--weight-decay", "0"],
        ["--optimizer", "momentum", "--schedule", "exponential", "--learning-rate", "0.1", "--clip-norm", "1"],
        ["--optimizer", "nesterov", "--activation", "rrelu", "--schedule", "constant", "--learning-rate", "0.05"],
        ["--optimizer", "adagrad", "--activation", "prelu", "--dropout", "0", "--learning-rate", "0.01"],
        ["--optimizer", "adam", "--patience", "2", "--weight-decay", "1e-4"],
    ],
)
def test_options_train(tmp_path, capsys, arguments):
    code, out, _ = output_of(capsys, "train", *SMALL, *arguments, "--output", tmp_path / "run")
    accuracy = re.search(r"held out.*?(\d\d\.\d\d)%", out)
    assert code == 0
    assert accuracy
    assert float(accuracy[1]) > 70
    _, again, _ = output_of(capsys, "evaluate", tmp_path / "run")
    assert accuracy[1] in again


def test_an_npz_file_trains(tmp_path, capsys):
    random = np.random.default_rng(0)
    target = np.arange(200) % 3
    x = (random.normal(size=(200, 2)) / 5 + target[:, None]).astype(np.float32)
    np.savez(tmp_path / "blobs.npz", x=x, target=target)
    code, out, _ = output_of(
        capsys, "train", "--data", tmp_path / "blobs.npz", *SMALL, "--epochs", "30", "--batch-size", "16",
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert code == 0
    assert re.search(r"held out.*?9\d\.\d\d%|held out.*?100\.00%", out)


def test_summary_counts(capsys):
    code, out, _ = output_of(capsys, "summary", "--model", "mlp", "--dropout", "0", "--batch-size", "32")
    assert code == 0
    assert "dense(128" in out
    assert "(32, 128)" in out
    assert "9,610" in out  # 64·128 + 128 + 128·10 + 10
    code, out, _ = output_of(capsys, "summary", "--features", "4", "--hidden", "5", "--batch-size", "16")
    assert code == 0
    assert "(16, 8, 8, 4)" in out
    assert " 581 " in out  # 9·4 + 8 + 9·4·4 + 8 + 64·5 + 5 + 5·10 + 10


# For machines: one JSON value, and nothing else, on standard output.


def json_of(capsys, *arguments, code=0):
    got, out, err = output_of(capsys, *arguments, "--json")
    assert (got, err) == (code, "")
    return json.loads(out)


def test_evaluate_for_machines(run, capsys):
    folder, printed = run
    found = json_of(capsys, "evaluate", folder)
    assert sorted(found) == ["accuracy", "baseline", "confusion", "loss", "rows", "run"]
    assert (found["run"], found["rows"], np.sum(found["confusion"])) == (str(folder), 359, 359)
    assert f"{found['accuracy']:.2%}" in printed
    assert np.trace(found["confusion"]) == round(359 * found["accuracy"])


def test_predict_for_machines(run, tmp_path, capsys):
    np.save(tmp_path / "rows.npy", data.digits()[0][:2])
    found = json_of(capsys, "predict", run[0], tmp_path / "rows.npy")
    _, out, _ = output_of(capsys, "predict", run[0], tmp_path / "rows.npy")
    lines = [(int(row["row"]), row["class"], row["probability"]) for row in csv.DictReader(out.splitlines())]
    assert [(row["row"], row["class"], f"{row['probability']:.6f}") for row in found] == lines
    told = json_of(capsys, "predict", run[0], tmp_path / "rows.npy", "--output", tmp_path / "out.csv")
    assert told == {"rows": 2, "output": str(tmp_path / "out.csv")}
    assert (tmp_path / "out.csv").read_text() == out


def test_summary_for_machines(capsys):
    found = json_of(capsys, "summary", "--model", "mlp", "--dropout", "0", "--batch-size", "32")
    assert (found["parameters"], found["parameter_bytes"]) == (9610, 4 * 9610)
    assert [layer["shape"] for layer in found["layers"]] == [[32, 128], [32, 128], [32, 10]]


def test_checkpoints_for_machines(run, tmp_path, capsys):
    found = json_of(capsys, "checkpoints", "list", run[0])
    assert [(entry["step"], entry["epoch"], entry["problem"]) for entry in found][-1] == (92, 4, None)
    assert found[-1]["not_finite"] == []
    shutil.copytree(run[0] / "checkpoints", tmp_path / "damaged")
    (tmp_path / "damaged" / "00000092" / "manifest.json").write_text("{}")
    found = json_of(capsys, "checkpoints", "verify", tmp_path / "damaged", code=5)
    assert [entry["problem"] is None for entry in found] == [True] * (len(found) - 1) + [False]
    assert (found[-1]["loss"], found[-1]["path"]) == (None, str(tmp_path / "damaged" / "00000092"))


def test_what_json_has_no_word_for(capsys):
    print_json({"a": [math.nan, -math.inf, 1.5], "b": (np.float32(np.nan), jnp.arange(2)), "c": Path("d"), "e": None})
    assert capsys.readouterr().out == '{"a": [null, null, 1.5], "b": [null, [0, 1]], "c": "d", "e": null}\n'


def test_an_output_that_is_not_read_to_its_end(tmp_path):
    call = [sys.executable, "-m", "funcnet.cli", "summary", "--model", "mlp"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_an_output_folder_that_is_missing_is_named_before_the_work(run, tmp_path, capsys):
    code, out, err = output_of(capsys, "predict", run[0], tmp_path / "none.npy", "--output", tmp_path / "no" / "x.csv")
    assert (code, out) == (2, "")
    assert err == f"funcnet: --output {tmp_path}/no/x.csv: expected a folder that exists; make {tmp_path}/no first.\n"


def of_shape(shape):
    return data.prepare(np.random.default_rng(0).random((8, *shape)), np.arange(8) % 4)


@pytest.mark.parametrize("shape, image", [((6, 5, 2), (6, 5, 2)), ((6, 5), (6, 5, 1)), ((36,), (6, 6, 1))])
def test_a_cnn_takes_images_and_rows_that_are_square(shape, image):
    model = networks.build_model(options.Train(features=(3,)), of_shape(shape))
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    assert (str(model.inside.layers[0]) == f"reshape({image})") == (shape != image)
    kernels = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 4]
    assert kernels == [(3, 3, image[-1], 3), (3, 3, 3, 3)]


def test_images_are_rows_to_an_mlp():
    model = networks.build_model(options.Train(model="linear"), of_shape((2, 3, 1)))
    assert str(model) == "serial(reshape((6,)), dense(4))"


def test_an_image_set_brings_its_own_test_images(tmp_path, capsys):
    """From files in --folder, of the form of MNIST's."""
    idx_files(tmp_path / "data", 120, 40)
    code, out, err = output_of(
        capsys, "train", "--data", "mnist", "--folder", tmp_path / "data", *SHORT, "--features", "2", "2",
        "--epochs", "1", "--output", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    assert re.search(r"training +│ +120 +│.*held out +│ +40 +│", out, re.DOTALL)
    code, again, _ = output_of(capsys, "evaluate", tmp_path / "run")
    assert (code, "40 held-out rows" in again) == (0, True)


def idx_files(folder, training, test):
    folder.mkdir()
    random = np.random.default_rng(0)
    for part, n in (("train", training), ("t10k", test)):
        images, labels = random.integers(0, 256, (n, 28, 28), np.uint8), (np.arange(n) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def test_runs_are_numbered_and_never_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("001", "002"):
        code, out, _ = output_of(capsys, "train", "--model", "linear", "--epochs", "1")
        assert code == 0
        assert os.path.join("runs", name, "weights.safetensors") in out
    code, _, err = output_of(capsys, "train", "--model", "linear", "--epochs", "1", "--output", "runs/001")
    assert code == 2
    assert "runs/001 already holds weights.safetensors; choose another --output" in err


@pytest.mark.parametrize(
    "taken, following", [([], "001"), (["007"], "008"), (["998"], "999"), (["999"], "1000"), (["999", "1000"], "1001")]
)
def test_numbers_of_runs_go_on_beyond_three_digits(tmp_path, monkeypatch, taken, following):
    monkeypatch.chdir(tmp_path)
    for name in (*taken, "notes", "7²"):
        Path("runs", name).mkdir(parents=True)
    assert folders.new_folder(options.Train()) == Path("runs", following)
    assert len(list(Path("runs").iterdir())) == len(taken) + 3


def test_runs_that_begin_together_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(folders.new_folder, 16 * [options.Train()]))
    assert sorted(made) == [Path("runs", f"{n:03d}") for n in range(1, 17)]


def test_a_place_where_no_folder_can_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("")
    with pytest.raises(ConfigError, match=r"^runs: the folder for the results cannot be made: File exists"):
        folders.new_folder(options.Train())
    with pytest.raises(ConfigError, match=r"^runs/a: the folder for the results cannot be made: Not a directory"):
        folders.new_folder(options.Train(output=Path("runs/a")))


# Configuration files.


def test_a_file_sets_options_and_the_command_line_wins(tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text('model = "linear"\nepochs = 3\nlearning-rate = 1\nhidden = [8, 8]\n')
    code, _, err = output_of(capsys, "train", "--config", config, "--epochs", "2", "--output", tmp_path / "run")
    assert code == 0, err
    trained = config_file.read_config(tmp_path / "run" / "config.toml")
    assert (trained["model"], trained["epochs"], trained["learning_rate"]) == ("linear", 2, 1.0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_rat = 1", "unknown option learning_rat of funcnet train; did you mean learning_rate?"),
        ("zzz = 1", "unknown option zzz of funcnet train; the options are accumulate, activation"),
        ('epochs = "3"', "epochs: expected a value of type int, got '3'"),
        ("epochs = true", "epochs: expected a value of type int, got True"),
        ('learning_rate = "fast"', "learning_rate: expected a number, got 'fast'"),
        ('optimizer = "adamax"', "optimizer: expected one of sgd, momentum, nesterov"),
        ("hidden = 8", "hidden: expected a list of integers, got 8"),
        ("hidden = [1.5]", "hidden: expected a list of integers"),
        ("epochs = ", "expected a readable TOML file"),
        ("config = 'x'", "unknown option config of funcnet train"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: ")) as caught:
        config_file.read_config(path)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="missing.toml: expected a readable TOML file"):
        config_file.read_config(tmp_path / "missing.toml")


def test_strings_survive_the_file(tmp_path):
    chosen = options.Train(data='a "quoted" \\ name.npz', clip_norm=1.5, patience=3, folder=Path("a b"), download=True)
    config_file.write_config(chosen, tmp_path / "c.toml")
    assert options.Train(**config_file.read_config(tmp_path / "c.toml")) == chosen


# Errors: one line, an exit code, no traceback.


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["train", "--data", "missing.npz"], 4, "missing.npz: expected digits, mnist, fashion_mnist, "),
        (["train", "--learning-rate", "-1"], 2, "--learning-rate: expected learning_rate to be a finite number > 0"),
        (["train", "--epochs", "0"], 2, "expected epochs to be a positive integer, got 0"),
        (["train", "--batch-size", "0"], 2, "batch_size"),
        (["train", "--batch-size", "5000"], 4, "expected batch_size to be at most 1438, the number of rows, got 5000"),
        (["train", "--data", "one_class.npz"], 4, "at least two classes in 'target', got 1 alone; add another"),
        (["train", "--dropout", "1.5"], 2, "expected dropout to be a finite number in [0, 1), got 1.5"),
        (["train", "--hidden", "0"], 2, "positive integer"),
        (["train", "--optimizer", "sgd", "--schedule", "constant", "--learning-rate", "1e30", "--epochs", "3"], 3,
         "gradients in a row were not finite"),
        (["train", "--data", "mnist", "--folder", "nowhere"], 4, "nowhere"),
        (["evaluate", "nowhere"], 5, "nowhere: expected a folder that funcnet train wrote"),
    ],
)  # fmt: skip
def test_mistakes_are_named_without_a_traceback(tmp_path, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    np.savez("one_class.npz", x=np.zeros((8, 2), np.float32), target=np.full(8, 1))
    got, _, err = output_of(capsys, *arguments)
    assert got == code
    assert err.startswith("funcnet: ")
    assert message in err


def test_damaged_weights_are_named(run, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.toml").write_bytes((run[0] / "config.toml").read_bytes())
    weights = bytearray((run[0] / "weights.safetensors").read_bytes())
    weights[-5] ^= 1
    (broken / "weights.safetensors").write_bytes(weights)
    code, _, err = output_of(capsys, "evaluate", broken)
    assert code == 5
    assert "weights.safetensors" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--engine", "manual"], "train: expected --engine to be autodiff or backprop, got 'manual'; "),
        (["train", "--epochs", "ten"], "train: expected --epochs to be an integer, got 'ten'; funcnet train --help "),
        (["train", "--image-size=3.5"], "train: expected --image-size to be an integer, got '3.5'; funcnet train "),
        (["train", "--dropout", "x"], "train: expected --dropout to be a number, got 'x'; funcnet train --help "),
        (["train", "--hidden", "8", "-1", "x"], "train: expected --hidden to be an integer, got 'x'; funcnet train "),
        (["train", "--task", "class"], "train: expected --task to be classes, labels or regression, got 'class'; did "
         "you mean classes?"),
        (["train", "--optimizer", "Adma"], "got 'Adma'; did you mean adam?"),
        (["train", "--target"], "train: expected a value after --target, got none; funcnet train --help describes it."),
        (["train", "--target", "--epochs", "3"], "train: expected a value after --target, got none"),
        (["train", "--epochs"], "train: expected a value after --epochs, got none"),
        (["summary", "--batch-size", "x"], "summary: expected --batch-size to be an integer, got 'x'; funcnet summary"),
        (["export", "run", "--platforms", "cpu", "gpus"], "expected --platforms to be cpu, cuda, rocm or tpu, got"),
        (["checkpoints", "lst", "run"], "expected action to be list or verify, got 'lst'; did you mean list?"),
        (["launch", "-n", "x", "--", "train"], "funcnet launch: expected -n to be an integer, got 'x'"),
        (["launch", "--", "train", "--seed", "x"], "funcnet train: expected --seed to be an integer, got 'x'"),
        (["evaluate"], "funcnet evaluate: expected RUN, got none; write for example funcnet evaluate runs/001."),
        (["--completion", "bsh"], "--completion: expected bash, zsh, fish, tcsh, got bsh; did you mean bash?"),
        (["--completion"], "--completion: expected bash, zsh, fish, tcsh, got none; write funcnet --completion bash."),
        (["train", "--seed", "\x1b[31mx"], r"got '\x1b[31mx'"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused_in_one_line(capsys, arguments, message):
    code, out, err = output_of(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_values_that_look_like_options_are_values():
    """Negative numbers, and the - of the standard input."""
    assert parsed(options.Command, ["train", "--seed", "-1", "--hidden"], "funcnet").hidden == ()
    assert parsed(options.Command, ["predict", "run", "-"], "funcnet").rows == (Path("-"),)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--optimiser", "sgd"], "funcnet train: unknown option '--optimiser'; did you mean --optimizer?"),
        (["train", "--lr", "0.1"], "funcnet train: unknown option '--lr'; did you mean --learning-rate?"),
        (["train", "--rate=1"], "unknown option '--rate=1'; did you mean --find-rate or --learning-rate?"),
        (["launch", "-n", "1", "--", "train", "--bs", "3"], "unknown option '--bs'; did you mean --batch-size?"),
        (["check", "--xyz"], "funcnet check: unknown option '--xyz'; funcnet check --help lists the options."),
        (["evaluate", "run", "more"], "funcnet evaluate: unknown option 'more'; funcnet evaluate --help lists"),
        (["--versoin"], "funcnet: unknown option '--versoin'; the commands are train, evaluate, report, "),
        (["trian"], "funcnet: unknown command 'trian'; did you mean train?"),
        (["xyz"], "funcnet: unknown command 'xyz'; the commands are train, evaluate, report, predict, summary, "),
        (["train", "--\x1b[31mx"], "unknown option '--\\x1b[31mx'"),
    ],
)
def test_unknown_options_and_commands_are_named(capsys, arguments, message):
    code, out, err = output_of(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_batch_in_parts(tmp_path, capsys):
    """The number is kept with the run, and `fit` refuses what does not divide the batch."""
    config_file.write_config(options.Train(accumulate=4), tmp_path / "c.toml")
    assert config_file.read_config(tmp_path / "c.toml")["accumulate"] == 4
    code, _, err = output_of(capsys, "train", *SMALL, "--accumulate", 5, "--output", tmp_path / "run")
    assert (code, "expected accumulate to divide the 64 rows of a batch, got 5; take 4" in err) == (2, True)


def test_help_answers_at_once_and_without_jax():
    """The bound is generous for a busy machine; the absence of jax is what keeps the answer fast."""
    code = (
        "import sys\nfrom funcnet.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    started = time.perf_counter()
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert time.perf_counter() - started < 10
    assert "\x1b" not in process.stdout  # no colours where there is no terminal
    assert len(process.stdout.splitlines()) <= 45  # one screen
    commands = [typing.get_args(member)[0].__name__.lower() for member in typing.get_args(options.Command)]
    assert all(f"Example: funcnet {command}" in process.stdout for command in commands)


def test_the_version(capsys):
    assert output_of(capsys, "--version") == (0, f"funcnet {version('funcnet')}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(capsys, shell):
    with pytest.raises(SystemExit, match=r"^(None)?$"):
        main(["--completion", shell])
    out = capsys.readouterr().out
    assert all(word in out for word in ("checkpoints", "--learning-rate"))


def test_weights_are_saved_with_what_evaluation_needs(run):
    params, _, metadata = checkpoints.load_weights(run[0] / "weights.safetensors")
    assert metadata is not None
    preparation = data.Preparation.from_json(metadata["preparation"])
    assert (preparation.outputs, preparation.shape) == (10, (64,))
    convolutions, dense = 9 * 8 + 16 + 9 * 8 * 8 + 16, 4 * 4 * 8 * 32 + 32 + 32 * 10 + 10
    assert sum(leaf.size for leaf in params.values()) == convolutions + dense


def test_a_forecast(capsys, monkeypatch):
    """Of the network and the loss that `train` would take, over the rows of a batch; here on one CPU device."""
    monkeypatch.setattr(forecasts, "topology", lambda name: jax.devices()[:1])
    found = json_of(capsys, "forecast", "--model", "mlp", "--hidden", "16", "--batch-size", "64", "--optimizer", "sgd")
    assert (found["devices"], found["fits"], found["collectives"]) == (1, None, [])
    parameters = 64 * 16 + 16 + 16 * 10 + 10
    assert 0 <= found["argument_bytes"] - 4 * (parameters + 64 * 64 + 64) <= 32
    code, out, _ = output_of(capsys, "forecast", "--model", "linear", "--sharding", "fsdp", "--engine", "autodiff")
    assert code == 0
    assert out.startswith("1 × cpu")


def test_a_forecast_without_the_compiler_for_tpus(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    code, _, err = output_of(capsys, "forecast")
    assert (code, "topology: expected the package libtpu, which is not installed; pip install" in err) == (2, True)
