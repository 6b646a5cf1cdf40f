"""Downloads of published files, if a caller asks: over https only, and kept only if size and SHA-256 are right."""

import hashlib
import http.client
import os
import secrets
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from funcnet.errors import ChecksumError, DataError

__all__ = ["Source", "fetch", "open_https"]

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without data


class Source(NamedTuple):
    """A published file: its address, and the size and SHA-256 that it must have."""

    url: str
    size: int  #: bytes
    sha256: str

    @property
    def filename(self) -> str:
        return self.url.rpartition("/")[2]


def fetch(source: Source, folder: Path) -> Path:
    """Fetch a file into `folder`, which is made if necessary. It appears there complete and checked, or not at all.

    Raises:
        ChecksumError: another size or SHA-256.
        DataError: no connection, no such file, or no space on the disk.
    """
    path = folder / source.filename
    part = folder / f"{source.filename}.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_https(source.url) as stream, open(part, "xb") as file:
            size, sha256 = _copy(stream, file, source.size)
        if (size, sha256) != (source.size, source.sha256):
            got = f"more than {source.size} bytes" if size > source.size else f"{size} bytes of SHA-256 {sha256}"
            fix = "it was deleted; try again, or check whether another file is published there now"
            wanted = f"{source.size} bytes of SHA-256 {source.sha256}"
            raise ChecksumError(f"expected {source.url} to be {wanted}, got {got}; {fix}.")
        os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        fix = f"try again, or put the file into {folder} yourself"
        raise DataError(f"{source.url} could not be fetched: {error}; {fix}.") from error
    finally:
        with suppress(OSError):
            part.unlink()
    return path


def _copy(stream, file, most):
    """Copy, and stop if there are more than `most` bytes. The result is the number of bytes and their SHA-256."""
    size, digest = 0, hashlib.sha256()
    while size <= most and (chunk := stream.read(_CHUNK)):
        size += len(chunk)
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    return size, digest.hexdigest()


def open_https(url: str) -> BinaryIO:
    """Open an https address. Redirections are followed to other https addresses only."""
    _check_https(url)
    return urllib.request.build_opener(_HttpsRedirects).open(url, timeout=_TIMEOUT)


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_https(url):
    if not url.startswith("https://"):
        raise urllib.error.URLError(f"expected an https address, got {url}")
