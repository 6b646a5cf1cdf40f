"""How checkpoints survive damage and kills, and what they cost: the figures of docs/reliability.md. It takes minutes.

python -m benchmarks.soak_checkpoints [--flips 10000] [--cuts 1000] [--kills 200] [--folders 500] [--pairs 50]
"""

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tyro

import funcnet as fn
from funcnet.checkpoints.folder import problem_of

WRITER = """
import sys, jax.numpy as jnp, funcnet as fn
folder, first = sys.argv[1], int(sys.argv[2])
state = {str(i): jnp.arange(200_000.0) for i in range(5)}
print("ready", flush=True)
for step in range(first, 10**8):
    fn.checkpoints.save(folder, fn.Report(1, step, {}, state))
    print(step, flush=True)
"""

RUN = """
import sys, jax.numpy as jnp, funcnet as fn
folder, before = sys.argv[1], fn.checkpoints.steps(sys.argv[1])
state = {str(i): jnp.arange(200_000.0) for i in range(5)}
print("ready", flush=True)
sys.stdin.readline()
first = before[-1] + 1 if before else 0
reports = (fn.Report(1, step, {}, state) for step in range(first, 10**8))
try:
    for report in fn.checkpoints.saving(reports, folder, keep=10**6):
        print(report.step, flush=True)
except fn.errors.CheckpointError as error:
    print(error, flush=True)
"""


def main(
    flips: int = 10_000, cuts: int = 1_000, kills: int = 200, folders: int = 500, pairs: int = 50, seed: int = 0
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        damage(Path(folder) / "damage", flips, cuts, random.Random(seed))
        killed(Path(folder) / "kills", kills, random.Random(seed))
        shared(Path(folder) / "shared", folders, random.Random(seed))
        two_writers(Path(folder) / "writers", pairs, random.Random(seed))
        cost(Path(folder) / "cost")


def damage(folder: Path, flips: int, cuts: int, rng: random.Random) -> None:
    model, optimizer = fn.models.mlp((32, 32, 10)), fn.optimizers.adam(1e-3)
    state = fn.training.create_state(model, optimizer, 0, jnp.zeros((1, 64)))
    path = fn.checkpoints.save(folder, fn.Report(1, 1, {"loss": 0.5}, state), metadata={"options": "none"})
    leaves = json.loads((path / "manifest.json").read_text())["leaves"]
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    seen = named = 0
    for i in range(flips + cuts):
        name = rng.choices(list(files), [len(data) for data in files.values()])[0]
        data, at = files[name], rng.randrange(len(files[name]))
        changed = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if i < flips else data[:at]
        (path / name).write_bytes(changed)
        problem = problem_of(path)
        (path / name).write_bytes(data)
        seen += problem is not None
        hit = [leaf for leaf, place in leaves.items() if place["start"] <= at < place["start"] + place["bytes"]]
        in_tensor = name != "manifest.json" and hit
        expected = f"tensor {hit[0]} " if in_tensor and i < flips else "tensor" if in_tensor else name
        named += problem is not None and name in problem and expected in problem
    assert problem_of(path) is None
    print(f"{flips} flipped bits and {cuts} truncations: {seen} seen, {named} with the right file and tensor named")


def killed(folder: Path, kills: int, rng: random.Random) -> None:
    first = half_written = 0
    for _ in range(kills):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.1 * rng.random())
        child.send_signal(signal.SIGKILL)
        written = child.communicate()[0].split()
        found = fn.checkpoints.steps(folder)
        assert found == list(range(len(found))), found
        assert not written or int(written[-1]) <= found[-1], "a checkpoint that was reported written is lost"
        assert all(problem_of(folder / f"{step:08d}") is None for step in found[first:])
        half_written += len(list(folder.glob("*.tmp-*")))
        fn.checkpoints.saving(iter([]), folder)
        assert len(os.listdir(folder)) == len(found) + 1  # and the lock
        first = len(found)
        if first > 500:  # start again: the disk is small
            shutil.rmtree(folder)
            first = 0
    print(f"{kills} kills: nothing lost; {half_written} left something half written, which the next start took away")


def two_writers(folder: Path, pairs: int, rng: random.Random) -> None:
    """Two processes that begin to write at once. The one that may is killed, and the next pair has the folder."""
    first = 0
    for _ in range(pairs):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", RUN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        heard = [child.stdout.readline() for child in children]
        (holder,) = (child for child, line in zip(children, heard, strict=True) if line == f"{first}\n")
        (refused,) = (line for line in heard if line != f"{first}\n")
        assert "expected no other process to write there, got" in refused, refused
        time.sleep(0.1 * rng.random())
        holder.kill()
        written = [first, *(int(step) for step in holder.communicate()[0].split())]
        for child in children:
            child.wait()
        found = fn.checkpoints.steps(folder)
        assert found == list(range(len(found)))
        assert len(found) >= written[-1]  # the last one may still have been on its way
        assert all(problem_of(folder / f"{step:08d}") is None for step in found[first:])
        first = len(found)
    print(f"{pairs} pairs of writers: each time one was refused by name, and nothing of the other was lost or damaged")


def shared(folder: Path, folders: int, rng: random.Random) -> None:
    """Folders in which good checkpoints, damaged ones, half-written ones and what others put there are mixed."""
    strangers = deleted = 0
    for _ in range(folders):
        good = [step for step in rng.sample(range(1, 100), 6) if _filled(folder, step, rng) == "good"]
        before = {path: _look(path) for path in _strangers(folder, rng)}
        keep, first = rng.randint(1, 3), max(good, default=0) + 1
        good += range(first, first + 3)
        for _ in fn.checkpoints.saving(iter([_report(step) for step in good[-3:]]), folder, keep=keep):
            pass
        there = [step for step in fn.checkpoints.steps(folder) if problem_of(folder / f"{step:08d}") is None]
        assert there == sorted(good)[-keep:], (there, good, keep)
        for path, look in before.items():
            aside = [path, *folder.glob(f"{path.name}.damaged-*")]  # where a new checkpoint took its name
            assert any(_look(one) == look for one in aside), path
        strangers += len(before)
        deleted += len(good) - keep
        shutil.rmtree(folder)
    print(
        f"{folders} folders with {strangers} files, folders, links and damaged checkpoints of others: none of them was "
        f"changed or deleted; {deleted} good checkpoints were deleted, and the newest good ones stayed"
    )


def _filled(folder: Path, step: int, rng: random.Random) -> str:
    """Write a checkpoint; in half of the cases damage it."""
    path, kind = fn.checkpoints.save(folder, _report(step)), rng.choice(["good", "good", "damaged", "left"])
    if kind == "damaged":
        (path / "state.safetensors").write_bytes(b"")
    elif kind == "left":
        (path / "notes.txt").write_text("mine")
        (path / "manifest.json").unlink()
    return kind


def _strangers(folder: Path, rng: random.Random) -> list[Path]:
    """What is not of this run: files, folders and links with the names that users and programs choose."""
    numbers = [str(rng.randrange(10 ** rng.randrange(1, 12))) for _ in range(6)]
    stems = [*numbers, *(f"{int(number):08d}" for number in numbers), "thesis", "notes"]
    found = [folder / f"{stem}{rng.choice(['', '.tmp-draft', '.tmp-1', '.damaged-1', '.bak'])}" for stem in stems]
    found = [path for path in dict.fromkeys(found) if not os.path.lexists(path)]
    for path in found:
        kind = rng.choice(["file", "folder", "link", "nowhere"])
        if kind == "file":
            path.write_text("mine")
        elif kind == "folder":
            path.mkdir()
            (path / "notes.txt").write_text("mine")
        else:
            path.symlink_to(folder.parent if kind == "link" else "nowhere")
    damaged = [path for path in folder.iterdir() if path not in found and problem_of(path) is not None]
    return found + damaged


def _look(path: Path) -> object:
    """Everything that a change of it would change; `None` if it is not there."""
    if not os.path.lexists(path):
        return None
    if path.is_symlink():
        return os.readlink(path)
    return path.read_bytes() if path.is_file() else {one.name: one.read_bytes() for one in path.iterdir()}


def _report(step: int) -> fn.Report:
    return fn.Report(1, step, {"loss": 1.0}, {"kernel": jnp.ones(2)})


def cost(folder: Path) -> None:
    for leaves, side in ((10, 100), (10, 1600), (20, 2500)):
        state = {str(i): jnp.asarray(np.random.default_rng(i).random((side, side), np.float32)) for i in range(leaves)}
        times: dict[str, list[float]] = {"plain": [], "synced": [], "save": [], "restore": []}
        for step in range(9):
            folder.mkdir(parents=True)
            times["plain"].append(timed(lambda state=state: plain(state, folder / "plain")))
            times["synced"].append(timed(lambda state=state: synced(state, folder / "synced")))
            report = fn.Report(1, step, {}, state)
            times["save"].append(timed(lambda report=report: fn.checkpoints.save(folder / "own", report)))
            times["restore"].append(timed(lambda state=state: fn.checkpoints.restore(folder / "own", state)))
            shutil.rmtree(folder)
        median = {name: statistics.median(values[2:]) for name, values in times.items()}
        size = leaves * side * side * 4 / 2**20
        print(
            f"{size:6.1f} MiB: save {1e3 * median['save']:.1f} ms, {median['save'] / median['plain']:.2f} x plain "
            f"safetensors ({median['save'] / median['synced']:.2f} x with fsync), {size / median['save']:.0f} MiB/s; "
            f"restore {1e3 * median['restore']:.1f} ms"
        )


def timed(call) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def plain(state, path: Path) -> None:
    safetensors.numpy.save_file({name: np.asarray(leaf) for name, leaf in state.items()}, path)


def synced(state, path: Path) -> None:
    plain(state, path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    tyro.cli(main)
