"""A network of the user's own: `--model my_model.py:net`."""

import hashlib
import inspect
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checkpoints.files import write_whole
from funcnet.cli.imports import imported
from funcnet.data.preparation import Preparation
from funcnet.errors import CheckpointError, ConfigError, DataError, translated
from funcnet.made import leading
from funcnet.reading import plain_file, shown
from funcnet.types import Layer

__all__ = ["MODEL", "check_kept", "is_own", "keep_file", "model_sha256", "own_model"]

MODEL = "model.py"  #: the copy of the user's file in the folder of a run


def is_own(model: str) -> bool:
    """Whether `--model` names code of the user."""
    return ":" in model


def own_model(model: str, preparation: Preparation, run: Path | None = None) -> Layer:
    """The layer that the attribute is, or that it makes: a function without arguments, or of the number of outputs.

    Args:
        model: `path/to/file.py:attribute` or `module:attribute`.
        run: the folder of a run. The copy of the file in it is used, so that later changes of the file harm no run.
    """
    place, _, name = model.rpartition(":")
    with leading(f"--model {model}"):
        if run is not None and (run / MODEL).exists():
            network = imported(f"{run / MODEL}:{name}", lambda found: _made(found, preparation), Path(place).parent)
        else:
            network = imported(model, lambda found: _made(found, preparation))
        _check_outputs(network, preparation)
    return network


def _made(found: Any, preparation: Preparation) -> Layer:
    if callable(found) and not isinstance(found, Layer):
        takes = inspect.signature(found).parameters
        if len(takes) > 1:
            raise ConfigError(f"expected a function of the number of outputs, got one that takes ({', '.join(takes)}).")
        found = found(*[preparation.outputs] * len(takes))
    if not isinstance(found, Layer):
        raise ConfigError(f"expected a layer, or a function that returns one, got {type(found).__name__}.")
    return found


def _check_outputs(network: Layer, preparation: Preparation) -> None:
    example = jax.ShapeDtypeStruct((1, *preparation.shape), jnp.float32)
    params, state = jax.eval_shape(network.init, jax.random.key(0), example)
    y, _ = jax.eval_shape(network.apply, params, state, example)
    shape = getattr(y, "shape", None)
    if shape != (1, preparation.outputs):
        kind = "class" if preparation.task == "classes" else "target"
        fix = f"end it with layers.dense({preparation.outputs}), or write a function of the number of outputs"
        wanted = f"({preparation.outputs},), one for each {kind}"
        raise ConfigError(f"expected outputs of shape {wanted}, got {shape and shape[1:]}; {fix}.")


def model_sha256(model: str, run: Path | None = None) -> str | None:
    """The hash of the file of a network, or of its copy in a run; `None` if it is not in a file of the user."""
    place, _, _ = model.rpartition(":")
    if not place.endswith(".py"):
        return None
    path = Path(place) if run is None or not (run / MODEL).exists() else run / MODEL
    return hashlib.sha256(_content(path)).hexdigest()


def keep_file(model: str, run: Path) -> None:
    """Copy the file of a network into the folder of its run, and say so if the file has changed since."""
    place, _, _ = model.rpartition(":")
    if not place.endswith(".py"):
        return
    if not (run / MODEL).exists():
        write_whole(run / MODEL, _content(Path(place)))
    elif Path(place).exists() and _content(Path(place)) != _content(run / MODEL):
        print(shown(f"funcnet: {place} has changed; {run / MODEL}, its copy of before, is used"), file=sys.stderr)


def check_kept(run: Path, facts: dict[str, Any]) -> None:
    """The copy in the folder of a run must be the file that it was trained with."""
    sha256, path = facts.get("model_sha256"), run / MODEL
    if sha256 is not None and path.exists() and hashlib.sha256(_content(path)).hexdigest() != sha256:
        raise CheckpointError(f"{path}: expected the file that the run was trained with, got another; put it back.")


def _content(path: Path) -> bytes:
    with translated(OSError, DataError, "the file cannot be read"), plain_file(path, links=True) as file:
        return file.read()
