"""Chips and topologies of TPUs that need not be here: what a chip can do, and devices to compile for."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from funcnet.errors import ConfigError, extra, translated
from funcnet.made import leading

__all__ = ["CHIPS", "Chip", "chip_of", "topology"]


class Chip(NamedTuple):
    """What one device can do at most, by its maker's data sheet."""

    name: str
    flops: float  #: operations per second, in bfloat16
    memory: int  #: bytes
    bandwidth: float  #: of its memory, in bytes per second
    links: float  #: bytes per second that it sends to the others, over all its links

    def __str__(self) -> str:
        return self.name


#: By the name that jax gives to a device. From docs.cloud.google.com/tpu/docs/v5e, …/v5p and …/v6e, read in November
#: 2026. Those name the links in both directions together; a chip sends in one.
CHIPS = {
    "TPU v5 lite": Chip("v5e", 197e12, 16 * 2**30, 819e9, 200e9),
    "TPU v5": Chip("v5p", 459e12, 95 * 2**30, 2765e9, 600e9),
    "TPU v6 lite": Chip("v6e", 918e12, 32 * 2**30, 1638e9, 400e9),
}


def chip_of(device: Any) -> Chip | None:
    """The chip of a device, or `None` where nothing is known of it."""
    return CHIPS.get(device.device_kind)


def topology(name: str) -> tuple[Any, ...]:
    """The devices of a TPU slice, to compile for. Nothing can run on them, and none must be here.

    Args:
        name: such as `"v5e:2x2"`, `"v6e:4x4"` or `"v5p:2x2x2"`: the kind, and the chips along each axis of the slice.

    They are for `parallel.mesh(devices=…)` and `parallel.forecast`. The compiler is that of the package libtpu, which
    comes with `pip install 'funcnet[tpu]'`. On a machine without a TPU set `JAX_PLATFORMS=cpu`, so that jax does not
    look for one.

    Raises:
        ConfigError: no such topology.
        MissingExtraError: without libtpu.

    References: https://docs.cloud.google.com/tpu/docs/v5e has the slices of a v5e, and the pages beside it the others'.

    >>> import importlib.util, funcnet as fn
    >>> chips = fn.parallel.topology("v5e:2x2") if importlib.util.find_spec("libtpu") else range(4)
    >>> len(chips)
    4
    """
    with leading("topology"):
        with extra("tpu", "libtpu"):
            importlib.import_module("libtpu")
        fix = 'give one such as "v5e:2x2"'
        with _away_from_a_tpu(), translated(jax.errors.JaxRuntimeError, ConfigError, f"no topology {name!r}", fix):
            return tuple(topologies.get_topology_desc(name, "tpu").devices)


@contextmanager
def _away_from_a_tpu() -> Iterator[None]:
    """What libtpu would otherwise ask the machine of a TPU for, and leave for other processes to compile too."""
    said = {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }  # fmt: skip
    new = {name: value for name, value in said.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]
