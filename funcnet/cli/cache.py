"""Compiled programs are kept in the user's cache folder, so that the next run of a command starts sooner."""

import hashlib
import os
import platform
import shutil
import stat
import sys
import time
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import jax

from funcnet.reading import shown

__all__ = ["keep_programs"]

_MOST_BYTES = 256 * 2**20
_DAYS = 60
_LOCK = ".lockfile"  #: of jax, for whoever reads or writes in the folder
_PATIENCE = 1.0  #: seconds


def keep_programs() -> None:
    """Let jax keep the programs that it compiles, at most 256 MiB of them.

    The environment variable FUNCNET_CACHE names another folder, or is `off`. JAX_COMPILATION_CACHE_DIR, which jax reads
    itself, goes first. A folder that cannot be used is only named on stderr.
    """
    wanted = os.environ.get("FUNCNET_CACHE", "")
    if wanted == "off" or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    try:
        folder = _made(Path(wanted).expanduser() if wanted else _default())
        _mend(folder)
    except ImportError:  # of what jax needs for a bounded folder
        return
    except (OSError, RuntimeError) as error:
        problem = shown(error).rstrip(".")
        print(f"funcnet: compiled programs are not kept: {problem}; FUNCNET_CACHE=off is quiet.", file=sys.stderr)
        return
    # What is damaged is compiled anew. A warning would say so in words of jax.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _default() -> Path:
    """Where the system keeps what can be made again."""
    if sys.platform == "win32" and "LOCALAPPDATA" in os.environ:
        return Path(os.environ["LOCALAPPDATA"], "funcnet", "cache")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "funcnet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "funcnet"


def _made(root: Path) -> Path:
    """The folder for programs of this machine, which nobody else may write to: programs are run as they are."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid"):
        found = root.stat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise PermissionError(f"{root}: expected a folder that only you can write to")
    folder = root / f"programs-{_machine()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: expected a folder that can be written to")
    os.utime(folder)
    for other in root.glob("programs-*"):
        with suppress(OSError):
            if other.stat().st_mtime < time.time() - _DAYS * 86_400:
                shutil.rmtree(other)
    return folder


def _mend(folder: Path) -> None:
    """Remove programs that a killed process, or a full disk, has left unfinished. jax writes their times last.

    A lock that is not free keeps jax waiting for ten seconds at each program, so such a folder is not used.
    """
    from filelock import FileLock

    with FileLock(folder / _LOCK).acquire(timeout=_PATIENCE):
        names = set(os.listdir(folder))
        for name in names:
            if name.endswith("-cache") and name.removesuffix("-cache") + "-atime" not in names:
                (folder / name).unlink()


def _machine() -> str:
    """What a program depends on: a folder may be shared by machines with other instructions."""
    instructions = ""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        instructions = next((line for line in file if line.startswith(("flags", "Features"))), "")
    facts = (jax.__version__, version("jaxlib"), platform.machine(), platform.processor(), instructions)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
