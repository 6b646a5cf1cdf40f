"""WAV files read sample by sample: those of other programs, and those written here byte by byte."""

import struct
import wave

import numpy as np
import pytest
from wav_files import FILES, PACKED, SOUND

from funcnet.data import read_wav
from funcnet.errors import ConfigError, DataError, FormatError


def write(path, data, *, channels=1, width=2, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)
    return path


def riff(format, block, bits, data, *, extension=b"", size=None, after=b"", whole=None):
    """A file of one channel at 8000 hertz. `size` and `whole` are what its header says, if that is not so."""
    header = struct.pack("<HHIIHH", format, 1, 8000, 8000 * block, block, bits) + extension
    body = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data"
    body += struct.pack("<I", len(data) if size is None else size) + data + after
    return b"RIFF" + struct.pack("<I", len(body) if whole is None else whole) + body


def extension(tag, valid, suffix="000000001000800000aa00389b71"):
    return struct.pack("<HHIH", 22, valid, 4, tag) + bytes.fromhex(suffix)


def read(tmp_path, content):
    (tmp_path / "sound.wav").write_bytes(content)
    return read_wav(tmp_path / "sound.wav")


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_programs(tmp_path, name):
    samples, rate = read(tmp_path, FILES[name])
    assert (samples.dtype, rate) == (np.float32, 11025)
    np.testing.assert_array_equal(samples, SOUND)


@pytest.mark.parametrize("name", PACKED)
def test_packed_files_of_other_programs_are_refused_by_name(tmp_path, name):
    with pytest.raises(FormatError, match=rf"expected integers \(PCM\) .*, got {name} \(format \d+\); convert it.*sox"):
        read(tmp_path, PACKED[name])


@pytest.mark.parametrize(
    "width, data, expected",
    [
        (1, bytes([0, 64, 128, 192, 255]), [-1, -0.5, 0, 0.5, 127 / 128]),
        (2, struct.pack("<4h", -32768, -1, 0, 32767), [-1, -(2**-15), 0, 1 - 2**-15]),
        (3, bytes([0, 0, 128, 255, 255, 255, 1, 0, 0, 255, 255, 127]), [-1, -(2**-23), 2**-23, 1 - 2**-23]),
        (4, struct.pack("<4i", -(2**31), -1, 2**30, 2**24), [-1, -(2**-31), 0.5, 2**-7]),
        (4, struct.pack("<3i", 2**31 - 1, 2**31 - 128, 2**31 - 256), [1 - 2**-24, 1 - 2**-24, 1 - 2**-23]),
    ],
)
def test_every_width(tmp_path, width, data, expected):
    samples, rate = read_wav(write(tmp_path / "sound.wav", data, width=width, rate=11025))
    assert (samples.dtype, samples.shape, rate) == (np.float32, (len(expected), 1), 11025)
    np.testing.assert_array_equal(samples[:, 0], np.float32(expected))


def test_numbers_keep_their_size(tmp_path):
    """Numbers beyond full scale are not clipped."""
    samples, _ = read(tmp_path, riff(3, 8, 64, struct.pack("<3d", -2.5, 1.0, 0.1)))
    np.testing.assert_array_equal(samples[:, 0], np.float32([-2.5, 1.0, 0.1]))


def test_24_bits_in_larger_containers(tmp_path):
    """EXTENSIBLE puts them into the highest bytes. Plain PCM does not say where they are, so it is refused."""
    data = struct.pack("<3i", 1 << 30, -(1 << 31), 1 << 8)
    samples, _ = read(tmp_path, riff(0xFFFE, 4, 32, data, extension=extension(1, 24)))
    np.testing.assert_array_equal(samples[:, 0], np.float32([0.5, -1, 2**-23]))
    with pytest.raises(FormatError, match=r"expected 3 bytes for 1 × 24 bits, got 4; convert it to 24 bits, or write"):
        read(tmp_path, riff(1, 4, 24, data))


def test_20_bits_are_the_highest_of_their_3_bytes(tmp_path):
    samples, _ = read(tmp_path, riff(1, 3, 20, bytes([0, 0, 0x40, 0x10, 0, 0])))
    np.testing.assert_array_equal(samples[:, 0], np.float32([0.5, 2**-19]))


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("whole", [0, 36, 0xFFFFFFFF])
def test_headers_of_programs_that_stream(tmp_path, size, whole):
    data = struct.pack("<3h", -(2**15), 2**14, 2**13)
    content = riff(1, 2, 16, data, size=size, whole=whole)
    np.testing.assert_array_equal(read(tmp_path, content)[0][:, 0], [-1, 0.5, 0.25])
    assert read(tmp_path, content[:-1])[0].shape == (2, 1)  # stopped within a sample


def test_a_sound_without_samples(tmp_path):
    assert read_wav(write(tmp_path / "sound.wav", b""))[0].shape == (0, 1)
    assert read(tmp_path, riff(1, 2, 16, b"", size=0xFFFFFFFF))[0].shape == (0, 1)
    content = riff(1, 2, 16, b"", after=b"LIST\x04\0\0\0abcd")  # a right header: what follows is not samples
    assert read(tmp_path, content)[0].shape == (0, 1)


def test_parts_around_the_samples(tmp_path):
    content = riff(1, 1, 8, bytes([64, 192, 0]), after=b"\0LIST\x04\0\0\0abcd")  # filled up to an even size
    np.testing.assert_array_equal(read(tmp_path, content)[0][:, 0], [-0.5, 0.5, -1])
    before = content.replace(b"WAVE", b"WAVEodd \x03\0\0\0abc\0")
    np.testing.assert_array_equal(read(tmp_path, before)[0][:, 0], [-0.5, 0.5, -1])


def test_channels_are_columns(tmp_path):
    data = struct.pack("<6h", 1, -1, 2, -2, 3, -3)
    samples, _ = read_wav(write(tmp_path / "sound.wav", data, channels=2))
    np.testing.assert_array_equal(samples * 2**15, [[1, -1], [2, -2], [3, -3]])


def changed(data, at, new):
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: b"", "a WAV file, which begins with RIFF, a size and WAVE, got b''"),
        (lambda data: b"fLaC" + data, "a WAV file, which begins with RIFF, a size and WAVE, got b'fLaCRIFF"),
        (lambda data: data[:30], r"16 bytes in the part b'fmt ', got 10; the file is cut off"),
        (lambda data: data[:36], r"the parts fmt and data, in this order, got none named data"),
        (lambda data: data[:12] + data[36:], r"the parts fmt and data, in this order, got none named fmt"),
        (lambda data: data[:-3], r"8 bytes of samples, got 5; the file is cut off"),
        (
            lambda data: data[:16] + b"\x0e\0\0\0" + data[20:34] + data[36:],
            r"at least 16 bytes that describe the samples, got 14",
        ),
        (lambda data: changed(data, 20, b"\x55"), r"integers \(PCM\) or floating-point numbers, got MP3 \(format 85\)"),
        (lambda data: changed(data, 20, b"\x09"), r"got samples \(format 9\); convert it"),
        (lambda data: changed(data, 20, b"\x03"), r"numbers of 32 or 64 bits, got 16 bits"),
        (lambda data: changed(data, 24, b"\0\0\0\0"), "at least one channel and one sample per second, got 1 and 0"),
        (lambda data: changed(data, 22, b"\0\0"), "at least one channel and one sample per second, got 0 and 8000"),
        (lambda data: changed(data, 32, b"\x03"), r"2 bytes for 1 × 16 bits, got 3; convert it to 16 bits"),
        (lambda data: changed(data, 34, b"\x40"), r"integers of 8 to 32 bits, got 64 bits"),
        (lambda data: changed(data, 34, b"\0"), r"integers of 8 to 32 bits, got 0 bits"),
    ],
)
def test_files_that_are_refused(tmp_path, change, message):
    path = write(tmp_path / "sound.wav", struct.pack("<4h", 1, 2, 3, 4))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FormatError, match=rf"^read_wav\('.*sound.wav'\): expected .*{message}"):
        read_wav(path)


@pytest.mark.parametrize(
    "bits, more, message",
    [
        (16, b"", r"24 bytes in the part b'fmt ', got 0; the file is cut off"),
        (16, extension(1, 24), r"EXTENSIBLE samples of .* in whole bytes, got 24 of 16 bits"),
        (20, extension(1, 20), r"EXTENSIBLE samples of .* in whole bytes, got 20 of 20 bits"),
        (16, extension(1, 16, 14 * "00"), r"EXTENSIBLE samples of PCM or floating point"),
        (16, extension(7, 16), r"got µ-law \(format 7\)"),
        (16, extension(0xFFFE, 16), r"got samples \(format 65534\)"),
    ],
)
def test_extensible_headers_that_are_refused(tmp_path, bits, more, message):
    with pytest.raises(FormatError, match=rf"^read_wav\('.*sound.wav'\): expected .*{message}"):
        read(tmp_path, riff(0xFFFE, 2, bits, bytes(4), extension=more))


@pytest.mark.parametrize("width, bad", [(4, float("nan")), (4, float("inf")), (8, 1e39)])
def test_numbers_that_are_not_finite(tmp_path, width, bad):
    data = np.array([0, 0.5, bad], f"<f{width}").tobytes()
    with pytest.raises(FormatError, match=r"expected finite samples in float32, got (nan|inf) at row 2; the file is"):
        read(tmp_path, riff(3, width, 8 * width, data))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"^read_wav\('.*none.wav'\): the file cannot be read: .*No such file"):
        read_wav(tmp_path / "none.wav")
    path = write(tmp_path / "sound.wav", bytes(100))
    with pytest.raises(FormatError, match=r"expected at most 143 bytes, got more; raise most_bytes"):
        read_wav(path, most_bytes=143)
    assert read_wav(path, most_bytes=144)[0].shape == (50, 1)
    with pytest.raises(ConfigError, match=r"expected most_bytes to be a positive integer, got 0"):
        read_wav(path, most_bytes=0)
