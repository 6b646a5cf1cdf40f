"""What `funcnet checkpoints verify` says of the files of a run beside its checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from funcnet import checkpoints
from funcnet.cli import config_file
from funcnet.cli.folders import CONFIG, HISTORY, WEIGHTS, are_facts, check_unchanged, facts_of
from funcnet.cli.history import read_history
from funcnet.cli.own_model import MODEL, check_kept
from funcnet.cli.sessions import SESSIONS, read_sessions
from funcnet.errors import CheckpointError, ConfigError, DataError, FuncnetError
from funcnet.reading import plain_file

__all__ = ["FileVerdict", "verify_files"]


class FileVerdict(NamedTuple):
    """What was found about a file of a run."""

    path: Path
    bytes: int | None  #: `None` if the file is missing
    problem: str | None  #: `None` if nothing is wrong


def verify_files(folder: Path) -> list[FileVerdict]:
    """Read the files of a run, and compare them with their hashes and with what its checkpoints or weights hold.

    The list is empty if the folder is not that of a run.
    """
    facts = facts_of(folder)
    if not facts and not (folder / CONFIG).exists():
        return []
    checked: dict[str, Callable[[Path, dict[str, Any]], None]] = {
        CONFIG: _config, HISTORY: _history, SESSIONS: _sessions, WEIGHTS: _weights, MODEL: _model,
    }  # fmt: skip
    needed = {CONFIG, *((HISTORY, SESSIONS) if facts.get("metrics") else ())}
    names = [name for name in checked if name in needed or (folder / name).exists()]
    return [_verdict(folder / name, checked[name], facts) for name in names]


def _verdict(path, check, facts):
    try:
        with plain_file(path, links=True):
            size = path.stat().st_size
    except OSError as error:
        return FileVerdict(path, None, f"cannot be read: {error}")
    try:
        check(path, facts)
    except FuncnetError as error:
        return FileVerdict(path, size, str(error).removeprefix(f"{path}: "))
    return FileVerdict(path, size, None)


def _config(path, facts):
    check_unchanged(path.parent, facts)
    if not config_file.is_sealed(path):
        raise ConfigError("expected the lines that train wrote, with their SHA-256 above them, got others.")


def _history(path, facts):
    """Also metrics.jsonl, which holds the same rows."""
    rows, recorded = read_history(path, facts.get("metrics", "")), facts.get("metrics", "")
    with plain_file(path, links=True) as file:
        lost = not file.read().decode().startswith(recorded)
    if lost:
        got = f"fewer than the {len(rows)} rows that the run recorded"
        raise DataError(f"expected all rows of the run, got {got}; --resume writes them.")


def _sessions(path, facts):
    del facts
    sessions, problems = read_sessions(path)
    if problems or not sessions:
        raise DataError(f"{', '.join(problems) or 'it holds no call of train'}.")


def _weights(path, facts):
    *_, metadata = checkpoints.load_weights(path)
    if not are_facts(metadata) or any(metadata.get(name) != facts.get(name) for name in ("preparation", "data_sha256")):
        raise CheckpointError("expected weights that funcnet train wrote in this run, got others.")


def _model(path, facts):
    check_kept(path.parent, facts)
