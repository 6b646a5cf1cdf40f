"""The folder of a run: its options, checkpoints, metrics, weights and plots."""

import contextlib
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp

from funcnet import checkpoints
from funcnet.cli import config_file, options
from funcnet.cli.networks import build_model
from funcnet.cli.own_model import check_kept
from funcnet.cli.phases import phase
from funcnet.cli.rows import Parts, read_parts
from funcnet.data.preparation import Preparation
from funcnet.errors import CheckpointError, ConfigError, DataError, FuncnetError
from funcnet.reading import shown
from funcnet.types import Layer, Report

__all__ = [
    "BOARD", "CHECKPOINTS", "CONFIG", "CONFUSION", "CURVES", "HISTORY", "PREDICTED", "RATES", "SCORES", "WEIGHTS",
    "Loaded", "are_facts", "check_data", "check_place", "check_unchanged", "facts_of", "fold_folder", "is_first",
    "load_run", "new_folder", "preparation_of", "restore_run", "run_parts",
]  # fmt: skip

BOARD, CHECKPOINTS, CONFIG, HISTORY = "tensorboard", "checkpoints", "config.toml", "metrics.csv"
WEIGHTS = "weights.safetensors"
CURVES, RATES = "curves.png", "rates.png"
CONFUSION, PREDICTED, SCORES = "confusion.png", "predicted.png", "scores.png"


def new_folder(chosen: options.Train) -> Path:
    """The folder that the options name, or the next free one. Results of another run are never overwritten."""
    if not is_first():  # process 0 checks it and makes it
        return chosen.output or _needs_output()
    folder = chosen.output
    if folder is None:
        if jax.process_count() > 1:
            _needs_output()
    elif (folder / WEIGHTS).exists():
        raise ConfigError(f"{folder} already holds {WEIGHTS}; choose another --output, nothing is overwritten.")
    elif checkpoints.steps(folder / CHECKPOINTS):
        raise ConfigError(
            f"{folder} holds a run that was stopped; go on with funcnet train --resume {folder}, or choose another "
            "--output."
        )
    try:
        if folder is None:
            return _made_next(Path("runs"))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = folder or "runs"
        raise ConfigError(f"{place}: the folder for the results cannot be made: {error.strerror}.") from error
    return folder


def _made_next(runs: Path) -> Path:
    """The folder after the last number in `runs`. It is made here, so that no other run takes it too."""
    runs.mkdir(exist_ok=True)
    number = max((int(path.name) for path in runs.iterdir() if re.fullmatch("[0-9]+", path.name)), default=0)
    while True:
        number += 1
        try:
            (runs / f"{number:03d}").mkdir()
        except FileExistsError:  # another run has taken it since
            continue
        return runs / f"{number:03d}"


def check_place(option: str, path: Path, name: str) -> None:
    """Check, before the work is done, that a file can be written to `path`. Errors suggest `name` as its name."""
    if path.is_dir():
        raise ConfigError(f"{option} {path}: expected a file, got a folder; add a name, {path / name}.")
    if not path.resolve().parent.is_dir():
        raise ConfigError(f"{option} {path}: expected a folder that exists; make {path.parent} first.")


def _needs_output():
    raise ConfigError("funcnet train: expected --output for a run of several processes; give the same folder to each.")


def is_first() -> bool:
    """Whether this is process 0, which alone writes."""
    return jax.process_index() == 0


def fold_folder(folder: Path, fold: int) -> Path:
    """The folder of one of the runs of `--folds`."""
    return folder / f"fold-{fold}"


def are_facts(metadata: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is what `train` writes: the preparation as text, and some of the other facts."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get("options", {}), dict):
        return False
    if not all(isinstance(metadata.get(name, ""), str) for name in ("metrics", "preparation")):
        return False
    try:
        Preparation.from_json(metadata.get("preparation", ""))
    except FuncnetError:
        return False
    return True


def preparation_of(facts: dict[str, Any]) -> Preparation:
    """What the training rows of a run determined."""
    return Preparation.from_json(facts["preparation"])


def facts_of(folder: Path) -> dict[str, Any]:
    """What `train` wrote about a run into its newest checkpoint, else into its weights; empty if neither is there."""
    verdicts = checkpoints.verify(folder / CHECKPOINTS, bytes_too=False)
    found: list[Any] = [verdict.manifest.metadata for verdict in verdicts if verdict.manifest is not None]
    if not found:
        with contextlib.suppress(CheckpointError):
            found = [checkpoints.load_weights(folder / WEIGHTS)[2]]
    return found[-1] if found and are_facts(found[-1]) else {}


def check_unchanged(folder: Path, facts: dict[str, Any]) -> options.Train:
    """The options in config.toml. They must be those of these facts, as far as these hold them.

    If `train` wrote the file as it is, what may change was given to it on the command line.
    """
    path = folder / CONFIG
    chosen = options.Train(**config_file.read_config(path))
    now, may_differ = config_file.kept(chosen), options.MAY_CHANGE if config_file.is_sealed(path) else ()
    for name, before in facts.get("options", {}).items():
        if name in now and now[name] != before and name not in may_differ:
            fix = "write it as it was" + "; --resume takes another on the command line" * (name in options.MAY_CHANGE)
            raise ConfigError(f"{path}: expected {name} to be that of the run, {before}, got {now[name]}; {fix}.")
    return chosen


def check_data(folder: Path, facts: dict[str, Any], data_sha256: str) -> None:
    """The training data must be those that the run began with."""
    if facts.get("data_sha256", data_sha256) != data_sha256:
        fix = "other rows would be held out; put the old data back, or start a new run"
        raise DataError(f"{folder}: expected the training data that the run began with, got other data; {fix}.")


def run_parts(folder: Path, trained: options.Train, facts: dict[str, Any]) -> Parts:
    """The rows that a run was trained on and those that it held out."""
    parts = read_parts(trained)
    check_data(folder, facts, parts.sha256)
    return parts


def restore_run(folder: Path, like: Any, data_sha256: str) -> tuple[Report | None, dict[str, Any]]:
    """The last good checkpoint of a run and its facts; `None` if the run was stopped before its first."""
    if not checkpoints.steps(folder / CHECKPOINTS):
        return None, {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report, metadata = checkpoints.restore(folder / CHECKPOINTS, like)
    for warning in caught:
        print(f"funcnet: {shown(warning.message)}", file=sys.stderr)
    if not are_facts(metadata):
        raise CheckpointError(f"{folder}: expected checkpoints that funcnet train wrote; start a new run.")
    check_data(folder, metadata, data_sha256)
    return report, metadata


class Loaded(NamedTuple):
    """A folder that `train` wrote."""

    options: options.Train
    model: Layer
    params: Any
    state: Any
    facts: dict[str, Any]  #: those of its weights
    preparation: Preparation


def load_run(folder: Path) -> Loaded:
    """The network of a run with its weights."""
    with phase(f"reading {shown(folder)}"):
        return _loaded(folder)


def _loaded(folder):
    if not (folder / WEIGHTS).exists() and fold_folder(folder, 1).exists():
        raise CheckpointError(f"{folder}: expected one run, got several folds; choose one, {fold_folder(folder, 1)}.")
    if not (folder / WEIGHTS).exists() and (folder / CONFIG).exists() and not checkpoints.steps(folder / CHECKPOINTS):
        raise CheckpointError(f"{folder}: the run was stopped before its first checkpoint; train again.")
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder}: expected a folder that funcnet train wrote, with {CONFIG} in it.")
    if not (folder / WEIGHTS).exists() and checkpoints.steps(folder / CHECKPOINTS):
        raise CheckpointError(f"{folder}: the run was stopped; finish it with funcnet train --resume {folder}.")
    *_, metadata = checkpoints.load_weights(folder / WEIGHTS)
    if not are_facts(metadata):
        raise CheckpointError(f"{folder / WEIGHTS}: expected weights that funcnet train wrote; train again.")
    check_kept(folder, metadata)
    trained, preparation = check_unchanged(folder, metadata), preparation_of(metadata)
    model = build_model(trained, preparation, folder)
    example = jax.ShapeDtypeStruct((1, *preparation.shape), jnp.float32)
    like = jax.eval_shape(lambda key: model.init(key, example), jax.random.key(0))
    params, state, _ = checkpoints.load_weights(folder / WEIGHTS, like=like)
    steps, newest = metadata.get("steps"), max(checkpoints.steps(folder / CHECKPOINTS), default=0)
    if isinstance(steps, int) and newest > steps:
        said = f"these are the weights of the run of {steps} steps; a longer one is at step {newest}; finish it with"
        print(shown(f"funcnet: {folder}: {said} funcnet train --resume {folder}."), file=sys.stderr)
    return Loaded(trained, model, params, state, metadata, preparation)
