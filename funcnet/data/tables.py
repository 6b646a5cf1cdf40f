"""Tables: CSV, TSV, Parquet and .npy files and frames of pandas or polars, as columns by name."""

import csv
import io
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from funcnet.checks import check_kind, describe, listed
from funcnet.data.arrays import load_array, problem_of
from funcnet.data.cells import column_of_cells, column_of_series, is_missing, is_number_text, whole
from funcnet.errors import ConfigError, DataError, FormatError, extra, nearest, translated
from funcnet.made import leading
from funcnet.reading import plain_file

__all__ = ["Columns", "Table", "named", "open_table", "read_table", "source_name"]

Columns = OrderedDict[str, np.ndarray]  #: in this order also after `split`: jax sorts the names of a plain dictionary

_ENDINGS = (".csv", ".tsv", ".parquet", ".npy")
_SEPARATORS = "\t;|,"


class Table(NamedTuple):
    """The cells of a table, before it is decided what they are."""

    columns: dict[str, Any]  #: by name: the texts of a text file, or a series of pandas
    lines: Sequence[int] | None = None  #: the line of each row, in a text file
    decimal_comma: bool = False

    def place(self, rows: Sequence[int] | np.ndarray) -> str:
        """The place of rows in words: `line 3`, or `rows 0, 2` if the table did not come from lines."""
        numbers = rows if self.lines is None else [self.lines[row] for row in rows]
        plural = "s" if len(rows) > 1 else ""
        return ("row" if self.lines is None else "line") + plural + " " + listed([str(number) for number in numbers])

    def column(self, name: str, kind: str | None = None, *, target: bool = False) -> np.ndarray:
        """A column as numbers, booleans or texts."""
        cells = self.columns[name]
        if isinstance(cells, list):
            return column_of_cells(name, cells, self.place, kind, target=target, decimal_comma=self.decimal_comma)
        return column_of_series(name, cells, self.place, kind, target=target)

    def targets(self, names: Sequence[str], kinds: Mapping[str, str]) -> Columns:
        """Columns in which no value may be missing, and the kinds of some of them."""
        found = Columns((name, self.column(name, kinds.get(name), target=True)) for name in names)
        for name, values in found.items():
            gone = np.flatnonzero([is_missing(value, sure=name in kinds) for value in values])
            if len(gone):
                fix = "leave these rows out, or fill them"
                raise DataError(f"expected the target {name!r} in every row, got none in {self.place(gone)}; {fix}.")
            found[name] = whole(values)
        return found

    def check_names(self, names: Iterable[str]) -> None:
        """Each of the names must be a column."""
        for name in names:
            if name not in self.columns:
                near = nearest(name, self.columns)
                fix = f"did you mean {near!r}?" if near else "names are in the first line, or numbers from 0."
                raise DataError(f"expected a column {name!r}, got {listed([*map(repr, self.columns)])}; {fix}")


def read_table(
    source: Any,
    *,
    target: str | Sequence[str],
    header: bool | None = None,
    drop: str | Sequence[str] = (),
    categories: str | Sequence[str] = (),
    encoding: str = "utf-8-sig",
) -> tuple[Columns, Columns]:
    """The columns of a table as they are, `(x, target)`, for `split` and `prepare`.

    Separator, quotes and header of a text file are found. A column is numbers if all its cells are. Cells that are
    empty, `?`, `NA`, `N/A`, `NaN` or `null` have no value; in columns of texts, only the empty ones. Where the
    separator is not a comma, 1,5 is a number.

    Args:
        source: a `.csv`, `.tsv` or `.parquet` file, such a file opened, or a frame of pandas or polars. A `.npy` file
            has named fields, or columns that are named by their numbers. What has `to_pandas`, as data sets of Hugging
            Face and tables of Arrow, is a frame too.
        target: the column to predict, or several.
        header: whether the first line has names, if that is known. Without them the columns are `"0"`, `"1"`, ….
        drop: columns to leave out.
        categories: columns to read as texts though they look like numbers, such as postcodes.
        encoding: of a text file.

    Returns: ordered dictionaries of arrays (n,): float64 with NaN, booleans, or objects, texts and `None`. A target of
    whole numbers is int64.

    Raises:
        DataError: a line or column that is wrong; FormatError: the file is not such a table.
        MissingExtraError: for Parquet without `pip install 'funcnet[table]'`.

    >>> import io, funcnet as fn
    >>> x, target = fn.data.read_table(io.BytesIO(b"size;town;price\\n1,5;Bern;10\\n;Basel;20\\n"), target="price")
    >>> [*x.items()], target["price"]
    ([('size', array([1.5, nan])), ('town', array(['Bern', 'Basel'], dtype=object))], array([10, 20]))
    """
    with leading(f"read_table({source_name(source)})"):
        targets, dropped, texts = (
            named(*entry) for entry in (("target", target), ("drop", drop), ("categories", categories))
        )
        table = open_table(source, targets, header=header, encoding=encoding)
        table.check_names((*targets, *dropped, *texts))
        names = [name for name in table.columns if name not in {*targets, *dropped}]
        if not targets or not names:
            got = f"{listed(targets) or 'none'} of {listed([*map(repr, table.columns)])}"
            raise DataError(f"expected a target, and at least one column besides it, got {got}; name the target.")
        kinds = dict.fromkeys(texts, "text")
        return Columns((name, table.column(name, kinds.get(name))) for name in names), table.targets(targets, kinds)


def named(what: str, names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        check_kind(what, name, str, "names of columns", "a column without a name is its number, such as '0'")
        if names.count(name) > 1:
            raise ConfigError(f"expected {what} of columns that differ, got {name!r} twice; write it once.")
    return names


def source_name(source: Any) -> str:
    """How an error names a file, or what stands for one."""
    return repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else type(source).__name__


def open_table(
    source: Any, expected: Sequence[str] = (), *, header: bool | None = None, encoding: str = "utf-8-sig"
) -> Table:
    """The table of a file, an open file or a frame. Where its header is not known, names are `expected` in it."""
    if hasattr(source, "to_pandas"):
        with extra("table", "pandas, with pyarrow"):
            source = source.to_pandas()
    if hasattr(source, "iloc"):
        return _of_frame(source)
    if hasattr(source, "read"):
        content, ending = source.read(), ""
    elif not isinstance(source, str | os.PathLike):
        fix = "; write .collect() behind it" if hasattr(source, "collect") else ""
        raise ConfigError(f"expected a file or a frame of pandas or polars, got {describe(source)}{fix}.")
    else:
        ending = os.path.splitext(source)[1].lower()
        if ending not in _ENDINGS:
            raise DataError(f"expected a file that ends in {listed(_ENDINGS)}, got {ending!r}; save it as .csv.")
        with translated(OSError, DataError, "the file cannot be read"), plain_file(source, links=True) as file:
            content = file.read()
    if ending == ".npy":
        return _of_frame(_of_array(content))
    if ending == ".parquet" or content.startswith(b"PAR1"):
        with extra("table", "pandas, with pyarrow"):
            import pandas as pd
            import pyarrow  # noqa: F401  # pandas reads Parquet with it
        with translated(Exception, FormatError, "expected a whole Parquet file, got an error"):  # of many kinds
            frame = pd.read_parquet(io.BytesIO(content))
        return _of_frame(frame)
    return _of_text(_decoded(content, encoding), expected, header)


def _of_array(content):
    """A frame of an array with named fields, or of the columns of an array (n, columns)."""
    with extra("table", "pandas"):
        import pandas as pd
    try:
        array = load_array(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]  # its stubs want a raw file
        if array.ndim != (1 if array.dtype.names else 2):
            got = f"{array.shape}; save x and target as two arrays with np.savez"
            raise FormatError(f"expected an array of shape (n, columns), or with named fields, got shape {got}.")
        return pd.DataFrame(array)
    except DataError:
        raise
    except Exception as error:  # of many kinds
        raise FormatError(f"expected a whole .npy file: {problem_of(error)}.") from error


def _of_frame(frame):
    names = [str(name) for name in frame.columns]
    _check_table(names, len(frame))
    return Table({name: frame.iloc[:, i] for i, name in enumerate(names)})


def _decoded(content, encoding):
    if b"\0" in content:
        fix = "save it as CSV in UTF-8, or give the encoding, such as encoding='utf-16'"
        if "16" not in encoding:
            raise FormatError(f"expected a table as text, got bytes of 0, as in a workbook or UTF-16; {fix}.")
    with translated(LookupError, ConfigError, "expected an encoding that Python knows"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            got = f"the byte {content[error.start]:#04x} in line {line}; save it as UTF-8, or write encoding='cp1252'"
            raise FormatError(f"expected text in {encoding.removesuffix('-sig')}, got {got}.") from error


def _of_text(text, expected, header):
    separator, quote = _dialect(text)
    rows, lines = _rows(text, separator, quote)
    if not rows:
        raise DataError("expected at least one row, got an empty file.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            fix = "a cell with the separator in it needs quotes"
            raise DataError(f"expected {len(rows[0])} cells, as in line 1, got {len(row)} in line {line}; {fix}.")
    names = [str(i) for i in range(len(rows[0]))]
    if _has_header(rows[0], expected) if header is None else header:
        names, *rows = rows
        lines = lines[1:]
    columns = [[*cells] for cells in zip(*rows, strict=True)]
    for i, name in reversed([*enumerate(names)]):
        if not name and columns and columns[i] == [str(row) for row in range(len(rows))]:
            del names[i], columns[i]  # the numbers of the rows, which pandas writes without a name
    _check_table(names, len(rows))
    return Table(dict(zip(names, columns, strict=True)), lines, separator != ",")


def _check_table(names, rows):
    """Names must differ, and there must be rows."""
    twice = [name for name, times in Counter(names).items() if times > 1 or not name]
    if twice:
        places = [str(i + 1) for i, name in enumerate(names) if name == twice[0]]
        got = f"{twice[0]!r} for column {' and '.join(places)}"
        raise DataError(f"expected columns with names, each its own, got {got}; rename them, or write header=False.")
    if not rows:
        raise DataError(f"expected at least one row, got the names {listed(names)} alone.")


def _rows(text, separator, quote):
    """The rows without the blank ones, and the line on which each begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote, strict=True)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                rows.append([*map(str.strip, row)])
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        fix = f"{error}; quotes come in pairs, and a quote within them is written twice"
        raise FormatError(f"expected whole rows, got an error in the row that begins in line {line}: {fix}.") from error
    return rows, lines


def _dialect(text):
    """The separator that cuts most of the first lines into the same number of cells, and the quotes."""
    lines = text[: 1 << 16].splitlines()[:100]
    single = any(re.search(r"(^|[\t;|,])'[^']*'([\t;|,]|$)", line) for line in lines)
    quote = "'" if single and not any('"' in line for line in lines) else '"'

    def share(separator):
        widths = [len(row) for row in csv.reader(lines, delimiter=separator, quotechar=quote) if row]
        ((usual, times),) = Counter(widths).most_common(1) or [(1, 0)]
        return times / len(widths) if usual > 1 else 0

    # On a tie the comma comes last, as it may be the decimal point of the others.
    best = max(_SEPARATORS, key=share)
    return (best if share(best) else ","), quote


def _has_header(first, expected):
    """A line of numbers is not a line of names, unless all the names that are expected are in it."""
    known = set(expected) <= set(first) and not all(name.isdigit() for name in expected)
    return known or not any(map(is_number_text, first))
