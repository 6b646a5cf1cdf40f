"""The commands besides train, predict, report, forecast and check, and which function runs each command."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checkpoints, deployment, gradients, layers, summaries
from funcnet.checkpoints.files import write_whole
from funcnet.cli import options
from funcnet.cli.check import check
from funcnet.cli.folders import CHECKPOINTS, Loaded, check_place, load_run, run_parts
from funcnet.cli.forecasting import forecast
from funcnet.cli.networks import build_model
from funcnet.cli.new import new
from funcnet.cli.phases import phase
from funcnet.cli.predict import PREPARATION, predict
from funcnet.cli.report import report
from funcnet.cli.results import judge, show_details, show_table, show_verdict
from funcnet.cli.rows import prepared, read_parts, rows_as_bytes
from funcnet.cli.sources import in_options, read_like
from funcnet.cli.tables import new_table, print_json, print_table, width_of_lines
from funcnet.cli.tasks import task_of
from funcnet.cli.train import train
from funcnet.cli.verifying import verify_files
from funcnet.errors import CheckpointError, ConfigError, DataError
from funcnet.reading import shown

__all__ = ["evaluate", "export", "inspect_checkpoints", "run", "summary"]


def run(command: Any) -> int:
    """Do what the command line asked for, and return the exit code."""
    commands: dict[type, Callable[[Any], int]] = {
        options.Train: train, options.Evaluate: evaluate, options.Predict: predict, options.Summary: summary,
        options.Forecast: forecast, options.Report: report, options.Export: export, options.Check: check,
        options.Checkpoints: inspect_checkpoints, options.New: new,
    }  # fmt: skip
    return commands[type(command)](command)


def evaluate(chosen: options.Evaluate) -> int:
    """Loss, score and details, on the rows that training held out or on others."""
    run = load_run(chosen.run)
    task, found = task_of(run.preparation, run.options.class_weights), {}
    if chosen.data is None:
        name, pair = "held out", prepared(run_parts(chosen.run, run.options, run.facts), run.preparation).test
        if pair is None:
            raise ConfigError(
                f"{chosen.run}: expected rows that were held out, got none (--test 0); give others: --data."
            )
    else:
        x, target = read_like(run.options, run.preparation, chosen.data)
        found["trained_on"] = _trained_on(x, chosen.run, run)
        with in_options(str(chosen.data)):
            name, pair = "other", run.preparation.rows(x, target)
    with phase("evaluating"):
        results = judge(run.preparation, task, run.model, run.params, run.state, {name: pair})
    last = results.last
    if chosen.json:
        print_json({"run": chosen.run, "rows": len(pair[0]), **found, **last})
        return 0
    for count in found.values():
        lost = "rows that were trained on are not counted: the data of the run are not there any more"
        print(f"{chosen.data}: {lost if count is None else f'{count} of {len(pair[0])} rows were trained on'}")
    show_table(f"{chosen.run}: {len(pair[0])} {name.replace(' ', '-')} rows", task, results)
    show_details(run.preparation, last)
    show_verdict(run.preparation, task, last)
    return 0


def _trained_on(x: Any, folder: Path, run: Loaded) -> int | None:
    """How many of the rows a run was trained on; `None` if its data cannot be read or are others by now."""
    try:
        training_rows, _ = run_parts(folder, run.options, run.facts).training
    except DataError:
        return None
    known = set(rows_as_bytes(run.preparation.inputs(training_rows)))
    return sum(row in known for row in rows_as_bytes(run.preparation.inputs(x)))


def export(chosen: options.Export) -> int:
    """Write the model of a run as one file that runs without funcnet, with what it takes beside it."""
    run = load_run(chosen.run)
    path = chosen.run / "model.stablehlo" if chosen.output is None else chosen.output
    check_place("--output", path, "model.stablehlo")
    beside, text = path.with_name(PREPARATION), run.preparation.to_json()
    if beside.exists() and beside.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{beside}: the preparation of another model is there; choose an --output in another folder.")
    function = gradients.automatic_function
    model = layers.serial(function(run.preparation.features), run.model, function(run.preparation.results))
    params, state = ((), run.params, ()), ((), run.state, ())
    with phase("compiling"):
        content = deployment.export_model(model, params, state, run.preparation.example, platforms=chosen.platforms)
    try:
        write_whole(beside, text.encode())
        write_whole(path, content)
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be written: {error.strerror}.") from error
    print(f"{len(content):,} bytes for {', '.join(chosen.platforms)} -> {shown(path)}")
    print(f"what it takes and gives -> {shown(beside)}")
    return 0


def summary(chosen: options.Summary) -> int:
    """The table of a network's layers."""
    train = options.as_train(chosen)
    preparation = read_parts(train).preparation()
    example = jax.ShapeDtypeStruct((chosen.batch_size, *preparation.shape), jnp.float32)
    found = summaries.summary(build_model(train, preparation), example)
    if chosen.json:
        totals = {name: getattr(found, name) for name in ("parameters", "parameter_bytes", "residual_bytes")}
        print_json({"layers": [row._asdict() for row in found.rows], **totals})
    else:
        print(found.text(width_of_lines()))
    return 0


def inspect_checkpoints(chosen: options.Checkpoints) -> int:
    """List checkpoints by their manifests, or read each and the run's other files; damage is exit code 5."""
    files = verify_files(chosen.folder) if chosen.action == "verify" else []
    folder = chosen.folder / CHECKPOINTS if (chosen.folder / CHECKPOINTS).is_dir() else chosen.folder
    found = checkpoints.verify(folder, bytes_too=chosen.action == "verify")
    if not found and not files:
        raise CheckpointError(f"{folder}: expected checkpoints, or a run with checkpoints, got neither.")
    damaged = [verdict for verdict in (*found, *files) if verdict.problem is not None]
    if chosen.json:
        print_json([*map(_checkpoint, found), *(_NO_STEP | verdict._asdict() for verdict in files)])
        return 5 if damaged else 0
    table = new_table(f"{folder}", "step", "epoch", "loss", "bytes", "state")
    whole = "whole" if chosen.action == "verify" else ""
    for verdict in found:
        facts = _checkpoint(verdict)
        forms = {"epoch": "{}", "loss": "{:.4f}", "bytes": "{:,}"}
        cells = ["" if facts[name] is None else form.format(facts[name]) for name, form in forms.items()]
        not_finite = "not finite" if facts["not_finite"] else whole
        table.add_row(str(verdict.step), *cells, "damaged" if verdict.problem else not_finite)
    for path, size, problem in files:
        table.add_row(path.name, "", "", "" if size is None else f"{size:,}", "damaged" if problem else whole)
    print_table(table)
    for verdict in damaged:
        print(shown(f"{verdict.path}: {verdict.problem}"), file=sys.stderr)
    return 5 if damaged else 0


_NO_STEP = {"step": None, "epoch": None, "loss": None, "not_finite": None}  #: of a file that is of no checkpoint


def _checkpoint(verdict):
    """The facts about a checkpoint. They are `None` if its manifest cannot be read."""
    manifest = verdict.manifest
    facts = {"epoch": None, "loss": None, "bytes": None, "not_finite": None}
    if manifest is not None:
        size = sum(file.bytes for file in manifest.files.values())
        loss, not_finite = manifest.metrics.get("loss"), manifest.not_finite
        facts = {"epoch": manifest.epoch, "loss": loss, "bytes": size, "not_finite": not_finite}
    return {"step": verdict.step, "path": verdict.path, **facts, "problem": verdict.problem}
