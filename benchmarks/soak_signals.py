"""Runs that get a signal, or lose their terminal, at a random time: figures of docs/reliability.md. It takes minutes.

python -m benchmarks.soak_signals [--times 60] [--launched 6]
"""

import fcntl
import os
import pty
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tyro

from funcnet import checkpoints

OPTIONS = ["--model", "mlp", "--hidden", "32", "--epochs", "20", "--batch-size", "64"]
FILES = ("weights.safetensors", "metrics.csv", "curves.png", "confusion.png")
KINDS = ("SIGINT", "SIGTERM", "SIGHUP", "terminal")


def main(times: int = 60, launched: int = 6, seed: int = 0) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rng = random.Random(seed)
        signals(Path(folder), "train", ["train", *OPTIONS], times, rng)
        signals(Path(folder), "launch", ["launch", "-n", "2", "--", "train", *OPTIONS], launched, rng)


def signals(place: Path, name: str, command: list[str], times: int, rng: random.Random) -> None:
    """Every run ends by itself, with the status of its signal or 0, and is finished or goes on to the same weights."""
    whole, found = place / f"whole-{name}", Counter()
    took, status, _ = run([*command, "--output", str(whole)], "SIGINT", None)
    assert status == 0
    for number in range(times):
        folder, kind = place / f"{name}-{number}", KINDS[number % len(KINDS)]
        at = took * rng.random()
        _, status, said = run([*command, "--output", str(folder)], kind, at)
        end = "finished" if all((folder / file).exists() for file in FILES) else "stopped"
        if end == "stopped" and not (folder / "config.toml").exists():
            end = "stopped before it began"
        number = signal.SIGHUP if kind == "terminal" else signal.Signals[kind]
        about = f"{kind} after {at:.2f} of {took:.2f} s: {end}, status {status}\n{said}"
        assert status in (0, -number, 128 + number), about
        assert status != 0 or end != "stopped before it began", about
        if end == "stopped":
            _, resumed, said = run(["train", "--resume", str(folder)], kind, None)
            assert resumed == 0, f"{about}\nthen {resumed}\n{said}"
        if end != "stopped before it began" and name == "train":
            params, own = (checkpoints.load_weights(place / "weights.safetensors")[0] for place in (whole, folder))
            assert all(np.array_equal(leaf, own[path]) for path, leaf in params.items()), about
        found[end, status == 0] += 1
        shutil.rmtree(folder, ignore_errors=True)
        print(".", end="", flush=True)
    print(f"\n{name}: {times} signals within {took:.1f} s")
    for (end, well), count in sorted(found.items()):
        print(f"  {count} {end}, with the status {'0' if well else 'of the signal'}")


def run(arguments: list[str], kind: str, at: float | None) -> tuple[float, int, str]:
    """Run the command in a terminal of its own, and do something to it after `at` seconds."""
    ours, its = pty.openpty()
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "funcnet.cli", *arguments], stdin=its, stdout=its, stderr=its, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(its)
    said: list[bytes] = []
    closing = threading.Event()
    reader = threading.Thread(target=_read, args=(ours, said, closing))
    reader.start()
    try:
        if at is not None:
            time.sleep(at)
            if kind == "terminal":
                closing.set()
                reader.join()
                os.close(ours)
            elif child.poll() is not None:
                pass
            elif kind == "SIGINT":
                os.write(ours, b"\x03")  # Ctrl-C: the terminal tells the whole group of processes
            else:
                child.send_signal(signal.Signals[kind])
        status = child.wait(timeout=120)
    finally:
        child.kill()
        if not closing.is_set():
            closing.set()
            reader.join()
            os.close(ours)
    lines = b"".join(said).decode(errors="replace").splitlines()
    return time.monotonic() - started, status, "\n".join(line[-200:] for line in lines[-20:])


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read(terminal: int, said: list[bytes], closing: threading.Event) -> None:
    """Read what is written to a terminal, until nobody can write or it is to be closed."""
    while not closing.is_set():
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                said.append(os.read(terminal, 2**16))
            except OSError:  # nobody has it open any more
                break


if __name__ == "__main__":
    tyro.cli(main)
