"""Which checkpoints of a folder stay, and the deletion of the others."""

import math
import os
from collections.abc import Callable
from pathlib import Path

from funcnet.checkpoints.files import names_below
from funcnet.checkpoints.folder import MANIFEST, discard, good_manifest, path_of, steps
from funcnet.checkpoints.manifest import Manifest
from funcnet.errors import CheckpointError, translated

__all__ = ["pruning"]


def pruning(name: str, folder: Path, keep: int, monitor: str | None, mode: str) -> Callable[[], None]:
    """A function that deletes good checkpoints, except the newest `keep` and the best.

    Only good ones count. Those that are not finite do not take the place of finite ones: the newest `keep` finite ones
    stay too. A checkpoint is read to its last byte when it is met, and again when a file of it has another size or time
    than it had then.
    """
    read: dict[int, tuple[object, Manifest | None]] = {}

    def manifest_of(step: int) -> Manifest | None:
        look = _look(path_of(folder, step))
        if step not in read or read[step][0] != look:
            read[step] = look, good_manifest(path_of(folder, step))
        return read[step][1]

    def prune() -> None:
        with translated(OSError, CheckpointError, f"{name}: an older checkpoint cannot be deleted"):
            good = {step: manifest for step in steps(folder) if (manifest := manifest_of(step)) is not None}
            finite = {step: manifest for step, manifest in good.items() if not manifest.not_finite}
            kept = {*list(good)[-keep:], *list(finite)[-keep:]}
            kept |= set() if monitor is None else _best(finite, monitor, mode)
            for step in good:
                if step not in kept and _is_as_written(path_of(folder, step), good[step]):
                    discard(path_of(folder, step))
                    del read[step]

    return prune


def _look(path: Path) -> object:
    """The size and the time of change of every file."""
    stats = {name: os.lstat(path / name) for name in names_below(path)}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _is_as_written(path: Path, manifest: Manifest) -> bool:
    """Whether the folder holds nothing that others put into it."""
    return {*names_below(path)} == {MANIFEST, *manifest.files}


def _best(finite: dict[int, Manifest], monitor: str, mode: str) -> set[int]:
    """The step with the best metric, by the rule of `early_stopping`. The set is empty if there are no steps.

    Of several equal ones the first is the best. NaN counts as infinite. The checkpoint of a stop within an epoch does
    not count.
    """
    sign = 1 if mode == "min" else -1
    judged = {step: manifest for step, manifest in finite.items() if not manifest.partial}
    values = {step: manifest.metrics.get(monitor, math.nan) for step, manifest in judged.items()}
    single = {step: sign * value for step, value in values.items() if not isinstance(value, list)}
    ranks = {step: (math.inf if math.isnan(value) else value, step) for step, value in single.items()}
    return {*sorted(ranks, key=lambda step: ranks[step])[:1]}
