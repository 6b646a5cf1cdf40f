"""Ten digits by ear: a one-dimensional convolutional network on log-mel spectrograms of sound files.

If espeak-ng is installed, `python examples/spoken_digits.py` lets it speak "zero" to "nine" in twenty voices. Otherwise
it dials the digits: the two tones of each key of a telephone, in noise. It trains on fifteen voices, and prints its
answers for the digits of the other five, which it has never heard.
"""

import shutil
import subprocess
import tempfile
import wave

import numpy as np

import funcnet as fn

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
VOICES = [
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Andy", "Annie", "croak", "klatt",
    "linda", "steph", "whisper",
]  # fmt: skip
UNHEARD = {"m3", "m6", "f2", "f4", "Annie"}
LOW, HIGH = (
    [941, 697, 697, 697, 770, 770, 770, 852, 852, 852],
    [1336, *3 * [1209, 1336, 1477]],
)  # of a telephone, in hertz
RATE, SECONDS = 22050, 0.8


def speak(path, digit, voice, rng):
    options = ["-v", f"en+{voice}", "-s", str(rng.integers(130, 200)), "-p", str(rng.integers(30, 70))]
    subprocess.run(["espeak-ng", *options, "-w", path, WORDS[digit]], check=True)


def dial(path, digit, voice, rng):
    """Here a voice is a telephone line: how loud it is, how noisy, and how wrong in pitch."""
    line = np.random.default_rng(VOICES.index(voice))
    loud, noise, off = line.uniform(0.1, 0.3), line.uniform(0.1, 0.4), line.uniform(0.97, 1.03)
    t = np.arange(int(RATE * rng.uniform(0.2, 0.6))) / RATE
    tones = np.sin(2 * np.pi * off * LOW[digit] * t) + np.sin(2 * np.pi * off * HIGH[digit] * t)
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((8000 * (loud * tones + noise * rng.normal(size=t.size))).astype("<i2").tobytes())


def spectrogram(path, rng):
    """(frames, bands), numbers of size about 1: the sound, at a random moment within SECONDS of silence."""
    samples, _ = fn.data.read_wav(path)
    moments = np.zeros(int(RATE * SECONDS), np.float32)
    sound = samples[: len(moments), 0]
    start = rng.integers(len(moments) - len(sound) + 1)
    moments[start : start + len(sound)] = sound
    return fn.data.log_mel(moments, RATE) / 5 + 2


make, times = (speak, 1) if shutil.which("espeak-ng") else (dial, 3)
rng, sets = np.random.default_rng(0), {True: [], False: []}
with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/sound.wav"
    for voice in VOICES:
        for digit in times * list(range(10)):
            make(path, digit, voice, rng)
            sets[voice in UNHEARD].append((spectrogram(path, rng), np.int32(digit)))
train, unheard = (tuple(map(np.stack, zip(*sets[key], strict=True))) for key in (False, True))

layers = fn.layers
model = layers.serial(
    layers.conv(32, (5,)), layers.relu(), layers.max_pool((2,)),
    layers.conv(64, (5,)), layers.relu(), layers.max_pool((2,)),
    layers.global_max_pool(), layers.dropout(0.3), layers.dense(10),
)  # fmt: skip
optimizer = fn.optimizers.adam(1e-3)
*_, last = fn.training.fit(model, fn.losses.softmax_cross_entropy, optimizer, train, epochs=30, batch_size=10)

params, state = last.state.optimizer.params, last.state.model
logits, _ = model.apply(params, state, unheard[0])
for digit, word in enumerate(WORDS):
    answers = np.asarray(logits.argmax(-1))[unheard[1] == digit]
    print(f"{word:6}" + "".join(f"{count or '·':>4}" for count in np.bincount(answers, minlength=10)))
print(f"{make.__name__}: {np.mean(logits.argmax(-1) == unheard[1]):.1%} of {len(logits)} digits in unheard voices")
