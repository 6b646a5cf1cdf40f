"""The command `funcnet`: train, evaluate, predict, summary, check."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from funcnet import errors

__all__ = ["main"]

DESCRIPTION = "Train neural networks on JAX, with gradients by autodiff or derived by hand."

# What a shell sees; 1 is a check that failed, as Python's own failures are, and 2 is a wrong command line, by custom.
EXIT_CODES = {errors.ConfigError: 2, errors.DivergenceError: 3, errors.DataError: 4, errors.CheckpointError: 5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 wrong gradients, 2 usage, 3 diverged, 4 data, 5 saved weights.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except errors.FuncnetError as error:
        print(f"funcnet: {error}", file=sys.stderr)
        return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 2)
    except KeyboardInterrupt:
        print("funcnet: stopped.", file=sys.stderr)
        return 130


def _run(arguments):
    try:
        import tyro

        from funcnet.cli import options
    except ImportError as error:
        raise errors.MissingExtraError(
            f"the command line needs the package {error.name}; pip install 'funcnet[cli]'."
        ) from error

    command = tyro.cli(options.Command, args=arguments or ["--help"], prog="funcnet", description=DESCRIPTION)
    if isinstance(command, options.Train) and command.config is not None:
        command = _with_config(command, arguments)
    from funcnet.cli import jobs  # only now: it imports jax

    return jobs.run(command)


def _with_config(command, arguments):
    """The options again, with the file's values as defaults, so that the command line wins."""
    import tyro

    from funcnet.cli import options

    default = replace(options.Train(), **options.read_config(Path(command.config)))
    place = arguments.index("train")
    return tyro.cli(options.Train, args=arguments[place + 1 :], prog="funcnet train", default=default)
