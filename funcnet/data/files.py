"""Reading files of unknown origin: no more is read than was promised, and nothing in them is trusted or run."""

import gzip
import os
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np

from funcnet.errors import DataError, FormatError, LabelError

__all__ = [
    "Images", "StrPath", "check_labels", "read_at_most", "read_members", "scaled", "unpacked",
]  # fmt: skip

StrPath: TypeAlias = str | os.PathLike[str]
Images: TypeAlias = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  #: (images, labels) twice

_CHUNK = 1 << 20
_BLOCK = 512  # tar's unit: a header is one block, and data are filled up to whole ones
_REGULAR = {tarfile.REGTYPE, tarfile.AREGTYPE}
_WITHOUT_DATA = {
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
}  # fmt: skip


@contextmanager
def unpacked(name: str, path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, or of what is inside if its first bytes are those of gzip.

    Errors that come up while it is read begin with `name`. One of gzip's checksum comes with the read that finds the
    end, so read to the end.
    """
    try:
        with open(path, "rb") as file:
            is_gzip = file.peek(2)[:2] == b"\x1f\x8b"
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_gzip else file
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FormatError(
            f"{name}: expected {path} to be one whole gzip file, got a damaged one: {error}; fetch it again."
        ) from error
    except OSError as error:
        raise DataError(f"{name}: the file cannot be read: {error}.") from error


def read_at_most(stream: BinaryIO, size: int) -> bytearray:
    """The next `size` bytes, or what is left: memory is taken for what comes, not for what a header announces."""
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(_CHUNK, size - len(data)))):
        data += chunk
    return data


def read_members(name: str, path: Path, wanted: Collection[str], most_bytes: int) -> dict[str, bytearray]:
    """The contents of regular members of a tar archive, plain or in gzip, by name.

    The archive is read once from front to end, at most `most_bytes` of it, and all else in it is passed over. Nothing
    is extracted, so links and names that lead out of a folder lead nowhere.
    """
    found: dict[str, bytearray] = {}
    left = most_bytes
    with unpacked(name, path) as stream:
        while member := _tar_header(name, path, read_at_most(stream, _BLOCK)):
            size = 0 if member.type in _WITHOUT_DATA else member.size
            whole_blocks = -(-size // _BLOCK) * _BLOCK
            left -= _BLOCK + whole_blocks
            if size < 0 or left < 0:
                raise _too_large(name, path, most_bytes)
            data = read_at_most(stream, whole_blocks)
            if len(data) < size:
                raise FormatError(
                    f"{name}: expected {size} bytes of {member.name!r} in {path}, got {len(data)}; fetch it again."
                )
            member_name = member.name.removeprefix("./")
            if member_name in wanted:
                if member_name in found or member.type not in _REGULAR:
                    raise FormatError(
                        f"{name}: expected {path} to hold {member_name!r} as one regular file, got a link or a second "
                        "one; fetch it again."
                    )
                found[member_name] = data[:size]
        if len(read_at_most(stream, left + 1)) > left:  # to the end, where gzip's checksum is
            raise _too_large(name, path, most_bytes)
    missing = [member_name for member_name in wanted if member_name not in found]
    if missing:
        raise FormatError(f"{name}: expected {path} to hold {', '.join(missing)}, and it does not; fetch it again.")
    return found


def _tar_header(name, path, block):
    """The member that begins here; `None` at the end of the archive, which two blocks of zeros mark."""
    try:
        return tarfile.TarInfo.frombuf(bytes(block), "utf-8", "surrogateescape") if any(block) else None
    except tarfile.HeaderError as error:
        raise FormatError(f"{name}: expected {path} to be a tar archive, got a bad header: {error}.") from error


def _too_large(name, path, most_bytes):
    return FormatError(f"{name}: expected {path} to hold at most {most_bytes} bytes, got more.")


def check_labels(name: str, path: Path, labels: np.ndarray, classes: int) -> None:
    """Labels are in 0 … classes − 1."""
    if len(wrong := np.flatnonzero(labels >= classes)):
        raise LabelError(
            f"{name}: label {labels[wrong[0]]} at row {wrong[0]} of {path}, expected 0..{classes - 1}; "
            "it is the file of another set, or damaged."
        )


def scaled(images: np.ndarray) -> np.ndarray:
    """Bytes 0 … 255 as float32 in [0, 1]."""
    images = np.ascontiguousarray(images, np.float32)
    images /= 255
    return images
