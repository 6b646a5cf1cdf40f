"""Whether a step fits into memory. The compiled program knows it before the first step."""

import re
from pathlib import Path
from typing import Any

from funcnet.errors import OutOfMemoryError

__all__ = ["check_memory", "free_bytes"]


def check_memory(compiled: Any, device: Any, batch_size: int) -> None:
    """Raise unless the device has room for what a program needs in addition to the arrays that are already there."""
    analysis, free = compiled.memory_analysis(), free_bytes(device)
    if analysis is None or free is None:  # not every backend knows
        return
    temporary = analysis.temp_size_in_bytes
    needed = temporary + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    if needed > free:
        raise OutOfMemoryError(
            f"a step needs {_gib(needed)} of memory ({_gib(temporary)} for intermediate arrays) besides the "
            f"{_gib(analysis.argument_size_in_bytes)} of state and data, and {device} has {_gib(free)} free; take a "
            f"batch_size below {batch_size}, accumulate= to compute each batch in parts, or layers.recompute around "
            "the layers that keep most (summaries.summary shows which)."
        )


def free_bytes(device: Any) -> int | None:
    """The free memory of a device in bytes, or `None` if that is not known."""
    statistics = device.memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    if device.platform != "cpu":
        return None
    known = [free for free in (_free_of_machine(), _free_of_group()) if free is not None]
    return min(known, default=None)


def _free_of_machine() -> int | None:
    if not (path := Path("/proc/meminfo")).exists():
        return None
    found = re.search(r"MemAvailable:\s*(\d+) kB", path.read_text())
    return None if found is None else 1024 * int(found[1])


def _free_of_group() -> int | None:
    """What the process's control group may still use, if a container or a batch system sets a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (group / "memory.max").read_text(), (group / "memory.current").read_text()
        return None if most.strip() == "max" else int(most) - int(used)
    except (OSError, ValueError):
        return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
