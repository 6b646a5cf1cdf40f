"""Image files for the tests, made here byte by byte, and what several of them share."""

import gzip
import io
import re
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import strategies as st

from funcnet.errors import FormatError

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
MNIST_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
)  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 1, 1, 4, 8], np.uint8)


def idx_bytes(array):
    head = bytes([0, 0, CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, packed=False, images=IMAGES, labels=LABELS):
    """Seven training images, of which the first three are the test images."""
    folder.mkdir(exist_ok=True)
    for filename, array in zip(MNIST_FILES, (images, labels, IMAGES[:3], LABELS[:3]), strict=True):
        content = idx_bytes(array)
        path = folder / (filename + ".gz" * packed)
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return folder


PHOTOS = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
CIFAR10_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


def cifar10_files(labels=range(10)):
    """Two photographs a file, the planes of red, green and blue one after the other."""
    records = [
        bytes([label]) + b"".join(photo[:, :, channel].tobytes() for channel in range(3))
        for label, photo in zip([*labels, 7, 8], PHOTOS, strict=True)
    ]
    return {name: records[2 * i] + records[2 * i + 1] for i, name in enumerate(CIFAR10_FILES)}


def cifar100_files(coarse=19, fine=99):
    """Three photographs for training, two for the test."""
    labels = [(0, 50), (coarse, 3), (7, fine), (1, 2), (3, 4)]
    records = [bytes(pair) + photo.transpose(2, 0, 1).tobytes() for pair, photo in zip(labels, PHOTOS[:5], strict=True)]
    return {"train.bin": b"".join(records[:3]), "test.bin": b"".join(records[3:])}


def tar_bytes(files, folder, more=()):
    """A tar archive with a folder and a file that nobody asked for, as the published ones have."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, content in {"readme.html": b"<html>", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member, content in more:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def write_cifar(folder, files, way, archive):
    """Unpacked right here, or in the folder that the archive has, or as the archive."""
    inside = {"cifar-10-binary.tar.gz": "cifar-10-batches-bin", "cifar-100-binary.tar.gz": "cifar-100-binary"}[archive]
    if way == "archive":
        (folder / archive).write_bytes(gzip.compress(tar_bytes(files, inside), 1, mtime=0))
        return
    place = folder / inside if way == "subfolder" else folder
    place.mkdir(exist_ok=True)
    for name, content in files.items():
        (place / name).write_bytes(content)


def member(name, kind=tarfile.REGTYPE, linkname=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def archive_of(folder, content, packed=True):
    (folder / "cifar-100-binary.tar.gz").write_bytes(gzip.compress(content, 1, mtime=0) if packed else content)
    return folder


TAR = tar_bytes(cifar100_files(), "cifar-100-binary")


def refused(error, message, call, *arguments, **options):
    """The message in full, but for what is written as ….  The call leads, and its folder may be anywhere."""
    pattern = re.escape(message).replace("…", ".*")
    with pytest.raises(error, match=rf"^\w+\('.*'\): {pattern}$") as caught:
        call(*arguments, **options)
    assert type(caught.value) is error


def peak_memory(call, *arguments):
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="expected"):
            call(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def mutated(draw, content):
    """Some bytes changed, cut out or put in."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.sampled_from([start, start + 1, start + 4, start + 600, len(content)]))
        content[start:stop] = draw(st.binary(max_size=6))
    return bytes(content)
