"""Long or disturbed runs on several devices and processes, for the figures of docs/reliability.md.

python -m benchmarks.soak_parallel losses          # 100 steps on 1, 2, 4, 8 devices and 2 processes
python -m benchmarks.soak_parallel steps           # 10 000 steps without waiting in between, on 2, 4, 8 devices
python -m benchmarks.soak_parallel kills [--kills 50] [--sharding fsdp]    # kills either process; takes minutes
python -m benchmarks.soak_parallel parts [--flips 5000] [--cuts 500]    # damages the files that two processes wrote
"""

import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import tyro

from funcnet.checkpoints import folder as checkpoint

STEPS = """
import sys, time, jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import funcnet as fn
x, target = (rows[:1024] for rows in fn.data.digits())
layout = fn.parallel.layout(fn.parallel.mesh(), flat=sys.argv[2] == "flat")
start = time.perf_counter()
*_, last = fn.training.fit(
    fn.models.mlp((32, 10)), fn.losses.softmax_cross_entropy, fn.optimizers.adam(1e-3), (x, target), layout=layout,
    epochs=313, batch_size=32, report_steps=10_016, engine="backprop")
seconds = time.perf_counter() - start
print(f"{sys.argv[1]} devices, {sys.argv[2]}: {last.step} steps in {seconds:.1f} s, loss {last.metrics['loss']:.4f}")
"""
RUN = ["train", "--model", "mlp", "--hidden", "32", "--dropout", "0.1", "--batch-size", "32"]


def main(
    what: tyro.conf.Positional[Literal["losses", "steps", "kills", "parts"]],
    kills: int = 50,
    seed: int = 0,
    sharding: Literal["replicate", "fsdp"] = "replicate",
    flips: int = 5_000,
    cuts: int = 500,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if what == "parts":
            damage(Path(folder) / "run", flips, cuts, random.Random(seed))
        else:
            {"losses": losses, "steps": steps, "kills": kill}[what](Path(folder), kills, random.Random(seed), sharding)


def funcnet(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "funcnet.cli", *map(str, arguments)], stderr=subprocess.PIPE, text=True, **options
    )


def losses(folder: Path, *_) -> None:
    """Three epochs of 45 steps: training and validation loss of each, and the last weights."""
    runs = {f"1 process, {n} devices": (*RUN, "--devices", n) for n in (1, 2, 4, 8)}
    runs |= {"1 process, 4 devices, fsdp": (*RUN, "--devices", 4, "--sharding", "fsdp")}
    runs |= {f"2 processes, {n} devices each": ("launch", "-n", 2, "--", *RUN, "--devices", n) for n in (1, 2)}
    found, weights = {}, {}
    for name, arguments in runs.items():
        output = folder / name.replace(" ", "_")
        child = funcnet(*arguments, "--epochs", 3, "--output", output, stdout=subprocess.DEVNULL)
        error = child.communicate()[1]
        assert child.returncode == 0, error
        with (output / "metrics.csv").open() as file:
            found[name] = [float(row[key]) for row in csv.DictReader(file) for key in ("loss", "validation_loss")]
        weights[name] = (output / "weights.safetensors").read_bytes()
    first, *_ = runs
    for name in runs:
        pairs = zip(found[name], found[first], strict=True)
        print(f"{name:28} losses within {max(abs(a - b) for a, b in pairs):.1e} of those of {first}")
    for one, other in (
        ("1 process, 2 devices", "2 processes, 1 devices each"),
        ("1 process, 4 devices", "2 processes, 2 devices each"),
    ):
        print(f"{one} and {other}: weights {'equal bit for bit' if weights[one] == weights[other] else 'DIFFER'}")


def steps(*_) -> None:
    for way in ("flat", "automatic"):
        for devices in (2, 4, 8):
            subprocess.run([sys.executable, "-c", STEPS, str(devices), way], check=True, timeout=600)


def kill(folder: Path, kills: int, rng: random.Random, sharding: str) -> None:
    """One run of two processes, one of which is killed again and again; then one run without kills."""
    # FSDP leaves arrays below 64 KB whole.
    wide = ("--hidden", 512) if sharding == "fsdp" else ()
    long = (*RUN, *wide, "--sharding", sharding, "--epochs", 25 * kills, "--keep-checkpoints", 2)
    launched = funcnet("launch", "-n", 2, "--max-restarts", kills + 5, "--", *long, "--output", folder / "killed")
    history, waits = folder / "killed" / "metrics.csv", []
    for _ in range(kills):
        before = rows(history)
        while rows(history) < before + 2:  # training: two more epochs are written
            assert launched.poll() is None, f"it ended before it was killed so often: {launched.communicate()[1]}"
            time.sleep(0.01)
        time.sleep(rng.random())
        before, started = rows(history), time.monotonic()
        os.kill(child_of(launched.pid, rng.randrange(2)), signal.SIGKILL)
        while rows(history) <= before + 1:  # one that had begun may still be written
            assert launched.poll() is None, f"it ended before it was killed so often: {launched.communicate()[1]}"
            time.sleep(0.01)
        waits.append(time.monotonic() - started)
    error = launched.communicate()[1]
    assert launched.returncode == 0, error
    print(f"{kills} kills; training again after {sorted(waits)[len(waits) // 2]:.1f} s, {max(waits):.1f} s at most")
    alone = funcnet(*long, "--devices", 2, "--output", folder / "whole", stdout=subprocess.DEVNULL)
    assert alone.wait() == 0
    same = [(folder / run / "weights.safetensors").read_bytes() for run in ("killed", "whole")]
    print(f"final weights: {'equal bit for bit' if same[0] == same[1] else 'DIFFER'}")


def damage(run: Path, flips: int, cuts: int, rng: random.Random) -> None:
    """Flip a bit of a checkpoint that two processes wrote together, or cut a file, anywhere in its bytes."""
    wide = (*RUN, "--hidden", 512, "--sharding", "fsdp", "--epochs", 1, "--keep-checkpoints", 1)
    child = funcnet("launch", "-n", 2, "--", *wide, "--output", run, stdout=subprocess.DEVNULL)
    error = child.communicate()[1]
    assert child.returncode == 0, error
    (path,) = (run / "checkpoints").glob("[0-9]*")
    manifest = checkpoint.read_manifest(path)
    owners = {f"shards/{entry.folder}": leaf for leaf, entry in manifest.spread.items()}
    parts = {name: (path / name).read_bytes() for name in manifest.files if name.startswith("shards/")}
    assert any("/kernel" in leaf for leaf in owners.values()), owners
    seen = named = 0
    for i in range(flips + cuts):
        name = rng.choices(list(parts), [len(data) for data in parts.values()])[0]
        data, at = parts[name], rng.randrange(len(parts[name]))
        changed = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if i < flips else data[:at]
        (path / name).write_bytes(changed)
        problem = checkpoint.problem_of(path)
        (path / name).write_bytes(data)
        seen += problem is not None
        owner = owners.get(name.rpartition("/")[0])
        whose = name if owner is None else f"{name}, a part of tensor {owner},"
        named += problem is not None and whose in problem
    assert checkpoint.problem_of(path) is None
    size = sum(map(len, parts.values()))
    print(f"{len(parts)} files of parts, {size:,} bytes: {flips} flipped bits and {cuts} truncations:", end=" ")
    print(f"{seen} seen, {named} with the right file and tensor named")


def rows(history: Path) -> int:
    return len(history.read_text().splitlines()) if history.exists() else 0


def child_of(launcher: int, number: int) -> int:
    """The id of a process of the launcher, which may still be starting it."""
    while True:
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_text().split("\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == launcher and words[-3:-1] == ["--process-id", str(number)]:
                return int(entry.name)


if __name__ == "__main__":
    tyro.cli(main)
