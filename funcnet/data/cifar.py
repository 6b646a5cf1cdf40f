"""CIFAR-10 and CIFAR-100, from the binary version of the archives.

A file is a sequence of records. A record is the label (for CIFAR-100 the coarse and the fine one), one byte each, then
the planes of red, green and blue, 32 × 32 bytes each, row by row. The "Python version" of the archives is not read
here. It holds pickles, which can run any code when they are read.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from funcnet.checks import check_choice
from funcnet.data.download import Source, fetch
from funcnet.data.files import Images, StrPath, check_labels, check_size, read_at_most, read_members, scaled, unpacked
from funcnet.errors import DataError, FormatError, translated
from funcnet.made import leading

__all__ = ["cifar10", "cifar100"]

_PIXELS = 3 * 32 * 32
_MOST_BYTES = 1 << 28  # of a file or an unpacked archive; the published ones have 70 % of it


class _Cifar(NamedTuple):
    folder: str  #: in the archive
    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: dict[str, int]  #: of each label in a record
    archive: Source


CIFAR10 = _Cifar(
    "cifar-10-batches-bin",
    tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    ("test_batch.bin",),
    {"label": 10},
    Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170052171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
)
CIFAR100 = _Cifar(
    "cifar-100-binary",
    ("train.bin",),
    ("test.bin",),
    {"coarse": 20, "fine": 100},
    Source(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        168513733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
)


def cifar10(folder: StrPath, *, download: bool = False) -> Images:
    """CIFAR-10: 50 000 and 10 000 colour photographs, 32 × 32 pixels.

    The classes are airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.

    Args:
        folder: where `data_batch_1.bin` … `data_batch_5.bin` and `test_batch.bin` are, or their folder
            `cifar-10-batches-bin`, or the archive `cifar-10-binary.tar.gz`, which is read without unpacking it to
            disk. Files with fewer or more images work too.
        download: fetch the archive if none of them is there (170 MB), over https, and keep it only if size and SHA-256
            are those of the published one.

    Returns: `(images, labels), (test_images, test_labels)`; images (n, 32, 32, 3) float32 in [0, 1], the channels red,
    green and blue; labels (n,) int32, 0 to 9.

    Raises:
        DataError: a file is missing, cannot be read or cannot be fetched.
        FormatError: a file is damaged, or holds something else; LabelError: a label above 9.
        ChecksumError: what was fetched is not the published archive.

    References: Krizhevsky, "Learning multiple layers of features from tiny images", University of Toronto, 2009.

    >>> import funcnet as fn
    >>> fn.data.cifar10("empty")
    Traceback (most recent call last):
    funcnet.errors.DataError: cifar10('empty'): expected empty to hold cifar-10-binary.tar.gz, or its files unpacked, \
and it does not; pass download=True, or put it there from https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz.
    """
    with leading(f"cifar10({os.fspath(folder)!r})"):
        return _load(Path(folder), CIFAR10, "label", download)


def cifar100(folder: StrPath, *, labels: str = "fine", download: bool = False) -> Images:
    """CIFAR-100: 50 000 and 10 000 colour photographs, 32 × 32 pixels, of 100 classes in 20 groups.

    Args:
        folder: where `train.bin` and `test.bin` are, or their folder `cifar-100-binary`, or the archive
            `cifar-100-binary.tar.gz`.
        labels: `"fine"` for the class, 0 to 99; `"coarse"` for its group, 0 to 19.
        download: as for `cifar10` (169 MB).

    Returns, Raises, References: as for `cifar10`; ConfigError for other `labels`.

    >>> import funcnet as fn
    >>> (images, groups), test = fn.data.cifar100("photographs", labels="coarse")  # doctest: +SKIP
    """
    with leading(f"cifar100({os.fspath(folder)!r})"):
        check_choice("labels", labels, CIFAR100.classes)
        return _load(Path(folder), CIFAR100, labels, download)


def _load(folder, cifar, label, download):
    with translated(OSError, DataError, "the folder cannot be read"):
        files = _read_files(folder, cifar, download)
    parts = []
    for filenames in (cifar.train, cifar.test):
        decoded = [_decode(*files[filename], cifar.classes, label) for filename in filenames]
        images, labels = (np.concatenate(arrays) for arrays in zip(*decoded, strict=True))
        parts.append((scaled(images), labels.astype(np.int32)))
    return tuple(parts)


def _read_files(folder, cifar, download):
    """filename -> (path, content), of the unpacked files or else of the archive."""
    filenames = (*cifar.train, *cifar.test)
    for place in (folder, folder / cifar.folder):
        missing = [filename for filename in filenames if not (place / filename).is_file()]
        if not missing:
            return {filename: (place / filename, _read_file(place / filename)) for filename in filenames}
        if len(missing) < len(filenames):
            got = f"some without {', '.join(missing)}; unpack {cifar.archive.filename} again"
            raise DataError(f"expected {place} to hold all of {', '.join(filenames)}, got {got}.")
    archive = folder / cifar.archive.filename
    if not archive.is_file():
        if not download:
            wanted, fix = f"{archive.name}, or its files unpacked", "pass download=True, or put it there from"
            raise DataError(f"expected {folder} to hold {wanted}, and it does not; {fix} {cifar.archive.url}.")
        fetch(cifar.archive, folder)
    members = {filename: f"{cifar.folder}/{filename}" for filename in filenames}
    contents = read_members(archive, members.values(), _MOST_BYTES)
    return {filename: (archive / member, contents[member]) for filename, member in members.items()}


def _read_file(path):
    with unpacked(path) as stream:
        data = read_at_most(stream, _MOST_BYTES + 1)
    check_size(path, len(data) > _MOST_BYTES, _MOST_BYTES)
    return data


def _decode(path, data, classes, label):
    """Images (n, 32, 32, 3) of bytes, and the labels asked for; all labels are checked."""
    width = len(classes) + _PIXELS
    if not data or len(data) % width:
        got = f"{len(data)} bytes; it was cut off, or is not of the binary version"
        raise FormatError(f"expected {path} to hold whole records of {width} bytes, at least one, got {got}.")
    records = np.frombuffer(data, np.uint8).reshape(-1, width)
    for column, count in enumerate(classes.values()):
        check_labels(path, records[:, column], count)
    images = records[:, len(classes) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, records[:, list(classes).index(label)]
