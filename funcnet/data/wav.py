"""WAV files: integers and floating-point numbers of every common width, and headers of programs that stream."""

import os
import struct
from typing import NamedTuple

import numpy as np

from funcnet.checks import check_count, check_values
from funcnet.data.files import StrPath
from funcnet.errors import DataError, FormatError, translated
from funcnet.made import leading
from funcnet.reading import plain_file, size_of

__all__ = ["read_wav"]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUFFIX = bytes.fromhex("000000001000800000aa00389b71")  # of a GUID, by which EXTENSIBLE names one of the others
_OTHERS = {2: "ADPCM", 6: "A-law", 7: "µ-law", 17: "IMA ADPCM", 49: "GSM", 85: "MP3"}
_WIDTHS = {_PCM: ("integers of 8 to 32 bits", (1, 2, 3, 4)), _FLOAT: ("numbers of 32 or 64 bits", (4, 8))}
_BELOW_ONE = 1 - 2.0**-24  # the largest float32 below 1

# The sizes that a program writes if it cannot go back to the header: GStreamer, sox and espeak, arecord, ffmpeg.
_STREAMED = (0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF)


class _Kind(NamedTuple):
    """How samples are stored: format 1 or 3, and the bytes of a sample."""

    format: int
    channels: int
    rate: int
    width: int


def read_wav(path: StrPath, *, most_bytes: int = 1 << 30) -> tuple[np.ndarray, int]:
    """The samples of a WAV file, and how many there are per second.

    Integers of w bytes are divided by 2^(8w − 1), so full scale is [−1, 1). Floating-point numbers stay as they are,
    and may be larger. Both become float32. Integers of 4 bytes that would round to 1 become the largest float32 below
    it.

    A program that writes to a pipe cannot know how long the sound will be, and its header says 0, or about 2 or 4 GiB.
    Such a file is read to its end. An incomplete last sample is left out.

    Args:
        path: a file of integers (PCM) of 8 to 32 bits or of floating-point numbers of 32 or 64 bits, with any number of
            channels. The header may be plain, EXTENSIBLE, or that of RF64.
        most_bytes: the most bytes that the file may have.

    Returns: samples (samples, channels) in float32, and the sample rate in hertz.

    Raises:
        FormatError: the file is not a WAV file, holds samples of another kind or numbers that are not finite, is cut
            off, or is larger than `most_bytes`. The sizes in its header contradict each other.
        DataError: the file cannot be read.

    >>> import tempfile, pathlib, wave, funcnet as fn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "two.wav")
    ...     with wave.open(str(path), "wb") as file:
    ...         file.setparams((1, 2, 8000, 0, "NONE", ""))
    ...         file.writeframes(bytes([0, 64, 0, 128]))
    ...     fn.data.read_wav(path)
    (array([[ 0.5],
           [-1. ]], dtype=float32), 8000)
    """
    with leading(f"read_wav({os.fspath(path)!r})"):
        most_bytes = check_count("most_bytes", most_bytes)
        with translated(OSError, DataError, "the file cannot be read"), plain_file(path, links=True) as file:
            if size_of(file) > most_bytes:
                raise FormatError(f"expected at most {most_bytes} bytes, got more; raise most_bytes if that is right.")
            data = file.read()
        header, at, size, end = _parts(memoryview(data))
        kind = _kind(header)
        size = _samples_size(size, kind.channels * kind.width, at, end, len(data))
        return _floats(data[at : at + size], kind).reshape(-1, kind.channels), kind.rate


def _parts(data):
    """The bytes that describe the samples, and what the header says: where the samples begin, how many bytes they are,
    and where the file ends."""
    start = data[:12].tobytes()
    if len(start) < 12 or start[:4] not in (b"RIFF", b"RF64", b"BW64") or start[8:] != b"WAVE":
        raise FormatError(f"expected a WAV file, which begins with RIFF, a size and WAVE, got {start!r}.")
    end, at, found = 8 + int.from_bytes(start[4:8], "little"), 12, {}
    while len(data) - at >= 8:
        name, size = struct.unpack("<4sI", data[at : at + 8])
        at += 8
        if name == b"data" and b"fmt " in found:
            return found[b"fmt "], at, _long_size(found, size), end
        found[name] = _whole(name, data[at : at + size], size)
        at += size + size % 2
    missing = "data" if b"fmt " in found else "fmt"
    raise FormatError(f"expected a WAV file with the parts fmt and data, in this order, got none named {missing}.")


def _whole(name, part, size):
    if len(part) < size:
        raise FormatError(f"expected {size} bytes in the part {name!r}, got {len(part)}; the file is cut off.")
    return part


def _long_size(found, size):
    """The size of the samples. RF64 writes it with 64 bits, in a part of its own."""
    long = found.get(b"ds64", b"")
    return int.from_bytes(long[8:16], "little") if size == 0xFFFFFFFF and len(long) >= 16 else size


def _samples_size(size, block, at, end, length):
    """How many bytes the whole samples are, in blocks of one sample per channel."""
    more_follows = at + size < end <= length  # the header is right about the file, and so about the samples
    if not more_follows and any(size in (mark, mark - mark % block) for mark in _STREAMED):
        size = length - at
    if at + size > length:
        raise FormatError(f"expected {size} bytes of samples, got {length - at}; the file is cut off.")
    return size - size % block


def _kind(header):
    """What the header says about the samples, if they can be read."""
    if len(header) < 16:
        raise FormatError(f"expected at least 16 bytes that describe the samples, got {len(header)}.")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", header[:16])
    if tag == _EXTENSIBLE:
        _, valid, _, tag, suffix = struct.unpack("<HHIH14s", _whole(b"fmt ", header[16:40], 24))
        if suffix != _SUFFIX or valid > bits or bits % 8:
            raise FormatError(
                f"expected EXTENSIBLE samples of PCM or floating point in whole bytes, got {valid} of {bits} bits; "
                "convert it, such as with sox IN.wav -b 16 -e signed-integer OUT.wav."
            )
    if tag not in _WIDTHS:
        raise FormatError(
            f"expected integers (PCM) or floating-point numbers, got {_OTHERS.get(tag, 'samples')} (format {tag}); "
            "convert it, such as with sox IN.wav -b 16 -e signed-integer OUT.wav."
        )
    if not (channels and rate):
        raise FormatError(f"expected at least one channel and one sample per second, got {channels} and {rate}.")
    width, (wanted, widths) = -(-bits // 8), _WIDTHS[tag]
    if width not in widths:
        raise FormatError(f"expected {wanted}, got {bits} bits.")
    if block != channels * width:  # in larger containers of plain PCM, programs disagree about where the bits are
        raise FormatError(
            f"expected {channels * width} bytes for {channels} × {bits} bits, got {block}; convert it to {8 * width} "
            "bits, or write its containers as EXTENSIBLE, which says what is in them."
        )
    return _Kind(tag, channels, rate, width)


def _floats(data, kind):
    """The numbers of little-endian samples as float32. Integers of one byte have no sign."""
    if kind.format == _FLOAT:
        with np.errstate(over="ignore"):  # found below
            numbers = np.frombuffer(data, f"<f{kind.width}").astype(np.float32)
        check_values(FormatError, "finite samples in float32", numbers, None, np.isfinite, "the file is damaged")
        return numbers
    digits = np.frombuffer(data, np.uint8)
    if kind.width == 1:
        return (digits.astype(np.float32) - 128) / 128
    digits = digits.reshape(-1, kind.width)
    wide = np.zeros((len(digits), 4), np.uint8)
    wide[:, 4 - kind.width :] = digits  # the highest bytes, so that the sign is in its place
    return np.minimum((wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32), np.float32(_BELOW_ONE))
