"""Tables: what is read from files and frames, what the training rows determine, and what is refused."""

import io
import json
import sys

import jax
import numpy as np
import pytest
from malformed import TABLES
from pages import DOCS, block

from funcnet.data import Preparation, cells, prepare, read_table, split
from funcnet.errors import ConfigError, DataError, FormatError, LabelError, MissingExtraError, ShapeError

PEOPLE = """age,town,member,income
20,Bern,true,10.5
40,"Basel, new",false,-2e1

,Bern,true,30
60,,TRUE,40
"""
COLUMNS = {
    "age": np.array([20.0, 40.0, np.nan, 60.0]),
    "town": np.array(["Bern", "Basel, new", "Bern", None], object),
    "member": np.array([True, False, True, True]),
}
INCOME = np.array([10.5, -20.0, 30.0, 40.0])


def text(content, encoding="utf-8"):
    return io.BytesIO(content.encode(encoding))


def same(found, wanted):
    assert list(found) == list(wanted)
    for name, column in wanted.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name, strict=True)


# Files


def test_a_table_of_text():
    x, target = read_table(text(PEOPLE), target="income")
    same(x, COLUMNS)
    same(target, {"income": INCOME})


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";").replace("Basel;", "Basel,").replace(".5", ",5"),
        lambda text: text.replace(",", "\t").replace("Basel\t", "Basel,"),
        lambda text: text.replace(",", "|").replace("Basel|", "Basel,"),
        lambda text: text.replace('"', "'"),
        lambda text: text.replace(",Bern", " ,  Bern ").replace("\n,", "\n NA,"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: "".join(
            f"{number},{line}\n" for number, line in zip(["", 0, 1, 2, 3], filter(None, text.split("\n")), strict=True)
        ),
    ],
    ids=["CRLF", "byte-order mark", "semicolons", "tabs", "bars", "single quotes", "spaces", "blank lines", "index"],
)
def test_the_form_of_a_text_is_found(change):
    x, target = read_table(text(change(PEOPLE)), target="income")
    same(x, COLUMNS)
    same(target, {"income": INCOME})


def test_files_and_frames_hold_the_same(tmp_path):
    import pandas as pd

    (tmp_path / "people.CSV").write_text(PEOPLE)
    frame = pd.DataFrame({**COLUMNS, "income": INCOME})
    frame.to_parquet(tmp_path / "people.parquet")

    class Polars:
        columns = [*frame.columns]

        def to_pandas(self):
            return frame

    for source in (tmp_path / "people.CSV", str(tmp_path / "people.parquet"), frame, Polars()):
        x, target = read_table(source, target="income")
        same(x, COLUMNS)
        same(target, {"income": INCOME})


def test_dtypes_of_frames():
    import pandas as pd

    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], "Int64"),
            "maybe": pd.array([True, None, False], "boolean"),
            "kind": pd.Categorical([2, 1, 2]),
            "y": [0, 1, 0],
        }
    )
    x, target = read_table(frame, target="y")
    wanted = {"whole": np.array([1, np.nan, 3]), "maybe": np.array([1, np.nan, 0])}
    same(x, {**wanted, "kind": np.array(["2", "1", "2"], object)})
    same(target, {"y": np.array([0, 1, 0])})


def test_without_a_header_columns_have_numbers():
    x, target = read_table(text("5.1,a,0\n4.9,b,1\n"), target="2")
    same(x, {"0": np.array([5.1, 4.9]), "1": np.array(["a", "b"], object)})
    same(target, {"2": np.array([0, 1])})
    x, target = read_table(text("a,b\nc,d\n"), target="1", header=False)
    same(x, {"0": np.array(["a", "c"], object)})
    x, target = read_table(text("2019,2020,y\n1,2,3\n"), target="y")
    same(x, {"2019": np.array([1.0]), "2020": np.array([2.0])})


def test_columns_are_left_out_and_read_as_texts():
    table = "when,code,age,y\n2024-01-05,08001,?,a\n2024-01-06,3011,7,b\n"
    x, target = read_table(text(table), target="y", drop="when", categories=["code"])
    same(x, {"code": np.array(["08001", "3011"], object), "age": np.array([np.nan, 7.0])})
    x, target = read_table(text("a,y\n1,2\n3,2\n"), target="y", categories="y")
    same(target, {"y": np.array(["2", "2"], object)})


def test_in_texts_only_the_empty_cell_is_missing():
    x, _ = read_table(text("land,y\nNA,1\n,2\nnone,3\n"), target="y")
    same(x, {"land": np.array(["NA", None, "none"], object)})


@pytest.mark.parametrize("name", TABLES)
def test_malformed_tables(name):
    content, error, message = TABLES[name]
    with pytest.raises(error, match=message):
        read_table(io.BytesIO(content), target="y")


def test_other_encodings_are_read():
    for encoding in ("latin1", "utf-16"):
        x, _ = read_table(text("a,y\nü,3\n", encoding), target="y", encoding=encoding)
        same(x, {"a": np.array(["ü"], object)})


def test_refused_arguments_and_sources(tmp_path):
    import pandas as pd

    with pytest.raises(DataError, match=r"read_table\('.*none.csv'\): the file cannot be read: .*No such file"):
        read_table(tmp_path / "none.csv", target="y")
    with pytest.raises(DataError, match=r"ends in .csv, .tsv, .parquet, .npy, got '.xlsx'; save it as .csv"):
        read_table("book.xlsx", target="y")
    with pytest.raises(ConfigError, match="expected a file or a frame of pandas or polars, got 3"):
        read_table(3, target="y")
    with pytest.raises(ConfigError, match="expected target to be names of columns, got 1; a column without a name"):
        read_table(text(PEOPLE), target=[1])
    with pytest.raises(DataError, match=r"expected a column 'incme', got .*; did you mean 'income'\?"):
        read_table(text(PEOPLE), target="incme")
    with pytest.raises(DataError, match=r"expected a column 'Y', got 'a', 'y'; did you mean 'y'\?"):
        read_table(text("a,y\n1,2\n"), target="Y")
    with pytest.raises(DataError, match="expected a column '-1', got '0', '1'; names are in the first line, or num"):
        read_table(text("1,2\n3,4\n"), target="-1")
    with pytest.raises(ConfigError, match="expected an encoding that Python knows: unknown encoding: utf-9"):
        read_table(text(PEOPLE), target="income", encoding="utf-9")
    for values, message in [
        ([[1], [2]], r"of numbers or of texts, got \[1\] in row 0, of the kind mixed; convert it"),
        (pd.to_datetime(["2024-01-05", None]), "got the date or time '2024-01-05 00:00:00' in row 0"),
        ([1.0, np.inf], "got 'inf' in row 1"),
    ]:
        with pytest.raises(DataError, match=message):
            read_table(pd.DataFrame({"a": values, "y": [1, 2]}), target="y")
    with pytest.raises(DataError, match="the target 'y' in every row, got none in row 1"):
        read_table(pd.DataFrame({"a": [1, 2], "y": [1, None]}), target="y")


@pytest.mark.parametrize("package", ["pandas", "pyarrow"])
def test_parquet_needs_an_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pandas, with pyarrow, .*pip install 'funcnet\[table\]'"):
        read_table(io.BytesIO(b"PAR1"), target="y")


# The preparation: by hand


def prepared(**options):
    """Ages 20, 40 and one missing: mean 30, scale 10. Member: mean 2/3. Target: mean 20, scale 10."""
    x = {
        "age": np.array([20.0, np.nan, 40.0]), "town": np.array(["Bern", None, "Basel"], object),
        "member": np.array([True, False, True]), "same": np.array(["x"] * 3, object), "none": np.full(3, np.nan),
    }  # fmt: skip
    target = {"income": np.array([10.0, 20.0 - 1e-9, 30.0])}
    return prepare(x, target, **options)


def test_features_by_hand():
    preparation = prepared()
    assert preparation.feature_names == ("age", "member", "age missing", "town=Basel", "town=Bern", "town=")
    assert preparation.left_out == ("same", "none")
    assert (preparation.shape, preparation.outputs, preparation.task) == ((6,), 1, "regression")
    assert repr(preparation).splitlines() == [
        "task      regression: income 10 to 30",
        "columns   2 of numbers, 1 of texts (town) -> 6 features",
        "missing   age 1, town 1 of 3 rows",
        "left out  same, none: the same in every row",
    ]
    x = {
        "town": np.array(["Bern", "Paris", None], object), "age": np.array([60.0, np.nan, 30.0]),
        "member": np.array([1, 0, np.nan]),
    }  # fmt: skip
    inputs = preparation.inputs(x)
    nan, root = np.nan, 2**0.5  # member has the mean 2/3 and the scale √2/3
    np.testing.assert_array_equal(inputs["numbers"], np.float32([[60, 1], [nan, 0], [30, nan]]))
    np.testing.assert_array_equal(inputs["codes"], np.int32([[1], [-1], [2]]), strict=True)
    wanted = [[3, 1 / root, 0, 0, 1, 0], [0, -root, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
    features, target = preparation.rows(x)
    np.testing.assert_allclose(features, wanted, rtol=1e-6)
    assert (features.dtype, target) == (np.float32, None)
    assert preparation.unusual(x) == {"age": {"above": 1}, "member": {"missing": 1}, "town": {"unknown": 1}}
    assert preparation.unusual({**x, "age": np.array([20.0, 19.0, 40.0])})["age"] == {"below": 1}


def test_an_array_stays_as_it_is():
    x = np.float32([[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[1, 1], [1, 9]]])
    preparation = prepare(x, np.array([3, 7, 3]), task="classes", classes=("3", "5", "7"))
    assert (preparation.shape, preparation.outputs, preparation.targets[0].counts) == ((2, 2), 3, (2, 0, 1))
    features, target = preparation.rows(x, np.array([7, 3, 5]))
    np.testing.assert_array_equal(features, x, strict=True)
    np.testing.assert_array_equal(target, np.int32([2, 0, 1]), strict=True)
    np.testing.assert_array_equal(preparation.features(x), x)
    assert preparation.example == jax.ShapeDtypeStruct((1, 2, 2), np.float32)
    assert Preparation.from_json(preparation.to_json()) == preparation
    assert preparation.unusual(x) == {}
    assert preparation.unusual(x + np.float32([[[0]], [[0]], [[1]]])) == {"x": {"above": 1}}
    assert repr(preparation).splitlines() == [
        "task      classes: target, 3 classes (3 67%, 5 0%, 7 33%)",
        "array     3 × 2 × 2, numbers from 0 to 9",
    ]
    with pytest.raises(ShapeError, match=r"^Preparation: expected x of shape \(n, 2, 2\), got \(3, 2\)"):
        preparation.rows(x[:, 0])
    with pytest.raises(FormatError, match="row_shape"):
        Preparation.from_json(preparation.to_json().replace('"row_shape": [\n  2', '"row_shape": [\n  0'))


def test_the_example_has_the_shapes_of_the_inputs():
    preparation = prepared()
    assert {name: (leaf.shape, str(leaf.dtype)) for name, leaf in preparation.example.items()} == {
        "numbers": ((1, 2), "float32"), "codes": ((1, 1), "int32"),
    }  # fmt: skip


def test_the_program_of_the_features_gives_the_same_bits():
    preparation, random = prepared(), np.random.default_rng(0)
    numbers = random.normal(30, 20, (100, 2)).astype(np.float32)
    numbers[::7, 0] = np.nan
    inputs = {"numbers": numbers, "codes": random.integers(-1, 3, (100, 1), dtype=np.int32)}
    x = {"age": numbers[:, 0], "member": numbers[:, 1], "town": np.array(["Basel", "Bern", None, "?"], object)}
    x["town"] = x["town"][inputs["codes"][:, 0]]
    by_program = jax.jit(preparation.features)(inputs)
    np.testing.assert_array_equal(by_program, preparation.rows(x)[0], strict=False)
    assert by_program.dtype == np.float32


def test_targets_by_hand():
    preparation = prepared()
    encoded = preparation.encoded({"income": np.array([30.0, 0.0])})
    np.testing.assert_allclose(encoded, np.float32([[1.2247449], [-2.4494898]]), rtol=1e-6)  # scale 10 √(2/3)
    np.testing.assert_allclose(preparation.results(encoded), [[30], [0]], atol=1e-5)
    classes = prepared(task="classes")
    assert [column.categories for column in classes.targets] == [("10", "19.999999999", "30")]
    np.testing.assert_array_equal(classes.encoded(np.array([30, 10])), np.int32([2, 0]), strict=True)
    np.testing.assert_allclose(classes.results(np.log([[1.0, 1.0, 2.0]])), [[0.25, 0.25, 0.5]], rtol=1e-6)


def test_labels_by_hand():
    x, target = read_table(text("a,b,c\n1,1,true\n2,0,true\n"), target=["c", "b"])
    preparation = prepare(x, target)
    assert (preparation.task, preparation.outputs) == ("labels", 2)
    np.testing.assert_array_equal(preparation.encoded(target), np.float32([[1, 1], [1, 0]]), strict=True)
    np.testing.assert_allclose(preparation.results(np.log([[1.0, 3.0]])), [[0.5, 0.75]], rtol=1e-6)
    assert "task      labels: c 1 in 100%, b 1 in 50%" in str(preparation)


@pytest.mark.parametrize(
    "target, task",
    [
        (["a", "b", "a", "b"], "classes"),
        ([True, False, True, False], "classes"),
        ([3, 5, 3, 5], "classes"),
        ([3.0, 5.0, 3.0, 5.0], "classes"),
        ([3.5, 5.0, 3.5, 5.0], "regression"),
        ([1, 2, 3, 3], "regression"),
        ([*range(20)] * 2, "classes"),
        ([*range(21)] * 2, "regression"),
        ([2 * n + n // 10 for n in range(21)], "regression"),
        ([n + 0.5 for n in range(21)], "regression"),
        ({"a": [0, 1], "b": [True, False]}, "labels"),
        ({"a": [0, 2], "b": [1, 0]}, "regression"),
    ],
)
def test_the_task_follows_from_the_target(target, task):
    columns = target if isinstance(target, dict) else {"y": target}
    columns = {name: np.array(values) for name, values in columns.items()}
    n = len(next(iter(columns.values())))
    assert prepare({"a": np.arange(float(n))}, columns).task == task


def test_classes_of_numbers_are_in_the_order_of_numbers():
    preparation = prepare({"a": np.arange(6.0)}, {"y": np.array([10, 9, 100, 9, 10, 100])})
    assert preparation.targets[0].categories == ("9", "10", "100")
    assert preparation.targets[0].counts == (2, 2, 2)


def test_training_rows_alone_determine_everything():
    rows = [f"{i},{'ab'[i % 2]},{i * 10}" for i in range(20)] + ["1000,c,5", "-1000,d,100000"]
    x, target = read_table(text("\n".join(["n,t,y", *rows])), target="y")
    train, held_out = ({**{k: v[part] for k, v in x.items()}} for part in (slice(20), slice(20, None)))
    preparation = prepare(train, target["y"][:20])
    number, letter = preparation.columns
    assert (number.mean, number.low, number.high, letter.categories) == (9.5, 0, 19, ("a", "b"))
    assert number.scale == pytest.approx((399 / 12) ** 0.5)
    assert preparation.targets[0].mean == 95
    np.testing.assert_allclose(preparation.rows(held_out)[0][0], [990.5 / (399 / 12) ** 0.5, 0, 0], rtol=1e-6)


def test_split_keeps_the_order_of_columns():
    x, target = read_table(text("z,y,a,b\n" + "1,2,3,x\n2,3,4,y\n" * 5), target=["y", "b"], categories="y")
    for part_x, part_target in split(x, target):
        assert (list(part_x), list(part_target)) == (["z", "a"], ["y", "b"])


# New data


def test_new_data_have_the_columns_in_any_order():
    preparation = prepare(*read_table(text(PEOPLE), target="income"))
    new = "other,member,town,age\n2024-01-01,false,Bern,1\n2024-01-01,true,,\n"
    x, target = preparation.read(text(new))
    same(x, {"age": np.array([1, np.nan]), "town": np.array(["Bern", None], object), "member": np.array([0.0, 1.0])} | {
        "member": np.array([False, True])
    })  # fmt: skip
    assert target is None
    _, target = preparation.read(text(PEOPLE), target=True)
    same(target, {"income": INCOME})


@pytest.mark.parametrize(
    "content, target, message",
    [
        ("age,town\n1,Bern\n", False, r"Preparation.read\(BytesIO\): expected a column 'member', got 'age', 'town'"),
        ("Age,town,member\n1,a,true\n", False, r"a column 'age', got .*; did you mean 'Age'\?"),
        ("age,town,member\nold,a,true\n", False, "column 'age' of numbers that float32 holds, got 'old' in line 2"),
        ("age,town,member\n1,a,true\n", True, "expected a column 'income'"),
        ("age,town,member,income\n1,a,true,\n", True, "the target 'income' in every row, got none in line 2"),
    ],
)
def test_new_data_that_do_not_fit(content, target, message):
    preparation = prepare(*read_table(text(PEOPLE), target="income"))
    with pytest.raises(DataError, match=message):
        preparation.read(text(content), target=target)


LINES = block("data.md", "csv.DictReader(lines)")
NEW = {
    "any order, spaces, unknown texts": "x,town , member,age\r\n1, Bern,FALSE, 2e1\r\n1,Paris,true,-.5\r\n\r\n1,bern,,",
    "a byte order mark, and quotes": '\ufeffage,member,town\n1,true,"Basel, new"\n2,False,"Bern\nBasel"\n3,True,""\n',
    "every missing word": "member,town,age\n" + "".join(f'{word},"{word}",{word}\n' for word in sorted(cells._MISSING)),
    "numbers like booleans": "member,town,age\n1,NA,7\n0,Bern,8\n",
}


@pytest.mark.parametrize("new", NEW)
@pytest.mark.parametrize("drop", [(), ("town",), ("age", "member")])
def test_the_lines_of_the_page_make_the_inputs_of_a_table(tmp_path, new, drop):
    preparation = prepare(*read_table(text(PEOPLE), target="income", drop=drop))
    (tmp_path / "new.csv").write_text(NEW[new], encoding="utf-8", newline="")
    lines_make_the_inputs(LINES, tmp_path, preparation)


READER, CELL = "csv.DictReader(lines)", "words.get(cell, cell)"
SEMICOLONS, NUMBERED = 'csv.DictReader(lines, delimiter=";")', 'csv.DictReader(lines, ["0", "1"])'
COMMAS = 'words.get(cell, cell.replace(",", "."))'


@pytest.mark.parametrize(
    "instead, train, target, new",
    [
        ({READER: SEMICOLONS, CELL: COMMAS}, "age;y\n1,5;1\n2;2\n", "y", "y;age\n1;2,5\n1;?\n1;-1,5e2\n"),
        ({READER: NUMBERED}, "1.5,a,1\n2,b,2\n", "2", "2,b\n3,a\n"),
    ],
)
def test_the_form_of_a_table_is_written_into_the_lines(tmp_path, instead, train, target, new):
    page, lines = " ".join((DOCS / "data.md").read_text("utf-8").split()), LINES
    for old, changed in instead.items():
        assert f"`{changed}`" in page
        assert lines.count(old) == 1
        lines = lines.replace(old, changed)
    (tmp_path / "new.csv").write_text(new)
    lines_make_the_inputs(lines, tmp_path, prepare(*read_table(text(train), target=target), task="regression"))


def lines_make_the_inputs(lines, folder, preparation):
    (folder / "preparation.json").write_text(preparation.to_json(), encoding="utf-8")
    names = {"folder": folder, "new": folder / "new.csv", "np": np}
    exec(lines, names)
    x, _ = preparation.read(names["new"])
    wanted = preparation.inputs(x)
    assert sorted(names["inputs"]) == sorted(wanted)
    same(names["inputs"], {name: wanted[name] for name in names["inputs"]})


def test_codes_read_as_texts_fit_numbers_of_a_frame():
    import pandas as pd

    preparation = prepare(*read_table(text("code,y\n8001,1\n3011,2\n"), target="y", categories="code"))
    x, _ = preparation.read(pd.DataFrame({"code": [3011.0, 8001.0]}))
    np.testing.assert_array_equal(preparation.inputs(x)["codes"][:, 0], [0, 1])


def test_a_class_that_no_training_row_has():
    preparation = prepare({"a": np.arange(4.0)}, {"y": np.array(["u", "v"] * 2)})
    with pytest.raises(
        LabelError,
        match="^Preparation: expected a class that training rows have, u, v, got 'w' at row 1; .*stratified=True",
    ):
        preparation.encoded({"y": np.array(["u", "w"])})
    with pytest.raises(LabelError, match="have, u, v, got 'w' in line 3; correct it, or leave it out"):
        preparation.read(text("a,y\n1,u\n2,w\n"), target=True)


def test_large_numbers_are_written_in_full():
    preparation = prepare({"a": np.arange(3.0)}, {"price": np.array([166178.25, 700000.5, 1276193.5])})
    assert "regression: price 166178 to 1276194\n" in repr(preparation)


def test_advice_that_can_be_followed():
    """A target is not left out, and a trained model takes each of its columns as it is."""
    import pandas as pd

    fix = "write numbers in its place, such as days since the first one"
    with pytest.raises(DataError, match=f"'y' of .* got the date or time '2026-01-05' in line 2; {fix}.$"):
        read_table(text("a,y\n1,2026-01-05\n"), target="y")
    days = pd.DataFrame({"a": [1.0, 2.0], "y": pd.to_datetime(["2026-01-05", "2026-01-06"])})
    with pytest.raises(DataError, match=f"'y' of .* got the date or time '2026-01-05 .*' in row 0; {fix}.$"):
        read_table(days, target="y")
    with pytest.raises(DataError, match=r"of the kind mixed; convert it\.$"):
        read_table(pd.DataFrame({"a": [1.0, 2.0], "y": [[1], [2]]}), target="y")
    preparation = prepare({"a": np.arange(4.0)}, {"y": np.array(["u", "v"] * 2)})
    for frame in (text("a\nx\n"), text("a\n1e300\n"), pd.DataFrame({"a": [1e300]}), pd.DataFrame({"a": ["x"]})):
        with pytest.raises(DataError, match="got .(x|1e.300|1e300). in .* 0?2?; correct it, as the training rows have"):
            preparation.read(frame)
    with pytest.raises(DataError, match=f"'a' of .* got the date or time .* in row 0; {fix}.$"):
        preparation.read(pd.DataFrame({"a": days["y"]}))


# As a file


def test_a_preparation_is_a_file_and_back():
    for preparation in (prepared(), prepared(task="classes"), prepare(*read_table(text(PEOPLE), target="member"))):
        assert Preparation.from_json(preparation.to_json()) == preparation
    entry = json.loads(prepared().to_json())["columns"][1]
    assert (entry["name"], entry["categories"], entry["counts"]) == ("town", ["Basel", "Bern", None], [1, 1, 1])


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("task"),
        lambda fields: fields.update(task="guessing"),
        lambda fields: fields.update(format="funcnet preparation 9"),
        lambda fields: fields.update(more=1),
        lambda fields: fields.update(size=0),
        lambda fields: fields.update(image_size=[0, 2]),
        lambda fields: fields["columns"][0].update(scale=0),
        lambda fields: fields["columns"][0].update(mean="30"),
        lambda fields: fields["columns"][0].update(missing=-1),
        lambda fields: fields["columns"][1].update(categories=["a", "a", None]),
        lambda fields: fields["columns"][1].update(categories=["a", 3, None]),
        lambda fields: fields["columns"][1].update(counts=[1]),
        lambda fields: fields["columns"][1].pop("name"),
        lambda fields: fields.update(columns={}),
    ],
)
def test_damaged_preparations(change):
    fields = json.loads(prepared().to_json())
    change(fields)
    with pytest.raises(FormatError, match="Preparation.from_json: expected the text of a preparation, as to_json"):
        Preparation.from_json(json.dumps(fields))


def test_what_is_not_a_preparation():
    for wrong in ("", "[]", "3", "{", "[" * 100_000):
        with pytest.raises(FormatError, match="expected the text of a preparation"):
            Preparation.from_json(wrong)


# What cannot be prepared

A = {"a": np.arange(6.0)}
Y = np.array([0, 1] * 3)


@pytest.mark.parametrize(
    "x, target, options, error, message",
    [
        (A, np.array(["u"] * 6), {}, DataError, "prepare: expected at least two classes in 'target', got u alone"),
        (A, {"y": np.full(6, 2.5)}, {}, DataError, "values that differ in the target 'y', got 2.5 in every row"),
        (A, {"y": np.array([1, np.nan] * 3)}, {}, DataError, "the target 'y' in every row, got none at row 1"),
        (
            A,
            {"y": np.array(["a", "b"] * 3)},
            {"task": "regression"},
            DataError,
            "expected numbers in 'y' for task='regression', got texts as 'a'",
        ),
        (A, {"y": np.arange(6)}, {"task": "labels"}, DataError, "labels 0 and 1 in 'y', got 0 to 5"),
        (A, {"y": Y, "z": Y}, {"task": "classes"}, DataError, "expected one target of classes, got y, z; choose one"),
        (A, {"y": Y, "z": np.array(["a", "b"] * 3)}, {}, DataError, "targets to be numbers, got texts in z; choose"),
        (
            {"a": np.arange(21.0)},
            np.arange(21) * 2,
            {},
            DataError,
            "got 0 to 40, each once, as rows are numbered, in 'ta",
        ),
        (A, Y, {"task": "guess"}, ConfigError, "expected task to be .* or .regression., got 'guess'"),
        (A, Y[:5], {}, DataError, "expected x and target of one length, got 6 and 5 rows"),
        ({"a": np.zeros(6)}, Y, {}, DataError, "several values, got a, each the same in all rows; add others"),
        (
            A,
            np.array(["b", "c"] * 3),
            {"task": "regression"},
            DataError,
            "numbers in 'target' for task='regression', got "
            "texts as 'b'; write task='classes', or choose another target",
        ),
        ({"a": np.array([*"abcdef"])}, Y, {"most_categories": 5}, DataError, "at most 5 .* 'a', got 6 in 6 rows"),
        ({"a": 1e9 + np.arange(6)}, Y, {}, DataError, "'a' with differences that float32 can hold, .*; subtract 1e.09"),
        ({"a": np.array([1, np.inf] * 3)}, Y, {}, DataError, "'a' of numbers that float32 holds, got 1 to inf"),
        ({"a": np.zeros((6, 2))}, Y, {}, DataError, r"columns of x of shape \(n,\) and one length, got a \(6, 2\)"),
        ({"a": np.array(["2024-01-05"] * 6, "M8[D]")}, Y, {}, DataError, "'a' of numbers or texts, got .*datetime64"),
        ({}, Y, {}, DataError, "expected x to be a dictionary of columns, got a dict {}; read_table gives them"),
        (np.zeros((6, 2), int), Y, {}, DataError, r"x of floating-point numbers, got an array of dtype int64"),
        (np.full((6, 2), np.nan), Y, {}, DataError, r"x\[0, 0\] is nan; 6 of 6 rows have such values"),
        (np.ones((6, 2)), Y, {}, DataError, "rows that differ, got 6 that are the same; nothing can be learnt"),
        (np.zeros((6, 2, 2, 3), np.uint8), Y, {}, DataError, "expected rows that differ, got 6 that are the same"),
        (np.eye(6, 8, dtype=np.uint8).reshape(6, 2, 2, 2), Y, {}, DataError, "pictures of 1 or 3 channels, got 2"),
    ],
)
def test_what_cannot_be_prepared(x, target, options, error, message):
    with pytest.raises(error, match=message):
        prepare(x, target, **options)


def test_as_many_classes_as_rows_are_refused():
    names = np.array([f"person {i}" for i in range(60)])
    with pytest.raises(DataError, match="classes of several rows each in 'y', got 60 in 60 rows"):
        prepare({"a": np.arange(60.0)}, {"y": names})
