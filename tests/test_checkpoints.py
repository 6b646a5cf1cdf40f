"""Whole runs on disk: written whole or not at all, damage seen and named, the newest good one restored."""

import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import funcnet as fn
from funcnet import training
from funcnet.checkpoints import folder as folders
from funcnet.checkpoints import manifest as manifests
from funcnet.checkpoints import pruning, restore, save, saving, steps, verify
from funcnet.checkpoints.run import take
from funcnet.errors import (
    CheckpointError,
    CheckpointWarning,
    ConfigError,
    DtypeError,
    MissingExtraError,
    StructureError,
)  # fmt: skip

STATE = {
    "optimizer": fn.optimizers.adam(0.1).init(({"kernel": jnp.arange(6.0).reshape(2, 3)}, ())),
    "model": ({"mean": jnp.array([0.5, -0.0, 1e-40])}, ()),
    "key": jax.random.key(7),
    "others": {"scale": jnp.ones((), jnp.bfloat16), "empty": jnp.zeros((0, 4)), "mask": jnp.array([True, False])},
}
REPORT = fn.Report(3, 120, {"loss": jnp.array(0.25), "confusion": jnp.eye(2)}, STATE, {"epoch": 2, "position": 5})


def same_leaves(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def report(step, value=0.0, **metrics):
    return fn.Report(step, step, metrics, {"a": jnp.full(3, value)})


LIKE = {"a": jnp.zeros(3)}


def damage(folder, step):
    (folder / f"{step:08d}" / "state.safetensors").write_bytes(b"")


def goods(folder):
    return [verdict.step for verdict in verify(folder) if verdict.problem is None]


@pytest.mark.parametrize("kind", ["arrays", "structs"])
def test_a_report_comes_back_bit_by_bit(tmp_path, kind):
    path = save(tmp_path / "new" / "folder", REPORT, metadata={"options": ["ä", None]})
    like = STATE if kind == "arrays" else jax.eval_shape(lambda: STATE)
    got, metadata = restore(path.parent, like)
    same_leaves(got.state, STATE)
    assert metadata == {"options": ["ä", None]}
    assert got._replace(state=None) == fn.Report(
        3, 120, {"loss": 0.25, "confusion": [[1, 0], [0, 1]]}, None, {"epoch": 2, "position": 5}
    )


def test_keys_of_another_implementation(tmp_path):
    state = {"key": jax.random.key(3, impl="rbg")}
    save(tmp_path, fn.Report(1, 1, {}, state))
    same_leaves(restore(tmp_path, state)[0].state, state)
    with pytest.raises(CheckpointError, match=r"do not fit .*: key has shape \(4,\), expected \(2,\)"):
        restore(tmp_path, {"key": jax.random.key(3)})


def test_leaves_are_restored_where_they_belong(tmp_path):
    save(tmp_path, report(1, 2.0))
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    there = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    for like in (jax.device_put(LIKE, there), {"a": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=there)}):
        assert restore(tmp_path, like)[0].state["a"].sharding == there
    assert not restore(tmp_path, LIKE)[0].state["a"].committed


def test_the_recorded_form(tmp_path):
    path = save(tmp_path, report(120, 1.0, loss=0.5))
    assert path == tmp_path / "00000120"
    record = json.loads((path / "manifest.json").read_text())
    assert list(record) == [
        "sha256", "format", "step", "epoch", "metrics", "cursor", "metadata", "environment", "files", "leaves",
        "spread", "not_finite", "partial",
    ]  # fmt: skip
    data = (path / "state.safetensors").read_bytes()
    file, leaf = record["files"]["state.safetensors"], record["leaves"]["a"]
    head = 8 + int.from_bytes(data[:8], "little")
    assert file == {"bytes": len(data), "header_bytes": head, "header_sha256": manifests.sha256(data[:head])}
    assert leaf == {
        "shape": [3], "dtype": "float32", "start": head, "bytes": 12,
        "sha256": manifests.sha256(np.ones(3, "<f4").tobytes()), "key": None,
    }  # fmt: skip
    # Another tool reads the tensors.
    np.testing.assert_array_equal(safetensors.numpy.load(data)["a"], [1, 1, 1])


# Damage


def damaged(rng, data, kind):
    at = rng.randrange(len(data))
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    return data[:at]


@pytest.mark.parametrize("kind", ["flip", "cut"])
@pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
def test_every_damage_is_seen_and_its_place_named(tmp_path, file, kind):
    path = save(tmp_path, REPORT)
    record = json.loads((path / "manifest.json").read_text())
    data, rng = (path / file).read_bytes(), random.Random(file + kind)
    for _ in range(300):
        changed = damaged(rng, data, kind)
        (path / file).write_bytes(changed)
        problem = folders.problem_of(path)
        assert problem is not None
        assert problem.startswith(file)
        if file == "state.safetensors" and kind == "flip":
            place = next(at for at, (a, b) in enumerate(zip(data, changed, strict=True)) if a != b)
            names = [n for n, at in record["leaves"].items() if at["start"] <= place < at["start"] + at["bytes"]]
            assert (f"tensor {names[0]} does not" if names else "its header does not") in problem
        if file == "state.safetensors" and kind == "cut":
            assert f"has {len(changed)} bytes, expected {len(data)}; tensor " in problem


def test_every_bit_of_a_manifest_counts(tmp_path):
    path = save(tmp_path, report(1))
    data = (path / "manifest.json").read_bytes()
    for bit in range(8 * len(data)):
        changed = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        with pytest.raises(CheckpointError, match=r"^manifest.json is damaged"):
            manifests.parse("manifest.json", changed)


FILE = {"bytes": 0, "header_bytes": 0, "header_sha256": manifests.sha256(b"")}


def resealed(path, change):
    """A manifest whose hash is right and whose content is not."""
    content = json.loads((path / "manifest.json").read_text())
    del content["sha256"]
    change(content)
    (path / "manifest.json").write_bytes(manifests._seal(content))


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda c: c.update(format=2), "has format version 2, expected 1; update funcnet"),
        (lambda c: c.pop("step"), "lacks an entry"),
        (lambda c: c.update(step=-1), "a count is not an integer from 0 to"),
        (lambda c: c.update(step=2), "manifest.json is that of step 2, in a folder of another name"),
        (lambda c: c.update(epoch=2**63), "a count is not an integer from 0 to"),
        (lambda c: c.update(metrics=[1]), "metrics: not a dictionary"),
        (lambda c: c.update(environment="none"), "environment: not a dictionary"),
        (lambda c: c.update(metrics={"loss": "0.5"}), "metric 'loss' is not a number"),
        (lambda c: c.update(metrics={"loss": [0.5]}), "metric 'loss' is not a number"),
        (lambda c: c.update(metrics={"accuracy": [[0.5, None]]}), "'accuracy' is not a number or an array of numbers"),
        (lambda c: c.update(metrics={"loss": 10**400}), "metric 'loss' is not a number"),
        (lambda c: c.update(not_finite=["b"]), "not finite are not a list of their paths"),
        (lambda c: c.update(not_finite=[["a"]]), "lacks an entry"),
        (lambda c: c.update(partial="no"), "partial: not true or false"),
        (lambda c: c.update(spread={"b": {"folder": "../0", "shape": [1], "dtype": "float32"}}), "not numbered from 0"),
        (lambda c: c.update(leaves=[]), "lacks an entry"),
        (lambda c: c.update(more=1), "lacks an entry"),
        (lambda c: c.update(files={}), r"lists the files \[\], expected state.safetensors"),
        (lambda c: c["files"].update(other={"bytes": 0, "header_bytes": 0, "header_sha256": ""}), "lists the files"),
        (lambda c: c["leaves"].clear(), "do not fill state.safetensors"),
        (lambda c: c["leaves"]["a"].update(shape=[4]), "the place of tensor a .* does not fit"),
        (lambda c: c["leaves"]["a"].update(shape=3), "lacks an entry"),
        (lambda c: c["leaves"]["a"].update(shape=[1] * 70 + [3]), "a shape is not that of an array"),
        (lambda c: c["leaves"]["a"].update(shape=[2**63, 0]), "a count is not an integer from 0 to"),
        (lambda c: c["files"].update({"shards/../../secret": FILE}), "shards/../../secret is missing"),
        (lambda c: c["leaves"]["a"].update(dtype="object"), "the place of tensor a .* does not fit"),
        (lambda c: c["leaves"]["a"].update(start=0), "the place of tensor a .* does not fit"),
        (lambda c: c["leaves"].update(b=c["leaves"]["a"]), "the place of tensor b .* does not fit"),
        (lambda c: c["leaves"]["a"].update(sha256=None), "tensor a does not have the SHA-256"),
    ],
)  # fmt: skip
def test_a_manifest_that_was_made_up(tmp_path, change, problem):
    path = save(tmp_path, report(1))
    resealed(path, change)
    with pytest.raises(CheckpointError, match=rf"not damaged, got 00000001: .*{problem}"):
        restore(tmp_path, LIKE)


def test_a_key_that_is_none(tmp_path):
    path = save(tmp_path, report(1))
    resealed(path, lambda c: c["leaves"]["a"].update(key="no such"))
    with pytest.raises(CheckpointError, match="a is not a PRNG key of implementation 'no such'"):
        restore(tmp_path, LIKE)


def test_the_newest_good_one_is_restored(tmp_path):
    paths = [save(tmp_path, report(step, float(step))) for step in (1, 2, 3, 4)]
    (paths[3] / "manifest.json").unlink()
    (paths[2] / "state.safetensors").write_bytes(b"")
    with pytest.warns(CheckpointWarning, match="going back to an older one") as warned:
        got, _ = restore(tmp_path, LIKE)
    assert (got.step, got.state["a"][0]) == (2, 2)
    assert [str(warning.message).split(": ")[1] for warning in warned] == ["00000004", "00000003"]
    assert "state.safetensors has 0 bytes" in str(warned[1].message)
    assert steps(tmp_path) == [1, 2, 3, 4]  # nothing damaged is deleted
    assert [verdict.problem is None for verdict in verify(tmp_path)] == [True, True, False, False]
    assert [verdict.manifest is None for verdict in verify(tmp_path)] == [False, False, False, True]


def test_none_is_good(tmp_path):
    for step in (1, 2):
        (save(tmp_path, report(step)) / "state.safetensors").unlink()
    with (
        pytest.warns(CheckpointWarning, match="00000002"),
        pytest.raises(CheckpointError, match=r"not damaged, got 00000002: .*No such file.*; 00000001: .*No such file"),
    ):
        restore(tmp_path, LIKE)
    with pytest.raises(CheckpointError, match=r"not damaged, got 00000001: "):
        restore(tmp_path, LIKE, step=1)


# Numbers that are not finite


BAD = [
    ({"a": jnp.array([1, jnp.nan])}, ["a"]),
    ({"a": jnp.array([1, -jnp.inf]), "b": jnp.ones(2), "c": jnp.array(jnp.inf, jnp.bfloat16)}, ["a", "c"]),
    ({"step": 3, "slots": {"nu": jnp.array([jnp.inf], jnp.float16), "empty": jnp.zeros((0, 2))}}, ["slots/nu"]),
]


@pytest.mark.parametrize("state, paths", BAD)
def test_a_state_that_is_not_finite_is_written_and_says_so(tmp_path, state, paths):
    state = jax.tree.map(jnp.asarray, state)
    save(tmp_path, fn.Report(1, 1, {"loss": 0.5}, state))
    (verdict,) = verify(tmp_path)
    assert (verdict.problem, verdict.manifest.not_finite) == (None, paths)
    more = paths[0] if len(paths) == 1 else f"{paths[0]} and 1 more"
    for step in (None, 1):
        with pytest.warns(CheckpointWarning, match=f"finite numbers, got 00000001: {more} .* finite; taking .* step 1"):
            same_leaves(restore(tmp_path, state, step=step)[0].state, state)


def test_integers_keys_and_the_largest_numbers_are_finite(tmp_path):
    most = {dtype: jnp.full(2, jnp.finfo(dtype).max, dtype) for dtype in ("float16", "bfloat16", "float32")}
    save(tmp_path, fn.Report(1, 1, {"loss": jnp.nan}, {**STATE, "most": most}))
    assert verify(tmp_path)[0].manifest.not_finite == []


def test_the_newest_finite_one_is_restored(tmp_path):
    for step, value in [(10, 1.0), (20, 2.0), (30, jnp.nan), (40, 4.0), (50, jnp.inf)]:
        save(tmp_path, report(step, value))
    damage(tmp_path, 40)
    with pytest.warns(CheckpointWarning, match="going back to an older one") as warned:
        assert restore(tmp_path, LIKE)[0].step == 20
    said = [str(warning.message).split("'): ")[1] for warning in warned]
    assert [text.split(":")[0] for text in said] == ["00000050", "00000040", "00000030"]
    assert said[0] == "00000050: a is not finite; going back to an older one."
    with pytest.warns(CheckpointWarning, match="got 00000050: a is not finite; taking that of step 50"):
        assert restore(tmp_path, LIKE, step=50)[0].step == 50
    for step in (10, 20):
        damage(tmp_path, step)
    with pytest.warns(CheckpointWarning, match=r"checkpoints\.restore") as warned:
        assert restore(tmp_path, LIKE)[0].step == 50
    last = str(warned[-1].message)
    assert re.search("finite numbers, got 00000050: a is not finite; 00000040: .* has 0 bytes.*; taking .* 50", last)


@pytest.mark.parametrize("keep", [1, 2])
def test_what_is_not_finite_never_takes_the_place_of_what_is(tmp_path, keep):
    values = [1.0, 2.0, 3.0, jnp.nan, 5.0, jnp.nan, jnp.inf, jnp.nan]
    reports = iter(report(step, value, loss=10.0 - step) for step, value in enumerate(values))
    assert len(list(saving(reports, tmp_path, keep=keep, monitor="loss"))) == 8
    assert steps(tmp_path) == {1: [4, 7], 2: [2, 4, 6, 7]}[keep]  # the best is step 4: that of step 7 is not finite


def test_a_run_goes_on_from_before_what_is_not_finite(tmp_path):
    for step, value in [(10, 1.0), (20, jnp.nan), (30, jnp.nan)]:
        save(tmp_path, report(step, value))
    list(saving(iter([report(20, 2.0), report(30, 3.0)]), tmp_path, keep=3))
    assert [restore(tmp_path, LIKE, step=step)[0].state["a"][0] for step in steps(tmp_path)] == [1, 2, 3]
    assert len(list(tmp_path.glob("000000[23]0.not-finite-*"))) == 2  # nothing is lost


def test_parameters_that_overflow_after_the_last_finite_loss(tmp_path):
    """The loss is that of before the update: it does not say yet what has become of the parameters."""
    model, x = fn.layers.dense(1), np.ones((4, 1), np.float32)
    rates = fn.schedules.join((0.01, 3e38), (4,))
    options = {"epochs": 9, "batch_size": 4, "report_steps": 1}
    reports = fn.training.fit(model, fn.losses.mean_squared_error, fn.optimizers.sgd(rates), (x, 5 * x), **options)
    with pytest.raises(fn.errors.DivergenceError, match="fit: the loss is"):
        list(saving(reports, tmp_path, keep=1))
    assert [bool(verdict.manifest.not_finite) for verdict in verify(tmp_path)] == [False, True]
    like = fn.training.create_state(model, fn.optimizers.sgd(rates), 0, x)
    with pytest.warns(CheckpointWarning, match=r"optimizer/params/(bias|kernel) .*not finite; going back"):
        got, _ = restore(tmp_path, like)
    assert np.isfinite(got.state.optimizer.params["kernel"]).all()


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(CheckpointError, match="expected a checkpoint in the folder, got none"):
        restore(tmp_path / "missing", LIKE)
    save(tmp_path, report(3))
    with pytest.raises(CheckpointError, match="expected a checkpoint of step 2 in the folder, got those of steps 3"):
        restore(tmp_path, LIKE, step=2)


@pytest.mark.parametrize(
    "like, problem",
    [
        ({}, "a is unexpected"),
        ({"a": jnp.zeros(3), "b": jnp.zeros(1)}, "b is missing"),
        ({"a": jnp.zeros(4)}, r"a has shape \(3,\), expected \(4,\)"),
        ({"a": jnp.zeros(3, jnp.int32)}, "a has dtype float32, expected int32"),
    ],
)
def test_a_state_of_another_model(tmp_path, like, problem):
    save(tmp_path, report(5))
    with pytest.raises(CheckpointError, match=rf"the leaves of step 5 do not fit the expected state: {problem}"):
        restore(tmp_path, like)


# Writing


@pytest.mark.parametrize("number, words", [(28, "No space left on device"), (30, "Read-only file system")])
@pytest.mark.parametrize("call", ["save_file", "sync_file", "write_new", "rename", "sync_folder"])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch, call, number, words):
    save(tmp_path, report(1))
    error = safetensors.SafetensorError(f"I/O error: {words} (os error {number})")

    def full(*args):
        raise error if call == "save_file" else OSError(number, words)

    place = {"save_file": safetensors.numpy, "rename": os}.get(call, folders)
    with monkeypatch.context() as patch:
        patch.setattr(place, call, full)
        with pytest.raises(CheckpointError, match=rf"checkpoints.save\('.*'\): .* step 2 cannot be written: .*{words}"):
            save(tmp_path, report(2))
    assert sorted(os.listdir(tmp_path)) == [".lock", "00000001"]
    assert verify(tmp_path)[0].problem is None


def test_names_appear_after_their_bytes(tmp_path, monkeypatch):
    events = []
    for place, name in ((folders, "sync_file"), (folders, "write_new"), (folders, "sync_folder"), (os, "rename")):
        function = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *a, n=name, f=function: (events.append(n), f(*a))[1])
    save(tmp_path, report(1))
    assert events == ["sync_file", "write_new", "sync_folder", "rename", "sync_folder"]


def test_a_step_is_written_once(tmp_path):
    path = save(tmp_path, report(1))
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 1 there, got 00000001; go on from it"):
        save(tmp_path, report(1))
    (path / "state.safetensors").write_bytes(b"")
    save(tmp_path, report(1))  # the damaged one is set aside
    assert verify(tmp_path)[0].problem is None
    assert len(list(tmp_path.glob("00000001.damaged-*"))) == 1


@pytest.mark.parametrize(
    "what, error, message",
    [
        (fn.Report(1, 1, {}, {"a": 1.0}), DtypeError, "expected a to be an array of plain numbers, got 1.0"),
        (fn.Report(1, -1, {}, LIKE), ConfigError, "expected report.step to be"),
        (fn.Report(1, 1, {}, LIKE, {1, 2}), ConfigError, "expected cursor that JSON can hold"),
        (fn.Report(1, 1, {}, LIKE, {1: 0, "1": 0}), ConfigError, "expected cursor .* two keys .* have the same text"),
        (fn.Report(1, 1, {"loss": "low"}, LIKE), DtypeError, "expected metric 'loss' to be a number, got 'low'; leave"),
        (fn.Report(1, 1, {"loss": np.ones(2)}, LIKE), DtypeError, "expected metric 'loss' to be a number, got array"),
        (fn.Report(1, 1, {"best": [1, None]}, LIKE), DtypeError, "expected metric 'best' to be .* an array of numbers"),
        (fn.Report(1, 1, {"best": [[1], [1, 2]]}, LIKE), DtypeError, "expected metrics of numbers, got an error"),
        (fn.Report(1, 1, {"best": 1j}, LIKE), DtypeError, "expected metric 'best' to be .* an array of numbers"),
        (
            fn.Report(1, 1, {}, {"__metadata__": LIKE["a"]}),
            StructureError,
            "expected a path that a file can hold, got '__meta",
        ),
        (
            fn.Report(1, 1, {}, {"\ud800": LIKE["a"]}),
            StructureError,
            r"expected a path that a file can hold, got '\\ud800'",
        ),
        ({"a": 1}, StructureError, "expected report to be a Report, as fit yields them, got a dict"),
    ],
)
def test_reports_that_cannot_be_saved(tmp_path, what, error, message):
    with pytest.raises(error, match=rf"checkpoints.save\('.*'\): {message}"):
        save(tmp_path, what)
    assert steps(tmp_path) == []


def test_metadata_that_is_too_large_to_be_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "MOST_BYTES", 2000)
    save(tmp_path, report(1), metadata="a" * 100)
    with pytest.raises(ConfigError, match=r"save\('.*'\): expected a manifest of at most 2,000 bytes, got [23],"):
        save(tmp_path, report(2), metadata="a" * 2000)
    assert goods(tmp_path) == [1]


def test_a_manifest_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    save(tmp_path, report(1))
    monkeypatch.setattr(folders, "MOST_BYTES", 100)
    with pytest.raises(CheckpointError, match=r"manifest.json has \d+ bytes, expected at most 100"):
        restore(tmp_path, LIKE)


def test_metrics_of_text_end_a_run_with_a_named_error(tmp_path):
    with pytest.raises(DtypeError, match=r"saving\('.*'\): expected metric 'loss' to be a number, got 'low'"):
        list(saving(iter([report(1, loss="low")]), tmp_path))


def test_a_checkpoint_is_that_of_the_step_in_its_name(tmp_path):
    shutil.copytree(save(tmp_path, report(10)), tmp_path / "00000099")
    with pytest.warns(CheckpointWarning, match="00000099: manifest.json is that of step 10, in a folder of another"):
        assert restore(tmp_path, LIKE)[0].step == 10
    assert goods(tmp_path) == [10]


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: save(tmp_path, report(1)), lambda: saving(iter([]), tmp_path)):
        with pytest.raises(MissingExtraError, match=r"safetensors.*pip install 'funcnet\[checkpoint\]'"):
            call()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="the folder cannot be written: .*Not a directory"):
        saving(iter([]), tmp_path / "file" / "folder")
    with pytest.raises(CheckpointError, match="the folder cannot be read: .*Not a directory"):
        steps(tmp_path / "file")


KILLED = """
import sys, jax.numpy as jnp, funcnet as fn
folder, first = sys.argv[1], int(sys.argv[2])
state = {"a": jnp.arange(200_000.0)}
for step in range(first, 10**8):
    fn.checkpoints.save(folder, fn.Report(1, step, {}, state))
    if step == first:
        print("ready", flush=True)
"""


def test_a_kill_leaves_whole_checkpoints_only(tmp_path):
    """More of them, at more instants, in benchmarks/soak_checkpoints.py."""
    rng, first = random.Random(0), 0
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.1 * rng.random())
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert all(verdict.problem is None for verdict in verify(tmp_path))
        assert len(steps(tmp_path)) > first
        first = len(steps(tmp_path))
        assert steps(tmp_path) == list(range(first))
    saving(iter([]), tmp_path)  # the next start takes away what was half written
    assert sorted(os.listdir(tmp_path)) == [".lock", *(f"{step:08d}" for step in range(first))]


# saving


def test_the_newest_and_the_best_are_kept(tmp_path):
    losses = [3.0, 1.0, 2.0, np.nan, 2.5, 0.5, 4.0, 5.0]
    reports = iter(report(step, loss=1.0, validation_loss=loss) for step, loss in enumerate(losses))
    seen = [
        (got.step, steps(tmp_path)) for got in saving(reports, tmp_path, keep=2, monitor="validation_loss")
    ]  # fmt: skip
    assert [step for step, _ in seen] == list(range(8))
    assert steps(tmp_path) == [5, 6, 7]
    assert all(len(there) <= 4 for _, there in seen)


def test_the_best_is_the_largest(tmp_path):
    reports = iter(report(step, accuracy=value) for step, value in enumerate([0.1, 0.9, 0.2, 0.3]))
    assert len(list(saving(reports, tmp_path, keep=1, monitor="accuracy", mode="max"))) == 4
    assert steps(tmp_path) == [1, 3]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_is_that_of_early_stopping(mode):
    """With ties, NaN, infinity and stops within an epoch, in every order of three."""
    any_one = take("test", report(0), None).manifest
    kinds = list(itertools.product([1.0, 2.0, math.inf, -math.inf, math.nan], [False, True]))
    for made in itertools.product(kinds, repeat=3):
        reports = [fn.Report(i, i, {"loss": value}, None, None, partial) for i, (value, partial) in enumerate(made)]
        manifests = {got.step: any_one._replace(metrics=got.metrics, partial=got.partial) for got in reports}
        *_, best = training.early_stopping(iter(reports), patience=9, monitor="loss", mode=mode)
        assert pruning._best(manifests, "loss", mode) == (set() if best.partial else {best.step})


def test_a_report_of_a_stop_comes_back_as_one(tmp_path):
    save(tmp_path, report(1)._replace(partial=True))
    assert restore(tmp_path, LIKE)[0].partial is True


def test_damaged_checkpoints_are_never_pruned(tmp_path):
    for got in saving(iter([report(step) for step in range(5)]), tmp_path, keep=1):
        if got.step == 1:
            while steps(tmp_path) != [1]:
                time.sleep(0.01)
            (tmp_path / "00000001" / "state.safetensors").write_bytes(b"")
    assert steps(tmp_path) == [1, 4]


def test_damaged_checkpoints_are_not_counted_among_those_that_stay(tmp_path):
    """10 and 20 are good, and 27 is damaged. A run goes on from 20, and keeps one."""
    for step in (10, 20, 27):
        save(tmp_path, report(step))
    damage(tmp_path, 27)
    run = saving(iter([report(23), report(25)]), tmp_path, keep=1)
    next(run)
    run.close()
    assert (goods(tmp_path), steps(tmp_path)) == ([23], [23, 27])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_damaged_the_newest_good_ones_stay(tmp_path, seed):
    """The good ones are counted by hand, and every damaged one is still there, under its name or set aside."""
    rng, there, damaged = random.Random(seed), [], 0
    keep = rng.randint(1, 3)
    for step in rng.sample(range(1, 100), 6):
        save(tmp_path, report(step))
        if rng.random() < 0.5:
            damage(tmp_path, step)
            damaged += 1
        else:
            there.append(step)
    first = max(there, default=0) + 1
    for got in saving(iter([report(step) for step in range(first, first + 3)]), tmp_path, keep=keep):
        there.append(got.step)
    assert goods(tmp_path) == sorted(there)[-keep:]
    assert sum(path.stat().st_size == 0 for path in tmp_path.glob("*/state.safetensors")) == damaged


def test_the_best_is_a_good_one(tmp_path):
    losses = {1: 0.5, 2: 0.1, 3: 0.4}
    for step, loss in losses.items():
        save(tmp_path, report(step, loss=loss))
    damage(tmp_path, 2)
    list(saving(iter([report(step, loss=1.0) for step in (4, 5)]), tmp_path, keep=1, monitor="loss"))
    assert (goods(tmp_path), steps(tmp_path)) == ([3, 5], [2, 3, 5])


def contents(folder):
    """Every path below a folder, with the bytes of a file, the target of a link, and `None` for a folder."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def strangers(folder):
    """What a user may have put beside checkpoints, with names that are like those of checkpoints."""
    elsewhere = folder / "elsewhere"
    good = save(elsewhere, report(40))
    for name in ("thesis.tmp-draft", "00000001.tmp-draft", "20260101", "0000000017", "7", "00000050.damaged-1a2b3c4d"):
        (folder / name).mkdir()
        (folder / name / "notes.txt").write_text("mine")
    for name in ("notes.tmp-1", "00000002.tmp-01234567", "00000060", "99999999"):
        (folder / name).write_text("mine")
    shutil.copytree(good, folder / "000000040")  # a number that no step has
    (folder / "00000040").symlink_to(good)
    (folder / "00000003.tmp-01234567").symlink_to(elsewhere)
    (folder / "88888888").symlink_to("nowhere")


def test_what_others_put_into_the_folder_is_left_alone_and_blocks_nothing(tmp_path):
    strangers(tmp_path)
    before = contents(tmp_path)
    assert (steps(tmp_path), verify(tmp_path)) == ([], [])
    assert len(list(saving(iter([report(step) for step in (10, 20, 30)]), tmp_path, keep=2))) == 3
    assert steps(tmp_path) == [20, 30]
    assert restore(tmp_path, LIKE)[0].step == 30
    own = (".lock", "00000020", "00000030")
    assert {name: what for name, what in contents(tmp_path).items() if not name.startswith(own)} == before


def test_a_stranger_with_the_name_of_a_step_is_set_aside(tmp_path):
    strangers(tmp_path)
    for step in (40, 60, 20260101, 88888888):  # a link to a good checkpoint, a file, a folder, a link to nothing
        save(tmp_path, report(step))
        (aside,) = tmp_path.glob(f"{step:08d}.damaged-*")
        assert aside.is_symlink() or aside.is_file() or (aside / "notes.txt").read_text() == "mine"
    assert goods(tmp_path) == [40, 60, 20260101, 88888888]
    assert goods(tmp_path / "elsewhere") == [40]


def test_a_checkpoint_that_holds_notes_is_not_deleted(tmp_path):
    (save(tmp_path, report(1)) / "notes.txt").write_text("mine")
    list(saving(iter([report(step) for step in (2, 3)]), tmp_path, keep=1))
    assert (goods(tmp_path), steps(tmp_path)) == ([1, 3], [1, 3])


def test_a_checkpoint_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    seen, read = [], folders.read
    monkeypatch.setattr(folders, "read", lambda path: (seen.append(int(path.name)), read(path))[1])
    list(saving(iter([report(step) for step in range(1, 6)]), tmp_path, keep=2))
    assert seen == [1, 2, 3, 4, 5]


def test_a_deletion_that_fails_is_named(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(folders.shutil, "rmtree", refused)
    with pytest.raises(CheckpointError, match=r"saving\('.*'\): an older checkpoint cannot be deleted: .*denied"):
        list(saving(iter([report(step) for step in (1, 2)]), tmp_path, keep=1))


def test_each_third_and_the_last_are_saved(tmp_path):
    list(saving(iter([report(step) for step in range(1, 9)]), tmp_path, every=3, keep=9))
    assert steps(tmp_path) == [3, 6, 8]


def test_metadata_of_each_report(tmp_path):
    list(saving(iter([report(1), report(2)]), tmp_path, metadata=lambda got: {"seen": got.step}))
    assert [verdict.manifest.metadata for verdict in verify(tmp_path)] == [{"seen": 1}, {"seen": 2}]


def test_whoever_stops_reading_has_the_last_report_on_disk(tmp_path):
    reports = saving((report(step) for step in range(9)), tmp_path, every=5)
    for got in reports:
        if got.step == 3:
            reports.close()
    assert steps(tmp_path) == [3]


def test_a_run_that_diverges_leaves_its_last_finite_report(tmp_path):
    def diverging():
        yield report(1, loss=1.0)
        yield report(2, loss=0.5)
        yield report(3, loss=np.nan)
        raise fn.errors.DivergenceError("the loss is nan")

    with pytest.raises(fn.errors.DivergenceError, match="the loss is nan"):
        list(saving(diverging(), tmp_path, every=2))
    assert steps(tmp_path) == [2]


def test_a_failed_save_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    seen = []
    with pytest.raises(CheckpointError, match=r"checkpoints.saving\('.*'\): .*No space left"):
        seen += [got.step for got in saving(iter([report(step) for step in range(9)]), tmp_path)]
    assert os.listdir(tmp_path) == [".lock"]


def test_the_saved_state_is_that_of_the_report(tmp_path):
    """A step that runs while the checkpoint is written, and takes over its buffers, changes nothing in it."""
    donate = jax.jit(lambda state: {"a": state["a"] + 1}, donate_argnums=0)

    def reports():
        state = {"a": jnp.zeros(1_000_000)}
        for step in range(1, 6):
            state = donate(state)
            yield fn.Report(step, step, {}, state)

    list(saving(reports(), tmp_path, keep=5))
    for step in range(1, 6):
        got, _ = restore(tmp_path, {"a": jnp.zeros(1_000_000)}, step=step)
        assert float(got.state["a"].min()) == float(got.state["a"].max()) == step


def test_a_folder_with_later_steps_is_another_runs(tmp_path):
    save(tmp_path, report(10))
    with pytest.raises(
        CheckpointError, match="expected no checkpoint of step 5 or later .*, got step 10; go on from it"
    ):
        list(saving(iter([report(5)]), tmp_path))
    (Path(tmp_path) / "00000010" / "state.safetensors").unlink()
    list(saving(iter([report(5)]), tmp_path))  # a run that fell back behind a damaged one
    assert steps(tmp_path) == [5, 10]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"every": 0}, "expected every to be a"),
        ({"keep": 0}, "expected keep to be a"),
        ({"mode": "best"}, 'expected mode to be "min" or "max"'),
        ({"monitor": "losss"}, r"expected monitor to be one of \['loss'\], got 'losss'"),
        ({"monitor": "confusion"}, r"expected monitor to be one of \['loss'\], got 'confusion'"),
    ],
)
def test_impossible_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=rf"checkpoints.saving\('.*'\): {message}"):
        list(saving(iter([report(1, loss=1.0, confusion=jnp.eye(2))]), tmp_path, **arguments))
