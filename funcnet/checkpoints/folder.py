"""Checkpoints in a folder: `00000120/` holds step 120, and is either complete or absent.

A checkpoint is written under a temporary name. Each file is flushed to the disk, the manifest last. Then one rename
gives the folder its name, and that is flushed too. Whatever else is in the folder belongs to the user, and is neither
read nor deleted.
"""

import math
import mmap
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checkpoints.files import beside, sync_file, sync_folder, write_new
from funcnet.checkpoints.manifest import MOST_BYTES, File, Leaf, Manifest, parse, render, sha256
from funcnet.checkpoints.shards import SHARDS, not_finite, on_first, problem_with, spread_entries, write_parts
from funcnet.checkpoints.tensors import DTYPES, is_finite, read_header, safetensors_module
from funcnet.checkpoints.threads import Threads
from funcnet.errors import CheckpointError, translated
from funcnet.reading import plain_file, size_of

__all__ = [
    "Verdict", "clear", "commit", "commit_together", "discard", "good_manifest", "path_of", "problem_of", "read",
    "read_manifest", "steps", "verify",
]  # fmt: skip

MANIFEST, TENSORS = "manifest.json", "state.safetensors"
_NAME = re.compile(r"[0-9]{8}|[1-9][0-9]{8,}")  # what `path_of` makes of a step
_TEMPORARY = re.compile(rf"({_NAME.pattern})\.tmp-([0-9a-f]{{8}}|shared)")


class Verdict(NamedTuple):
    """What `verify` found."""

    step: int
    path: Path
    problem: str | None  #: `None` if nothing is wrong
    manifest: Manifest | None  #: `None` if it cannot be read


def steps(folder: str | os.PathLike[str]) -> list[int]:
    """The steps that have checkpoints in a folder, in order. The list is empty if the folder does not exist.

    >>> import funcnet as fn
    >>> fn.checkpoints.steps("no/such/folder")
    []
    """
    folder = Path(folder)
    call = f"checkpoints.steps({os.fspath(folder)!r})"
    with translated(OSError, CheckpointError, f"{call}: the folder cannot be read"):
        paths = list(folder.iterdir()) if folder.exists() else []
        return sorted(int(path.name) for path in paths if _is_own(path, _NAME) and _holds_checkpoint(path))


def _is_own(path: Path, form: re.Pattern[str]) -> bool:
    """Whether it is a folder with a name of this form. A link leads to what others wrote."""
    return form.fullmatch(path.name) is not None and path.is_dir() and not path.is_symlink()


def _holds_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a file of a checkpoint, so that its name is not the user's own number, such as a date."""
    try:
        return not {MANIFEST, TENSORS}.isdisjoint(os.listdir(folder))
    except FileNotFoundError:  # a run has just deleted it
        return False
    except PermissionError:  # to be named as damaged, rather than left out
        return True


def verify(folder: str | os.PathLike[str], *, bytes_too: bool = True) -> list[Verdict]:
    """Read every checkpoint in a folder to its last byte, and say what is wrong with each.

    Args:
        folder: where `save` or `saving` wrote.
        bytes_too: `False` to look at the manifests alone.

    >>> import tempfile, jax.numpy as jnp, funcnet as fn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fn.checkpoints.save(folder, fn.Report(1, 20, {"loss": 0.5}, {"kernel": jnp.ones(3)}))
    ...     with open(path / "state.safetensors", "r+b") as file:
    ...         _ = file.seek(-1, 2), file.write(b"x")
    ...     [(verdict.step, verdict.problem) for verdict in fn.checkpoints.verify(folder)]
    [(20, 'state.safetensors: tensor kernel does not have the SHA-256 recorded in the manifest')]
    """
    verdicts = []
    for step in steps(folder):
        path = path_of(Path(folder), step)
        try:
            manifest = read_manifest(path)
        except CheckpointError as error:
            verdicts.append(Verdict(step, path, str(error), None))
        else:
            verdicts.append(Verdict(step, path, problem_of(path) if bytes_too else None, manifest))
    return verdicts


def path_of(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}"


def clear(folder: Path) -> None:
    """Delete what a killed process left half written. The caller holds the folder."""
    for path in folder.iterdir():
        if _is_own(path, _TEMPORARY):
            shutil.rmtree(path)


def commit(name: str, folder: Path, manifest: Manifest, tensors: dict[str, np.ndarray], keys: dict[str, str]) -> Path:
    """Write a checkpoint. Sizes and hashes of the bytes are added to `manifest` here."""
    path = path_of(folder, manifest.step)
    temporary = beside(path, "tmp")
    with _writing(name, manifest.step, temporary):
        temporary.mkdir(parents=True)
        _complete(name, temporary, path, manifest, tensors, keys)
    return path


def commit_together(
    name: str, folder: Path, manifest: Manifest, tensors: dict[str, np.ndarray], keys: dict[str, str],
    spread: dict[str, jax.Array],
) -> Path:  # fmt: skip
    """Like `commit`, but all processes call it, and each one writes its parts of the arrays in `spread`."""
    path = path_of(folder, manifest.step)
    temporary = path.with_name(f"{path.name}.tmp-shared")  # a name that all processes know

    def prepare():
        with _writing(name, manifest.step, temporary):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    def complete():
        with _writing(name, manifest.step, temporary):
            _complete(name, temporary, path, known, tensors, keys)

    on_first(name, prepare)
    files = write_parts(name, temporary, spread)
    known = manifest._replace(files=files, spread=spread_entries(spread), not_finite=not_finite(spread))
    on_first(name, complete)
    return path


@contextmanager
def _writing(name, step, temporary):
    """Turn an error of writing into a CheckpointError, and leave nothing behind."""
    try:
        yield
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError | safetensors_module(name).SafetensorError):
            raise CheckpointError(f"{name}: the checkpoint of step {step} cannot be written: {error}.") from error
        raise


def _complete(name, temporary, path, manifest, tensors, keys):
    """Write the tensors and the manifest, and give the folder its name."""
    with Threads(2) as threads:  # hashing and writing do not wait for each other
        digests = threads.map(_sha256_of, tensors.values())
        finite = threads.map(is_finite, tensors.values())
        (temporary / TENSORS).touch()
        mode = (temporary / TENSORS).stat().st_mode  # by the umask; safetensors makes a file that its owner alone reads
        safetensors_module(name).numpy.save_file(tensors, temporary / TENSORS)
        (temporary / TENSORS).chmod(mode)
        sync_file(temporary / TENSORS)
    file, starts = _layout(temporary / TENSORS)
    leaves = {
        leaf: Leaf(tensor.shape, str(tensor.dtype), starts[leaf], tensor.nbytes, digest, keys.get(leaf))
        for (leaf, tensor), digest in zip(tensors.items(), digests, strict=True)
    }
    bad = [leaf for leaf, is_good in zip(tensors, finite, strict=True) if not is_good]
    manifest = manifest._replace(
        files={TENSORS: file, **manifest.files}, leaves=leaves, not_finite=[*bad, *manifest.not_finite]
    )
    write_new(temporary / MANIFEST, render(name, manifest))
    sync_folder(temporary)
    os.rename(temporary, path)
    sync_folder(path.parent)


def _sha256_of(tensor: np.ndarray) -> str:
    return sha256(tensor.reshape(-1).view(np.uint8))


def _layout(path: Path) -> tuple[File, dict[str, int]]:
    """The header of a file that safetensors wrote, and where each tensor begins."""
    with open(path, "rb") as file:
        head, entries = read_header(file)
        starts = {leaf: len(head) + entry["data_offsets"][0] for leaf, entry in entries.items()}
        return File(size_of(file), len(head), sha256(head)), starts


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint. Errors say what is wrong with it. The caller adds the checkpoint's name."""
    try:
        with plain_file(path / MANIFEST, links=False) as file:
            if size_of(file) > MOST_BYTES:
                raise CheckpointError(f"{MANIFEST} has {size_of(file)} bytes, expected at most {MOST_BYTES}")
            data = file.read()
    except OSError as error:
        raise CheckpointError(f"{MANIFEST} cannot be read: {error}") from error
    manifest = parse(MANIFEST, data)
    if path_of(path.parent, manifest.step) != path:
        raise CheckpointError(f"{MANIFEST} is that of step {manifest.step}, in a folder of another name")
    return manifest


def problem_of(path: Path) -> str | None:
    """What is wrong with a checkpoint, after all bytes are compared with their hashes; `None` if nothing is."""
    try:
        read(path)
    except CheckpointError as error:
        return str(error)
    return None


def good_manifest(path: Path) -> Manifest | None:
    """The manifest of a checkpoint, after all bytes are compared with their hashes; `None` if it is damaged."""
    try:
        return read(path)[0]
    except CheckpointError:
        return None


def read(path: Path) -> tuple[Manifest, dict[str, np.ndarray]]:
    """A checkpoint, after everything in it was compared with its hash.

    The tensors use the memory of the mapped file. Tensors that are spread over files of their own are not among them.
    """
    manifest = read_manifest(path)
    files = dict(manifest.files)
    recorded = files.pop(TENSORS, None)
    if recorded is None or not all(file.startswith(f"{SHARDS}/") for file in files):
        raise CheckpointError(f"{MANIFEST} lists the files {sorted(manifest.files)}, expected {TENSORS} and {SHARDS}")
    problem = problem_with(path, files, manifest.spread)
    if problem is not None:
        raise CheckpointError(problem)
    try:
        with plain_file(path / TENSORS, links=False) as file:
            _check_size(size_of(file), recorded, manifest.leaves)
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise CheckpointError(f"{TENSORS} cannot be read: {error}") from error
    parts = {"its header": (0, recorded.header_bytes, recorded.header_sha256)}
    parts |= {f"tensor {leaf}": (at.start, at.start + at.bytes, at.sha256) for leaf, at in manifest.leaves.items()}
    with Threads(2) as threads:
        digests = threads.map(lambda part: sha256(content[part[0] : part[1]]), parts.values())
        bad = [what for (what, part), digest in zip(parts.items(), digests, strict=True) if digest != part[2]]
    if bad:
        more = f", nor do {len(bad) - 1} more" if bad[1:] else ""
        raise CheckpointError(f"{TENSORS}: {bad[0]} does not have the SHA-256 recorded in the manifest{more}")
    with translated(ValueError, CheckpointError, f"{MANIFEST}: a shape is not that of an array"):
        return manifest, {leaf: _tensor(content, at) for leaf, at in manifest.leaves.items()}


def _check_size(size: int, recorded: File, leaves: dict[str, Leaf]) -> None:
    """The file must have its recorded size, and the hashed parts must cover it without a gap."""
    if size != recorded.bytes:
        cut = [leaf for leaf, at in leaves.items() if at.start + at.bytes > size]
        lost = f"; tensor {cut[0]} is cut off" + (f", and {len(cut) - 1} more" if cut[1:] else "") if cut else ""
        raise CheckpointError(f"{TENSORS} has {size} bytes, expected {recorded.bytes}{lost}")
    end = recorded.header_bytes
    for leaf, at in sorted(leaves.items(), key=lambda item: (item[1].start, item[1].bytes)):
        if at.start != end or at.dtype not in DTYPES.values() or not _fills(at):
            place = f"the place of tensor {leaf} in {TENSORS}"
            raise CheckpointError(f"{MANIFEST}: {place} does not fit its shape or the other tensors")
        end += at.bytes
    if end != size or size == 0:
        raise CheckpointError(f"{MANIFEST}: the tensors do not fill {TENSORS}")


def _fills(leaf: Leaf) -> bool:
    return math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize == leaf.bytes


def _tensor(content: memoryview, at: Leaf) -> np.ndarray:
    return np.frombuffer(content[at.start : at.start + at.bytes], jnp.dtype(at.dtype)).reshape(at.shape)


def discard(path: Path) -> None:
    """Delete a checkpoint. It is renamed first, so that a half-deleted one is never taken for a checkpoint."""
    temporary = beside(path, "tmp")
    os.rename(path, temporary)
    shutil.rmtree(temporary)
