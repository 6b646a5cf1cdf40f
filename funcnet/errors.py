"""What a user can catch. Every message begins with what the user wrote, then says what was expected, what came
and how to mend it. All are `ValueError` unless their docstring names another base."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "CheckpointError", "CheckpointWarning", "ChecksumError", "ConfigError", "DataError", "DivergenceError",
    "DtypeError", "FormatError", "ForwardModeError", "FuncnetError", "GradientError", "LabelError",
    "MissingExtraError", "MissingKeyError", "OutOfMemoryError", "OutputWarning", "ShapeError", "StructureError",
    "extra", "translated",
]  # fmt: skip


class FuncnetError(Exception):
    """The base of all errors that funcnet itself raises."""

    led = False  #: whether the message begins with the call already, so that no other call is put before it


class ShapeError(FuncnetError, ValueError):
    """An array of the wrong shape."""


class DtypeError(FuncnetError, TypeError):
    """An array of the wrong dtype, or no array at all. A `TypeError`."""


class StructureError(FuncnetError, ValueError):
    """A tree (params, state, gradients, residuals) that is not the one the function made."""


class MissingKeyError(FuncnetError, ValueError):
    """A layer draws random numbers and got no key."""


class ConfigError(FuncnetError, ValueError):
    """A hyper-parameter or option with an impossible value or an unknown name."""


class DataError(FuncnetError, ValueError):
    """Data that cannot be trained on: empty, NaN, too short."""


class LabelError(DataError):
    """A class label that is negative, too large, or no integer."""


class FormatError(DataError):
    """A file that does not hold what its format promises."""


class ChecksumError(DataError):
    """A file whose hash is not the recorded one."""


class CheckpointError(FuncnetError, ValueError):
    """Saved weights or a checkpoint that cannot be written or read, or do not fit the model."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over."""


class OutputWarning(UserWarning):
    """A model's last layer does not give what its loss takes."""


class GradientError(FuncnetError, AssertionError):
    """A gradient check that failed. An `AssertionError`, so that a test which raises it reads as failed."""


class ForwardModeError(FuncnetError, TypeError):
    """Forward-mode differentiation of a layer that defines reverse mode only. A `TypeError`, as JAX's own."""


class DivergenceError(FuncnetError, ArithmeticError):
    """Training that left the finite numbers. An `ArithmeticError`."""


class MissingExtraError(FuncnetError, ImportError):
    """A package of one of funcnet's extras is not installed. An `ImportError`."""

    __str__ = Exception.__str__  # of the arguments, into which the call is put; an ImportError keeps a text besides


class OutOfMemoryError(FuncnetError, MemoryError):
    """A program that needs more memory than the device has, found before it runs. A `MemoryError`."""


# What others raise, as an error of funcnet.


@contextmanager
def translated(
    kinds: type[Exception] | tuple[type[Exception], ...], error: type[Exception], problem: str, fix: str = ""
) -> Iterator[None]:
    """An exception of other kinds that is raised inside, as an `error` that says what the `problem` is.

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
    """Imports of a package that comes with an extra of funcnet.

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
