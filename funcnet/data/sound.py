"""Sound: WAV files, and log-mel spectrograms of them, on the host, in NumPy."""

import io
import os
import wave

import numpy as np

from funcnet.checks import check_count, positive
from funcnet.data.files import StrPath
from funcnet.errors import ConfigError, DataError, FormatError, ShapeError, translated
from funcnet.made import leading

__all__ = ["log_mel", "read_wav"]

_SMALLEST = 1e-10  # a power of −100 dB, below all that 16 bits can hold


def read_wav(path: StrPath, *, most_bytes: int = 1 << 30) -> tuple[np.ndarray, int]:
    """The samples of a WAV file, and how many there are per second.

    Args:
        path: a file of integer samples (PCM) of 8, 16, 24 or 32 bits, with any number of channels.
        most_bytes: the most bytes that the file may have.

    Returns: samples (samples, channels), float32 in [−1, 1), and the sample rate in hertz.

    Raises:
        FormatError: the file is not a WAV file, holds samples of another kind, is cut off, or is larger than
            `most_bytes`.
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
        return _read(path, check_count("most_bytes", most_bytes))


def _read(path: StrPath, most_bytes: int) -> tuple[np.ndarray, int]:
    with translated(OSError, DataError, "the file cannot be read"), open(path, "rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise FormatError(f"expected at most {most_bytes} bytes, got more; raise most_bytes if that is right.")
    try:
        with wave.open(io.BytesIO(data)) as sound:
            channels, width, rate, count = sound.getparams()[:4]
            frames = sound.readframes(count)
    # The standard library raises these for damaged files. A size of 0 divides by zero, and a negative size is not a
    # position.
    except (wave.Error, EOFError, RuntimeError, ValueError, ZeroDivisionError, OverflowError) as error:
        got = f"{str(error) or 'an early end'}; convert it to PCM"
        raise FormatError(f"expected a WAV file of integer samples, got {got}.") from error
    if width not in (1, 2, 3, 4) or rate < 1 or len(frames) != count * channels * width:
        wanted = f"{count} samples of {channels} × {width} bytes, {rate} per second"
        raise FormatError(f"expected {wanted}, got {len(frames)} bytes.")
    return _floats(frames, width).reshape(count, channels), rate


def _floats(data: bytes, width: int) -> np.ndarray:
    """Little-endian integers of `width` bytes as float32 in [−1, 1). Those of one byte have no sign."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    digits = np.frombuffer(data, np.uint8).reshape(-1, width)
    wide = np.zeros((len(digits), 4), np.uint8)
    wide[:, 4 - width :] = digits  # the highest bytes, so that the sign is in its place
    return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


def log_mel(
    samples: np.ndarray, rate: int, *, bands: int = 40, window: float = 0.025, step: float = 0.01
) -> np.ndarray:
    """The logarithm of a sound's power, by time and by frequency band: the common input of networks for speech.

    Every `step` seconds, a piece of `window` seconds (n samples) is weighted by the Hann window h_i = ½ − ½ cos 2πi/n.
    Its power is P_k = |Σᵢ hᵢ sᵢ e^(−2πik/n)|² / Σ h². Triangles weigh these powers. They are spaced evenly on the mel
    scale m = 2595 log₁₀(1 + f / 700 Hz), from 0 to half the rate, and each one reaches to the middles of its
    neighbours: y = log(max(Σ_k triangle_k P_k, 10⁻¹⁰)).

    Args:
        samples: (samples,), of one channel, in [−1, 1).
        rate: samples per second.
        bands: how many triangles.
        window, step: in seconds.

    Returns: (frames, bands) float32, with frames = 1 + ⌊(samples − n) / step⌋ in samples.

    Raises:
        ShapeError: `samples` is not of shape (samples,), or is shorter than a window.
        ConfigError: an option that is not positive, or more bands than a window can tell apart.

    References: Davis, Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition in
    Continuously Spoken Sentences", IEEE Transactions on Acoustics, Speech, and Signal Processing, 1980.

    4000 Hz are 2146 mel, so the middles of 20 bands are 102 mel apart. A tone of 1000 Hz, or 1000 mel, is nearest to
    the tenth:

    >>> import numpy as np, funcnet as fn
    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    >>> y = fn.data.log_mel(tone, 8000, bands=20)
    >>> y.shape, set((y.argmax(1) + 1).tolist())
    ((98, 20), {10})
    """
    with leading("log_mel"):
        rate, bands = check_count("rate", rate), check_count("bands", bands)
        size = round(positive("window", window) * rate)
        hop = round(positive("step", step) * rate)
        if min(size, hop) < 1:
            got = f"{window} s and {step} s at {rate} per second"
            raise ConfigError(f"expected window and step to be at least one sample, got {got}.")
        if np.ndim(samples) != 1 or len(samples) < size:
            got = f"{np.shape(samples)}; take one channel, and fill up a short sound with zeros"
            raise ShapeError(f"expected samples of shape (samples,), at least the {size} of a window, got {got}.")
        triangles = _triangles(rate, size, bands)
        if not triangles.any(0).all():
            got = f"{bands} bands from {size} samples: some are empty"
            raise ConfigError(f"expected fewer bands, or a longer window, got {got}.")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    pieces = np.lib.stride_tricks.sliding_window_view(np.asarray(samples, np.float64), size)[::hop]
    power = np.abs(np.fft.rfft(pieces * hann)) ** 2 / (hann**2).sum()
    return np.log(np.maximum(power @ triangles, _SMALLEST)).astype(np.float32)


def _triangles(rate: int, size: int, bands: int) -> np.ndarray:
    """(frequencies, bands): 1 at the middle of a band, falling to 0 at the middles of its neighbours."""
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 1400), bands + 2) / 2595) - 1)
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - low) / (middle - low)
    falling = (high - frequencies[:, None]) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))
