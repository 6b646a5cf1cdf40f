"""Log-mel spectrograms against sums written out."""

import math

import numpy as np
import pytest

from funcnet.data import log_mel
from funcnet.errors import ConfigError, ShapeError


def test_log_mel_by_sums():
    """As its docstring has it, in loops, for a rate and windows that divide nothing."""
    samples = np.random.default_rng(0).normal(size=210).astype(np.float32)
    rate, bands, n, hop = 1000, 3, 50, 33
    mel = [2595 * math.log10(1 + 500 / 700) * i / (bands + 1) for i in range(bands + 2)]
    corner = [700 * (10 ** (m / 2595) - 1) for m in mel]
    hann = [math.sin(math.pi * i / n) ** 2 for i in range(n)]
    frames = []
    for start in range(0, 210 - n + 1, hop):
        energies = [0.0] * bands
        for k in range(n // 2 + 1):
            waves = sum(hann[i] * samples[start + i] * np.exp(-2j * np.pi * i * k / n) for i in range(n))
            power, f = abs(waves) ** 2 / sum(h * h for h in hann), k * rate / n
            for b in range(bands):
                low, middle, high = corner[b : b + 3]
                if low < f < high:
                    energies[b] += power * ((f - low) / (middle - low) if f < middle else (high - f) / (high - middle))
        frames.append([math.log(energy) for energy in energies])
    got = log_mel(samples, rate, bands=bands, window=n / rate, step=hop / rate)
    assert (got.dtype, got.shape) == (np.float32, (5, 3))
    np.testing.assert_allclose(got, frames, rtol=1e-5)


def test_log_mel_of_silence_and_of_louder_sounds():
    assert np.all(log_mel(np.zeros(400), 8000, bands=10) == np.float32(math.log(1e-10)))
    noise = np.random.default_rng(1).normal(size=400)
    loud, soft = (log_mel(factor * noise, 8000, bands=10) for factor in (10, 1))
    np.testing.assert_allclose(loud, soft + 2 * math.log(10), rtol=1e-5)


@pytest.mark.parametrize(
    "samples, options, error, message",
    [
        (np.zeros((400, 2)), {}, ShapeError, r"of shape \(samples,\), at least the 200 of a window, got \(400, 2\)"),
        (np.zeros(199), {}, ShapeError, r"at least the 200 of a window, got \(199,\); take one channel, and fill up"),
        (np.zeros(400), {"bands": 0}, ConfigError, r"expected bands to be a positive integer, got 0"),
        (np.zeros(400), {"window": -0.1}, ConfigError, r"expected window to be .* > 0, got -0.1"),
        (
            np.zeros(400),
            {"step": 1e-6},
            ConfigError,
            r"window and step to be at least one sample, got 0.025 s and 1e-06 s at 8000",
        ),
        (np.zeros(400), {"bands": 90}, ConfigError, r"got 90 bands from 200 samples: some are empty"),
        (
            np.zeros(400),
            {"window": 1e-5},
            ConfigError,
            r"window and step to be at least one sample, got 1e-05 s and 0.01 s",
        ),
    ],
)
def test_spectrograms_that_cannot_be(samples, options, error, message):
    with pytest.raises(error, match=f"^log_mel: {'expected' if 'expected' not in message else ''}.*{message}"):
        log_mel(samples, 8000, **options)
