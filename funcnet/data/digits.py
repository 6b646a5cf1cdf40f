"""The bundled data set: handwritten digits."""

import hashlib
import io
from importlib import resources

import numpy as np

from funcnet.errors import ChecksumError

__all__ = ["digits"]

SHA256 = "1a83e66009d3236c0745a042d9ddcc4030f91c5064db7df5440f7525ad8ceb03"


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
    packed = resources.files("funcnet.data").joinpath("digits.npy.xz").read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256:
        raise ChecksumError(f"digits(): expected a file of SHA-256 {SHA256}, got {found}; install funcnet again.")
    import lzma  # some builds of Python lack it, and then lack only these digits

    table = np.load(io.BytesIO(lzma.decompress(packed)))  # (1797, 65), column by column, which packs best
    return np.ascontiguousarray(table[:, :64], np.float32) / 16, table[:, 64].astype(np.int32)
