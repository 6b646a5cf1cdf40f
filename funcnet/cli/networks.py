"""Make data, networks, schedules and optimizers from the options."""

import math
from typing import Any

import numpy as np

from funcnet import data, layers, losses, models, optimizers, schedules
from funcnet.checks import check_values, describe, is_floating, positive
from funcnet.cli import options
from funcnet.data.checks import checked_data
from funcnet.errors import ConfigError, DataError, LabelError
from funcnet.made import leading
from funcnet.reading import plain_file
from funcnet.types import Layer, Optimizer, Schedule

__all__ = [
    "LOSS", "build_model", "build_optimizer", "build_schedule", "checked_x", "classes_of", "load_data", "run_rows",
    "split_rows",
]  # fmt: skip

LOSS = losses.softmax_cross_entropy
IMAGE_SETS = {
    "mnist": data.mnist, "fashion_mnist": data.fashion_mnist, "cifar10": data.cifar10, "cifar100": data.cifar100,
}  # fmt: skip


def load_data(name: str, *, training: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """`(x, target)` of `"digits"`, or of an .npz file with the arrays x and target.

    For training the classes must begin at 0 and be fewer than the rows. Rows to evaluate may lack some classes.
    """
    if name == "digits":
        return data.digits()
    try:
        with plain_file(name, links=True) as stream, np.load(stream, allow_pickle=False) as file:
            found = sorted(file.files)
            arrays = {key: file[key] for key in ("x", "target") if key in found}  # others may be large
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds of errors for a damaged file
        sets = '"digits", "mnist", "fashion_mnist", "cifar10", "cifar100"'
        raise DataError(f"{name}: expected {sets} or a readable .npz file: {error}") from error
    if len(arrays) < 2:
        raise DataError(f"{name}: expected the arrays x and target, got {found}.")
    return checked_x(name, arrays["x"]), _checked_labels(name, arrays["target"], training)


def checked_x(name: str, x: np.ndarray) -> np.ndarray:
    """The rows of a file as networks take them, in float32. Training, evaluation and prediction all check them here.

    It happens before rows are shuffled, so that an error names a row as the file counts it.
    """
    with leading(name):
        if not is_floating(x):
            fix = "convert it with x.astype(np.float32), and scale images to [0, 1]"
            raise DataError(f"expected x of floating-point numbers, got {describe(x)}; {fix}.")
        (x, _) = checked_data((x, None))
    return np.asarray(x, np.float32)


def _checked_labels(name: str, target: np.ndarray, training: bool) -> np.ndarray:
    """One class number per row. Like rows, they are checked before they are shuffled."""
    with leading(name):
        if target.ndim != 1 or not np.issubdtype(target.dtype, np.integer) or not len(target):
            got = f"{target.dtype} of shape {target.shape}"
            raise DataError(f"expected target to hold one class number per row, got {got}.")
        check_values(LabelError, "class numbers from 0", target, None, lambda label: label >= 0, "number them from 0")
        if training and target.min() > 0:
            raise DataError(f"expected class numbers from 0, got {target.min()} as the smallest; subtract it.")
        # The network would have an output for each number that does not occur.
        if training and target.max() >= len(target):
            got = f"{target.max()} among {len(target)} rows"
            fix = "np.unique(target, return_inverse=True)[1] makes class numbers of ids"
            raise LabelError(f"expected fewer classes than rows, numbered from 0, got {got}; {fix}.")
    native = target.dtype.isnative and target.dtype != np.uint64  # such labels stay as they are, and so do their hashes
    return target if native else target.astype(int)


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
    """The model. A layer before it reshapes the examples if their shape is not the one that it takes."""
    if shape == wanted:
        return model
    inner = model.inside.layers if model.inside and model.made.constructor is layers.serial else (model,)
    return layers.serial(layers.reshape(wanted), *inner)


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


def split_rows(chosen: Any, seed: int) -> Any:
    """(training rows, held-out rows). The latter are the data set's own test images, or a fifth chosen by the seed."""
    if chosen.data in IMAGE_SETS:
        return IMAGE_SETS[chosen.data](chosen.folder, download=chosen.download)
    return data.split(*load_data(chosen.data), fractions=(0.8, 0.2), seed=seed)


def run_rows(chosen: options.Train) -> Any:
    """(training rows, rows that validate each report, held-out rows). With --patience some training rows validate."""
    training_rows, held_out = split_rows(chosen, chosen.seed)
    if chosen.patience is None:
        return training_rows, held_out, held_out
    return *data.split(*training_rows, fractions=(0.9, 0.1), seed=chosen.seed), held_out


def classes_of(*targets: np.ndarray) -> int:
    """The number of classes, from 0 to the largest label of training and held-out rows."""
    return int(max(target.max() for target in targets)) + 1
