"""Safe writing: a file is on the disk when the call returns, and its name appears when its content is complete."""

import os
import secrets
from pathlib import Path

__all__ = ["beside", "names_below", "sync_file", "sync_folder", "write_new", "write_whole"]


def beside(path: Path, mark: str) -> Path:
    """A new name in the same folder."""
    return path.with_name(f"{path.name}.{mark}-{secrets.token_hex(4)}")


def names_below(folder: Path) -> list[str]:
    """The paths of all files below a folder, from that folder on. A link counts as a file, wherever it leads."""
    places = [
        Path(place, name)
        for place, folders, files in os.walk(folder)
        for name in (*files, *(name for name in folders if os.path.islink(os.path.join(place, name))))
    ]
    return sorted(path.relative_to(folder).as_posix() for path in places)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet, and flush it to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Flush a file to the disk that another library wrote."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk. Before this is done, a power cut can undo a rename."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_whole(path: Path, data: bytes) -> None:
    """Write beside the target, then rename over it. After a crash at any time, the old file or the new one is there.

    What a link leads to is replaced, not the link. A device or a pipe is written to.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    temporary = beside(path, "tmp")
    try:
        write_new(temporary, data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
