"""`funcnet predict`: answers for new rows, by a run or by a file that `export` wrote."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet import deployment, gradients, layers, plotting
from funcnet.checkpoints.files import write_whole
from funcnet.checks import check_values, listed
from funcnet.cli import options
from funcnet.cli.folders import Loaded, check_place, load_run
from funcnet.cli.networks import image_shape
from funcnet.cli.phases import phase
from funcnet.cli.sources import check_row_shape
from funcnet.cli.tables import print_json
from funcnet.cli.tasks import outputs_of
from funcnet.data.arrays import read_rows
from funcnet.data.pictures import image_files
from funcnet.data.preparation import Preparation
from funcnet.errors import ConfigError, DataError
from funcnet.made import leading
from funcnet.plotting.figures import saved
from funcnet.reading import plain_file, shown
from funcnet.rendering import numeral

__all__ = ["PREPARATION", "predict"]

PREPARATION = "preparation.json"
EXPLAINED = "explained.png"
_MOST_EXPLAINED = 16


class _Rows(NamedTuple):
    """New rows, and what to call each of them."""

    x: Any
    kind: str  #: "row" or "file"
    names: Sequence[Any]


def predict(chosen: options.Predict) -> int:
    """The class and its probability, the probability of each label, or the values, for each row."""
    if chosen.output is not None:
        check_place("--output", chosen.output, "predictions.csv")
    for path in chosen.rows:
        if str(path) != "-" and not path.exists():
            raise DataError(f"{path}: expected a file or folder of rows, got none: No such file or directory.")
    run = None if chosen.run.is_file() else load_run(chosen.run)
    preparation = _beside(chosen.run) if run is None else run.preparation
    if run is None and chosen.explain:
        raise ConfigError(
            f"--explain: expected the folder of a run, got the file {chosen.run}; its gradients are gone."
        )
    if run is not None and chosen.explain and image_shape(run.preparation) is None:
        got = f"rows of shape {run.preparation.shape}"
        raise ConfigError(f"--explain: expected a run on pictures, got {got}; leave it out.")
    rows = _read(preparation, chosen.rows)
    name = listed([str(path) for path in chosen.rows])
    if preparation is not None:
        _warn_of_unusual(name, preparation, rows)
    with leading(name), phase("predicting"):
        results = _of_file(chosen.run, preparation, rows.x) if run is None else _of_run(run, rows.x)
    lines = _lines(preparation, rows, results)
    _print(chosen, lines)
    if run is not None and chosen.explain:
        _explain(run, rows, lines, (chosen.output or Path(EXPLAINED)).with_name(EXPLAINED))
    return 0


def _beside(path: Path) -> Preparation | None:
    """The preparation beside a file of `export`. One that was exported in Python may have none."""
    beside = path.with_name(PREPARATION)
    if not beside.exists():
        return None
    with plain_file(beside, links=True) as file, leading(str(beside)):
        return Preparation.from_json(file.read().decode(errors="replace"))


def _read(preparation: Preparation | None, paths: tuple[Path, ...]) -> _Rows:
    """What the files hold; `-` is standard input."""
    if preparation is not None and preparation.image_size:
        files = [file for path in paths for file in image_files(path, nested=True)]
        return _Rows(preparation.read(files)[0], "file", [str(file) for file in files])
    if len(paths) != 1:
        raise ConfigError(f"predict: expected one file of rows, got {listed([*map(str, paths)]) or 'none'}; join them.")
    path = paths[0]
    source = io.BytesIO(sys.stdin.buffer.read()) if str(path) == "-" else path
    x = read_rows(source) if preparation is None else preparation.read(source)[0]
    if preparation is not None:
        check_row_shape(str(path), x, preparation)
    count = len(next(iter(x.values()))) if isinstance(x, dict) else len(x)
    return _Rows(x, "row", range(count))


def _warn_of_unusual(name: str, preparation: Preparation, rows: _Rows) -> None:
    """Say on stderr what is unlike all training rows."""
    columns = {column.name: column for column in preparation.columns}
    words = {
        "below": "below {low}, the smallest of the training rows",
        "above": "above {high}, the largest of the training rows",
        "missing": "without a value, and no training row is so",
        "unknown": "with a category that no training row has",
    }
    what = "the mean of " if preparation.image_size else ""
    for column, counts in preparation.unusual(rows.x).items():
        for kind, count in counts.items():
            said = words[kind].format(low=numeral(columns[column].low), high=numeral(columns[column].high))
            print(shown(f"funcnet: {name}: {what}{column}: {count} of {len(rows.names)} {said}"), file=sys.stderr)


def _of_run(run: Loaded, x: Any) -> np.ndarray:
    features, _ = run.preparation.rows(x)
    outputs = outputs_of(run.model, run.params, run.state, features)
    _check_finite(outputs)
    return np.asarray(run.preparation.results(outputs))


def _of_file(path: Path, preparation: Preparation | None, x: Any) -> np.ndarray:
    """The results of an exported file. Without a preparation it gives logits."""
    outputs = deployment.load_exported(path)(x if preparation is None else preparation.inputs(x))
    _check_finite(outputs)
    return np.asarray(jax.nn.softmax(outputs) if preparation is None else outputs)


def _check_finite(outputs):
    fix = "scale the rows as the training data were"
    check_values(DataError, "rows for which the network gives numbers", outputs, None, np.isfinite, fix)


def _lines(preparation: Preparation | None, rows: _Rows, results: np.ndarray) -> list[dict[str, Any]]:
    if preparation is None or preparation.task == "classes":
        names = range(results.shape[1]) if preparation is None else preparation.targets[0].categories
        found = [{"class": names[row.argmax()], "probability": row.max()} for row in results]
    else:
        found = [dict(zip((one.name for one in preparation.targets), row, strict=True)) for row in results]
    return [{rows.kind: name, **line} for name, line in zip(rows.names, found, strict=True)]


def _print(chosen: options.Predict, lines: list[dict[str, Any]]) -> None:
    if chosen.output is not None:
        table = io.StringIO()
        _write(lines, table)
        write_whole(chosen.output, table.getvalue().encode(errors="backslashreplace"))
        if chosen.json:
            print_json({"rows": len(lines), "output": chosen.output})
        else:
            print(f"{len(lines)} rows -> {shown(chosen.output)}")
    elif chosen.json:
        print_json(lines)
    else:
        _write(lines, sys.stdout)


def _write(lines, file):
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(lines[0])
    writer.writerows([_cell(name, value) for name, value in line.items()] for line in lines)


def _cell(name, value):
    if not isinstance(value, np.floating):
        return shown(str(value))
    return f"{value:.6f}" if name == "probability" else f"{value:.7g}"


def _explain(run: Loaded, rows: _Rows, lines: list[dict[str, Any]], path: Path) -> None:
    """Draw each picture above the pixels on which its answer depends."""
    shape = image_shape(run.preparation)
    assert shape is not None  # checked before
    features, _ = run.preparation.rows(rows.x)
    images = features[:_MOST_EXPLAINED].reshape(-1, *shape)
    inner = layers.reshape(run.preparation.shape)
    model = layers.serial(inner, run.model)
    maps = gradients.saliency(model, ((), run.params), ((), run.state), images)
    shown_as = np.asarray(rows.x[:_MOST_EXPLAINED]).reshape(-1, *shape)
    titles = [str(line.get("class", Path(str(line[rows.kind])).name)) for line in lines[:_MOST_EXPLAINED]]
    figure = plotting.saliency(shown_as / (255 if run.preparation.image_size else 1), maps, titles=titles)
    file = io.BytesIO()
    saved(figure, file)
    write_whole(path, file.getvalue())
    print(f"picture: {shown(path)}", file=sys.stderr)
