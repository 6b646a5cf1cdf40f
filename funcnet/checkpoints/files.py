"""Files that are on the disk when the call returns, and names that appear when their content is complete."""

import os
import secrets
from pathlib import Path

__all__ = ["beside", "sync_file", "sync_folder", "write_new", "write_whole"]


def beside(path: Path, mark: str) -> Path:
    """A new name in the same folder."""
    return path.with_name(f"{path.name}.{mark}-{secrets.token_hex(4)}")


def write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet, down to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Bring a file that another library wrote down to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring the names in a folder down to the disk: a rename is not there after a power cut before this is done."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_whole(path: Path, data: bytes) -> None:
    """Write beside the target, then rename over it: whenever a crash comes, the old file is there or the new one."""
    temporary = beside(path, "tmp")
    try:
        write_new(temporary, data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
