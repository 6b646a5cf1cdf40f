"""Log-mel spectrograms of sound, on the host, in NumPy."""

import numpy as np

from funcnet.checks import check_count, positive
from funcnet.errors import ConfigError, ShapeError
from funcnet.made import leading

__all__ = ["log_mel"]

_SMALLEST = 1e-10  # a power of −100 dB, below all that 16 bits can hold


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
