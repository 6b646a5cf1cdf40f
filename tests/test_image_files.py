"""IDX files, and MNIST in them: values, and every way in which a file can be wrong."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import CODES, IMAGES, LABELS, MNIST_FILES, idx_bytes, mutated, peak_memory, refused, write_mnist

from funcnet.data import check_data, fashion_mnist, mnist, read_idx
from funcnet.errors import ConfigError, DataError, FormatError, FuncnetError, LabelError


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated")


# IDX.


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", CODES)
def test_idx_round_trip(tmp_path, dtype, packed):
    for shape in ((3,), (2, 3), (2, 1, 3, 2)):
        array = (np.arange(np.prod(shape)).reshape(shape) * 29 % 200 - 100).astype(dtype)
        content = idx_bytes(array)
        path = tmp_path / "any-name"
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
        read = read_idx(path)
        np.testing.assert_array_equal(read, array)
        assert (read.dtype, read.dtype.isnative, read.flags.writeable) == (np.dtype(dtype), True, True)


def test_idx_is_big_endian_in_rows(tmp_path):
    """Byte for byte, independent of the writer above."""
    path = tmp_path / "shorts"
    path.write_bytes(bytes([0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 255, 254]))
    assert read_idx(str(path)).tolist() == [[256, -2]]


HEAD = bytes([0, 0, 8, 1, 0, 0, 0, 5])  # five bytes follow


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "an IDX file, whose first four bytes are 0, 0, type and number of axes, got []."),
        (b"\0\0\x08", "an IDX file, whose first four bytes are 0, 0, type and number of axes, got [0, 0, 8]."),
        (b"\0\1\x08\1", "an IDX file, whose first four bytes are 0, 0, type and number of axes, got [0, 1, 8, 1]."),
        (b"PK\3\4rest", "an IDX file, whose first four bytes are 0, 0, type and number of axes, got [80, 75, 3, 4]."),
        (HEAD[:6], "go on with 1 sizes of 4 bytes, got 2 bytes; it was cut off."),
        (HEAD, "hold 5 bytes after its header, uint8 of shape (5,), got 0 bytes; it was cut off."),
        (HEAD + b"1234", "hold 5 bytes after its header, uint8 of shape (5,), got 4 bytes; it was cut off."),
        (HEAD + b"123456", "hold 5 bytes after its header, uint8 of shape (5,), got more; something was appended."),
        (
            # 2³² ones beyond what 64 bits hold: the product is formed of Python's integers
            bytes([0, 0, 8, 3, *[255] * 12]),
            f"hold at most {1 << 30} bytes, got a header of uint8, shape "
            f"(4294967295, 4294967295, 4294967295), {(2**32 - 1) ** 3} bytes; pass most_bytes to read_idx if that is "
            "right.",
        ),
        (
            bytes([0, 0, 0x0E, 3, 0, 128, 0, 0, 0, 128, 0, 0, 0, 128, 0, 0]),  # 8 · 2⁶⁹ bytes, which is 0 in 64 bits
            f"hold at most {1 << 30} bytes, got a header of float64, shape (8388608, 8388608, 8388608), "
            f"{2**72} bytes; pass most_bytes to read_idx if that is right.",
        ),
    ],
)
def test_damaged_idx(tmp_path, content, message, packed):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    refused(FormatError, f"expected {path} to {'be ' * message.startswith('an ')}{message}", read_idx, path)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            bytes([0, 0, 10, 1, 0, 0, 0, 0]),
            "the type in … (byte 2) to be one of 0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e, got 0x0a.",
        ),
        (bytes([0, 0, 8, 0]), "the number of axes in … (byte 3) to be within 1..64, got 0."),
        (bytes([0, 0, 8, 65]) + bytes(300), "the number of axes in … (byte 3) to be within 1..64, got 65."),
        (bytes([0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 3]), "the sizes in … to be positive, got (0, 3)."),
    ],
)
def test_wrong_fields(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    refused(FormatError, f"expected {message}", read_idx, tmp_path / "file")


def test_most_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(np.arange(3, dtype=np.int16)))
    assert read_idx(path, most_bytes=6).tolist() == [0, 1, 2]
    message = f"expected {path} to hold at most 5 bytes, got a header of int16, shape (3,), 6 bytes; pass …"
    refused(FormatError, message, read_idx, path, most_bytes=5)
    refused(ConfigError, "expected most_bytes to be a positive integer, got 0.", read_idx, path, most_bytes=0)


def test_a_file_that_cannot_be_read(tmp_path):
    refused(DataError, "the file cannot be read: … No such file or directory: …", read_idx, tmp_path / "none")
    refused(DataError, "the file cannot be read: expected a plain file, got a folder: …", read_idx, tmp_path)


PACKED = gzip.compress(HEAD + b"12345", mtime=0)  # the clock must not be in the names of the tests


@pytest.mark.parametrize(
    "content, problem",
    [
        (PACKED[:-1], "Compressed file ended …"),
        (PACKED[:20], "Compressed file ended …"),
        (PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:], "CRC check failed …"),
        (PACKED[:-4] + bytes([6, 0, 0, 0]), "Incorrect length of data produced"),
        (PACKED + b"more", "Not a gzipped file …"),
        (PACKED[:10] + b"\xff" + PACKED[11:], "Error -3 while decompressing data: …"),
        (PACKED[:2] + b"\x09" + PACKED[3:], "Unknown compression method"),
    ],
)
def test_damaged_gzip(tmp_path, content, problem):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    message = f"expected {path} to be one whole gzip file, got a damaged one: {problem}; fetch it again."
    refused(FormatError, message, read_idx, path)


@pytest.mark.parametrize("content", [HEAD + bytes(1 << 26), bytes([0, 0, 8, 1, 0x3F, 255, 255, 255]) + b"little"])
def test_a_file_takes_no_more_memory_than_it_needs(tmp_path, content):
    """64 MB of zeros behind five announced bytes, in 64 KB; and a gigabyte announced by a file of fourteen bytes."""
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(content, mtime=0))
    assert path.stat().st_size < 100_000
    assert peak_memory(read_idx, path) < 8 << 20


@settings(max_examples=150)
@given(st.data(), st.booleans())
def test_mutated_idx_is_read_or_refused(scratch, data, packed):
    """Nothing but funcnet's own errors comes out."""
    content = mutated(data.draw, idx_bytes(IMAGES[:2, :3, :3]))
    path = scratch / "file"
    path.write_bytes(mutated(data.draw, gzip.compress(content, mtime=0)) if packed else content)
    try:
        assert read_idx(path).size > 0
    except FuncnetError as error:
        assert str(error).startswith(f"read_idx({str(path)!r}): ")  # noqa: PT017


# MNIST and Fashion-MNIST.


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("load", [mnist, fashion_mnist])
def test_mnist(tmp_path, load, packed):
    (images, labels), (test_images, test_labels) = load(write_mnist(tmp_path, packed))
    assert (images.shape, images.dtype, labels.dtype) == ((7, 28, 28, 1), np.float32, np.int32)
    np.testing.assert_array_equal(images, IMAGES[..., None] / np.float32(255))
    assert (images.min(), images.max()) == (0, 1)
    assert labels.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(test_images, images[:3])
    assert test_labels.tolist() == [3, 0, 9]
    assert np.shares_memory(check_data(images, labels)[0], images)  # ready for training as it is


def test_mnist_partly_packed(tmp_path):
    write_mnist(tmp_path, packed=True)
    (tmp_path / MNIST_FILES[0]).write_bytes(idx_bytes(IMAGES))
    (tmp_path / f"{MNIST_FILES[0]}.gz").unlink()
    assert mnist(str(tmp_path))[0][0].shape == (7, 28, 28, 1)


def test_mnist_missing(tmp_path):
    write_mnist(tmp_path)
    for filename in MNIST_FILES[1:3]:
        (tmp_path / filename).unlink()
    message = (
        f"expected {tmp_path} to hold train-labels-idx1-ubyte, t10k-images-idx3-ubyte, each as it is or with .gz, and "
        "it does not; pass download=True, or put them there from https://ossci-datasets.s3.amazonaws.com/mnist/."
    )
    refused(DataError, message, mnist, tmp_path)


@pytest.mark.parametrize(
    "error, message, arrays",
    [
        (DataError, "expected as many labels as images, got 6 in … and 7 in …; take both …", {"labels": LABELS[:6]}),
        (LabelError, "expected labels of … in 0..9, got 10 at row 2; …", {"labels": LABELS + np.uint8(1)}),
        (
            FormatError,
            "expected … to hold an array of uint8 and shape (n, 28, 28), got uint8 and shape (7, 28, 27); read other "
            "sets with read_idx.",
            {"images": IMAGES[:, :, 1:]},
        ),
        (FormatError, "expected … and shape (n, 28, 28), got int16 and shape …", {"images": IMAGES.astype(np.int16)}),
        (FormatError, "expected … and shape (n,), got uint8 and shape (7, 28, 28); …", {"labels": IMAGES}),
        (FormatError, "expected … and shape (n,), got int32 and shape (7,); …", {"labels": LABELS.astype(np.int32)}),
    ],
)
def test_mnist_of_wrong_files(tmp_path, error, message, arrays):
    refused(error, message, mnist, write_mnist(tmp_path, **arrays))


def test_mnist_names_the_damaged_file(tmp_path):
    path = write_mnist(tmp_path) / MNIST_FILES[3]
    path.write_bytes(path.read_bytes()[:-1])
    message = f"expected {path} to hold 3 bytes after its header, uint8 of shape (3,), got 2 bytes; it was cut off."
    refused(FormatError, message, mnist, tmp_path)
