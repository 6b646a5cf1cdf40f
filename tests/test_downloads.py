"""Downloads, without a network: what is opened, what is kept, and what is refused."""

import gzip
import hashlib
import http.client
import io
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
from image_files import MNIST_FILES, TAR, refused, write_mnist

from funcnet.data import cifar, cifar100, download, idx, mnist
from funcnet.errors import ChecksumError, DataError
from funcnet.made import leading

SOURCES = (*idx.MNIST, *idx.FASHION_MNIST, cifar.CIFAR10.archive, cifar.CIFAR100.archive)


@pytest.fixture(autouse=True)
def web(monkeypatch):
    """What lies at each address; anything else is a connection that must not be made."""
    pages = {}
    opened = []

    def open_https(url):
        opened.append(url)
        return pages[url] if url in pages else pytest.fail(f"{url} was opened")

    monkeypatch.setattr(download, "open_https", open_https)
    return pages, opened


def source_of(content, filename="file"):
    return download.Source(f"https://example.org/{filename}", len(content), hashlib.sha256(content).hexdigest())


def test_the_sources_are_https_with_size_and_hash():
    assert len({source.sha256 for source in SOURCES}) == len({source.url for source in SOURCES}) == 10
    for source in SOURCES:
        assert re.fullmatch(r"https://[\w.-]+/[\w/~.-]+\.gz", source.url)
        assert re.fullmatch("[0-9a-f]{64}", source.sha256)
        assert 4000 < source.size < 2e8
    for sources in (idx.MNIST, idx.FASHION_MNIST):
        assert tuple(source.filename for source in sources) == tuple(f"{name}.gz" for name in MNIST_FILES)


def test_mnist_fetches_only_what_is_missing(tmp_path, monkeypatch, web):
    pages, opened = web
    published = write_mnist(tmp_path / "published", packed=True)
    sources = [source_of((published / f"{name}.gz").read_bytes(), f"{name}.gz") for name in MNIST_FILES]
    monkeypatch.setattr(idx, "MNIST", tuple(sources))
    for source in sources:
        pages[source.url] = io.BytesIO((published / source.filename).read_bytes())

    folder = tmp_path / "new" / "folder"
    (images, _), _ = mnist(folder, download=True)
    np.testing.assert_array_equal(images, mnist(published)[0][0])
    assert sorted(path.name for path in folder.iterdir()) == sorted(source.filename for source in sources)
    assert opened == [source.url for source in sources]

    mnist(folder, download=True)
    assert len(opened) == 4
    (folder / sources[2].filename).unlink()
    pages[sources[2].url] = io.BytesIO((published / sources[2].filename).read_bytes())
    mnist(folder, download=True)
    assert opened[4:] == [sources[2].url]


def test_cifar_fetches_its_archive(tmp_path, monkeypatch, web):
    pages, opened = web
    content = gzip.compress(TAR, mtime=0)
    source = source_of(content, "cifar-100-binary.tar.gz")
    monkeypatch.setattr(cifar, "CIFAR100", cifar.CIFAR100._replace(archive=source))
    pages[source.url] = io.BytesIO(content)
    assert cifar100(tmp_path, download=True)[1][1].tolist() == [2, 4]
    assert cifar100(tmp_path, download=True)[1][1].tolist() == [2, 4]
    assert opened == [source.url]


class Counted(io.BytesIO):
    """Counts what is read of it."""

    taken = 0

    def read(self, size=-1):
        content = super().read(size)
        self.taken += len(content)
        return content


@pytest.mark.parametrize(
    "content, got",
    [
        (b"published", None),
        (b"publishes", f"9 bytes of SHA-256 {hashlib.sha256(b'publishes').hexdigest()}"),
        (b"publish", f"7 bytes of SHA-256 {hashlib.sha256(b'publish').hexdigest()}"),
        (b"", f"0 bytes of SHA-256 {hashlib.sha256(b'').hexdigest()}"),
        (b"published" + bytes(1 << 23), "more than 9 bytes"),
    ],
)
def test_what_is_fetched_is_checked(tmp_path, web, content, got):
    source = source_of(b"published")
    stream = web[0][source.url] = Counted(content)
    if got is None:
        assert download.fetch(source, tmp_path).read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        return
    message = (
        f"expected https://example.org/file to be 9 bytes of SHA-256 {source.sha256}, got {got}; it was deleted; try "
        "again, or check whether another file is published there now."
    )
    refused(ChecksumError, message, fetched, source, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert stream.taken <= 1 << 20
    assert stream.closed


def fetched(source, folder):
    with leading("mnist('x')"):
        return download.fetch(source, folder)


class Broken(io.BytesIO):
    def read(self, size=-1):
        raise self.error


@pytest.mark.parametrize(
    "error, text",
    [
        (urllib.error.URLError("no route"), "<urlopen error no route>"),
        (urllib.error.HTTPError("", 404, "Not Found", http.client.HTTPMessage(), None), "HTTP Error 404: Not Found"),
        (TimeoutError("The read operation timed out"), "The read operation timed out"),
        (http.client.IncompleteRead(b"", 5), "IncompleteRead(0 bytes read, 5 more expected)"),
    ],
)  # fmt: skip
def test_a_broken_connection(tmp_path, web, error, text):
    source = source_of(b"published")
    web[0][source.url] = Broken()
    Broken.error = error
    message = (
        f"https://example.org/file could not be fetched: {text}; try again, or put the file into {tmp_path} yourself."
    )
    refused(DataError, message, fetched, source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    message = "https://example.org/file could not be fetched: … File exists: …"
    refused(DataError, message, fetched, source_of(b""), tmp_path / "file")


def test_only_https_is_opened(monkeypatch):
    monkeypatch.undo()
    for url in ("http://example.org/file", "file:///etc/passwd", "ftp://example.org/file"):
        with pytest.raises(urllib.error.URLError, match=f"expected an https address, got {url}"):
            download.open_https(url)


def test_redirections_stay_with_https_and_silence_ends(monkeypatch):
    """The handlers and the timeout of a connection, which is not made."""
    monkeypatch.undo()
    calls = []

    def record(opener, url, data=None, timeout=None):
        calls.append((opener, url, timeout))
        return io.BytesIO()

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", record)
    download.open_https("https://example.org/file")
    [(opener, url, timeout)] = calls
    assert (url, timeout) == ("https://example.org/file", 30)
    [redirects] = [handler for handler in opener.handlers if isinstance(handler, urllib.request.HTTPRedirectHandler)]
    request = urllib.request.Request(url)
    follow = redirects.redirect_request(request, None, 302, "Found", {}, "https://example.com/other")
    assert follow.full_url == "https://example.com/other"
    with pytest.raises(urllib.error.URLError, match="expected an https address, got http://example.com/other"):
        redirects.redirect_request(request, None, 302, "Found", {}, "http://example.com/other")
