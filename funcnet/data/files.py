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

from funcnet.checks import check_values
from funcnet.errors import DataError, FormatError, LabelError, translated
from funcnet.reading import plain_file

__all__ = [
    "Images", "StrPath", "check_labels", "check_size", "read_at_most", "read_members", "scaled", "unpacked",
]  # fmt: skip

StrPath: TypeAlias = str | os.PathLike[str]
Images: TypeAlias = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  #: (images, labels) twice

_CHUNK = 1 << 20
_BLOCK = 512  # tar's unit: a header is one block, and data are filled up to whole blocks
_REGULAR = {tarfile.REGTYPE, tarfile.AREGTYPE}
_WITHOUT_DATA = {
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
}  # fmt: skip


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, or of its unpacked content if its first bytes are those of gzip.

    The read that finds the end checks gzip's checksum, so read to the end.
    """
    damaged = f"expected {path} to be one whole gzip file, got a damaged one"
    with (
        translated(OSError, DataError, "the file cannot be read"),
        translated((gzip.BadGzipFile, zlib.error, EOFError), FormatError, damaged, "fetch it again"),
        plain_file(path, links=True) as file,
    ):
        is_gzip = file.peek(2)[:2] == b"\x1f\x8b"
        yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_gzip else file


def read_at_most(stream: BinaryIO, size: int) -> bytearray:
    """The next `size` bytes, or what is left. Memory is used for bytes that come, not for those a header announces."""
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(_CHUNK, size - len(data)))):
        data += chunk
    return data


def read_members(path: Path, wanted: Collection[str], most_bytes: int) -> dict[str, bytearray]:
    """The contents of regular members of a tar archive, plain or in gzip, by name.

    The archive is read once from front to end, at most `most_bytes` of it, and all other members are skipped. Nothing
    is extracted to disk, so links and names that lead out of a folder do no harm.
    """
    found: dict[str, bytearray] = {}
    left = most_bytes
    with unpacked(path) as stream:
        while member := _tar_header(path, read_at_most(stream, _BLOCK)):
            size = 0 if member.type in _WITHOUT_DATA else member.size
            whole_blocks = -(-size // _BLOCK) * _BLOCK
            left -= _BLOCK + whole_blocks
            check_size(path, min(size, left) < 0, most_bytes)
            data = read_at_most(stream, whole_blocks)
            if len(data) < size:
                got = f"{len(data)}; fetch it again"
                raise FormatError(f"expected {size} bytes of {member.name!r} in {path}, got {got}.")
            member_name = member.name.removeprefix("./")
            if member_name in wanted:
                if member_name in found or member.type not in _REGULAR:
                    got = "a link or a second one; fetch it again"
                    raise FormatError(f"expected {path} to hold {member_name!r} as one regular file, got {got}.")
                found[member_name] = data[:size]
        check_size(path, len(read_at_most(stream, left + 1)) > left, most_bytes)  # to the end, with gzip's checksum
    missing = [member_name for member_name in wanted if member_name not in found]
    if missing:
        raise FormatError(f"expected {path} to hold {', '.join(missing)}, and it does not; fetch it again.")
    return found


def _tar_header(path, block):
    """The member that begins here; `None` at the end of the archive, which two blocks of zeros mark."""
    with translated(tarfile.HeaderError, FormatError, f"expected {path} to be a tar archive, got a bad header"):
        return tarfile.TarInfo.frombuf(bytes(block), "utf-8", "surrogateescape") if any(block) else None


def check_size(path: StrPath, is_larger: bool, most_bytes: int) -> None:
    if is_larger:
        raise FormatError(f"expected {path} to hold at most {most_bytes} bytes, got more.")


def check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    """Labels must be in 0 … classes − 1."""
    wanted, fix = f"labels of {path} in 0..{classes - 1}", "it is the file of another set, or damaged"
    check_values(LabelError, wanted, labels, None, lambda one: one < classes, fix)


def scaled(images: np.ndarray) -> np.ndarray:
    """Bytes 0 … 255 as float32 in [0, 1]."""
    images = np.ascontiguousarray(images, np.float32)
    images /= 255
    return images
