"""Measure the best that the machine can do: the rate of matrix products and the bandwidth of its memory."""

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

PEERS = ("jax", "jaxlib", "flax", "optax", "equinox", "torch", "numpy")
SIDES = (512, 1024, 2048)
MEGABYTES = (4, 16, 64, 256)


class Machine(NamedTuple):
    """Measured in float32 through XLA, which reaches higher rates than NumPy and torch."""

    flops: float  #: per second, of the best product of square matrices
    bandwidths: dict[int, float]  #: working set in MB -> bytes per second; two reads and a write for each number

    def bandwidth(self, size: float) -> float:
        """Bytes per second when `size` bytes are used again and again."""
        at_least = [megabytes for megabytes in self.bandwidths if size <= megabytes * 1e6]
        return self.bandwidths[min(at_least, default=max(self.bandwidths))]


def measure() -> Machine:
    """Measure this machine, in a few seconds."""
    flops = max(2 * side**3 / _seconds(jax.jit(jnp.matmul), *_squares(side)) for side in SIDES)
    return Machine(flops, {megabytes: _bandwidth(megabytes) for megabytes in MEGABYTES})


def description() -> dict[str, str]:
    """The machine and the versions, in words."""
    words = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }
    words["Python"] = platform.python_version()
    for name in PEERS:
        try:
            words[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            words[name] = "not installed"
    return words


def _squares(side):
    return jax.random.normal(jax.random.key(0), (2, side, side))


def _bandwidth(megabytes):
    """The bandwidth of p ← p − 0.1 g."""
    size = int(megabytes * 1e6 / 8)
    p, g = jnp.ones(size), jnp.ones(size)
    # Many in one call, so that the allocation of new memory does not count.
    update = jax.jit(lambda repeats, p, g: jax.lax.fori_loop(0, repeats, lambda _, p: p - 0.1 * g, p))
    few, many = 1, 1 + max(8, 256 // megabytes)
    return 12 * size * (many - few) / (_seconds(update, many, p, g) - _seconds(update, few, p, g))


def _seconds(function, *args):
    """The shortest of several times, because a disturbed run does not show the machine's best."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(15):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return min(times)


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
