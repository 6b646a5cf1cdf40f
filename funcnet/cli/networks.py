"""Make networks, schedules and optimizers from the options."""

import math
from pathlib import Path

from funcnet import layers, models, optimizers, schedules
from funcnet.checks import listed, positive
from funcnet.cli import options
from funcnet.cli.own_model import is_own, own_model
from funcnet.data.preparation import Preparation
from funcnet.errors import ConfigError, nearest
from funcnet.made import leading
from funcnet.types import Layer, Optimizer, Schedule

__all__ = ["build_model", "build_optimizer", "build_schedule", "image_shape", "optimizer_at"]

_MODELS = ("auto", "cnn", "mlp", "linear", "sigmoid")


def build_model(chosen: options.Train, preparation: Preparation, run: Path | None = None) -> Layer:
    """The network that the options describe, for the rows and outputs of a preparation. `run` is the folder of a run,
    which holds a copy of a network of the user's own."""
    if is_own(chosen.model):
        return own_model(chosen.model, preparation, run)
    if chosen.model not in _MODELS:
        near = nearest(chosen.model, _MODELS)
        fix = f"did you mean {near}?" if near else "choose one of them."
        raise ConfigError(f"--model: expected {listed(_MODELS)} or file.py:net, got {chosen.model!r}; {fix}")
    shape, outputs = preparation.shape, preparation.outputs
    image = image_shape(preparation, least=1 if chosen.model == "cnn" else 6)
    small = image is None or min(image[:2]) < 2 ** len(chosen.features)  # for the poolings of a cnn
    if chosen.model not in ("auto", "cnn") or (chosen.model == "auto" and small):
        return _in_shape(shape, (math.prod(shape),), _dense_model(chosen, outputs))
    if image is None:
        raise ConfigError(
            f"--model cnn: expected {chosen.data} to hold images (height, width, channels), or rows that are square "
            f"images, got examples of shape {shape}; use --model mlp."
        )
    return _in_shape(shape, image, _cnn(chosen, outputs))


def image_shape(preparation: Preparation, *, least: int = 6) -> tuple[int, ...] | None:
    """(height, width, channels) of rows that look like images, else `None`.

    A row of numbers looks like an image of one channel if it is a square with sides of at least `least`.
    """
    shape = preparation.shape
    if len(shape) == 3:
        return shape
    if len(shape) == 2:
        return (*shape, 1)
    side = math.isqrt(math.prod(shape))
    square = preparation.row_shape is not None and shape == (side * side,) and side >= least
    return (side, side, 1) if square else None


def _cnn(chosen, outputs):
    blocks = tuple((features, features) for features in chosen.features)
    return models.vgg(outputs, blocks=blocks, hidden=chosen.hidden, dropout=chosen.dropout)


def _dense_model(chosen, outputs):
    if chosen.model == "linear":
        return models.linear(outputs)
    activation = layers.sigmoid if chosen.model == "sigmoid" else getattr(layers, chosen.activation)
    return models.mlp((*chosen.hidden, outputs), activation=activation, dropout=chosen.dropout)


def _in_shape(shape, wanted, model):
    """The model. A layer before it reshapes the examples if their shape is not the one that it takes."""
    if shape == wanted:
        return model
    inner = model.inside.layers if model.inside and model.made.constructor is layers.serial else (model,)
    return layers.serial(layers.reshape(wanted), *inner)


def build_schedule(chosen: options.Train, steps: int) -> Schedule:
    """The learning rate that the options describe, for a run of `steps` steps."""
    with leading("--learning-rate"):
        rate = positive("learning_rate", chosen.learning_rate)
    warm = max(1, steps // 20)
    return {
        "constant": lambda: schedules.constant(rate),
        "step": lambda: schedules.step_decay(rate, max(1, steps // 3)),
        "exponential": lambda: schedules.exponential_decay(rate, steps, 0.01),
        "cosine": lambda: schedules.cosine_decay(rate, steps),
        "warmup_cosine": lambda: schedules.warmup(schedules.cosine_decay(rate, max(1, steps - warm)), warm),
    }[chosen.schedule]()


def build_optimizer(chosen: options.Train, steps: int) -> Optimizer:
    """The optimizer that the options describe, for a run of `steps` steps."""
    return optimizer_at(chosen, build_schedule(chosen, steps))


def optimizer_at(chosen: options.Train, rate: float | Schedule) -> Optimizer:
    """The optimizer that the options describe, with a learning rate of its own. Only kernels decay."""
    decay = chosen.weight_decay

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
    if chosen.clip_norm is not None:
        optimizer = optimizers.clipped(optimizer, norm=chosen.clip_norm)
    return optimizer if chosen.freeze is None else optimizers.frozen(optimizer, chosen.freeze)
