"""CIFAR, in files and in archives: values, and every way in which they can be wrong."""

import gzip
import re
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    PHOTOS,
    TAR,
    archive_of,
    cifar10_files,
    cifar100_files,
    member,
    mutated,
    peak_memory,
    refused,
    tar_bytes,
    write_cifar,
)

from funcnet.data import cifar, cifar10, cifar100
from funcnet.errors import ConfigError, DataError, FormatError, FuncnetError, LabelError


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated")


WAYS = ["folder", "subfolder", "archive"]


@pytest.mark.parametrize("way", WAYS)
def test_cifar10(tmp_path, way):
    write_cifar(tmp_path, cifar10_files(), way, "cifar-10-binary.tar.gz")
    before = sorted(tmp_path.rglob("*"))
    (images, labels), (test_images, test_labels) = cifar10(tmp_path)
    assert (images.dtype, labels.dtype, images.flags.c_contiguous) == (np.float32, np.int32, True)
    np.testing.assert_array_equal(images, PHOTOS[:10] / np.float32(255))
    np.testing.assert_array_equal(test_images, PHOTOS[10:] / np.float32(255))
    assert (labels.tolist(), test_labels.tolist()) == (list(range(10)), [7, 8])
    assert sorted(tmp_path.rglob("*")) == before  # nothing is extracted


@pytest.mark.parametrize("way", WAYS)
def test_cifar100(tmp_path, way):
    write_cifar(tmp_path, cifar100_files(), way, "cifar-100-binary.tar.gz")
    (images, labels), (test_images, test_labels) = cifar100(tmp_path)
    np.testing.assert_array_equal(images, PHOTOS[:3] / np.float32(255))
    np.testing.assert_array_equal(test_images, PHOTOS[3:5] / np.float32(255))
    assert (labels.tolist(), test_labels.tolist()) == ([50, 3, 99], [2, 4])
    groups, test_groups = (part[1].tolist() for part in cifar100(tmp_path, labels="coarse"))
    assert (groups, test_groups) == ([0, 19, 7], [1, 3])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "error, message, change",
    [
        (FormatError, "expected … whole records of 3073 bytes, at least one, got 6145 bytes; …", lambda x: x[:-1]),
        (FormatError, "expected … whole records of 3073 bytes, at least one, got 6147 bytes; …", lambda x: x + b"1"),
        (FormatError, "expected … whole records of 3073 bytes, at least one, got 0 bytes; …", lambda x: b""),
        (
            LabelError,
            "expected labels of …data_batch_3.bin in 0..9, got 10 at row 1; …",
            lambda x: x[:3073] + b"\n" + x[3074:],
        ),
    ],
)
def test_damaged_cifar10(tmp_path, error, message, change, way):
    files = cifar10_files()
    files["data_batch_3.bin"] = change(files["data_batch_3.bin"])
    write_cifar(tmp_path, files, way, "cifar-10-binary.tar.gz")
    refused(error, message, cifar10, tmp_path)


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_both_labels_of_cifar100_are_checked(tmp_path, labels):
    write_cifar(tmp_path, cifar100_files(coarse=20), "folder", "cifar-100-binary.tar.gz")
    refused(LabelError, "expected labels of …train.bin in 0..19, got 20 at row 1; …", cifar100, tmp_path, labels=labels)
    write_cifar(tmp_path, cifar100_files(fine=100), "folder", "cifar-100-binary.tar.gz")
    refused(
        LabelError, "expected labels of …train.bin in 0..99, got 100 at row 2; …", cifar100, tmp_path, labels=labels
    )


def test_cifar_options(tmp_path):
    refused(
        ConfigError, 'expected labels to be "coarse" or "fine", got \'course\'.', cifar100, tmp_path, labels="course"
    )


def test_cifar_missing(tmp_path):
    message = (
        f"expected {tmp_path} to hold cifar-100-binary.tar.gz, or its files unpacked, and it does not; pass "
        "download=True, or put it there from https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz."
    )
    refused(DataError, message, cifar100, tmp_path)
    (tmp_path / "test.bin").write_bytes(b"")
    message = (
        f"expected {tmp_path} to hold all of train.bin, test.bin, got some without train.bin; unpack "
        "cifar-100-binary.tar.gz again."
    )
    refused(DataError, message, cifar100, tmp_path)


# Archives.


def test_an_archive_with_surprises(tmp_path):
    """Links, names that lead out of the folder, long names, pickles, extended headers: passed over, and nothing is
    written or run. Members may begin with `./`, and the archive may be no gzip file."""
    long_name = member(f"cifar-100-binary/{'x' * 300}.bin")
    more = [
        (member("../outside.bin"), b"1"),
        (member("/tmp/funcnet-outside.bin"), b"1"),
        (member("cifar-100-binary/link.bin", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (long_name, b"1"),
        (member("cifar-100-python/train"), b"cos\nsystem\n(S'touch /tmp/funcnet-outside.bin'\ntR."),
    ]
    work = tmp_path / "work"
    work.mkdir()
    archive_of(work, tar_bytes(cifar100_files(), "./cifar-100-binary", more), packed=False)
    assert cifar100(work)[0][1].tolist() == [50, 3, 99]
    assert [path.name for path in tmp_path.rglob("*")] == ["work", "cifar-100-binary.tar.gz"]


TWICE = tar_bytes(cifar100_files(), "cifar-100-binary", [(member("cifar-100-binary/test.bin"), b"second")])
LINKED = tar_bytes(
    {"train.bin": b""}, "cifar-100-binary", [(member("cifar-100-binary/test.bin", tarfile.SYMTYPE, "train.bin"), b"")]
)


@pytest.mark.parametrize(
    "content, message",
    [
        (TAR[:1026], "6 bytes of 'cifar-100-binary/readme.html' in …, got 2; fetch it again."),
        (TAR[:3000], "9222 bytes of 'cifar-100-binary/train.bin' in …, got 952; fetch it again."),
        (TAR[:1700], "… to be a tar archive, got a bad header: truncated header."),
        (b"\1" + TAR[1:], "… to be a tar archive, got a bad header: bad checksum."),
        (b"no archive", "… to be a tar archive, got a bad header: truncated header."),
        (b"", "… to hold cifar-100-binary/train.bin, cifar-100-binary/test.bin, and it does not; fetch it again."),
        (tar_bytes({}, "cifar-100-binary"), "… to hold cifar-100-binary/train.bin, cifar-100-binary/test.bin, and …"),
        (tar_bytes(cifar100_files(), "other"), "… to hold cifar-100-binary/train.bin, cifar-100-binary/test.bin, …"),
        (TWICE, "… to hold 'cifar-100-binary/test.bin' as one regular file, got a link or a second one; …"),
        (LINKED, "… to hold 'cifar-100-binary/test.bin' as one regular file, got a link or a second one; …"),
    ],
)  # fmt: skip
def test_damaged_archives(tmp_path, content, message):
    refused(FormatError, f"expected {message}", cifar100, archive_of(tmp_path, content))


def test_an_archive_is_read_to_the_end_for_its_checksum(tmp_path):
    archive_of(tmp_path, TAR)
    path = tmp_path / "cifar-100-binary.tar.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    refused(FormatError, "expected … to be one whole gzip file, got a damaged one: CRC …", cifar100, tmp_path)


def sized_header(size):
    """The header of a member of any size, negative ones too, with nothing behind it."""
    info = member("cifar-100-binary/train.bin")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        sized_header(1 << 40),
        sized_header(-512),
        sized_header((1 << 20) + 1),
        tar_bytes({"junk": bytes(1 << 20)}, "cifar-100-binary"),
        tar_bytes({}, "cifar-100-binary") + bytes(1 << 20),
        member("empty").tobuf() * 3000,
    ],
    ids=["huge", "negative", "a byte too large", "too much in all", "zeros behind", "no end of headers"],
)
def test_archives_above_the_limit(tmp_path, monkeypatch, content):
    monkeypatch.setattr(cifar, "_MOST_BYTES", 1 << 20)
    archive_of(tmp_path, content)
    message = f"expected {tmp_path / 'cifar-100-binary.tar.gz'} to hold at most {1 << 20} bytes, got more."
    refused(FormatError, message, cifar100, tmp_path)


def test_files_above_the_limit(tmp_path, monkeypatch):
    write_cifar(tmp_path, cifar100_files(), "folder", "cifar-100-binary.tar.gz")
    monkeypatch.setattr(cifar, "_MOST_BYTES", 3 * 3074)
    cifar100(tmp_path)
    monkeypatch.setattr(cifar, "_MOST_BYTES", 3 * 3074 - 1)
    message = f"expected {tmp_path / 'train.bin'} to hold at most 9221 bytes, got more."
    refused(FormatError, message, cifar100, tmp_path)


def test_an_archive_takes_no_more_memory_than_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_MOST_BYTES", 1 << 20)
    archive_of(tmp_path, TAR + bytes(1 << 26))
    assert peak_memory(cifar100, tmp_path) < 8 << 20


SMALL_TAR = tar_bytes({"train.bin": b"a" * 700, "test.bin": b"b" * 5}, "cifar-100-binary")


@settings(max_examples=150)
@given(st.data(), st.booleans())
def test_mutated_archive_is_read_or_refused(scratch, data, packed):
    content = mutated(data.draw, SMALL_TAR)
    archive_of(scratch, mutated(data.draw, gzip.compress(content, mtime=0)) if packed else content, packed=False)
    with pytest.raises(
        FuncnetError, match=r"^cifar100\('.*'\): expected"
    ):  # at the latest, for records of no right size
        cifar100(scratch)


@settings(max_examples=50)
@given(st.data())
def test_mutated_records_are_read_or_refused(scratch, data):
    folder = scratch / "records"
    folder.mkdir(exist_ok=True)
    write_cifar(folder, cifar100_files(), "folder", "cifar-100-binary.tar.gz")
    (folder / "train.bin").write_bytes(mutated(data.draw, cifar100_files()["train.bin"]))
    try:
        labels = cifar100(folder)[0][1]
        assert 0 <= labels.min() <= labels.max() < 100
    except FuncnetError as error:
        assert re.match(r"cifar100\('.*'\): (expected .*train.bin|label)", str(error))  # noqa: PT017
