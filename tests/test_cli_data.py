"""Data of one's own on the command line: tables, pictures and arrays, trained, evaluated, predicted and exported."""

import csv
import io
import json
import os
import re
import shutil
import sys

import jax.export
import numpy as np
import pytest
from malformed import ARRAYS, FOLDERS, TABLES, two_classes
from pages import block
from PIL import Image

import funcnet as fn
from funcnet.cli import main, options
from funcnet.cli.rows import prepared, read_parts
from funcnet.cli.tasks import judged, task_of, verdict

QUICK = ("--epochs", "3", "--hidden", "8", "--dropout", "0", "--batch-size", "16")


def funcnet(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def ok(capsys, *arguments, says=""):
    code, out, err = funcnet(capsys, *arguments)
    assert (code, err) == (0, says), err
    return out


def refused(capsys, *arguments):
    """What is said, and that nothing is left behind."""
    code, out, err = funcnet(capsys, *arguments)
    assert code in (2, 4)
    assert out == ""
    return err


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A table with semicolons, decimal commas, texts, missing values and dates."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("table") / "people.csv"
    lines = ["age;town;income;member;rich;day"]
    for i, (age, town) in enumerate(
        zip(random.integers(18, 80, 200), random.choice(["Bern", "Basel", ""], 200), strict=True)
    ):
        income = "?" if age % 9 == 0 else str(age * 100.5).replace(".", ",")
        member, rich = "yes" if age > 40 or town == "Bern" else "no", int(age > 60)
        lines.append(f"{age};{town};{income};{member};{rich};2026-{1 + i % 12:02d}-01")
    path.write_text("\n".join(lines))
    return path


def chosen(path, *target, **more):
    return options.Train(data=str(path), target=target, **more)


@pytest.fixture(scope="module")
def member(people):
    folder = people.parent / "member"
    arguments = ["train", "--data", people, "--target", "member", "--drop", "day", *QUICK, "--output", folder]
    assert main([str(one) for one in arguments]) == 0
    return folder


def test_what_was_decided_is_printed_first(people, capsys, tmp_path):
    table = ["--data", people, "--target", "member", "--drop", "day"]
    lines = ok(capsys, "train", *table, *QUICK, "--output", tmp_path / "run").splitlines()
    assert lines[:4] == [
        "rows      160 to train on, 40 held out",
        "task      classes: member, 2 classes (no 20%, yes 80%)",
        "columns   3 of numbers, 1 of texts (town) -> 7 features",
        lines[3],
    ]
    assert re.fullmatch(r"missing   town \d+, income \d+ of 160 rows", lines[3])
    assert re.search(r"held out +│ +40 +│.*│ +80.00% │", "\n".join(lines))  # 32 of 40 are members


def test_a_run_keeps_the_preparation_of_its_training_rows(people, member):
    _, _, facts = fn.checkpoints.load_weights(member / "weights.safetensors")
    parts = read_parts(chosen(people, "member", drop=("day",)))
    assert fn.data.Preparation.from_json(facts["preparation"]) == fn.data.prepare(*parts.training)
    ages = np.concatenate([parts.training[0]["age"], parts.test[0]["age"]])
    assert len(ages) == 200
    assert parts.preparation().columns[0].mean == parts.training[0]["age"].mean() != ages.mean()


def test_predict_takes_a_table_in_any_order(member, tmp_path, capsys, monkeypatch):
    (tmp_path / "new.csv").write_text("town,rich,age,more,income\nBern,0,20,x,2010\n,1,70,x,?")
    out = ok(capsys, "predict", member, tmp_path / "new.csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert [list(row) for row in rows] == [["row", "class", "probability"]] * 2
    assert {row["class"] for row in rows} <= {"yes", "no"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "new.csv").read_bytes())))
    assert ok(capsys, "predict", member, "-") == out
    found = json.loads(ok(capsys, "predict", member, tmp_path / "new.csv", "--json"))
    assert [row["class"] for row in found] == [row["class"] for row in rows]
    says = ok(capsys, "predict", member, tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    assert says == f"2 rows -> {tmp_path / 'out.csv'}\n"
    assert (tmp_path / "out.csv").read_text() == out


def test_a_table_has_no_pixels_to_explain(member, people, capsys):
    said = refused(capsys, "predict", member, people, "--explain")
    assert "--explain: expected a run on pictures, got rows of shape" in said


def test_rows_unlike_those_of_training_are_told(member, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("town,rich,age,income\nParis,0,20,2010\nBern,1,170,7000\nBern,0,,2000")
    code, out, err = funcnet(capsys, "predict", member, tmp_path / "new.csv")
    assert (code, len(out.splitlines())) == (0, 4)
    assert err.splitlines() == [
        f"funcnet: {tmp_path}/new.csv: age: 1 of 3 above 79, the largest of the training rows",
        f"funcnet: {tmp_path}/new.csv: age: 1 of 3 without a value, and no training row is so",
        f"funcnet: {tmp_path}/new.csv: town: 1 of 3 with a category that no training row has",
    ]


def test_an_exported_table_needs_jax_and_numpy_alone(member, tmp_path, capsys):
    """By the lines of docs/data.md."""
    (tmp_path / "new.csv").write_text("town,rich,age,income\nBern,0,20,2010\n,1,70,?")
    ok(capsys, "export", member, "--output", tmp_path / "model.stablehlo", "--platforms", "cpu")
    out = ok(capsys, "predict", member, tmp_path / "new.csv")
    assert ok(capsys, "predict", tmp_path / "model.stablehlo", tmp_path / "new.csv") == out
    names = {"folder": tmp_path, "new": tmp_path / "new.csv", "np": np}
    exec(block("data.md", "csv.DictReader(lines)"), names)
    exec(block("data.md", "jax.export.deserialize").partition("assert")[0], names)
    kept, probabilities = names["kept"], names["by_file"]
    classes = kept["targets"][0]["categories"]
    wanted = [(classes[row.argmax()], f"{row.max():.6f}") for row in np.asarray(probabilities)]
    assert wanted == [(row["class"], row["probability"]) for row in csv.DictReader(out.splitlines())]
    (tmp_path / "preparation.json").write_text("{}")
    said = refused(capsys, "export", member, "--output", tmp_path / "model.stablehlo")
    assert "preparation.json: the preparation of another model is there; choose an --output in another folder" in said


def test_a_regression_in_its_units(people, tmp_path, capsys):
    run = tmp_path / "run"
    table = ["--data", people, "--target", "age", "--drop", "day", "income"]
    out = ok(capsys, "train", *table, "--model", "linear", "--learning-rate", "0.1", *QUICK, "--output", run)
    assert "task      regression: age 18 to 79" in out
    assert "r_squared" in out
    assert (run / "predicted.png").stat().st_size > 1000
    found = json.loads(ok(capsys, "evaluate", run, "--json"))
    parts = read_parts(chosen(people, "age", drop=("day", "income")))
    (tmp_path / "held.csv").write_text(
        "town,member,rich\n"
        + "\n".join(",".join(map(str, row)) for row in zip(*(
            ["" if one is None else one if isinstance(one, str) else int(one) for one in parts.test[0][name]]
            for name in ("town", "member", "rich")
        ), strict=True))
    )  # fmt: skip
    lines = csv.DictReader(ok(capsys, "predict", run, tmp_path / "held.csv").splitlines())
    predicted, target = np.array([float(line["age"]) for line in lines]), parts.test[1]["age"]
    errors = found["outputs"]["age"]
    np.testing.assert_allclose(errors["root_mean_squared_error"], np.sqrt(np.mean((predicted - target) ** 2)), 1e-4)
    np.testing.assert_allclose(errors["mean_absolute_error"], np.mean(np.abs(predicted - target)), 1e-4)
    mean = parts.training[1]["age"].mean()
    np.testing.assert_allclose(errors["baseline"], np.sqrt(np.mean((mean - target) ** 2)), 1e-5)
    spread = np.sum((target - target.mean()) ** 2)
    np.testing.assert_allclose(found["r_squared"], 1 - np.sum((predicted - target) ** 2) / spread, 1e-4)
    np.testing.assert_allclose(found["baseline"], 1 - np.sum((mean - target) ** 2) / spread, rtol=1e-3, atol=1e-6)
    assert found["r_squared"] > 0.3
    page = ok(capsys, "report", run, "--most", 0)
    assert page == f"page: {run}/report.html\n"
    text = (run / "report.html").read_text()
    assert 'id="predicted-values"' in text
    assert 'id="largest-errors"' in text


def test_several_labels(tmp_path, capsys):
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3)).astype(np.float32)
    np.savez(tmp_path / "labels.npz", inputs=x, labels=(x[:, :2] > [0.0, 1.0]).astype(int))
    run = tmp_path / "run"
    out = ok(capsys, "train", "--data", tmp_path / "labels.npz", "--model", "linear", "--learning-rate", "0.3", *QUICK,
             "--output", run)  # fmt: skip
    assert "task      labels: target 0 1 in " in out
    found = json.loads(ok(capsys, "evaluate", run, "--json"))
    np.save(tmp_path / "new.npy", np.float32([[2, 2, 0], [-2, -2, 0]]))
    rows = list(csv.DictReader(ok(capsys, "predict", run, tmp_path / "new.npy").splitlines()))
    assert [[float(row[f"target {i}"]) > 0.5 for i in (0, 1)] for row in rows] == [[True, True], [False, False]]
    (_, target) = (parts := prepared(read_parts(chosen(tmp_path / "labels.npz")), _preparation(run))).test
    usual = parts.training[1].mean(0) >= 0.5
    assert found["baseline"] == pytest.approx(np.mean(target == usual))
    assert found["accuracy"] > found["baseline"]
    assert sorted(found["labels"]["target 1"]) == ["f1", "precision", "recall"]
    assert ok(capsys, "report", run, "--most", 0)
    text = (run / "report.html").read_text()
    assert 'id="labels"' in text
    f1 = ", ".join(f"target {i} {found['labels'][f'target {i}']['f1']:.2f}" for i in (0, 1))
    assert f"precision, recall and F1 of each label on the held-out rows; F1: {f1}" in text
    assert (run / "scores.png").stat().st_size > 1000


def _preparation(run):
    return fn.data.Preparation.from_json(fn.checkpoints.load_weights(run / "weights.safetensors")[2]["preparation"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Days and nights, of two sizes, as JPEG, PNG and WebP."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for name, shade in {"day": 180, "night": 60}.items():
        (folder / name).mkdir()
        for i in range(12):
            pixels = random.integers(shade - 60, shade + 60, (12 + i % 2, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.{('jpg', 'png', 'webp')[i % 3]}", quality=95)
    return folder


def test_a_folder_of_pictures(pictures, tmp_path, capsys):
    said = refused(capsys, "train", "--data", pictures, "--output", tmp_path / "run")
    assert "expected pictures of one height and width, got 12 × 16" in said
    assert "write --image-size 64, or another" in said
    assert not (tmp_path / "run").exists()
    run = tmp_path / "run"
    out = ok(capsys, "train", "--data", pictures, "--image-size", "8", "--features", "4", *QUICK, "--epochs", "20",
             "--output", run)  # fmt: skip
    assert "pictures  8 × 8, red, green, blue" in out
    code, out, _ = funcnet(capsys, "predict", run, pictures)  # a folder for each class
    assert (code, len(out.splitlines())) == (0, 25)
    (tmp_path / "other" / "day").mkdir(parents=True)
    shutil.copytree(pictures / "night", tmp_path / "other" / "dusk")
    shutil.copy(pictures / "day" / "0.jpg", tmp_path / "other" / "day")
    said = refused(capsys, "evaluate", run, "--data", tmp_path / "other")
    assert f"day, night, got 'dusk' for {tmp_path / 'other' / 'dusk' / '0.jpg'}; correct it, or leave it out" in said
    one = pictures / "day" / "0.jpg"
    line = ok(capsys, "predict", run, one).splitlines()[1].split(",")
    assert line[:2] == [str(one), "day"]
    code, out, err = funcnet(
        capsys, "predict", run, one, pictures / "night", "--explain", "--out", tmp_path / "out.csv"
    )
    assert (code, out) == (0, f"13 rows -> {tmp_path / 'out.csv'}\n")
    assert err.endswith(f"picture: {tmp_path / 'explained.png'}\n")
    with Image.open(tmp_path / "explained.png") as image:
        assert image.size[0] > 300
    ok(capsys, "export", run, "--platforms", "cpu")
    assert ok(capsys, "predict", run / "model.stablehlo", one).splitlines()[1].split(",") == line
    said = refused(capsys, "predict", run / "model.stablehlo", one, "--explain")
    assert "--explain: expected the folder of a run, got the file" in said
    preparation = fn.data.Preparation.from_json((run / "preparation.json").read_text())
    names = {"preparation": preparation, "path": one, "one": preparation.read(one)[0], "np": np, "json": json}
    exec("from PIL import Image\n" + block("data.md", "exif_transpose"), names)
    program = jax.export.deserialize(bytearray((run / "model.stablehlo").read_bytes()))
    by_file = np.asarray(program.call(names["pixels"]))[0]
    assert f"{by_file.max():.6f}" == line[2]


# Splits


def parts_of(path, *target, **more):
    return read_parts(chosen(path, *target, **more))


def test_shares_of_classes_are_kept(people):
    parts = parts_of(people, "member", drop=("day",), patience=3)
    counts = [len(pair[1]["member"]) for pair in parts[:3]]
    assert counts == [144, 16, 40]
    shares = [np.mean(pair[1]["member"] == "no") for pair in parts[:3]]
    assert max(shares) - min(shares) < 0.05
    assert parts_of(people, "member", drop=("day",)).validation is None
    assert parts_of(people, "member", drop=("day",), test=0.0).test is None
    assert len(parts_of(people, "member", drop=("day",), test=0.5, validation=0.5).validation[1]["member"]) == 50


def test_groups_are_not_split_up(people):
    parts = parts_of(people, "member", group="day", validation=0.3)
    assert parts.classes == ("no", "yes")
    assert "day" not in parts.training[0]
    whole = parts_of(people, "member", categories=("day",))
    days = {}
    for pair in whole[:3]:
        for age, income, day in zip(*(pair[0][name] for name in ("age", "income", "day")), strict=True) if pair else ():
            days.setdefault((age, income if income == income else -1), set()).add(day)
    sizes = [len(pair[1]["member"]) for pair in parts[:3]]
    assert sum(sizes) == 200
    assert all(abs(size - 200 / 12 * round(size / (200 / 12))) < 12 for size in sizes)  # whole months of 16 or 17 rows


def test_the_last_rows_by_time_are_held_out(tmp_path):
    day = np.random.default_rng(0).permutation(50)
    lines = [f"{i},{i % 2},2026-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in day]
    (tmp_path / "a.csv").write_text("number,even,when\n" + "\n".join(lines))
    parts = parts_of(tmp_path / "a.csv", "even", time="when", validation=0.25)
    assert parts.training[0]["number"].tolist() == list(range(30))
    assert parts.validation[0]["number"].tolist() == list(range(30, 40))
    assert parts.test[0]["number"].tolist() == list(range(40, 50))
    (tmp_path / "b.csv").write_text("number,even,when\n" + "\n".join(f"{i},{i % 2},{i * 2.5}" for i in day))
    assert parts_of(tmp_path / "b.csv", "even", time="when").test[0]["number"].tolist() == list(range(40, 50))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--target", "membr"], "expected a column 'membr', .*; did you mean 'member'?"),
        ([], "expected a target; write --target NAME with one of age, town, income, member, rich, day"),
        (["--target", "member"], r"got the date or time '2026-01-01' in line 2; .* leave it out with --drop 'day'"),
        (["--target", "income", "--drop", "day"], r"the target 'income' in every row, got none in lines \d+, "),
        (["--target", "town", "age", "--drop", "day"], "the target 'town' in every row, got none in lines"),
        (["--target", "age", "--drop", "day", "--task", "labels"], "expected labels 0 and 1 in 'age', got 18 to 79"),
        (["--target", "member", "--drop", "dy"], "expected a column 'dy', .*; did you mean 'day'?"),
        (["--target", "member", "--group", "town", "--time", "day"], "expected --group or --time, got both"),
        (["--target", "member", "--time", "income", "--drop", "day"], "a time in column 'income' of every row"),
        (["--target", "member", "--time", "member2", "--drop", "day"], "expected a column 'member2'"),
        (
            ["--target", "member", "--drop", "day", "--group", "member"],
            "--group to be one of the other columns, got 'memb",
        ),
        (
            ["--target", "member", "--drop", "day", "--time", "day"],
            "--time to be one of the other columns, got 'day', wh",
        ),
        (
            ["--target", "member", "member", "--drop", "day"],
            "expected target of columns that differ, got 'member' twice",
        ),
        (
            ["--target", "member", "--x", "age"],
            "--x: expected --data to be an .npz file, got .*people.csv; leave --x out",
        ),
        (
            ["--target", "member", "--image-size", "32"],
            "--image-size: expected --data to be a folder of pictures, got .*",
        ),
        (
            ["--target", "member", "--download"],
            "--download: expected --data to be mnist, fashion_mnist, cifar10 or cif",
        ),
        (["--target", "rich", "--time", "member", "--drop", "day"], "times that sort in column 'member', got 'yes'"),
        (["--target", "member", "--drop", "day", "--test", "1"], r"--test: expected test to be .* in \[0, 1\)"),
        (["--target", "member", "--drop", "day", "--model", "cnn"], "hold images .*; use --model mlp"),
        (["--target", "member", "--drop", "day", "--model", "mpl"], r"--model: .*, got 'mpl'; did you mean mlp\?"),
        (["--target", "member", "--drop", "day", "--patience", "3", "--validation", "0"], "rows to choose by"),
        (
            ["--target", "member", "--drop", "day", "--task", "regression"],
            "'member' for --task regression, got texts as '.*'; w",
        ),
        (
            ["--target", "age", "rich", "--drop", "day", "--task", "classes"],
            "expected one target of classes, got age, ",
        ),
        (["--target", "day"], "got the date or time '2026-01-01' in line 2; write numbers in its place, such as days "),
        (
            ["--target", "rich", "--drop", "day", "--test", "0.001"],
            "each of 2 parts, 0.999, 0.001, got 200 rows in all",
        ),
        (["--target", "age", "--drop", "day", "--class-weights", "balanced"], "expected a target of classes"),
    ],
)
def test_what_cannot_be_trained_on_a_table(people, tmp_path, capsys, arguments, message):
    said = refused(capsys, "train", "--data", people, *arguments, "--output", tmp_path / "run")
    assert re.search(message.replace("?", r"\?") if message.endswith("'?") else message, said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("peple.csv", None, "got no such file; did you mean .*people.csv"),
        ("digts", None, "got no such file; did you mean digits"),
        ("notes.xlsx", b"PK", "a .csv, .tsv, .parquet, .npz or .npy file, .*another kind of file; save it as .csv or "),
        (
            "line.npy",
            saved(np.arange(9.0)),
            r"shape \(n, columns\), or with .* got shape \(9,\); save x and target as two",
        ),
        ("a.csv", b"", "expected at least one row, got an empty file"),
        ("b.csv", b"x,y\n1,2,3\n", "expected 2 cells, as in line 1, got 3 in line 2"),
        ("c.csv", b"x,x,y\n1,2,3\n", "its own, got 'x' for column 1 and 2"),
        ("d.csv", b"x,y\n1,a\n2,\xff\n", "the byte 0xff in line 3"),
        ("e.csv", b'x,y\n"1,a\n', "quotes come in pairs"),
        ("f.parquet", b"PAR1", "expected a whole Parquet file"),
        ("g.npy", b"P", "expected a whole .npy file"),
        ("h.csv", b"x,y\n" + b"1,a\n1,b\n" * 9, "expected a column with several values, got x"),
        ("i.csv", b"x,y\n" + b"".join(b"%d,%d\n" % (i, i) for i in range(9)), None),
    ],
)
def test_files_that_are_no_tables(people, tmp_path, capsys, monkeypatch, name, content, message):
    monkeypatch.chdir(people.parent)
    path = name
    if content is not None:
        path = tmp_path / name
        path.write_bytes(content)
    arguments = ["--target", "y", *QUICK, "--epochs", "1", "--batch-size", "2", "--output", tmp_path / "run"]
    if message is None:
        assert "task      regression: y 2 to 8" in ok(capsys, "train", "--data", path, *arguments)
        return
    said = refused(capsys, "train", "--data", path, *arguments)
    assert re.search(message, said), said
    assert str(path) in said
    assert not (tmp_path / "run").exists()


# Arrays


def test_arrays_by_their_usual_names_or_by_options(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.random((20, 2)), np.array(["a", "b"])[random.integers(0, 2, 20)]
    np.savez(tmp_path / "keras.npz", x_train=x, y_train=y, x_test=x[:4] + 1, y_test=y[:4])
    parts = parts_of(tmp_path / "keras.npz")
    assert [len(pair[0]) for pair in (parts.training, parts.test)] == [20, 4]
    assert parts.preparation().targets[0].categories == ("a", "b")
    np.savez(tmp_path / "own.npz", first=x, second=y, third=y)
    assert parts_of(tmp_path / "own.npz", "third", x="first").training[0].shape == (16, 2)
    fields = np.array([(1.5, "a"), (2.5, "b")] * 10, [("size", float), ("kind", "U1")])
    np.save(tmp_path / "fields.npy", fields)
    assert parts_of(tmp_path / "fields.npy", "kind").preparation().feature_names == ("size",)
    np.savez(tmp_path / "whole.npz", x=x, y=np.arange(20.0) % 2)
    assert parts_of(tmp_path / "whole.npz").preparation().targets[0].categories == ("0", "1")
    np.savez(tmp_path / "hot.npz", x=x, y=np.eye(3)[np.arange(20) % 3])
    assert parts_of(tmp_path / "hot.npz").preparation().targets[0].categories == ("0", "1", "2")


@pytest.mark.parametrize(
    "arrays, arguments, message",
    [
        ({"a": 1, "b": 1}, [], "expected the arrays x and target, got a, b; name two with --x and --target"),
        ({"x": 1, "y": 1}, ["--target", "z"], "--target to be one of the arrays x, y, got 'z'; choose one of them."),
        ({"foo": 1, "y": 1}, ["--x", "Fooo"], "--x to be one of the arrays foo, y, got 'Fooo'; did you mean foo?"),
        ({"x": 1, "y": 1}, ["--target", "x", "y"], "expected one array of the .npz file, got 2"),
        ({"x": 1, "y": 1, "labels": 1}, [], "expected the arrays x and target, got labels, x, y"),
    ],
)
def test_arrays_that_are_not_named(tmp_path, capsys, arrays, arguments, message):
    np.savez(tmp_path / "a.npz", **{name: np.arange(20.0) for name in arrays})
    assert message in refused(capsys, "train", "--data", tmp_path / "a.npz", *arguments, "--output", tmp_path / "run")


@pytest.mark.parametrize("file", ["csv", "npz"])
def test_a_class_that_only_held_out_rows_have_is_a_class(tmp_path, capsys, file):
    """Otherwise its rows could not be counted as mistakes."""
    x, y = np.arange(20.0)[:, None], np.array(["a", "b"] * 8 + ["c"] * 4)
    np.savez(tmp_path / "a.npz", x_train=x[:16], y_train=y[:16], x_test=x[16:], y_test=y[16:])
    lines = [f"{value},{i},{name}" for i, ((value,), name) in enumerate(zip(x, y, strict=True))]
    (tmp_path / "a.csv").write_text("\n".join(["x,when,y", *lines]))
    options = ["--target", "y", "--time", "when"] if file == "csv" else []
    out = ok(capsys, "train", "--data", tmp_path / f"a.{file}", *options, *QUICK, "--output", tmp_path / "run")
    assert "3 classes (a 50%, b 50%, c 0%)" in out
    assert re.search(r"held out +│ +4 │.*│ +0.00% │\n", out)  # one answer for all, a, is wrong for each


def test_named_arrays_are_not_mixed_with_those_for_testing(tmp_path):
    x, y = np.random.default_rng(0).random((20, 2)), np.arange(20) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=-x, y_test=y, x_more=x + 1)
    for name, low in {"x_more": 1, "x_train": 0}.items():
        parts = parts_of(tmp_path / "a.npz", x=name)
        assert [len(pair[0]) for pair in (parts.training, parts.test)] == [16, 4]
        assert min(pair[0].min() for pair in (parts.training, parts.test)) >= low
    assert parts_of(tmp_path / "a.npz", "y_train").test[0].min() >= 0


NPY = io.BytesIO()
np.save(NPY, np.ones((20, 3)))


@pytest.mark.parametrize("command", ["train", "train --target 2", "predict", "evaluate", "predict array"])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "it is empty or of another kind; save it with np.save"),
        (b"hello world", "it is empty or of another kind; save it with np.save"),
        (b"\x80\x04]\x94.", "it is empty or of another kind; save it with np.save"),
        (NPY.getvalue()[:-50], "(EOF: reading array data|Failed to read all data)"),
        (NPY.getvalue().replace(b"'<f8'", b"'|O' "), "an array holds Python objects; make numbers of them"),
        (b"PK", "one array, as np.save writes it, got several; save x alone as .npy"),
    ],
    ids=["empty", "garbage", "pickle", "cut", "objects", "zip"],
)
def test_arrays_that_cannot_be_read(member, arrays, tmp_path, capsys, monkeypatch, command, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(content)
    word, *more = command.split()
    run = arrays if more == ["array"] else member
    rest = {"train": ["--data", "a.npy", *more], "predict": [run, "a.npy"], "evaluate": [run, "--data", "a.npy"]}[word]
    said = refused(capsys, word, *rest)
    assert re.match(rf"funcnet: (a\.npy|\w+(\.read)?\('a\.npy'\)): expected .*{message}", said), said
    assert "pickle" not in said


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """A run on the rows of an array."""
    folder = tmp_path_factory.mktemp("arrays")
    np.savez(folder / "a.npz", x=np.random.default_rng(0).random((20, 3)), y=np.arange(20) % 2)
    assert main(["train", "--data", str(folder / "a.npz"), *QUICK, "--output", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.parametrize("ending", ["csv", "npy", "parquet"])
def test_a_table_is_named_where_no_target_is_given(tmp_path, capsys, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"a.{ending}").touch()
    assert refused(capsys, "train", "--data", f"a.{ending}").startswith(f"funcnet: a.{ending}: expected ")
    (tmp_path / f"b.{ending}").symlink_to(os.devnull)
    said = refused(capsys, "train", "--data", f"b.{ending}")
    assert said.startswith(f"funcnet: b.{ending}: the file cannot be read: ")


def test_numbers_with_decimals_are_not_names_of_classes(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.ones((20, 2)), y=np.arange(20) / 4)
    said = refused(capsys, "train", "--data", tmp_path / "a.npz", "--task", "classes", "--output", tmp_path / "run")
    assert (
        "--task classes: expected texts or whole numbers in 'target', got 0.25; round the numbers in the file" in said
    )


@pytest.mark.parametrize(
    "of, arguments, message",
    [
        ("digits", ["--target", "foo"], "--target: .* be a .csv, .tsv, .parquet or .npy file, an .npz file or a fold"),
        ("digits", ["--time", "b"], "--time: expected --data to be a .csv, .tsv, .parquet or .npy file, got digits"),
        ("digits", ["--image-size", "4"], "--image-size: expected --data to be a folder of pictures, got digits"),
        ("digits", ["--folder", "here"], "--folder: expected --data to be mnist, fashion_mnist, cifar10 or cifar100, "),
        ("f", ["--drop", "z"], "--drop: expected --data to be a .csv, .tsv, .parquet or .npy file, got f"),
        ("f", ["--target", "z"], "expected no target, got z; without a table the folders are the classes"),
        ("a.npz", ["--group", "x"], "--group: expected --data to be a .csv, .tsv, .parquet or .npy file, got a.npz"),
        ("a.npz", ["--test", "0.5"], "--test 0.5: expected data without test rows of their own, got some"),
        ("a.npz", ["--folds", "3"], "--folds 3: expected data without test rows of their own, got some; leave it out"),
    ],
)  # fmt: skip
def test_an_option_that_says_nothing_about_the_data_is_refused(tmp_path, capsys, monkeypatch, of, arguments, message):
    monkeypatch.chdir(tmp_path)
    two_classes(tmp_path / "f")
    x, y = np.ones((8, 2)), np.arange(8) % 2
    np.savez("a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    code, _, err = funcnet(capsys, "train", "--data", of, *arguments)
    assert code == 2
    assert re.search(message, err), err
    assert sorted(os.listdir()) == ["a.npz", "f"]


def test_the_size_of_the_pictures_of_another_run_is_not_an_option(tmp_path):
    """`--from` takes it for a network that may go on with other data."""
    parts = read_parts(options.Train(image_size=64, from_run=tmp_path))
    assert parts.training[0].shape == (1438, 64)


# Whatever is malformed


@pytest.mark.parametrize("name", TABLES)
def test_malformed_tables(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes(TABLES[name][0])
    said = refused(capsys, "train", "--data", "t.csv", "--target", "y")
    assert re.fullmatch(r"funcnet: read_table\('t\.csv'\): expected .*\.\n", said), said
    assert not re.search(r"\w=", said), "arguments of Python"
    assert os.listdir() == ["t.csv"]


@pytest.mark.parametrize("change, message", FOLDERS)
def test_malformed_folders(tmp_path, capsys, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    change(two_classes(tmp_path / "f"))
    said = refused(capsys, "train", "--data", "f")
    assert re.search(message.replace("image_size", "--image-size"), said), said
    assert os.listdir() == ["f"]


@pytest.mark.parametrize("name", ARRAYS)
def test_malformed_arrays(tmp_path, capsys, monkeypatch, name):
    content, message = ARRAYS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(content)
    said = refused(capsys, "train", "--data", "a.npz")
    assert re.search(f"^funcnet: a.npz: .*{message}.*\\.\n$", said), said
    assert os.listdir() == ["a.npz"]


# Tasks


def test_a_network_that_is_worse_than_one_answer_is_told():
    target = np.array([0] * 30 + [1] * 10)
    preparation = fn.data.prepare(np.zeros((40, 1), np.float32) + target[:, None] * 1e-3, target)
    task, model = task_of(preparation), fn.layers.dense(2)
    rows = np.ones((8, 1), np.float32), np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int32)
    params = {"kernel": np.float32([[0.0, 0.0]]), "bias": np.float32([0.0, 1.0])}  # always the class 1
    results = judged(preparation, task, model, params, (), rows, 8)
    assert (float(results["accuracy"]), results["baseline"]) == (0.25, 0.75)
    assert verdict(preparation, task, results) == "This is not better than one answer for all rows, always 0."
    params["bias"] = -params["bias"]
    better = judged(preparation, task, model, params, (), (rows[0][:1], rows[1][:1]), 1)
    assert verdict(preparation, task, {**better, "baseline": 0.5}) is None


def test_balanced_class_weights():
    """n / (classes · rows of the class), by hand: 40 / (2 · 30) and 40 / (2 · 10)."""
    target = np.array(["a"] * 30 + ["b"] * 10)
    preparation = fn.data.prepare(np.random.default_rng(0).random((40, 2)), target)
    loss = task_of(preparation, "balanced").loss
    z, y = np.float32([[0, 0], [0, 2]]), np.array([0, 1])
    by_hand = np.array([2 / 3, 2]) * [np.log(2), np.log1p(np.exp(-2.0))]
    np.testing.assert_allclose(loss(z, y), by_hand.sum() / (2 / 3 + 2), rtol=1e-6)


def test_nothing_was_held_out(people, tmp_path, capsys):
    table = ["--data", people, "--target", "member", "--drop", "day", "--test", "0"]
    out = ok(capsys, "train", *table, *QUICK, "--epochs", "1", "--output", tmp_path / "run")
    assert "No row was held out (--test 0): all rows were trained on. New rows may be predicted worse." in out
    said = refused(capsys, "evaluate", tmp_path / "run")
    assert "expected rows that were held out, got none (--test 0); give others: --data" in said
    assert "accuracy" in ok(capsys, "evaluate", tmp_path / "run", "--data", people)
    assert ok(capsys, "report", tmp_path / "run", "--most", 0)
