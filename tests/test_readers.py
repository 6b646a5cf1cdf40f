"""Every reader of files against mutated bytes: what is not read is refused with one of funcnet's errors, and no other.

200 mutants of each file here; `pytest tests/test_readers.py --seeds 500` makes 100 000.
"""

import copy
import functools
import gzip
import json
import os
import random
import shutil
import socket
import warnings
import wave
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from image_files import IMAGES, idx_bytes

import funcnet as fn
from funcnet.checkpoints import manifest as manifests
from funcnet.checkpoints.folder import read
from funcnet.checkpoints.manifest import parse
from funcnet.cli.config_file import read_config, write_config
from funcnet.cli.history import History
from funcnet.cli.jobs import inspect_checkpoints
from funcnet.cli.options import Checkpoints, Train
from funcnet.cli.sessions import read_sessions, timed
from funcnet.data.arrays import read_npz, read_rows
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
    path = fn.checkpoints.save(folder, REPORT) / "manifest.json"

    def sealed(path):
        try:
            content = json.loads(path.read_bytes())
            content.pop("sha256", None)
            path.write_bytes(manifests._seal(content))
        except (ValueError, AttributeError, TypeError, RecursionError):
            pass
        parse("manifest.json", path.read_bytes())
        read(path.parent)

    return path, sealed


def exported(folder):
    file = fn.deployment.export_model(fn.layers.tanh(), (), (), jnp.ones((1, 2)))
    (folder / "model.stablehlo").write_bytes(file)
    return folder / "model.stablehlo", fn.deployment.load_exported


def config(folder):
    write_config(Train(patience=3, clip_norm=1.0), folder / "config.toml")
    return folder / "config.toml", read_config


def history(folder):
    path = folder / "metrics.csv"
    path.write_text("epoch,step,loss,learning_rate\n1,10,0.5,0.1\n2,20,0.25,0.1\n")
    return path, lambda path: History(path, fn.schedules.constant(0.1)).read(20)


def arrays(folder):
    np.savez(folder / "data.npz", x=np.ones((3, 2), np.float32), target=np.arange(3))
    return folder / "data.npz", read_npz


def packed_arrays(folder):
    np.savez_compressed(folder / "data.npz", x=np.ones((3, 2), np.float32), target=np.arange(3))
    return folder / "data.npz", read_npz


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
    return folder / "sessions.jsonl", lambda path: [session.steps_per_second for session in read_sessions(path)[0]]


READERS = {
    weights: CheckpointError,
    weights_in_a_tree: CheckpointError,
    checkpoint_tensors: CheckpointError,
    checkpoint_manifest: CheckpointError,
    manifest_with_a_right_seal: CheckpointError,
    exported: DataError,
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


# Files that are none, or that never end


def pipe(path, elsewhere):
    os.mkfifo(path)


def endless(path, elsewhere):
    path.symlink_to("/dev/zero")


def circle(path, elsewhere):
    path.symlink_to(path)


def nowhere(path, elsewhere):
    path.symlink_to(elsewhere / "nothing")


def a_folder(path, elsewhere):
    path.mkdir()


def a_socket(path, elsewhere):
    place = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(path.name)
    os.chdir(place)


def huge(path, elsewhere):
    """A terabyte of zeros, which takes no room on the disk."""
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def huge_with_its_ends(path, elsewhere):
    """A terabyte that begins and ends as a good file does."""
    data = (elsewhere / path.name).read_bytes()
    with open(path, "wb") as file:
        file.write(data)
        file.seek((1 << 40) - len(data))
        file.write(data)


def link(path, elsewhere):
    """A link to the good file, which nobody has put into the folder of a checkpoint."""
    path.symlink_to(elsewhere / path.name)


CHECKED = [weights, weights_in_a_tree, checkpoint_tensors, checkpoint_manifest, exported]
KINDS = [pipe, endless, circle, nowhere, a_folder, a_socket, huge, huge_with_its_ends, link]


@pytest.mark.skipif(os.name != "posix", reason="makes files of POSIX")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("maker", CHECKED, ids=lambda maker: maker.__name__)
def test_what_is_no_plain_file_or_does_not_end_is_refused_at_once(tmp_path, maker, kind):
    (tmp_path / "elsewhere").mkdir()
    path, reader = maker(tmp_path)
    path.rename(tmp_path / "elsewhere" / path.name)
    kind(path, tmp_path / "elsewhere")
    if kind is link and maker not in (checkpoint_tensors, checkpoint_manifest):
        reader(path)  # the user named it
        return
    with pytest.raises(READERS[maker], match=r"cannot be read|expected|is damaged"):
        reader(path)


@pytest.mark.parametrize("read", [fn.checkpoints.load_weights, fn.deployment.load_exported])
def test_a_device_is_refused(read):
    with pytest.raises((CheckpointError, DataError), match="expected a plain file, got a device: '/dev/zero'"):
        read("/dev/zero")


# Manifests that were made up: the seal is right, and any entry is something else

NASTY = [
    None, True, -1, 0, 1.5, float("nan"), 2**63, 10**400, "", "text", "../../x", "shards/../../x", "/dev/zero",
    "\ud800", [], [1] * 71, [0, 2**62, 2**62], [[]], {}, {"loss": "text"}, {"a": {}},
]  # fmt: skip


def places(tree, path=()):
    """The paths of all entries of a tree of JSON."""
    yield from [path] if path else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, entry in items:
        yield from places(entry, (*path, key))


def forged(rng, content):
    """The content with one to three entries changed, taken out or put in under another name."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        *path, last = rng.choice(list(places(content)))
        parent = functools.reduce(lambda tree, key: tree[key], path, content)
        kind = rng.randrange(4)
        if kind == 0:
            del parent[last]
        elif kind == 1 and isinstance(parent, dict):
            other = rng.choice(["b", "loss", "shards/0/0.0", "shards/../../x", "state.safetensors"])
            parent[other] = copy.deepcopy(parent[last])
        else:
            parent[last] = copy.deepcopy(rng.choice(NASTY))
    return content


def read_in_every_way(folder):
    """All that looks at checkpoints: what it does not take is refused with an error of funcnet, and said in a table."""
    like = {"params": PARAMS, "step": jnp.int32(0)}
    for bytes_too in (True, False):
        assert len(fn.checkpoints.verify(folder, bytes_too=bytes_too)) == 2
    inspect_checkpoints(Checkpoints("list", folder))
    list(fn.checkpoints.saving(iter([REPORT._replace(step=30)]), folder, keep=9, monitor="loss"))
    shutil.rmtree(folder / "00000030")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        return fn.checkpoints.restore(folder, like)[0].step


def test_manifests_that_were_made_up_are_read_or_refused(tmp_path, request, capsys):
    fn.checkpoints.save(tmp_path, REPORT)
    path = fn.checkpoints.save(tmp_path, REPORT._replace(step=20), metadata={"shape": [3], "classes": 3})
    content = json.loads((path / "manifest.json").read_text())
    del content["sha256"]
    rng, counts = random.Random(0), {10: 0, 20: 0, None: 0}
    for _ in range(150 * request.config.getoption("--seeds")):
        (path / "manifest.json").write_bytes(manifests._seal(forged(rng, content)))
        try:
            counts[read_in_every_way(tmp_path)] += 1
        except CheckpointError:
            counts[None] += 1
        capsys.readouterr()
    assert min(counts[10], counts[20]) >= 5
