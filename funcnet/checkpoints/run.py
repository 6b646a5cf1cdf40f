"""A complete run on disk: `save` writes what `fit` reports, and `restore` reads what is needed to continue."""

import os
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet.checkpoints.files import beside
from funcnet.checkpoints.folder import commit, commit_together, good_manifest, path_of, read, steps
from funcnet.checkpoints.locking import held
from funcnet.checkpoints.manifest import Manifest, environment, plain_metrics
from funcnet.checkpoints.shards import are_spread, load, on_first, orbax_module
from funcnet.checkpoints.tensors import as_tensors, restore_tree, safetensors_module, split_keys
from funcnet.checks import check_count, check_kind
from funcnet.errors import CheckpointError, CheckpointWarning, StructureError, translated
from funcnet.made import leading
from funcnet.trees import flatten_with_paths
from funcnet.types import Report

__all__ = ["ELSEWHERE", "Snapshot", "restore", "save", "take", "write"]


def save(folder: str | os.PathLike[str], report: Report, *, metadata: Any = None) -> Path:
    """Write a report as a checkpoint.

    The checkpoint holds the report's state (with the optimizer's slots, the layers' state and the key), its step, epoch
    and metrics, and the position of an iterator of batches. If the state has NaN or infinite numbers, the manifest says
    in which leaves.

    For step 120 it is the folder `folder/00000120`, with the tensors in `state.safetensors` and a manifest that holds
    the SHA-256 of every part of that file: its header and each tensor. When the call returns, the complete checkpoint
    is on the disk. After a crash at any time, it is either complete or absent.

    Args:
        folder: where the checkpoints of the run are. It is made if necessary.
        report: what `fit` yields, or `Report(epoch, step, metrics, state)` of your own.
        metadata: anything that JSON can hold, such as the options of the run.

    Returns: the path of the checkpoint.

    Raises:
        CheckpointError: the checkpoint cannot be written, another process holds the folder, or it already has a good
            and finite checkpoint of that step.
        ConfigError: JSON cannot hold the metadata or the cursor, or they are too large.
        DtypeError: a leaf of the state is not an array, or a metric is not made of numbers.
        StructureError: two leaves have the same path, or one has a name that a file cannot hold.
        MissingExtraError: without `pip install 'funcnet[checkpoint]'`.

    >>> import tempfile, jax, jax.numpy as jnp, funcnet as fn
    >>> state = {"kernel": jnp.ones(2), "key": jax.random.key(0)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fn.checkpoints.save(folder, fn.Report(3, 120, {"loss": jnp.array(0.5)}, state))
    ...     path.name, sorted(file.name for file in path.iterdir())
    ('00000120', ['manifest.json', 'state.safetensors'])
    """
    name = f"checkpoints.save({os.fspath(folder)!r})"
    snapshot = take(name, report, metadata)
    with ExitStack() as stack:
        hold = partial(stack.enter_context, held(name, Path(folder)))
        if snapshot.spread:
            on_first(name, hold)
        else:
            hold()
        return write(name, Path(folder), snapshot)


ELSEWHERE = "go on from it with checkpoints.restore, or choose another folder"


class Snapshot(NamedTuple):
    """A checkpoint on the host, which no later step can change."""

    manifest: Manifest  #: without what is known from the bytes: sizes, hashes, tensors that are not finite
    tensors: dict[str, np.ndarray]
    keys: dict[str, str]  #: which tensors are PRNG keys, and their implementations
    spread: dict[str, jax.Array]  #: arrays that no process has completely, still on their devices


def take(name: str, report: Report, metadata: Any) -> Snapshot:
    """Copy a report to the host."""
    with leading(name):
        check_kind("report", report, Report, "a Report, as fit yields them", error=StructureError)
        step = check_count("report.step", report.step, 0)
        epoch = check_count("report.epoch", report.epoch, 0)
    state, keys = split_keys(report.state)
    metrics = plain_metrics(name, report.metrics)
    manifest = Manifest(
        step, epoch, metrics, report.cursor, metadata, environment(), {}, {}, {}, [], bool(report.partial)
    )
    leaves = dict(flatten_with_paths(state))
    spread = {path: leaf for path, leaf in leaves.items() if are_spread(leaf) and path not in keys}
    if spread:
        orbax_module(name)
    return Snapshot(manifest, as_tensors(name, state, without=spread), keys, spread)


def write(name: str, folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot. What has the name of its checkpoint is set aside, unless it is good and finite: an error."""
    safetensors_module(name)
    if snapshot.spread:
        on_first(name, lambda: _make_way(name, folder, snapshot.manifest.step))
        return commit_together(name, folder, *snapshot)
    _make_way(name, folder, snapshot.manifest.step)
    return commit(name, folder, *snapshot[:3])


def _make_way(name, folder, step):
    path = path_of(folder, step)
    manifest = good_manifest(path) if step in steps(folder) else None
    if manifest is not None and not manifest.not_finite:
        raise CheckpointError(f"{name}: expected no checkpoint of step {step} there, got {path.name}; {ELSEWHERE}.")
    if os.path.lexists(path):
        with translated(OSError, CheckpointError, f"{name}: {path.name} cannot be set aside"):
            os.rename(path, beside(path, "damaged" if manifest is None else "not-finite"))


def restore(folder: str | os.PathLike[str], like: Any, *, step: int | None = None) -> tuple[Report, Any]:
    """The newest good checkpoint in a folder, as the report that was saved, and its metadata.

    `fit(..., state=report.state, cursor=report.cursor)` continues from it. All bytes are compared with their hashes
    before they are used. A damaged checkpoint stays in its place. A `CheckpointWarning` says what is wrong with it, and
    the next older one is taken. The same holds for a good checkpoint whose state has NaN or infinite numbers, because
    training cannot continue from them. It is restored, with a warning, if all are like that or if `step` names it.

    Args:
        folder: where `save` or `saving` wrote.
        like: a tree like the state to restore, of arrays or `jax.ShapeDtypeStruct`s, for example from
            `training.create_state`. Leaves that are bound to devices are restored there, however many devices wrote
            them.
        step: which one to take; by default the newest good one whose numbers are finite.

    Raises:
        CheckpointError: no checkpoint was found, or every one found is damaged (each is listed with its reason), or its
            leaves are not those of `like` (missing, unexpected and mis-shaped ones are listed).

    >>> import tempfile, jax.numpy as jnp, funcnet as fn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in (10, 20):
    ...         _ = fn.checkpoints.save(folder, fn.Report(1, step, {}, {"kernel": jnp.full(2, step)}), metadata="mine")
    ...     report, metadata = fn.checkpoints.restore(folder, like={"kernel": jnp.zeros(2, int)})
    >>> report.step, report.state, metadata
    (20, {'kernel': Array([20, 20], dtype=int32)}, 'mine')
    """
    name = f"checkpoints.restore({os.fspath(folder)!r})"
    found = steps(folder)
    with leading(name):
        wanted = found[::-1] if step is None else [check_count("step", step, 0)]
    if not found or not set(wanted) <= set(found):
        there = f"those of steps {', '.join(map(str, found))}" if found else "none"
        which = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        raise CheckpointError(f"{name}: expected {which} in the folder, got {there}.")
    manifest, tensors = _newest(name, Path(folder), wanted)
    tensors |= load(name, path_of(Path(folder), manifest.step), manifest.spread, dict(flatten_with_paths(like)))
    keys = {leaf: at.key for leaf, at in manifest.leaves.items() if at.key is not None}
    stored = f"the leaves of step {manifest.step}"
    state = restore_tree(name, "the expected state", like, stored, tensors, keys)
    restored = Report(manifest.epoch, manifest.step, manifest.metrics, state, manifest.cursor, manifest.partial)
    return restored, manifest.metadata


def _newest(name: str, folder: Path, wanted: list[int]) -> tuple[Manifest, dict[str, np.ndarray]]:
    """The first of the wanted steps that is good and finite, else the first good one. Warnings name what was passed."""
    problems, not_finite = [], []
    for step in wanted:
        path = path_of(folder, step)
        try:
            manifest, tensors = read(path)
        except CheckpointError as error:
            problems.append(f"{path.name}: {error}")
        else:
            if not manifest.not_finite:
                return manifest, tensors
            not_finite.append((manifest, tensors))
            problems.append(f"{path.name}: {_listed(manifest.not_finite)} not finite")
        if step != wanted[-1]:
            warnings.warn(f"{name}: {problems[-1]}; going back to an older one.", CheckpointWarning, stacklevel=3)
    if not not_finite:
        raise CheckpointError(f"{name}: expected a checkpoint that is not damaged, got {'; '.join(problems)}.")
    got = f"{'; '.join(problems)}; taking that of step {not_finite[0][0].step}"
    warnings.warn(f"{name}: expected a checkpoint of finite numbers, got {got}.", CheckpointWarning, stacklevel=3)
    return not_finite[0]


def _listed(paths: list[str]) -> str:
    return f"{paths[0]} is" if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more are"
