"""The errors and warnings that a user can catch.

Every message begins with the call that the user wrote. Then it says what was expected, what came and how to fix it. All
errors are `ValueError` unless their docstring names another base.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = [
    "CheckpointError", "CheckpointWarning", "ChecksumError", "ConfigError", "DataError", "DivergenceError",
    "DtypeError", "FormatError", "ForwardModeError", "FuncnetError", "GradientError", "LabelError", "LabelWarning",
    "MissingExtraError", "MissingKeyError", "OutOfMemoryError", "OutputWarning", "PortError", "ShapeError",
    "StructureError", "TrainingWarning", "either", "extra", "nearest", "translated",
]  # fmt: skip


class FuncnetError(Exception):
    """The base of all errors that funcnet itself raises."""

    led = False  #: whether the message already begins with a call, so that no other call is put before it


class ShapeError(FuncnetError, ValueError):
    """An array of the wrong shape."""


class DtypeError(FuncnetError, TypeError):
    """An array of the wrong dtype, or something that is not an array. A `TypeError`."""


class StructureError(FuncnetError, ValueError):
    """A tree (params, state, gradients, residuals) of a structure that was not expected."""


class MissingKeyError(FuncnetError, ValueError):
    """A layer draws random numbers and got no key."""


class ConfigError(FuncnetError, ValueError):
    """A hyper-parameter or option with an impossible value or an unknown name."""


class PortError(ConfigError):
    """The port of a run of several processes is in use."""


class DataError(FuncnetError, ValueError):
    """Data that cannot be trained on: empty, NaN, too short."""


class LabelError(DataError):
    """A class label that is negative, too large, or not an integer."""


class FormatError(DataError):
    """A file that does not hold what its format promises."""


class ChecksumError(DataError):
    """A file whose hash is not the recorded one."""


class CheckpointError(FuncnetError, ValueError):
    """Saved weights or a checkpoint that cannot be written or read, or do not fit the model."""


class CheckpointWarning(UserWarning):
    """A checkpoint that is damaged or not finite was skipped, or one that is not finite was restored."""


class LabelWarning(UserWarning):
    """Targets that are probabilities of classes, and do not sum to 1."""


class OutputWarning(UserWarning):
    """A model does not give what its loss expects, by its last layer or by its numbers."""


class TrainingWarning(UserWarning):
    """`fit` was called, and its iterator was given up before it trained anything."""


class GradientError(FuncnetError, AssertionError):
    """A gradient check that failed. An `AssertionError`, so that a test that raises it counts as failed."""


class ForwardModeError(FuncnetError, TypeError):
    """Forward-mode differentiation of a layer that defines reverse mode only. A `TypeError`, like JAX's own error."""


class DivergenceError(FuncnetError, ArithmeticError):
    """Training that produced NaN or infinite numbers. An `ArithmeticError`."""


class MissingExtraError(FuncnetError, ImportError):
    """A package of one of funcnet's extras is not installed. An `ImportError`."""

    __str__ = Exception.__str__  # the text of the arguments, to which the call is added; ImportError keeps another text


class OutOfMemoryError(FuncnetError, MemoryError):
    """A program that needs more memory than the device has, found before it runs. A `MemoryError`."""


# Exceptions of others as errors of funcnet.


@contextmanager
def translated(
    kinds: type[Exception] | tuple[type[Exception], ...], error: type[Exception], problem: str, fix: str = ""
) -> Iterator[None]:
    """Turn an exception of these `kinds` that is raised inside into an `error` that names the `problem`.

    >>> with translated(OSError, DataError, "the file cannot be read"):
    ...     open("nowhere.csv")
    Traceback (most recent call last):
    funcnet.errors.DataError: the file cannot be read: [Errno 2] No such file or directory: 'nowhere.csv'.
    """
    try:
        yield
    except kinds as cause:
        raise error(f"{problem}: {str(cause).rstrip('.')}{fix and '; '}{fix}.") from cause


@contextmanager
def extra(name: str, package: str) -> Iterator[None]:
    """Turn a failed import of a `package` into an error that says which extra of funcnet to install.

    >>> with extra("plot", "nothing"):
    ...     import nothing
    Traceback (most recent call last):
    funcnet.errors.MissingExtraError: expected the package nothing, which is not installed; pip install 'funcnet[plot]'.
    """
    try:
        yield
    except ImportError as error:
        fix = f"pip install 'funcnet[{name}]'"
        raise MissingExtraError(f"expected the package {package}, which is not installed; {fix}.") from error


def either(words: Iterable[str]) -> str:
    """Words of which one is wanted.

    >>> either(["sgd"]), either(["sgd", "adam", "lion"])
    ('sgd', 'sgd, adam or lion')
    """
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def nearest(word: str, words: Iterable[str]) -> str:
    """The word that may have been meant, in capitals or not; empty if there is none. A number is not another one.

    >>> nearest("Adma", ("sgd", "adam")), nearest("-1", ("0", "1"))
    ('adam', '')
    """
    known = {} if word.lstrip("-").isdigit() else {one.lower(): one for one in words}
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return known[near[0]] if near else ""
