"""What the training rows alone determine: means, scales, categories and class names, as one object to save."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import check_count, check_shape, listed
from funcnet.data.arrays import checked_rows, read_npz, read_rows
from funcnet.data.columns import Column, check_known, codes_of, column_of_json, columns_of, floats_of, pixels_of
from funcnet.data.pictures import image_files, labelled_files, read_pictures
from funcnet.data.tables import Columns, Table, open_table, source_name
from funcnet.errors import FormatError, translated
from funcnet.made import leading
from funcnet.rendering import numeral, pages
from funcnet.types import Array

__all__ = ["TASKS", "Preparation"]

_FORMAT = "funcnet preparation 1"
TASKS = ("classes", "labels", "regression")


@dataclass(frozen=True, repr=False)
class Preparation:
    """How rows become what a model takes, and back. `prepare` makes it from the training rows.

    `inputs` makes numbers, category codes and pixels in NumPy. `features` is pure JAX and holds means, scales and
    one-hot, so it can be exported with a model. `results` turns outputs into probabilities, or values in the target's
    units. `rows` does the first two and the targets.
    """

    task: str  #: `"classes"`, `"labels"` (each 0 or 1) or `"regression"`
    columns: tuple[Column, ...]  #: of the inputs, or the channels of pictures; of an array one, for all its numbers
    targets: tuple[Column, ...]
    size: int  #: the number of training rows
    left_out: tuple[str, ...] = ()  #: columns with one value in all training rows
    image_size: tuple[int, int] | None = None  #: height and width of pictures
    row_shape: tuple[int, ...] | None = None  #: of the rows of an array, which stay as they are

    @property
    def numbers(self) -> tuple[Column, ...]:
        """The columns of numbers, in the order of `inputs(x)["numbers"]`."""
        return tuple(column for column in self.columns if not column.categories)

    @property
    def texts(self) -> tuple[Column, ...]:
        """The columns of texts, in the order of `inputs(x)["codes"]`."""
        return tuple(column for column in self.columns if column.categories)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features of a table, in their order: `age`, `age missing`, `town=Bern`."""
        names = [column.name for column in self.numbers]
        names += [f"{column.name} missing" for column in self.numbers if column.missing]
        return (*names, *(f"{one.name}={'' if c is None else c}" for one in self.texts for c in one.categories))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the features of one row."""
        if self.row_shape is not None:
            return self.row_shape
        return (*self.image_size, len(self.columns)) if self.image_size else (len(self.feature_names),)

    @property
    def example(self) -> Any:
        """The shapes and dtypes of `inputs` of one row, as `deployment.export_model` takes them."""
        if self.row_shape is not None or self.image_size:
            return jax.ShapeDtypeStruct((1, *self.shape), jnp.uint8 if self.image_size else jnp.float32)
        kinds = {"numbers": (self.numbers, jnp.float32), "codes": (self.texts, jnp.int32)}
        return {
            name: jax.ShapeDtypeStruct((1, len(columns)), dtype) for name, (columns, dtype) in kinds.items() if columns
        }

    @property
    def outputs(self) -> int:
        """How many outputs a model needs: one for each class, or for each target."""
        return len(self.targets[0].categories) if self.task == "classes" else len(self.targets)

    def read(
        self, source: Any, *, target: bool = False, header: bool | None = None, encoding: str = "utf-8-sig"
    ) -> tuple[Any, Any]:
        """New data of the same kind, `(x, target)`. Columns may be in any order, and others are ignored.

        Args:
            source: what `read_table` takes; or a picture, a list of them, or a folder of pictures; or a `.npy` or
                `.npz` file.
            target: whether to read the targets too. Otherwise they may be absent, and `None` is returned.
            header, encoding: as for `read_table`.
        """
        with leading(f"Preparation.read({source_name(source)})"):
            if self.row_shape is not None:
                return read_npz(source)[0] if target else (read_rows(source), None)
            names = [column.name for column in self.targets] if target else []
            if self.image_size:
                several = isinstance(source, list | tuple)
                files = [Path(one) for one in source] if several else []
                found = None
                if target:
                    files, found = labelled_files(Path(source), () if names == ["class"] else names)
                    self._check_targets(found, lambda rows: f"for {files[rows[0]]}")
                elif not several:
                    files = image_files(Path(source), nested=True)
                return read_pictures(files, self.image_size, len(self.columns)), found
            kinds = {column.name: "text" if column.categories else "number" for column in self.columns}
            table: Table = open_table(source, [*kinds, *names], header=header, encoding=encoding)
            table.check_names([*kinds, *names])
            x = Columns((name, table.column(name, kind)) for name, kind in kinds.items())
            found = table.targets(names, {}) if target else None
            self._check_targets(found, lambda rows: f"in {table.place(rows)}")
            return x, found

    def _check_targets(self, found, place):
        """Classes that were read must be known. Here their place in the file is known too."""
        if found is not None and self.task == "classes":
            (column,) = self.targets
            check_known(column, found[column.name], place, "correct it, or leave it out")

    @leading("Preparation")
    def inputs(self, x: Any) -> Any:
        """Columns as `numbers` (n, columns) float32 with NaN, and as `codes` of categories (n, columns) int32.

        The code of an unknown category is −1. Pictures and arrays stay as they are.
        """
        if self.row_shape is not None:
            x = checked_rows(x)
            check_shape("x", x, f"(n, {', '.join(map(str, self.row_shape))})")
            return x
        if self.image_size:
            return pixels_of(x, (*self.image_size, len(self.columns)))
        x = columns_of("x", x, [column.name for column in self.columns])
        numbers = [floats_of(column.name, x[column.name]) for column in self.numbers]
        codes = [codes_of(column, x[column.name]) for column in self.texts]
        found = {}
        if numbers:
            found["numbers"] = np.stack(numbers, 1).astype(np.float32)
        if codes:
            found["codes"] = np.stack(codes, 1)
        return found

    def features(self, inputs: Any) -> Array:
        """What a model takes, from `inputs`: pure JAX, float32.

        Numbers are (x − mean) / scale, and 0 if missing, which a feature 0 or 1 says if training rows had missing ones.
        Each category has a feature 0 or 1. Pixels are divided by 255 first.
        """
        return self._features(jnp, inputs)

    def _features(self, numpy, inputs):
        """`features` in NumPy or JAX. In NumPy nothing has to be compiled."""
        if self.row_shape is not None:
            return numpy.asarray(inputs).astype("float32")
        # A difference and a product round in the same way in NumPy and in any program; a division of XLA does not.
        unit = 255 if self.image_size else 1
        mean = numpy.array([unit * column.mean for column in self.numbers], "float32")
        factor = numpy.array([1 / (unit * column.scale) for column in self.numbers], "float32")
        if self.image_size:
            return (numpy.asarray(inputs).astype("float32") - mean) * factor
        parts = []
        if self.numbers:
            numbers = numpy.asarray(inputs["numbers"]).astype("float32")
            missing = numpy.isnan(numbers)
            parts.append((numpy.where(missing, mean, numbers) - mean) * factor)
            parts.append(missing[:, np.flatnonzero([column.missing for column in self.numbers])].astype("float32"))
        for i, column in enumerate(self.texts):
            one_hot = inputs["codes"][:, i, None] == numpy.arange(len(column.categories), dtype="int32")
            parts.append(one_hot.astype("float32"))
        return numpy.concatenate(parts, 1)

    @leading("Preparation")
    def encoded(self, target: Any) -> np.ndarray:
        """Targets as a loss takes them.

        Returns: class numbers (n,) int32; or (n, targets) float32, labels 0 and 1 or (y − mean) / scale.
        """
        target = columns_of("target", target, [column.name for column in self.targets])
        if self.task == "classes":
            (column,) = self.targets
            fix = "split with stratified=True, or leave it out"
            return check_known(column, target[column.name], lambda rows: f"at row {rows[0]}", fix)
        values = [floats_of(column.name, target[column.name]) for column in self.targets]
        moved = [(one - column.mean) / column.scale for one, column in zip(values, self.targets, strict=True)]
        return np.stack(values if self.task == "labels" else moved, 1).astype(np.float32)

    def results(self, outputs: Any) -> Array:
        """A model's outputs as probabilities of classes or labels, or as values in the targets' units. Pure JAX."""
        if self.task != "regression":
            return jax.nn.softmax(outputs) if self.task == "classes" else jax.nn.sigmoid(outputs)
        mean, scale = (
            jnp.array([getattr(column, name) for column in self.targets], jnp.float32) for name in ("mean", "scale")
        )
        return outputs * scale + mean

    def rows(self, x: Any, target: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """`(features, encoded target)`, as `training.fit` takes them."""
        inputs = self.inputs(x)
        encoded = None if target is None else self.encoded(target)
        if self.row_shape is not None:
            return inputs, encoded
        n = len(jax.tree.leaves(inputs)[0])
        # in parts, because float32 pictures take four times the memory, and steps between as much again
        parts = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1024], inputs) for i in range(0, n, 1024)]
        return np.concatenate([self._features(np, part) for part in parts]), encoded

    def unusual(self, x: Any) -> dict[str, dict[str, int]]:
        """By column, the rows that are unlike all training rows: `unknown` categories, values `below` and `above`
        those seen, or `missing` where none was. Columns without such rows are left out."""
        inputs = self.inputs(x)
        least, most = self._extremes(inputs)
        found = {}
        for i, column in enumerate(self.numbers):
            gone, low, high = (np.float32(number) for number in (column.missing, column.low, column.high))
            missing = np.isnan(least[:, i]) & (gone == 0)
            found[column.name] = {"below": least[:, i] < low, "above": most[:, i] > high, "missing": missing}
        for i, column in enumerate(self.texts):
            found[column.name] = {"unknown": inputs["codes"][:, i] < 0}
        counts = {name: {what: int(rows.sum()) for what, rows in one.items()} for name, one in found.items()}
        return {name: {what: n for what, n in one.items() if n} for name, one in counts.items() if any(one.values())}

    def _extremes(self, inputs):
        """The smallest and the largest number (n, columns) float32 of each row by column."""
        if self.row_shape is not None:
            rows = inputs.reshape(len(inputs), -1)
            return rows.min(1, keepdims=True), rows.max(1, keepdims=True)
        values = (inputs.mean((1, 2)) / 255).astype(np.float32) if self.image_size else inputs.get("numbers")
        return values, values

    def to_json(self) -> str:
        """The preparation as text, for a file such as `preparation.json`."""
        fields = {"format": _FORMAT, **asdict(self)}
        for name in ("columns", "targets"):
            fields[name] = [column._asdict() for column in getattr(self, name)]
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, indent=1)

    @staticmethod
    def from_json(text: str) -> "Preparation":
        """The preparation that `to_json` wrote; FormatError for any other text."""
        wrong = "expected the text of a preparation, as to_json writes it, got an error"
        kinds = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
        with leading("Preparation.from_json"), translated(kinds, FormatError, wrong):
            fields = json.loads(text)
            if fields.pop("format") != _FORMAT or fields["task"] not in TASKS or not fields["columns"]:
                raise ValueError(f"a format or task that is unknown, where {_FORMAT!r} was expected, or no columns")
            check_count("size", fields["size"])
            fields["columns"], fields["targets"] = (
                tuple(map(column_of_json, fields[name])) for name in ("columns", "targets")
            )
            size = fields["image_size"]
            fields["image_size"] = size and tuple(check_count("image_size", side) for side in size)
            if fields.setdefault("row_shape", None) is not None:
                fields["row_shape"] = tuple(check_count("row_shape", side) for side in fields["row_shape"])
            fields["left_out"] = tuple(map(str, fields["left_out"]))
            return Preparation(**fields)

    def __repr__(self) -> str:
        return "\n".join(f"{name:10}{text}" for name, text in self._described())

    def _repr_html_(self) -> str:
        columns = [_column_words(column) for column in (*self.columns[:_MOST], *self.targets[:_MOST])]
        left_out = len(self.columns) - _MOST
        more = f"<p>and {left_out:,} more columns</p>" if left_out > 0 else ""
        head = ("column", "kind", "in the training rows", "missing")
        return pages.fragment(pages.table(("", ""), [*self._described()]) + pages.table(head, columns, right=1) + more)

    def _described(self):
        """What was decided, line by line."""
        words = [_target_words(column, self.task) for column in self.targets]
        yield "task", f"{self.task}: {listed(words)}"
        if self.row_shape is not None:
            (numbers,) = self.columns
            shape = " × ".join(map(str, self.row_shape)) or "one number"
            yield "array", f"{self.size:,} × {shape}, numbers from {numeral(numbers.low)} to {numeral(numbers.high)}"
        elif self.image_size:
            yield "pictures", f"{self.image_size[0]} × {self.image_size[1]}, {listed([c.name for c in self.columns])}"
        else:
            texts = f"{len(self.texts)} of texts" + (f" ({listed([c.name for c in self.texts])})" if self.texts else "")
            yield "columns", f"{len(self.numbers)} of numbers, {texts} -> {len(self.feature_names)} features"
            gone = {column.name: column.missing + column.rows_of.get(None, 0) for column in self.columns}
            words = [f"{name} {n:,}" for name, n in gone.items() if n]
            yield "missing", f"{listed(words)} of {self.size:,} rows" if words else "none"
        if self.left_out:
            yield "left out", f"{listed(self.left_out)}: the same in every row"


_MOST = 30  # columns that a notebook shows


def _column_words(column: Column) -> tuple[str, ...]:
    """A line of a table."""
    rows = {name: count for name, count in column.rows_of.items() if name is not None}
    missing = column.missing + column.rows_of.get(None, 0)
    if column.categories:
        words = "texts", listed([f"{name} ({count:,})" for name, count in rows.items()])
    else:
        mean, scale, low, high = (numeral(one, 4) for one in (column.mean, column.scale, column.low, column.high))
        words = "numbers", f"{mean} ± {scale}, from {low} to {high}"
    return column.name, *words, f"{missing:,}" if missing else ""


def _target_words(column, task):
    """What a line says about a target: the balance of classes, or a range."""
    if task == "classes":
        shares = [f"{name} {count / sum(column.counts):.0%}" for name, count in column.rows_of.items()]
        return f"{column.name}, {len(shares)} classes ({listed(shares)})"
    values = f"1 in {column.mean:.0%}" if task == "labels" else f"{numeral(column.low)} to {numeral(column.high)}"
    return f"{column.name} {values}"
