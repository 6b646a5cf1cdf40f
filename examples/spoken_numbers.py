"""Whole numbers by ear: two GRUs read the sound of several digits in a row, and nobody says which digit is when.

The loss is CTC. It sums over all the ways in which the digits can lie along the sound. If espeak-ng is installed, it
speaks numbers of two to five digits in twenty voices. Otherwise they are dialled: the two tones of each key of a
telephone, in noise. Five voices are kept for the end, which the network has never heard.
"""

import shutil
import subprocess
import tempfile

import jax
import numpy as np

import funcnet as fn

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
VOICES = [
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Andy", "Annie", "croak", "klatt",
    "linda", "steph", "whisper",
]  # fmt: skip
UNHEARD, EPOCHS, BATCH_SIZE = {"m3", "m6", "f2", "f4", "Annie"}, 15, 20
LOW, HIGH = [941, 697, 697, 697, 770, 770, 770, 852, 852, 852], [1336, *3 * [1209, 1336, 1477]]  # hertz


def speak(digits, voice, rng):
    """(samples, rate)"""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        options = ["-v", f"en+{voice}", "-s", str(rng.integers(130, 200)), "-w", file.name]
        subprocess.run(["espeak-ng", *options, " ".join(WORDS[digit] for digit in digits)], check=True)
        samples, rate = fn.data.read_wav(file.name)
    return samples[:, 0], rate


def dial(digits, voice, rng):
    rate, sounds = 8000, []
    noise, off = np.random.default_rng(VOICES.index(voice)).uniform([0.01, 0.97], [0.05, 1.03])
    for digit in digits:
        t = np.arange(int(rate * rng.uniform(0.1, 0.3))) / rate
        tones = np.sin(2 * np.pi * off * LOW[digit] * t) + np.sin(2 * np.pi * off * HIGH[digit] * t)
        sounds += [0.2 * tones, np.zeros(int(rate * rng.uniform(0.03, 0.1)))]
    sound = np.concatenate(sounds)
    return (sound + noise * rng.normal(size=sound.size)).astype(np.float32), rate


def heard(samples, rate):
    """(time, 3 · bands): log-mel spectra, three of them a step, so that a step has 30 ms."""
    frames = fn.data.log_mel(samples, rate) / 5 + 2
    return frames[: len(frames) // 3 * 3].reshape(-1, 3 * frames.shape[1])


make, rng, sets = (speak if shutil.which("espeak-ng") else dial), np.random.default_rng(0), {True: [], False: []}
for voice in VOICES:
    for _ in range(20):
        digits = rng.integers(0, 10, rng.integers(2, 6))
        sets[voice in UNHEARD].append((heard(*make(digits, voice, rng)), digits + 1))  # 0 is CTC's blank
train, unheard = (tuple(map(fn.data.padded, zip(*sets[key], strict=True))) for key in (False, True))

layers, steps = fn.layers, EPOCHS * len(sets[False]) // BATCH_SIZE
model = layers.serial(layers.layer_norm(), layers.bidirectional(layers.gru(64)), layers.dropout(0.2), layers.dense(11))
optimizer = fn.optimizers.clipped(fn.optimizers.adam(fn.schedules.cosine_decay(0.01, steps)), norm=1.0)
fit = fn.training.fit(model, fn.losses.ctc, optimizer, train, engine="backprop", epochs=EPOCHS, batch_size=BATCH_SIZE)
for last in fit:
    print(f"epoch {last.epoch}  loss {last.metrics['loss']:.3f}")

params, state = last.state.optimizer.params, last.state.model
said = fn.metrics.ctc_labels(jax.jit(model.apply)(params, state, unheard[0])[0])
for row in range(0, 100, 20):
    written, read = (np.asarray(of.values[row])[np.asarray(of.where[row])] - 1 for of in (unheard[1], said))
    print("".join(map(str, written)), "is heard as", "".join(map(str, read)))
rate = fn.metrics.edit_distance(normalized=True)
wrong = rate.compute(rate.update(rate.init(), said, unheard[1]))
print(f"{make.__name__}: {1 - wrong:.1%} of the digits of {len(sets[True])} numbers, in unheard voices")
