"""WAV files read sample by sample, and log-mel spectrograms against sums written out."""

import math
import struct
import wave

import numpy as np
import pytest

from funcnet.data import log_mel, read_wav
from funcnet.errors import ConfigError, DataError, FormatError, ShapeError


def write(path, data, *, channels=1, width=2, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)
    return path


@pytest.mark.parametrize(
    "width, data, expected",
    [
        (1, bytes([0, 64, 128, 192, 255]), [-1, -0.5, 0, 0.5, 127 / 128]),
        (2, struct.pack("<4h", -32768, -1, 0, 32767), [-1, -(2**-15), 0, 1 - 2**-15]),
        (3, bytes([0, 0, 128, 255, 255, 255, 1, 0, 0, 255, 255, 127]), [-1, -(2**-23), 2**-23, 1 - 2**-23]),
        (4, struct.pack("<4i", -(2**31), -1, 2**30, 2**24), [-1, -(2**-31), 0.5, 2**-7]),
    ],
)
def test_every_width(tmp_path, width, data, expected):
    samples, rate = read_wav(write(tmp_path / "sound.wav", data, width=width, rate=11025))
    assert (samples.dtype, samples.shape, rate) == (np.float32, (len(expected), 1), 11025)
    np.testing.assert_array_equal(samples[:, 0], np.float32(expected))


def test_channels_are_columns(tmp_path):
    data = struct.pack("<6h", 1, -1, 2, -2, 3, -3)
    samples, _ = read_wav(write(tmp_path / "sound.wav", data, channels=2))
    np.testing.assert_array_equal(samples * 2**15, [[1, -1], [2, -2], [3, -3]])


def test_a_sound_without_samples(tmp_path):
    assert read_wav(write(tmp_path / "sound.wav", b""))[0].shape == (0, 1)


def changed(data, at, new):
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: b"", "WAV file of integer samples, got an early end"),
        (lambda data: b"fLaC" + data, "file does not start with RIFF id"),
        (lambda data: data[:30], "convert it to PCM"),
        (lambda data: data[:-3], r"4 samples of 1 × 2 bytes, 8000 per second, got 5 bytes"),
        (lambda data: changed(data, 20, b"\x03"), "unknown format: 3.*convert it to PCM"),  # floating point
        (lambda data: changed(data, 24, b"\0\0\0\0"), "0 per second"),
        (lambda data: changed(data, 22, b"\0\0"), "bad # of channels"),
        (lambda data: changed(data, 34, b"\x40\0"), r"× 8 bytes"),
    ],
)
def test_files_that_are_refused(tmp_path, change, message):
    path = write(tmp_path / "sound.wav", struct.pack("<4h", 1, 2, 3, 4))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FormatError, match=rf"^read_wav\('.*sound.wav'\): expected .*{message}"):
        read_wav(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"^read_wav\('.*none.wav'\): the file cannot be read: .*No such file"):
        read_wav(tmp_path / "none.wav")
    path = write(tmp_path / "sound.wav", bytes(100))
    with pytest.raises(FormatError, match=r"expected at most 143 bytes, got more; raise most_bytes"):
        read_wav(path, most_bytes=143)
    assert read_wav(path, most_bytes=144)[0].shape == (50, 1)
    with pytest.raises(ConfigError, match=r"expected most_bytes to be a positive integer, got 0"):
        read_wav(path, most_bytes=0)


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
