"""The commands besides train, report and check, and which function runs each command."""

import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from funcnet import checkpoints, deployment, summaries
from funcnet.checkpoints.files import write_whole
from funcnet.checks import check_values
from funcnet.cli import options
from funcnet.cli.check import check
from funcnet.cli.folders import CHECKPOINTS, check_data, check_place, fingerprint, held_out_rows, load_run
from funcnet.cli.networks import build_model, checked_x, classes_of, load_data, run_rows, split_rows
from funcnet.cli.report import report
from funcnet.cli.tables import confusion_table, new_table, print_json
from funcnet.cli.train import final_results, train
from funcnet.errors import CheckpointError, ConfigError, DataError
from funcnet.made import leading
from funcnet.reading import plain_file, shown

__all__ = ["evaluate", "export", "inspect_checkpoints", "predict", "read_rows", "run", "summary"]


def run(command: Any) -> int:
    """Do what the command line asked for, and return the exit code."""
    commands: dict[type, Callable[[Any], int]] = {
        options.Train: train, options.Evaluate: evaluate, options.Predict: predict, options.Summary: summary,
        options.Report: report, options.Export: export, options.Check: check, options.Checkpoints: inspect_checkpoints,
    }  # fmt: skip
    return commands[type(command)](command)


def evaluate(chosen: options.Evaluate) -> int:
    """Loss, accuracy and what was taken for what, on the rows that training held out or on others."""
    trained, model, params, state, facts = load_run(chosen.run)
    found, which = {}, "held out"
    if chosen.data is None:
        rows = held_out_rows(chosen.run, trained, facts)
    else:
        rows, which = load_data(str(chosen.data), training=False), "other"
        _check_shape(chosen.data, rows[0], facts)
        found["trained_on"] = _trained_on(rows[0], chosen.run, trained, facts)
    results = final_results(model, params, state, rows, facts["classes"], 1024)
    if chosen.json:
        print_json({"run": chosen.run, "rows": len(rows[0]), **found, **results})
        return 0
    for count in found.values():
        lost = "rows that were trained on are not counted: the data of the run are not there any more"
        print(f"{chosen.data}: {lost if count is None else f'{count} of {len(rows[0])} rows were trained on'}")
    table = new_table(f"{chosen.run}: {len(rows[0])} {which.replace(' ', '-')} rows", "", "loss", "accuracy")
    table.add_row(which, f"{results['loss']:.4f}", f"{results['accuracy']:.2%}")
    Console().print(table)
    if "confusion" in results:
        Console().print(confusion_table(np.asarray(results["confusion"]), Console().width))
    return 0


def _check_shape(path: Path, rows: np.ndarray, facts: dict[str, Any]) -> None:
    shape = tuple(facts["shape"])
    if rows.shape[1:] != shape:
        raise DataError(f"{path}: expected rows of shape {shape}, got an array of shape {rows.shape}.")


def _trained_on(x: np.ndarray, folder: Path, trained: options.Train, facts: dict[str, Any]) -> int | None:
    """How many of the rows a run was trained on; `None` if its data cannot be read or are others by now."""
    try:
        training_rows = run_rows(trained)[0]
        check_data(folder, facts, fingerprint(*training_rows))
    except DataError:
        return None
    known = {row.tobytes() for row in np.asarray(training_rows[0], x.dtype)}
    return sum(row.tobytes() in known for row in x)


def predict(chosen: options.Predict) -> int:
    """Class and probability for each row of a file."""
    if chosen.output is not None:
        check_place("--output", chosen.output, "classes.csv")
    rows = read_rows(chosen.rows)
    if chosen.run.is_file():
        logits = deployment.load_exported(chosen.run)(rows)
    else:
        _, model, params, state, facts = load_run(chosen.run)
        _check_shape(chosen.rows, rows, facts)
        logits, _ = jax.jit(model.apply, static_argnames="train")(params, state, rows)
    fix = "scale the rows as the training data were"
    with leading(str(chosen.rows)):
        check_values(DataError, "rows for which the network gives numbers", logits, None, np.isfinite, fix)
    probabilities = np.asarray(jax.nn.softmax(logits))
    found = [{"row": i, "class": row.argmax(), "probability": row.max()} for i, row in enumerate(probabilities)]
    if chosen.output is not None:
        table = io.StringIO()
        _write_predictions(found, table)
        write_whole(chosen.output, table.getvalue().encode())
        if chosen.json:
            print_json({"rows": len(rows), "output": chosen.output})
        else:
            print(f"{len(rows)} rows -> {shown(chosen.output)}")
    elif chosen.json:
        print_json(found)
    else:
        _write_predictions(found, sys.stdout)
    return 0


def _write_predictions(found, file):
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("row", "class", "probability"))
    writer.writerows((line["row"], line["class"], f"{line['probability']:.6f}") for line in found)


def export(chosen: options.Export) -> int:
    """Write the model of a run as one file that runs without funcnet."""
    _, model, params, state, facts = load_run(chosen.run)
    path = chosen.run / "model.stablehlo" if chosen.output is None else chosen.output
    check_place("--output", path, "model.stablehlo")
    example = jax.ShapeDtypeStruct((1, *facts["shape"]), jnp.float32)
    content = deployment.export_model(model, params, state, example, platforms=chosen.platforms)
    try:
        write_whole(path, content)
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be written: {error.strerror}.") from error
    print(f"{len(content):,} bytes for {', '.join(chosen.platforms)} -> {shown(path)}")
    return 0


def summary(chosen: options.Summary) -> int:
    """The table of a network's layers."""
    (x, target), (_, held_out) = split_rows(chosen, 0)
    example = jax.ShapeDtypeStruct((chosen.batch_size, *x.shape[1:]), jnp.float32)
    found = summaries.summary(build_model(chosen, x.shape[1:], classes_of(target, held_out)), example)
    if chosen.json:
        totals = {name: getattr(found, name) for name in ("parameters", "parameter_bytes", "residual_bytes")}
        print_json({"layers": [row._asdict() for row in found.rows], **totals})
    else:
        print(found)
    return 0


def inspect_checkpoints(chosen: options.Checkpoints) -> int:
    """List checkpoints by their manifests, or read each to its last byte; damage is exit code 5."""
    folder = chosen.folder / CHECKPOINTS if (chosen.folder / CHECKPOINTS).is_dir() else chosen.folder
    found = checkpoints.verify(folder, bytes_too=chosen.action == "verify")
    if not found:
        raise CheckpointError(f"{folder}: expected checkpoints, or a run with checkpoints, got neither.")
    damaged = [verdict for verdict in found if verdict.problem is not None]
    if chosen.json:
        print_json([_checkpoint(verdict) for verdict in found])
        return 5 if damaged else 0
    table = new_table(f"{folder}", "step", "epoch", "loss", "bytes", "state")
    whole = "whole" if chosen.action == "verify" else ""
    for verdict in found:
        facts = _checkpoint(verdict)
        forms = {"epoch": "{}", "loss": "{:.4f}", "bytes": "{:,}"}
        cells = ["" if facts[name] is None else form.format(facts[name]) for name, form in forms.items()]
        not_finite = "not finite" if facts["not_finite"] else whole
        table.add_row(str(verdict.step), *cells, "damaged" if verdict.problem else not_finite)
    Console().print(table)
    for verdict in damaged:
        print(shown(f"{verdict.path}: {verdict.problem}"), file=sys.stderr)
    return 5 if damaged else 0


def _checkpoint(verdict):
    """The facts about a checkpoint. They are `None` if its manifest cannot be read."""
    manifest = verdict.manifest
    facts = {"epoch": None, "loss": None, "bytes": None, "not_finite": None}
    if manifest is not None:
        size = sum(file.bytes for file in manifest.files.values())
        loss, not_finite = manifest.metrics.get("loss"), manifest.not_finite
        facts = {"epoch": manifest.epoch, "loss": loss, "bytes": size, "not_finite": not_finite}
    return {"step": verdict.step, "path": verdict.path, **facts, "problem": verdict.problem}


def read_rows(path: Path) -> np.ndarray:
    """The rows of a .npy or .csv file, as a network takes them."""
    as_text = path.suffix.lower() == ".csv"
    try:
        with plain_file(path, links=True) as file:
            if not as_text and not file.peek(6).startswith((b"\x93NUMPY", b"PK")):
                raise ValueError("it begins with other bytes; save it with np.save, and unpack a .csv.gz")
            rows = np.loadtxt(file, delimiter=",", ndmin=2) if as_text else np.load(file, allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds of errors for a damaged file
        raise DataError(f"{path}: expected a readable .npy or .csv file of numbers: {error}") from error
    if not isinstance(rows, np.ndarray):
        raise DataError(f"{path}: expected one array, as np.save writes it, got several; save x alone as .npy.")
    return checked_x(str(path), rows)
