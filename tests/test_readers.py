"""Every reader of files against mutated bytes: what is not read is refused with one of funcnet's errors, and no other.

200 mutants of each file here; `pytest tests/test_readers.py --seeds 500` makes 100 000.
"""

import gzip
import random
import wave
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from image_files import IMAGES, idx_bytes

import funcnet as fn
from funcnet.checkpoints.folder import read
from funcnet.checkpoints.manifest import parse
from funcnet.cli.folders import History
from funcnet.cli.jobs import read_rows
from funcnet.cli.networks import load_data
from funcnet.cli.options import Train, read_config, write_config
from funcnet.cli.sessions import read_sessions, timed
from funcnet.errors import CheckpointError, ConfigError, DataError

PARAMS = {"0": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
REPORT = fn.Report(1, 10, {"loss": 0.5}, {"params": PARAMS, "step": jnp.int32(10)})


def weights(folder):
    fn.checkpoints.save_weights(folder / "weights", PARAMS, metadata={"classes": 3})
    return folder / "weights", fn.checkpoints.load_weights


def weights_in_a_tree(folder):
    path, _ = weights(folder)
    return path, lambda path: fn.checkpoints.load_weights(path, like=(PARAMS, ()))


def checkpoint_tensors(folder):
    path = fn.checkpoints.save(folder, REPORT)
    return path / "state.safetensors", lambda file: read(file.parent)


def checkpoint_manifest(folder):
    path = fn.checkpoints.save(folder, REPORT)
    return path / "manifest.json", lambda file: read(file.parent)


def manifest_with_a_right_seal(folder):
    """Mutants that get past the seal: the hash made right again."""
    import funcnet.checkpoints.manifest as manifests

    path = fn.checkpoints.save(folder, REPORT) / "manifest.json"

    def sealed(path):
        import json

        try:
            content = json.loads(path.read_bytes())
            content.pop("sha256", None)
            path.write_bytes(manifests._seal(content))
        except (ValueError, AttributeError, TypeError, RecursionError):
            pass
        parse("manifest.json", path.read_bytes())
        read(path.parent)

    return path, sealed


def config(folder):
    write_config(Train(patience=3, clip_norm=1.0), folder / "config.toml")
    return folder / "config.toml", read_config


def history(folder):
    path = folder / "metrics.csv"
    path.write_text("epoch,step,loss,learning_rate\n1,10,0.5,0.1\n2,20,0.25,0.1\n")
    return path, lambda path: History(path, fn.schedules.constant(0.1)).read(20)


def arrays(folder):
    np.savez(folder / "data.npz", x=np.ones((3, 2), np.float32), target=np.arange(3))
    return folder / "data.npz", load_data


def packed_arrays(folder):
    np.savez_compressed(folder / "data.npz", x=np.ones((3, 2), np.float32), target=np.arange(3))
    return folder / "data.npz", load_data


def rows(folder):
    np.save(folder / "rows.npy", np.ones((3, 2), np.float32))
    return folder / "rows.npy", read_rows


def rows_of_text(folder):
    (folder / "rows.csv").write_text("0.5,1\n0.25,2\n")
    return folder / "rows.csv", read_rows


def idx(folder):
    path = folder / "images-idx3-ubyte"
    path.write_bytes(idx_bytes(IMAGES))
    return path, fn.data.read_idx


def packed_idx(folder):
    path = folder / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES), mtime=0))
    return path, fn.data.read_idx


def sound(folder):
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(range(40)))
    return folder / "sound.wav", fn.data.read_wav


def log(folder):
    (folder / "log.jsonl").write_text('{"epoch": 1, "step": 10, "loss": 0.5}\n{"epoch": 2, "step": 20, "loss": null}\n')
    later = fn.Report(3, 30, {"loss": 0.25}, None)
    return folder / "log.jsonl", lambda path: list(fn.logs.write_jsonl([later], path))


def sessions(folder):
    for _ in range(2):
        list(timed([fn.Report(1, 10, {}, None), fn.Report(2, 20, {}, None)], folder / "sessions.jsonl", 0.0))
    return folder / "sessions.jsonl", lambda path: [session.steps_per_second for session in read_sessions(path)]


READERS = {
    weights: CheckpointError,
    weights_in_a_tree: CheckpointError,
    checkpoint_tensors: CheckpointError,
    checkpoint_manifest: CheckpointError,
    manifest_with_a_right_seal: CheckpointError,
    config: ConfigError,
    history: DataError,
    arrays: DataError,
    packed_arrays: DataError,
    rows: DataError,
    rows_of_text: DataError,
    idx: DataError,
    packed_idx: DataError,
    sound: DataError,
    log: DataError,
    sessions: (),  # lines that are none are left out
}


def mutant(rng, data, others):
    """One to three changes: bits, bytes, pieces taken out, put in, repeated or exchanged, numbers made extreme."""
    for _ in range(rng.randint(1, 3)):
        at, n = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 8, 40])
        kind = rng.randrange(8)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + data[at + n :]
        elif kind == 3:
            data = data[:at] + rng.randbytes(n) + data[at:]
        elif kind == 4:
            data = data[:at] + rng.randbytes(n) + data[at + n :]
        elif kind == 5:
            data = data[:at] + data[at : at + n] * rng.choice([2, 3, 50]) + data[at:]
        elif kind == 6:
            data = data[:at] + rng.choice([b"\xff", b"\x00", b"9", b"-", b"[", b'"', b"\x7f"]) * n + data[at + n :]
        else:
            data = data[:at] + rng.choice(others) + data[at:]
    return data


@pytest.mark.parametrize("maker", READERS, ids=lambda maker: maker.__name__)
def test_mutants_are_read_or_refused(tmp_path, maker, request):
    path, reader = maker(tmp_path)
    data, rng = Path(path).read_bytes(), random.Random(maker.__name__)
    others = [b"null", b"1e999", b"NaN", b"{}", b"[]", b'"\\ud800"', "ä".encode(), b"\n", b",", b"99999999999999999999"]
    reader(path)
    refused = 0
    for _ in range(200 * request.config.getoption("--seeds")):
        path.write_bytes(mutant(rng, data, others))
        try:
            reader(path)
        except READERS[maker]:
            refused += 1
    assert refused > 20 or READERS[maker] == ()
