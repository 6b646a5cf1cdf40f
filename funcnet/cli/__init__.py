"""The command `funcnet`: train, evaluate, report, predict, export, summary, forecast, check, checkpoints, launch and
new.
"""

import dataclasses
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from funcnet import errors
from funcnet.cli.phases import phase
from funcnet.reading import shown

__all__ = ["PEER_LOST", "PORT_TAKEN", "main"]

DESCRIPTION = """Train neural networks on JAX, with gradients by autodiff or derived by hand.
Exit status: 0 done, 1 wrong gradients, 2 usage, 3 diverged, 4 data, 5 saved weights,
75 another process lost, 76 port in use, 130 Ctrl-C. Completion: funcnet --completion bash"""

PEER_LOST = 75  # another process of the run failed: try again
PORT_TAKEN = 76
# The exit codes of errors. 1 is a check that failed, and also Python's own code for a failure. By custom 2 is a wrong
# command line.
EXIT_CODES = {
    errors.PortError: PORT_TAKEN, errors.ConfigError: 2, errors.DivergenceError: 3, errors.DataError: 4,
    errors.CheckpointError: 5,
}  # fmt: skip
_FIXES = {
    errno.ENAMETOOLONG: "choose a shorter name", errno.ENOSPC: "free some space",
    errno.ENOENT: "change to a folder that exists",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, or stopped with a checkpoint; 1 wrong gradients, 2 usage, 3 diverged, 4 data, 5 saved weights or
    checkpoints, 75 another process of the run was lost, 76 its port is in use, 128 + n the signal n.
    """
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # As a program it ends at once. A KeyboardInterrupt in a callback of jax is lost, or ends in a crash.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # a name may hold what the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here a full disk is still told in words
    except errors.FuncnetError as error:
        print(f"funcnet: {shown(error)}", file=sys.stderr)
        return _leave(next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 2))
    except KeyboardInterrupt:
        print("funcnet: stopped.", file=sys.stderr)
        return _leave(130)
    except OSError as error:
        if error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO):
            # Nothing more can be printed: the reader of the output has closed it, or its disk is full.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return _leave(141)
        print(f"funcnet: {shown(error)}; {_FIXES.get(error.errno or 0, 'choose another place')}.", file=sys.stderr)
        return _leave(1 if _is_one_of_several() else 2)  # launch tries again after 1
    except Exception as error:
        if not _is_one_of_several():
            raise
        if _is_of_another(error):
            print(f"funcnet: another process of the run was lost: {shown(error).splitlines()[0]}", file=sys.stderr)
            return _leave(PEER_LOST)
        traceback.print_exc()
        return _leave(1)


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _is_of_another(error: Exception) -> bool:
    """Whether an error is only the result of a failure in another process."""
    import jax

    marks = ("Gloo", "NCCL", "heartbeat", "oordination service", "onnection", "UNAVAILABLE", "DEADLINE_EXCEEDED")
    return isinstance(error, jax.errors.JaxRuntimeError) and any(mark in str(error) for mark in marks)


def _leave(code: int) -> int:
    """Return the exit code. One of several processes ends here instead: it would wait for the others in vain."""
    if _is_one_of_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(arguments):
    try:
        from funcnet.cli import options
        from funcnet.cli.parsing import completion, parsed
    except ImportError as error:
        raise errors.MissingExtraError(
            f"the command line needs the package {error.name}; pip install 'funcnet[cli]'."
        ) from error

    asked = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if not asked or {"-h", "--help"} & set(asked):
        from funcnet.cli import manual

        if manual.is_chinese():
            from rich.console import Console

            Console().print(manual.page(asked, DESCRIPTION))
            return 0
    if arguments and arguments[0].partition("=")[0] == "--completion":
        arguments = completion(arguments)
    if arguments == ["--version"]:
        print(f"funcnet {version('funcnet')}")
        return 0
    if arguments[:1] == ["launch"] and "--" in arguments:
        place = arguments.index("--")
        command = parsed(options.Launch, arguments[1:place], "funcnet launch")
        from funcnet.cli import launch

        return launch.launch(command, arguments[place + 1 :], _train_options(arguments[place + 1 :]))
    command = parsed(options.Command, arguments or ["--help"], "funcnet", description=DESCRIPTION)
    if isinstance(command, options.Launch):
        raise errors.ConfigError("funcnet launch: expected -- and a command, such as funcnet launch -n 2 -- train.")
    if isinstance(command, options.Train):
        command = _train_options(arguments)
    if isinstance(command, options.Forecast):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # or jax would look for the TPU whose compiler is installed
    with phase("loading jax"):
        from funcnet.cli import jobs  # only now: it imports jax
        from funcnet.cli.cache import keep_programs

        keep_programs()
    return jobs.run(command)


def _train_options(arguments):
    """The options of a `train` command, with those of its file or of the run that it resumes."""
    from funcnet.cli import config_file, options
    from funcnet.cli.parsing import parsed

    if arguments[:1] != ["train"]:
        raise errors.ConfigError(f"funcnet launch: expected train after --, got {' '.join(arguments) or 'nothing'}.")
    command = parsed(options.Train, arguments[1:], "funcnet train")
    if command.resume is not None:
        return _resumed(command, arguments[1:])
    defaults = {} if command.config is None else config_file.read_config(Path(command.config))
    from_run = command.from_run or defaults.get("from_run")
    if from_run is not None:
        own = config_file.read_config(_config_of(from_run))
        defaults = {name: own[name] for name in options.OF_NETWORK if name in own} | defaults
    return _with_defaults(defaults, arguments[1:]) if defaults else command


def _config_of(folder):
    """The options of a run."""
    file = folder / "config.toml"
    if not file.exists():
        raise errors.CheckpointError(f"{folder}: expected a folder that funcnet train wrote, with {file.name}.")
    return file


def _with_defaults(defaults, arguments):
    """Parse the options again with other defaults, so that the command line wins."""
    from funcnet.cli import options
    from funcnet.cli.parsing import parsed

    default = dataclasses.replace(options.Train(), **defaults)
    return parsed(options.Train, arguments, "funcnet train", default=default)


def _resumed(command, arguments):
    """The options of the run that is resumed. They are its own, except for those that may change."""
    from funcnet.cli import config_file, options

    recorded = config_file.read_config(_config_of(command.resume))
    own, given = dataclasses.replace(options.Train(), **recorded), _with_defaults(recorded, arguments)
    for field in dataclasses.fields(own):
        before, now = getattr(own, field.name), getattr(given, field.name)
        if before != now and field.name not in (*options.NOT_KEPT, *options.MAY_CHANGE):
            option = "--" + field.name.replace("_", "-")
            raise errors.ConfigError(
                f"funcnet train --resume: expected {option} to be that of the run, {before}, got {now}; start "
                "a new run."
            )
    return given
