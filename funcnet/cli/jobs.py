"""What each command does."""

import csv
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from funcnet import (
    checkpoints,
    data,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    plotting,
    schedules,
    summaries,
    training,
    trees,
)
from funcnet.checks import positive
from funcnet.cli import options
from funcnet.cli.check import check
from funcnet.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from funcnet.types import Layer, Optimizer, Report, Schedule

__all__ = [
    "build_model", "build_optimizer", "build_schedule", "evaluate", "load_data", "predict", "run", "summary", "train",
]  # fmt: skip

LOSS = losses.softmax_cross_entropy
IMAGE_SETS = {
    "mnist": data.mnist, "fashion_mnist": data.fashion_mnist, "cifar10": data.cifar10, "cifar100": data.cifar100,
}  # fmt: skip
WEIGHTS, CONFIG, HISTORY, CURVES, CONFUSION = (
    "weights.safetensors", "config.toml", "metrics.csv", "curves.png", "confusion.png",
)  # fmt: skip


def run(command: Any) -> int:
    """Do what the command line asked for, and return the exit code."""
    commands: dict[type, Callable[[Any], int]] = {
        options.Train: train, options.Evaluate: evaluate, options.Predict: predict, options.Summary: summary,
        options.Check: check,
    }  # fmt: skip
    return commands[type(command)](command)


# Options become values.


def load_data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """`(x, target)` of `"digits"`, or of an .npz file with the arrays x and target."""
    if name == "digits":
        return data.digits()
    try:
        with np.load(name, allow_pickle=False) as file:
            missing = {"x", "target"} - set(file.files)
            if missing:
                raise DataError(f"{name}: expected the arrays x and target, got {sorted(file.files)}.")
            return file["x"], file["target"]
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'{name}: expected "digits" or a readable .npz file: {error}') from error


def build_model(chosen: Any, shape: tuple[int, ...], classes: int) -> Layer:
    """The network that the options describe, for examples of this shape, with `classes` outputs."""
    if chosen.model == "cnn":
        return _in_shape(shape, _image_shape(chosen.data, shape), _cnn(chosen, classes))
    return _in_shape(shape, (math.prod(shape),), _dense_model(chosen, classes))


def _cnn(chosen, classes):
    blocks = tuple((features, features) for features in chosen.features)
    return models.vgg(classes, blocks=blocks, hidden=chosen.hidden, dropout=chosen.dropout)


def _dense_model(chosen, classes):
    if chosen.model == "linear":
        return models.linear(classes)
    activation = layers.sigmoid if chosen.model == "sigmoid" else getattr(layers, chosen.activation)
    return models.mlp((*chosen.hidden, classes), activation=activation, dropout=chosen.dropout)


def _in_shape(shape, wanted, model):
    """The model, behind a layer that brings examples into the shape that it takes, where they have another."""
    if shape == wanted:
        return model
    return layers.serial(layers.reshape(wanted), *(model.sublayers or (model,)))


def _image_shape(name, shape):
    """(height, width, channels); a row of features is read as a square image of one channel."""
    if len(shape) == 3:
        return shape
    if len(shape) == 2:
        return (*shape, 1)
    side = math.isqrt(math.prod(shape))
    if len(shape) == 1 and shape == (side * side,):
        return (side, side, 1)
    raise ConfigError(
        f"--model cnn: expected {name} to hold images (height, width, channels), or rows that are square images, got "
        f"examples of shape {shape}; use --model mlp."
    )


def build_schedule(chosen: options.Train, steps: int) -> Schedule:
    """The learning rate that the options describe, for a run of `steps` steps."""
    rate = positive("--learning-rate", "learning_rate", chosen.learning_rate)
    warm = max(1, steps // 20)
    return {
        "constant": lambda: schedules.constant(rate),
        "step": lambda: schedules.step_decay(rate, max(1, steps // 3)),
        "exponential": lambda: schedules.exponential_decay(rate, steps, 0.01),
        "cosine": lambda: schedules.cosine_decay(rate, steps),
        "warmup_cosine": lambda: schedules.warmup(schedules.cosine_decay(rate, max(1, steps - warm)), warm),
    }[chosen.schedule]()


def build_optimizer(chosen: options.Train, steps: int) -> Optimizer:
    """The optimizer that the options describe, for a run of `steps` steps. Only kernels decay."""
    rate, decay = build_schedule(chosen, steps), chosen.weight_decay

    def is_kernel(path):
        return path.endswith("kernel")

    optimizer = {
        "sgd": lambda: optimizers.sgd(rate),
        "momentum": lambda: optimizers.sgd(rate, momentum=0.9),
        "nesterov": lambda: optimizers.sgd(rate, momentum=0.9, nesterov=True),
        "adagrad": lambda: optimizers.adagrad(rate),
        "rmsprop": lambda: optimizers.rmsprop(rate),
        "adam": lambda: optimizers.adam(rate),
        "adamw": lambda: optimizers.adamw(rate, weight_decay=decay, mask=is_kernel),
    }[chosen.optimizer]()
    if decay and chosen.optimizer != "adamw":
        optimizer = optimizers.decayed(optimizer, decay, mask=is_kernel)
    return optimizer if chosen.clip_norm is None else optimizers.clipped(optimizer, norm=chosen.clip_norm)


# The commands. Each returns its exit code.


def train(chosen: options.Train) -> int:
    """Train, and write weights, options, metrics and plots into one folder."""
    _check_packages()
    training_rows, held_out = _split(chosen, chosen.seed)
    watched = held_out
    if chosen.patience is not None:
        training_rows, watched = data.split(*training_rows, fractions=(0.9, 0.1), seed=chosen.seed)
    classes = _classes(training_rows[1])
    shape = training_rows[0].shape[1:]
    model = build_model(chosen, shape, classes)
    batch_size = min(chosen.batch_size, len(training_rows[0]))
    steps = chosen.epochs * data.steps_per_epoch(len(training_rows[0]), batch_size)
    folder = _new_folder(chosen)
    started = time.perf_counter()
    reports: Iterator[Report] = training.fit(
        model, LOSS, build_optimizer(chosen, steps), training_rows, engine=chosen.engine, epochs=chosen.epochs,
        batch_size=batch_size, key=chosen.seed, validation=watched, metrics={"accuracy": metrics.accuracy()},
    )  # fmt: skip
    if chosen.patience is not None:
        reports = training.early_stopping(reports, patience=chosen.patience)
    history, last = [], None
    schedule = build_schedule(chosen, steps)
    for last in _with_progress(reports, chosen.epochs):
        if not history or last.epoch > history[-1]["epoch"]:  # early stopping hands on the best report once more
            scalars = {name: float(value) for name, value in last.metrics.items()}
            rate = float(schedule(jnp.int32(last.step)))
            history.append({"epoch": last.epoch, "step": last.step, **scalars, "learning_rate": rate})
    assert last is not None  # fit yields at least one report, or raises
    seconds = time.perf_counter() - started
    params, state = last.state.optimizer.params, last.state.model
    results = _results(model, params, state, held_out, classes)
    _save(folder, chosen, params, state, history, results, {"classes": classes, "shape": shape})
    _show_results(chosen, model, params, last, seconds, training_rows, held_out, results)
    print(f"\nplots    {folder / CURVES}  {folder / CONFUSION}")
    print(f"weights  {folder / WEIGHTS}")
    print(f"metrics  {folder / HISTORY}")
    return 0


def evaluate(chosen: options.Evaluate) -> int:
    """Loss, accuracy and confusion matrix on the rows that training held out."""
    trained, model, params, state, _, classes = _load(chosen.run)
    held_out = _split(trained, trained.seed)[1]
    results = _results(model, params, state, held_out, classes)
    table = _table(f"{chosen.run}: {len(held_out[0])} held-out rows", "", "loss", "accuracy")
    table.add_row("held out", f"{results['loss']:.4f}", f"{results['accuracy']:.2%}")
    Console().print(table)
    matrix = _table("rows are the true class, columns the predicted one", "", *map(str, range(classes)))
    for label, row in enumerate(np.asarray(results["confusion"])):
        matrix.add_row(str(label), *(str(count) if count else "·" for count in row))
    Console().print(matrix)
    return 0


def predict(chosen: options.Predict) -> int:
    """Class and probability for each row of a file."""
    _, model, params, state, shape, _ = _load(chosen.run)
    rows = _read_rows(chosen.rows)
    if rows.shape[1:] != shape:
        raise DataError(f"{chosen.rows}: expected rows of shape {shape}, got an array of shape {rows.shape}.")
    logits, _ = jax.jit(model.apply, static_argnames="train")(params, state, jnp.asarray(rows, jnp.float32))
    probabilities = np.asarray(jax.nn.softmax(logits))
    lines = [("row", "class", "probability")]
    for i, row in enumerate(probabilities):
        lines.append((str(i), str(row.argmax()), f"{row.max():.6f}"))
    if chosen.output is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
        return 0
    with chosen.output.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    print(f"{len(rows)} rows -> {chosen.output}")
    return 0


def summary(chosen: options.Summary) -> int:
    """The table of a network's layers."""
    (x, target), _ = _split(chosen, 0)
    example = jax.ShapeDtypeStruct((chosen.batch_size, *x.shape[1:]), jnp.float32)
    print(summaries.summary(build_model(chosen, x.shape[1:], _classes(target)), example))
    return 0


# Parts of the commands.


def _check_packages():
    """What saving needs is looked for before training, so that no run is lost."""
    for package in ("matplotlib", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"funcnet train needs the package {package}; pip install 'funcnet[cli]'.")


def _split(chosen, seed):
    """(training rows, held-out rows): the set's own test images, or a fifth by the seed."""
    if chosen.data in IMAGE_SETS:
        return IMAGE_SETS[chosen.data](chosen.folder, download=chosen.download)
    return data.split(*load_data(chosen.data), fractions=(0.8, 0.2), seed=seed)


def _classes(target) -> int:
    if target.ndim != 1 or not np.issubdtype(target.dtype, np.integer):
        raise DataError(f"expected target to hold one class number a row, got {target.dtype} of shape {target.shape}.")
    return int(target.max()) + 1


def _new_folder(chosen) -> Path:
    if chosen.output is not None:
        folder = chosen.output
        if (folder / WEIGHTS).exists():
            raise ConfigError(f"{folder} already holds {WEIGHTS}; choose another --output, nothing is overwritten.")
    else:
        taken = [int(p.name) for p in Path("runs").glob("[0-9][0-9][0-9]") if p.name.isdigit()]
        folder = Path("runs") / f"{max(taken, default=0) + 1:03d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: the folder for the results cannot be made: {error.strerror}.") from error
    return folder


def _with_progress(reports: Iterable[Report], epochs: int) -> Iterator[Report]:
    """The reports, while a bar (on a terminal) or a line every tenth of the run (elsewhere) shows them."""
    console = Console()
    if not console.is_terminal:
        for report in reports:
            if report.epoch % max(1, epochs // 10) == 0 or report.epoch == epochs:
                print(_line(report, epochs), flush=True)
            yield report
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"epoch 0/{epochs}", total=epochs)
        for report in reports:
            loss, accuracy = (float(report.metrics[name]) for name in ("loss", "validation_accuracy"))
            description = f"epoch {report.epoch}/{epochs}  loss {loss:.4f}  validation {accuracy:.2%}"
            progress.update(task, completed=report.epoch, description=description)
            yield report


def _line(report, epochs):
    m = report.metrics
    return (
        f"epoch {report.epoch}/{epochs}  loss {float(m['loss']):.4f}  accuracy {float(m['accuracy']):.2%}  "
        f"validation loss {float(m['validation_loss']):.4f}  accuracy {float(m['validation_accuracy']):.2%}"
    )


def _results(model, params, state, held_out, classes) -> dict[str, Any]:
    chosen = {"accuracy": metrics.accuracy(), "confusion": metrics.confusion_matrix(classes)}
    return training.evaluate(model, LOSS, params, state, held_out, metrics=chosen)


def _save(folder, chosen, params, state, history, results, facts):
    options.write_config(chosen, folder / CONFIG)
    scalars = {name: float(results[name]) for name in ("loss", "accuracy")}
    checkpoints.save_weights(folder / WEIGHTS, params, state, metadata={**facts, "held_out": scalars})
    with (folder / HISTORY).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    plotting.learning_curves(history, folder / CURVES)
    plotting.confusion_matrix(np.asarray(results["confusion"]), path=folder / CONFUSION)


def _load(folder: Path):
    """`(options, model, params, state, shape, classes)` of a folder that `train` wrote."""
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder}: expected a folder that funcnet train wrote, with {CONFIG} in it.")
    trained = options.Train(**options.read_config(folder / CONFIG))
    *_, metadata = checkpoints.load_weights(folder / WEIGHTS)
    if not metadata or not {"classes", "shape"} <= set(metadata):
        raise CheckpointError(f"{folder / WEIGHTS}: expected weights that funcnet train wrote; train again.")
    shape, classes = tuple(metadata["shape"]), metadata["classes"]
    model = build_model(trained, shape, classes)
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    like = jax.eval_shape(lambda key: model.init(key, example), jax.random.key(0))
    params, state, _ = checkpoints.load_weights(folder / WEIGHTS, like=like)
    return trained, model, params, state, shape, classes


def _read_rows(path: Path) -> np.ndarray:
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2) if path.suffix == ".csv" else np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: expected a readable .npy or .csv file of numbers: {error}") from error
    if not np.issubdtype(rows.dtype, np.number) or not np.isfinite(rows).all():
        raise DataError(f"{path}: expected finite numbers, got dtype {rows.dtype}.")
    return rows


def _table(title, *columns) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _show_results(chosen, model, params, last, seconds, training_rows, held_out, results):
    table = _table(f"{chosen.data}, engine {chosen.engine}, {chosen.optimizer}", "", "rows", "loss", "accuracy")
    on_training = training.evaluate(
        model, LOSS, params, last.state.model, training_rows, metrics={"accuracy": metrics.accuracy()}
    )
    for name, rows, result in (("training", training_rows, on_training), ("held out", held_out, results)):
        table.add_row(name, str(len(rows[0])), f"{float(result['loss']):.4f}", f"{float(result['accuracy']):.2%}")
    Console().print(table)
    print(f"{trees.total_size(params):,} parameters, {last.step:,} steps in {seconds:.1f} s")
