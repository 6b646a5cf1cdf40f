"""What `file.py:attribute` and `module:attribute` stand for: the user's own code, with errors that name its line."""

import functools
import importlib
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from funcnet.errors import ConfigError, nearest

__all__ = ["imported"]


def imported(target: str, use: Callable[[Any], Any], folder: Path | None = None) -> Any:
    """What `use` makes of the attribute.

    Args:
        target: `path/to/file.py:attribute` or `module:attribute`.
        use: is called while the user's modules can be imported.
        folder: where the user's other modules are; by default beside the file, or the working folder.

    Raises:
        ConfigError: no such file, module or attribute, or code that raises.
    """
    place, _, name = target.rpartition(":")
    if folder is None:
        folder = Path(place).resolve().parent if place.endswith(".py") else Path.cwd()
    sys.path.insert(0, str(folder))  # as `python file.py` and `python -m` do
    try:
        return use(_attribute(_module(place), name))
    except ConfigError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}{_line(error, Path(place).resolve().parent)}; correct that first"
        raise ConfigError(f"expected it to import and run, got {got}.") from error


def _line(error: Exception, folder: Path) -> str:
    """The last line of the user's own code that ran. A syntax error already names its line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _module(place: str) -> ModuleType:
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise ConfigError(f"expected a file, got {place}, which is not a file; give the path from here.")
        # Its own name could be that of another module, for example json; dataclasses need to find it in sys.modules.
        name = f"funcnet_user_{Path(place).stem}"
        loader = SourceFileLoader(name, str(Path(place).resolve()))
        module = sys.modules[name] = ModuleType(name)
        loader.exec_module(module)
        return module
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        fix = "run where it can be imported, or give the file as path/to/file.py:attribute"
        raise ConfigError(f"expected a module, got {place}: the module {error.name} was not found; {fix}.") from error


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError as error:
        public = [key for key in dir(module) if not key.startswith("_")]
        near = nearest(name, public)
        hint = f"did you mean {near}?" if near else f"it has {', '.join(public) or 'no public names'}."
        raise ConfigError(f"expected an attribute of the module, got {name!r}; {hint}") from error
