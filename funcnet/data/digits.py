"""The bundled data set: handwritten digits."""

import hashlib
from importlib import resources

import numpy as np

from funcnet.errors import ChecksumError

__all__ = ["digits"]

SHA256 = "b87d7dba68b590cfd29bc72a01366ca316c3d0d920ba65132a293bc63f6b6564"


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 handwritten digits, 8 × 8 pixels, by 13 writers.

    Returns: images (1797, 64) float32 in [0, 1], row by row, and labels (1797,) int32, 0 to 9. Neighbouring rows are
    from the same writer. So use `split`, which shuffles them, instead of cutting the arrays.

    Raises:
        ChecksumError: the installed file was changed.

    References: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    doi 10.24432/C50P49, CC BY 4.0; the test half of the set.

    >>> import funcnet as fn
    >>> images, labels = fn.data.digits()
    >>> images.shape, labels[:10].tolist()
    ((1797, 64), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    packed = resources.files("funcnet.data").joinpath("digits.xz").read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256:
        raise ChecksumError(f"digits(): expected a file of SHA-256 {SHA256}, got {found}; install funcnet again.")
    import lzma  # some builds of Python lack it, and then lack only these digits

    pixels, bits, labels = np.split(np.frombuffer(lzma.decompress(packed), np.uint8), (-9 * 1797, -1797))
    # The pixels that are not zero, column by column, and one bit for each that says which these are: this packs best.
    columns = np.zeros((8, 8, 1797), np.float32)
    columns[np.unpackbits(bits).reshape(1797, 8, 8).T == 1] = pixels
    return columns.T.reshape(1797, 64) / 16, labels.astype(np.int32)
