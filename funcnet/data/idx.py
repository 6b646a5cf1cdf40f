"""The IDX format, and the sets of handwritten digits and of clothes that come in it.

A file is a header of big-endian integers, then the numbers, the last axis fastest:

    0 0   type (1 byte)   axes (1 byte)   size of each axis (4 bytes)   numbers
"""

import math
import os
from pathlib import Path

import numpy as np

from funcnet.checks import check_count
from funcnet.data.download import Source, fetch
from funcnet.data.files import Images, StrPath, check_labels, read_at_most, scaled, unpacked
from funcnet.errors import DataError, FormatError, translated
from funcnet.made import leading

__all__ = ["fashion_mnist", "mnist", "read_idx"]

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 64  # as in NumPy's arrays
_MOST_BYTES = 1 << 30  # twenty times MNIST


def _sources(base: str, *files: tuple[str, int, str]) -> tuple[Source, ...]:
    return tuple(Source(base + filename, size, sha256) for filename, size, sha256 in files)


# In the order train images, train labels, test images, test labels.
MNIST = _sources(
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ("train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    ("train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ("t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ("t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)
FASHION_MNIST = _sources(
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/"
    "data/fashion/",
    ("train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    ("train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    ("t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    ("t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
)


def read_idx(path: StrPath, *, most_bytes: int = _MOST_BYTES) -> np.ndarray:
    """The array in an IDX file, plain or packed with gzip, whatever the file is called.

    Args:
        path: the file.
        most_bytes: the most bytes that the array may take. The header is checked against it before anything else is
            read, and no more is read than the header announces.

    Returns: an array of uint8, int8, int16, int32, float32 or float64, in native byte order.

    Raises:
        FormatError: the file does not hold what its header, or gzip's checksum, promises; or its array is too large.
        DataError: the file cannot be read.

    References: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998.

    >>> import tempfile, pathlib, funcnet as fn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "pairs")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6]))
    ...     fn.data.read_idx(path)
    array([[1, 2],
           [3, 4],
           [5, 6]], dtype=uint8)
    """
    with leading(f"read_idx({os.fspath(path)!r})"):
        return _read_idx(Path(path), check_count("most_bytes", most_bytes))


def mnist(folder: StrPath, *, download: bool = False) -> Images:
    """MNIST: 60 000 and 10 000 images of handwritten digits, 28 × 28 pixels.

    Args:
        folder: where the four files are, `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`,
            each as it is or with `.gz`. Files with fewer or more images work too.
        download: fetch the files that are not there (11.6 MB in all), over https, and keep them only if size and
            SHA-256 are those of the published files.

    Returns: `(images, labels), (test_images, test_labels)`; images (n, 28, 28, 1) float32 in [0, 1], labels (n,)
    int32, 0 to 9.

    Raises:
        DataError: a file is missing, cannot be read or cannot be fetched, or images and labels differ in number.
        FormatError: a file is damaged, or holds something else; LabelError: a label above 9.
        ChecksumError: what was fetched is not the published file.

    References: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proceedings
    of the IEEE 86, 1998.

    >>> import funcnet as fn
    >>> fn.data.mnist("empty")
    Traceback (most recent call last):
    funcnet.errors.DataError: mnist('empty'): expected empty to hold train-images-idx3-ubyte, \
train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each as it is or with .gz, and it does not; \
pass download=True, or put them there from https://ossci-datasets.s3.amazonaws.com/mnist/.
    """
    with leading(f"mnist({os.fspath(folder)!r})"):
        return _load(Path(folder), MNIST, download)


def fashion_mnist(folder: StrPath, *, download: bool = False) -> Images:
    """Fashion-MNIST: 60 000 and 10 000 images of clothes, in the format of MNIST, which it can replace.

    The classes are t-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot.

    Args, Returns, Raises: as for `mnist`; a download is 30.9 MB.

    References: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", arXiv 1708.07747, 2017.

    >>> import funcnet as fn
    >>> (images, labels), (test_images, test_labels) = fn.data.fashion_mnist("clothes")  # doctest: +SKIP
    """
    with leading(f"fashion_mnist({os.fspath(folder)!r})"):
        return _load(Path(folder), FASHION_MNIST, download)


def _load(folder, sources, download):
    with translated(OSError, DataError, "the folder cannot be read"):
        paths = [_find(folder, source) for source in sources]
    missing = [source for source, path in zip(sources, paths, strict=True) if path is None]
    if missing and not download:
        files = ", ".join(source.filename[:-3] for source in missing)
        fix = f"pass download=True, or put them there from {sources[0].url.removesuffix(sources[0].filename)}"
        raise DataError(f"expected {folder} to hold {files}, each as it is or with .gz, and it does not; {fix}.")
    paths = [path or fetch(source, folder) for source, path in zip(sources, paths, strict=True)]
    return _images_and_labels(*paths[:2]), _images_and_labels(*paths[2:])


def _find(folder, source):
    candidates = (folder / source.filename.removesuffix(".gz"), folder / source.filename)
    return next((path for path in candidates if path.is_file()), None)


def _images_and_labels(images_path, labels_path):
    images = _read_bytes(images_path, (28, 28), "(n, 28, 28)")
    labels = _read_bytes(labels_path, (), "(n,)")
    if len(images) != len(labels):
        got = f"{len(labels)} in {labels_path} and {len(images)} in {images_path}; take both from one set"
        raise DataError(f"expected as many labels as images, got {got}.")
    check_labels(labels_path, labels, 10)
    return scaled(images[..., None]), labels.astype(np.int32)


def _read_bytes(path, shape, expected):
    array = _read_idx(path, _MOST_BYTES)
    if array.dtype != np.uint8 or array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        got = f"{array.dtype} and shape {array.shape}; read other sets with read_idx"
        raise FormatError(f"expected {path} to hold an array of uint8 and shape {expected}, got {got}.")
    return array


def _read_idx(path, most_bytes):
    with unpacked(path) as stream:
        dtype, shape = _read_header(path, stream)
        size = math.prod(shape) * dtype.itemsize
        if size > most_bytes:
            got = f"a header of {dtype.name}, shape {shape}, {size} bytes; pass most_bytes to read_idx if that is right"
            raise FormatError(f"expected {path} to hold at most {most_bytes} bytes, got {got}.")
        data = read_at_most(stream, size + 1)  # one byte more, to see that nothing follows
    if len(data) != size:
        got = f"{len(data)} bytes; it was cut off" if len(data) < size else "more; something was appended"
        wanted = f"{size} bytes after its header, {dtype.name} of shape {shape}"
        raise FormatError(f"expected {path} to hold {wanted}, got {got}.")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_header(path, stream):
    """The dtype and the shape that a file announces."""
    magic = read_at_most(stream, 4)
    if len(magic) < 4 or any(magic[:2]):
        wanted = "an IDX file, whose first four bytes are 0, 0, type and number of axes"
        raise FormatError(f"expected {path} to be {wanted}, got {list(magic)}.")
    code, axes = magic[2:]
    if code not in _DTYPES:
        known = ", ".join(f"0x{known:02x}" for known in _DTYPES)
        raise FormatError(f"expected the type in {path} (byte 2) to be one of {known}, got 0x{code:02x}.")
    if not 1 <= axes <= _MOST_AXES:
        raise FormatError(f"expected the number of axes in {path} (byte 3) to be within 1..{_MOST_AXES}, got {axes}.")
    sizes = read_at_most(stream, 4 * axes)
    if len(sizes) < 4 * axes:
        got = f"{len(sizes)} bytes; it was cut off"
        raise FormatError(f"expected {path} to go on with {axes} sizes of 4 bytes, got {got}.")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())  # Python's integers, whose product does not overflow
    if 0 in shape:
        raise FormatError(f"expected the sizes in {path} to be positive, got {shape}.")
    return np.dtype(_DTYPES[code]), shape
