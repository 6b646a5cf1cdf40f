"""Tables, folders of pictures and arrays that cannot be learnt from, each with what is said about it.

`test_tables.py` and `test_pictures.py` give them to the readers, and `test_cli_data.py` to the command.
"""

import io

import numpy as np
from PIL import Image

from funcnet.errors import DataError, FormatError

__all__ = ["ARRAYS", "COLOUR", "FOLDERS", "GREY", "TABLES", "save", "two_classes"]

GREY = np.array([[0, 50, 100], [150, 200, 255]], np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], 2)


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels, mode)
    image.save(path, **options)
    return path


def two_classes(folder):
    """Two dark and two light pictures of 2 × 3 grey pixels, with the means 0, 0.2, 0.8 and 1."""
    for name, values in {"dark": (0, 51), "light": (204, 255)}.items():
        for i, value in enumerate(values):
            save(folder / name / f"{i}.png", np.full((2, 3), value, np.uint8))
    return folder


# Tables whose target is `y`

TABLES = {
    "empty": (b"", DataError, r"read_table\(BytesIO\): expected at least one row, got an empty file"),
    "names alone": (b"a,y\n", DataError, "expected at least one row, got the names a, y alone"),
    "too long": (b"a,y\n1,2\n1,2,3\n", DataError, "expected 2 cells, as in line 1, got 3 in line 3; .* needs quotes"),
    "too short": (b'a,y\n"1\n",2\n1\n', DataError, "expected 2 cells, as in line 1, got 1 in line 4"),
    "named twice": (b"a,b,a,y\n1,2,3,4\n", DataError, "got 'a' for column 1 and 3; rename them, or write header=False"),
    "without a name": (b"a,,y\n1,2,3\n", DataError, "columns with names, each its own, got '' for column 2"),
    "no such target": (b"a,w\n1,2\n", DataError, "expected a column 'y', got 'a', 'w'; names are in the first line"),
    "target alone": (b"y\n1\n", DataError, "at least one column besides it, got y of 'y'; name the target"),
    "target missing": (
        b"a,y\n1,2\n\n3,\n4,n/a\n5,6\n", DataError, "the target 'y' in every row, got none in lines 4, 5; leave these"
    ),
    "dates": (
        b"when,y\n,1\n2024-01-05,1\n", DataError,
        r"column 'when' of numbers or texts, got the date or time '2024-01-05' in line 3; .* drop=\('when',\)",
    ),
    "times of day": (b"a,y\n12:30,1\n9:05:11,2\n", DataError, "got the date or time '12:30' in line 2"),
    "month names": (b"a,y\n3 Jan 2024,1\n", DataError, "got the date or time '3 Jan 2024' in line 2"),
    "text among numbers": (
        b"a,y\n1,1\n2,1\nx,1\n", DataError,
        r"column 'a' of numbers that float32 holds, got 'x' in line 4; correct it, or write categories=\('a',\)",
    ),
    "thousands": (b'a,y\n"1,234",1\n"9,000",2\n', DataError, "got '1,234' in line 2; correct it"),
    "codes": (b"a,y\n8001,1\n08001,2\n", DataError, "got '08001' in line 3; .* categories"),
    "too large": (b"a,y\n1,1\n1e39,2\n", DataError, "got '1e39' in line 3"),
    "an open quote": (b'a,y\n1,"2\n3,4\n', FormatError, "an error in the row that begins in line 2: unexpected end"),
    "a quote within": (b'a,y\n1,"2"3\n', FormatError, "begins in line 2: .*a quote within them is written twice"),
    "Latin-1": ("a,y\n1,2\nü,3\n".encode("latin1"), FormatError, "got the byte 0xfc in line 3; .* encoding='cp1252'"),
    "UTF-16": ("a,y\n1,2\n".encode("utf-16"), FormatError, "got bytes of 0, .* encoding='utf-16'"),
    "a cut Parquet file": (b"PAR1 and no more", FormatError, "expected a whole Parquet file, got an error"),
}  # fmt: skip


# What is done to the folder of `two_classes`


def damaged(folder):
    path = save(folder / "dark" / "2.jpg", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:1000])


def renamed(folder):
    (folder / "light" / "2.png").write_text("no picture")


def bomb(folder):
    save(folder / "dark" / "bomb.png", Image.new("1", (20_000, 20_000)))


def table(text, name="t.csv"):
    return lambda folder: (folder / name).write_text(text)


FOLDERS = [
    (damaged, r"image_folder\('.*'\): expected files that are PNG, .*/dark/2.jpg \(image file is truncated"),
    (renamed, r"PNG, JPEG or WebP, got others: .*/light/2.png; replace or remove them"),
    (bomb, r"/dark/bomb.png \(Image size \(400000000 pixels\) exceeds limit"),
    (
        lambda folder: (folder / "dark" / "notes.txt").touch(),
        "alone in .*/dark, got .*notes.txt; convert or",
    ),
    (lambda folder: (folder / "dark" / "0.gif").touch(), r"alone in .*/dark, got .*0.gif; convert or remove"),
    (lambda folder: (folder / "empty").mkdir(), "expected pictures in .*/empty, got none; remove the folder"),
    (
        lambda folder: two_classes(folder / "dark"),
        "got .*/dark/dark, .*/dark/light; .* folders are the",
    ),
    (
        lambda folder: save(folder / "light" / "2.png", GREY.T),
        "2 × 3 in .*0.png and 3 × 2 in .*; write image_size",
    ),
    (table("file,y\nnone.png,1\n"), r"t.csv: expected a column with the names of files in .*, got .* 'file', 'y'"),
    (
        table("file,y\ndark/0.png,1\n,2\n"),
        r"image_folder\('.*'\): t.csv: expected names of files in column 'file', got none in line 3; correct",
    ),
    (
        table("file,y\ndark/0.png,1\ndark/1.png,\n"),
        "t.csv: expected the target 'y' .* got none in line 3",
    ),
    (table("file,y\ndark/0.png,1\ndark/9.png,2\n"), "got 'dark/9.png' in line 3, which is not there; correct it"),
    (table("file\ndark/0.png\n"), "t.csv: expected a column of targets besides 'file', got none; add one"),
    (table("file,y\ndark/0.png,1,2\n"), "t.csv: expected 2 cells, as in line 1, got 3 in line 2"),
    (
        lambda folder: [table("a", name)(folder) for name in ("a.csv", "b.tsv")],
        "one table, got a.csv, b.tsv",
    ),
    (table("file,y\n../../passwd,1\n"), r"got the columns 'file', 'y'; '../../passwd' lies outside the folder"),
    (table("file,y\ndark/0.png,1\n../dark/0.png,2\n"), "'../dark/0.png' in line 3, which lies outside the folder; "),
    (
        table("file,y,z\ndark/0.png,1,2\ndark/1.png,1,2\n./dark/0.png,1,3\n"),
        r"the same targets wherever .*/dark/0.png is named, got different ones in lines 2, 4; keep one of these rows",
    ),
    (
        lambda folder: save(folder / "x.PNG", GREY),
        r"pictures in the folders of the classes, got .*/x.PNG beside them; move it",
    ),
]


# Files of arrays


def arrays(**others):
    """A file of `x` (40, 3) and two classes, or of other arrays in place of these."""
    file, rows = io.BytesIO(), np.random.default_rng(0).normal(size=(40, 3))
    np.savez(file, **{"x": rows, "y": np.arange(40) % 2, **others})
    return file.getvalue()


def with_one(value):
    rows = np.ones((40, 3))
    rows[3, 1] = value
    return rows


WHOLE = arrays()
ARRAYS = {
    "empty": (b"", "expected a readable .npz file: it is empty or of another kind; save it with np.savez"),
    "a pickle": (b"\x80\x04]\x94.", "readable .npz file: it is empty or of another kind; save it with np.savez"),
    "cut": (WHOLE[:-100], "expected a readable .npz file: File is not a zip file"),
    "a flipped bit": (WHOLE[:400] + bytes([WHOLE[400] ^ 1]) + WHOLE[401:], ".npz file: x: Bad CRC-32 .*x.npy"),
    "objects": (arrays(x=np.array([None] * 40)), "x: an array holds Python objects; make numbers of them"),
    "the same rows": (arrays(x=np.tile([1.5, 2.5], (40, 1))), "rows that differ, got 32 that are the same; nothing"),
    "x_test alone": (arrays(x_test=np.ones((9, 3))), "arrays x_test and y_test, got x, x_test, y; name two with --x"),
    "test_labels alone": (arrays(test_labels=np.ones(9)), "arrays x_test and y_test, got test_labels, x, y; name two"),
    "two for testing": (arrays(x_test=1, y_test=1, label_test=1), "the arrays x_test and y_test, got label_test, x,"),
    "y_train alone": (arrays(y_train=1), "expected the arrays x and target, got x, y, y_train; name two with --x"),
    "NaN": (arrays(x=with_one(np.nan)), r"x\[3, 1\] is nan; 1 of 40 rows have such values, leave them out or fill"),
    "too large": (arrays(x=with_one(1e39)), r"x\[3, 1\] is 1e\+39, which float32 cannot hold; 1 of 40 rows"),
    "texts": (arrays(x=np.full((40, 3), "a")), "x of floating-point numbers, got .*; save it as columns of a t"),
    "whole numbers": (arrays(x=np.ones((40, 3), int)), "got .*int64 .*; convert it with .* scale images to"),
    "complex": (arrays(x=np.ones((40, 3), complex)), "got .*complex128 .*; give the real and the imaginary parts as"),
    "dates": (arrays(x=np.full(40, "2026-01-01", "M8[D]")), "got .*datetime64.*; save it as columns of a t"),
    "no rows": (arrays(x=np.ones((0, 3))), r"x with at least one row and no empty axis, got shape \(0, 3\)"),
    "other rows": (arrays(y=np.ones(39)), r"one target in y for each of the 40 rows of x, got an array \(39,\); "),
    "NaN for testing": (
        arrays(x_test=with_one(np.nan), y_test=np.ones(40)), r"x_test: x\[3, 1\] is nan; 1 of 40 rows have such values"
    ),
    "other columns for testing": (
        arrays(x_test=np.ones((5, 2)), y_test=np.ones(5)),
        r"one shape for training and testing, got \(3,\) in x and \(2,\) in x_test; give both the same",
    ),
    "too many axes": (arrays(y=np.ones((40, 2, 2))), r"numbers or texts of shape .*, got float64 of shape \(40, 2"),
    "no class": (arrays(y=with_one(np.nan)[:, 1]), "expected targets that are finite, got nan at row 3; leave these"),
    "one class": (arrays(y=np.full(40, "a")), "expected at least two classes in 'target', got a alone; add another"),
    "row numbers": (arrays(y=np.arange(40)), "got 0 to 39, each once, as rows are numbered, .* or write --task regr"),
}  # fmt: skip
