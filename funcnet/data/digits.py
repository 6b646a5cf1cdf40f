"""The bundled data set: handwritten digits."""

import gzip
import hashlib
from importlib import resources

import numpy as np

from funcnet.errors import ChecksumError

__all__ = ["digits"]

SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 handwritten digits, 8 × 8 pixels, by 13 writers.

    Returns: images (1797, 64) float32 in [0, 1], row by row, and labels (1797,) int32, 0 to 9. Neighbouring rows are
    of one writer, so `split` them rather than cut.

    Raises:
        ChecksumError: the installed file was changed.

    References: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    doi 10.24432/C50P49, CC BY 4.0; the test half of the set.

    >>> import funcnet as fn
    >>> images, labels = fn.data.digits()
    >>> images.shape, labels[:10].tolist()
    ((1797, 64), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    packed = resources.files("funcnet.data").joinpath("digits.csv.gz").read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256:
        raise ChecksumError(f"digits(): expected a file of SHA-256 {SHA256}, got {found}; install funcnet again.")
    table = np.loadtxt(gzip.decompress(packed).decode("ascii").splitlines(), np.float32, delimiter=",")
    return table[:, :64] / 16, table[:, 64].astype(np.int32)
