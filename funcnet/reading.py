"""Reading files of unknown origin: plain files alone, and none that memory cannot hold; and showing their names.

A pipe may never give a byte, a device may never end, and a link may lead out of the folder that it is in.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

__all__ = ["plain_file", "shown", "size_of"]

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


@contextmanager
def plain_file(path: str | os.PathLike[str], *, links: bool) -> Iterator[BufferedReader]:
    """A plain file, opened to be read.

    Args:
        path: the file.
        links: whether a link to a plain file counts as one. It does where the user names the file, and does not in a
            folder whose content is checked.

    Raises:
        OSError: it is not a plain file, cannot be opened, or memory cannot hold what is read from it. The caller turns
            this into an error of its own.

    >>> with plain_file("/", links=True) as file:
    ...     pass
    Traceback (most recent call last):
    OSError: expected a plain file, got a folder: '/'
    """
    try:
        kind = stat.S_IFMT(os.stat(path, follow_symlinks=links).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(f"expected a plain file, got {_KINDS.get(kind, 'something else')}: {os.fspath(path)!r}")
        opened = open(path, "rb")  # noqa: SIM115  # closed below
    except PermissionError as error:
        raise PermissionError(f"no permission to read {os.fspath(path)!r}; its owner can give it, chmod a+r") from error
    with opened as file:
        try:
            yield file
        except MemoryError as error:
            raise OSError(f"memory cannot hold its {size_of(file):,} bytes: {os.fspath(path)!r}") from error


def size_of(file: BufferedReader) -> int:
    """The size of an open file, without reading it."""
    return os.fstat(file.fileno()).st_size


def shown(text: object) -> str:
    r"""Text from elsewhere, such as the name of a file, without the characters that steer a terminal.

    >>> print(shown("a\x1b[31m\udcff"))
    a\x1b[31m\udcff
    """
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in str(text))
